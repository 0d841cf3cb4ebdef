package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// layout is how a distribution lays out an image. Offsets and sizes are in MiB.
type layout struct {
	table, fstab string
	bootLabel    string
	rootLabel    string
	fileMode     string // of boot files
	compressors  []string
}

const (
	layoutBootAt, layoutBootSize = 4, 40 // FAT32 needs 33
	layoutRootAt, layoutRootSize = 44, 24
)

// layouts are those of Raspberry Pi OS and of Ubuntu for the Raspberry Pi.
var layouts = map[string]layout{
	"raspios": {
		table:     "label: dos\nlabel-id: 0x4e639091\nstart=8192, size=81920, type=c\nstart=90112, size=49152, type=83\n",
		fstab:     "proc /proc proc defaults 0 0\nPARTUUID=4e639091-01  /boot/firmware  vfat  defaults  0  2\nPARTUUID=4e639091-02  /  ext4  defaults,noatime  0  1\n",
		bootLabel: "bootfs", rootLabel: "rootfs", fileMode: "755", compressors: []string{"xz -0"},
	},
	"ubuntu": {
		table:     "label: gpt\nstart=8192, size=81920, type=uefi, name=boot\nstart=90112, size=49152, name=root\n",
		fstab:     "LABEL=writable\t/\text4\tdefaults\t0 1\nLABEL=system-boot       /boot/firmware  vfat    defaults,fmask=0133        0       1\n",
		bootLabel: "system-boot", rootLabel: "writable", fileMode: "644", compressors: []string{"zstd -1", "gzip -1"},
	},
}

// make makes an image with root, a tree with a directory boot/firmware, as its root.
func (l *layout) make(t *testing.T, dir, root string) (img string) {
	t.Helper()
	img = filepath.Join(dir, "img")
	boot, files := filepath.Join(dir, "boot"), filepath.Join(dir, "files")
	write(t, filepath.Join(root, "etc/fstab"), l.fstab)
	write(t, filepath.Join(files, "cmdline.txt"), "console=tty1 root=PARTUUID=4e639091-02 rootfstype=ext4\n")
	write(t, filepath.Join(files, "config.txt"), "arm_64bit=1\n")
	write(t, filepath.Join(files, "kernel8.img"), randomBytes(300_001))
	write(t, filepath.Join(files, "overlays/a name that is longer than eight.dtbo"), "overlay")
	sh := func(format string, args ...any) {
		t.Helper()
		program(t, "sh", "-ec", fmt.Sprintf("export TZ=UTC; "+format, args...))
	}
	sh("find %s -exec touch -d '2024-11-19 14:59:58' {} +; touch -d '1999-12-31 23:59:58' %[1]s/config.txt", files)
	sh("truncate -s %dM %s; mkfs.vfat -F 32 -s 1 -n %s %[2]s; mcopy -s -m -i %[2]s %[4]s/* ::; mattrib -i %[2]s +r ::cmdline.txt", layoutBootSize, boot, l.bootLabel, files)
	sh("truncate -s %dM %s; printf '%s' | sfdisk -q %[2]s", layoutRootAt+layoutRootSize+1, img, l.table)
	sh("dd if=%s of=%s bs=1M seek=%d conv=notrunc,sparse", boot, img, layoutBootAt)
	sh("mkfs.ext4 -q -F -L %s -d %s -E offset=%d %s %dM", l.rootLabel, root, layoutRootAt<<20, img, layoutRootSize)
	return img
}

// tree makes what a machine sees that boots an image: the root as the kernel shows it,
// and the boot files as it would, which has no FAT everywhere that tests run.
func (l *layout) tree(t *testing.T, dir, img string) string {
	t.Helper()
	mounted, tree := filepath.Join(dir, "mounted"), filepath.Join(dir, "tree")
	mkdir(t, mounted)
	program(t, "mount", "-o", fmt.Sprintf("ro,loop,noload,offset=%d,sizelimit=%d", layoutRootAt<<20, layoutRootSize<<20), img, mounted)
	defer program(t, "umount", mounted)
	program(t, "cp", "-a", mounted, tree)
	program(t, "sh", "-ec", fmt.Sprintf("cd %s/boot/firmware; cp -a %s/* .; find . -type f -exec chmod %s {} +; chmod a-w cmdline.txt; chmod 755 . overlays; touch -d @0 .",
		tree, filepath.Join(dir, "files"), l.fileMode))
	return tree
}

// TestImportLayouts imports images as they are published: every object is as in the source.
func TestImportLayouts(t *testing.T) {
	require(t, "sfdisk", "mkfs.vfat", "mcopy", "mkfs.ext4", "xz", "zstd", "gzip")
	for name, l := range layouts {
		t.Run(name, func(t *testing.T) {
			store, at, _ := importedTree(t)
			dir := t.TempDir()
			root := filepath.Join(store, "v1")
			mkdir(t, filepath.Join(root, "boot/firmware"))
			img := l.make(t, dir, root)

			tree := l.tree(t, dir, img)
			cli(t, "seal", "tree", "--from", tree, at)
			want := digestOf(t, at, "tree")
			if got := cliJSON[importOutput](t, "import", img, "image", at).Digest; got != want {
				t.Errorf("the digest is %s, of what is in the image it is %s\n%s", got, want, cli(t, "diff", "tree", "image", at))
			}
			for _, c := range l.compressors {
				program(t, "sh", "-c", c+" <"+img+" >"+img+".packed")
				if got := cliJSON[importOutput](t, "import", img+".packed", "packed", at).Digest; got != want {
					t.Errorf("compressed by %s the digest is %s, not %s", c, got, want)
				}
			}
			if err := os.Remove(img); err != nil { // now, since it is large
				t.Error(err)
			}
		})
	}
}
