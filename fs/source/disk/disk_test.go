package disk_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rootnfsd/rootnfsd/fs/fstest"
	"github.com/rootnfsd/rootnfsd/fs/source"
	"github.com/rootnfsd/rootnfsd/fs/source/disk"
	"github.com/rootnfsd/rootnfsd/fs/source/volume"
	"github.com/rootnfsd/rootnfsd/fs/source/volume/volumetest"
)

const mib = 1 << 20

func run(t testing.TB, stdin, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Env = append(os.Environ(), "TZ=UTC", "MTOOLS_SKIP_CHECK=1", "LC_ALL=C.UTF-8") // by which mtools reads names
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// bootFiles are in the FAT partition, by path.
func bootFiles() map[string]string {
	files := map[string]string{
		"config.txt": "arm_64bit=1\n", "UPPER.TXT": "u", "a rather long name, with Ünïcödé.dtb": "long",
		"overlays/one.dtbo": "1", "kernel8.img": string(fstest.Bytes(300000)),
	}
	for i := range 60 {
		files[fmt.Sprintf("overlays/many-files-of-long-names-%d.dtbo", i)] = strings.Repeat("x", i*100)
	}
	return files
}

// makeDisk makes an image as Raspberry Pi OS has it.
func makeDisk(t testing.TB, label, fatBits, fstab string, fatSize int64) string {
	t.Helper()
	volumetest.Need(t, false, "sfdisk", "mkfs.vfat", "mcopy", "mkfs.ext4")
	dir := t.TempDir()
	img, boot, root := dir+"/disk.img", dir+"/boot.img", dir+"/root"
	from := dir + "/from"
	for p, content := range bootFiles() {
		check(t, os.MkdirAll(filepath.Dir(from+"/"+p), 0o755))
		check(t, os.WriteFile(from+"/"+p, []byte(content), 0o644))
	}
	check(t, os.MkdirAll(root+"/boot/firmware", 0o755))
	check(t, os.Mkdir(root+"/etc", 0o755))
	check(t, os.WriteFile(root+"/etc/fstab", []byte(fstab), 0o644))
	check(t, os.WriteFile(boot, nil, 0o644))
	check(t, os.Truncate(boot, fatSize))
	run(t, "", "mkfs.vfat", "-F", fatBits, boot)
	names, err := filepath.Glob(from + "/*")
	check(t, err)
	run(t, "", "mcopy", append(append([]string{"-s", "-i", boot}, names...), "::")...)
	check(t, os.WriteFile(img, nil, 0o644))
	check(t, os.Truncate(img, fatSize+12*mib))
	run(t, fmt.Sprintf("label: %s\nstart=2048, size=%d\nstart=%d, size=16384\n", label, fatSize/512, 2048+fatSize/512), "sfdisk", "-q", img)
	run(t, "", "dd", "if="+boot, "of="+img, "bs=1M", "seek=1", "conv=notrunc,sparse")
	run(t, "", "mkfs.ext4", "-q", "-F", "-d", root, "-E", fmt.Sprintf("offset=%d", fatSize+mib), img, "8M")
	return img
}

func open(t testing.TB, img string) *volume.FS {
	t.Helper()
	f, err := os.Open(img)
	check(t, err)
	t.Cleanup(func() { f.Close() })
	info, err := f.Stat()
	check(t, err)
	v, warnings, err := disk.Open(f, info.Size())
	check(t, err)
	for _, w := range warnings {
		t.Log(w)
	}
	return v
}

// TestDisk reads root and boot partition as one tree.
func TestDisk(t *testing.T) {
	for _, c := range []struct {
		label, bits, fstab, place string
		size                      int64
		mode                      os.FileMode
	}{
		{"dos", "12", "", "/boot/firmware", 4 * mib, 0o755},
		{"gpt", "16", "# x\nPARTUUID=1-1 /boot vfat defaults,umask=0077 0 2\n", "/boot", 16 * mib, 0o700},
		{"dos", "32", "LABEL=boot /boot/firmware vfat fmask=133,dmask=0022 0 1\n", "/boot/firmware", 40 * mib, 0o644},
	} {
		t.Run(c.label+" FAT"+c.bits, func(t *testing.T) {
			v := open(t, makeDisk(t, c.label, c.bits, c.fstab, c.size))
			for p, want := range bootFiles() {
				f, err := v.Open(c.place + "/" + p)
				if err != nil {
					t.Error(err)
					continue
				}
				got, err := io.ReadAll(f)
				if err != nil || string(got) != want {
					t.Errorf("%s: read %d bytes, %v; want %d", p, len(got), err, len(want))
				}
				info, err := v.Lstat(c.place + "/" + p)
				if err != nil || info.Mode() != c.mode || source.MetaOf(info).UID != 0 {
					t.Errorf("%s: %v, %v, want mode %v", p, info.Mode(), err, c.mode)
				}
			}
			infos, err := v.ReadDir(c.place + "/overlays")
			if err != nil || len(infos) != 61 {
				t.Errorf("overlays: %d names, %v", len(infos), err)
			}
			if b, err := v.Open("/etc/fstab"); err != nil {
				t.Error(err)
			} else if got, err := io.ReadAll(b); err != nil || string(got) != c.fstab {
				t.Errorf("fstab: %q, %v", got, err)
			}
		})
	}
}

// TestSeveralFAT has two FAT partitions in an image: what the fstab names is the boot
// partition, the first if it names none of them.
func TestSeveralFAT(t *testing.T) {
	volumetest.Need(t, false, "sfdisk", "mkfs.vfat", "mcopy", "mkfs.ext4")
	const (
		one, two = "1111AAAA", "2222BBBB" // as mkfs.vfat wants them
		uuid     = "01234567-89AB-CDEF-0123-456789ABCDEF"
	)
	dir := t.TempDir()
	fat := func(name, id, label string) string {
		img, file := filepath.Join(dir, name), filepath.Join(dir, "which")
		check(t, os.WriteFile(img, nil, 0o644))
		check(t, os.Truncate(img, 4*mib))
		check(t, os.WriteFile(file, []byte(name), 0o644))
		args := []string{"-i", id, img}
		if label != "" {
			args = append([]string{"-n", label}, args...)
		}
		run(t, "", "mkfs.vfat", args...)
		run(t, "", "mcopy", "-i", img, file, "::")
		return img
	}
	parts := []string{fat("first", one, ""), fat("second", two, "SECOND")}
	root := filepath.Join(dir, "root")
	check(t, os.MkdirAll(root+"/boot/firmware", 0o755))
	check(t, os.Mkdir(root+"/boot/efi", 0o755))
	check(t, os.Mkdir(root+"/etc", 0o755))
	tables := map[string]string{
		"dos": "label: dos\nlabel-id: 0xc0ffee01\nstart=2048, size=8192\nstart=10240, size=8192\nstart=18432, size=16384\n",
		"gpt": "label: gpt\nstart=2048, size=8192\nstart=10240, size=8192, name=\"a nâme\", uuid=" + uuid + "\nstart=18432, size=16384\n",
	}
	for _, c := range []struct{ label, fstab, where, want string }{
		{"dos", "", "/boot/firmware", "first"},
		{"dos", "PARTUUID=c0ffee01-02 /boot/firmware vfat defaults", "/boot/firmware", "second"},
		{"dos", "PARTUUID=c0ffee01-01 /boot/firmware vfat defaults", "/boot/firmware", "first"},
		{"dos", "PARTUUID=00000000-02 /boot/firmware vfat defaults", "/boot/firmware", "first"},
		{"dos", "UUID=2222-bbbb /boot/ auto defaults", "/boot", "second"},
		{"dos", "LABEL=\"SECOND\" /boot vfat defaults", "/boot", "second"},
		{"dos", "LABEL=NO\\040NAME /boot vfat defaults\nLABEL=SECOND /boot/efi vfat defaults", "/boot/efi", "second"},
		{"dos", "/dev/mmcblk0p2 /boot/firmware vfat defaults", "/boot/firmware", "second"},
		{"dos", "/dev/sda2 /boot/firmware vfat defaults", "/boot/firmware", "second"},
		{"dos", "/dev/nvme0n2 /boot/firmware vfat defaults", "/boot/firmware", "first"}, // a disk
		{"dos", "UUID=1111-AAAA /boot/efi vfat umask=0077\nUUID=2222-BBBB /boot/firmware vfat defaults", "/boot/firmware", "second"},
		{"gpt", "PARTUUID=" + uuid + " /boot/firmware vfat defaults", "/boot/firmware", "second"},
		{"gpt", "PARTLABEL=a\\040nâme /boot/firmware vfat defaults", "/boot/firmware", "second"},
		{"gpt", "/dev/disk/by-label/SECOND /boot/firmware vfat defaults", "/boot/firmware", "second"},
		{"gpt", "PARTLABEL= /boot/firmware vfat defaults", "/boot/firmware", "first"},
	} {
		img := filepath.Join(dir, c.label+".img")
		check(t, os.WriteFile(root+"/etc/fstab", []byte(c.fstab+"\n"), 0o644))
		check(t, os.RemoveAll(img))
		check(t, os.WriteFile(img, nil, 0o644))
		check(t, os.Truncate(img, 20*mib))
		run(t, tables[c.label], "sfdisk", "-q", img)
		for i, part := range parts {
			run(t, "", "dd", "if="+part, "of="+img, "bs=1M", fmt.Sprintf("seek=%d", 1+4*i), "conv=notrunc,sparse")
		}
		run(t, "", "mkfs.ext4", "-q", "-F", "-d", root, "-E", fmt.Sprintf("offset=%d", 9*mib), img, "8M")
		f, err := open(t, img).Open(c.where + "/which")
		if err != nil {
			t.Errorf("%s, %q: %v", c.label, c.fstab, err)
			continue
		}
		if got, err := io.ReadAll(f); err != nil || string(got) != c.want {
			t.Errorf("%s, %q: %s has the partition %q, %v; want the %s", c.label, c.fstab, c.where, got, err, c.want)
		}
	}
}

// TestLeftOut: what a machine would show and the tree does not is told, and a directory
// that has something in it is not taken for the place of a partition that no table names.
func TestLeftOut(t *testing.T) {
	volumetest.Need(t, false, "sfdisk", "mkfs.vfat", "mcopy", "mkfs.ext4")
	const homeID = "01234567-89ab-cdef-0123-456789abcdef"
	dir := t.TempDir()
	img, boot, file := dir+"/img", dir+"/fat", dir+"/which"
	check(t, os.WriteFile(file, []byte("partition"), 0o644))
	check(t, os.WriteFile(boot, nil, 0o644))
	check(t, os.Truncate(boot, 4*mib))
	run(t, "", "mkfs.vfat", "-n", "BOOT", boot)
	run(t, "", "mcopy", "-i", boot, file, "::")
	for _, c := range []struct {
		inRoot string // a file beside the fstab
		fstab  string
		luks   bool
		where  string // a file that must be there
		want   []string
	}{
		{"boot/firmware/which", "", false, "/boot/firmware/which", []string{"partition 1 (FAT) is left out: the fstab does not mount it, and neither /boot/firmware nor /boot is an empty directory"}},
		{"boot/vmlinuz", "proc /proc proc defaults", false, "/boot/vmlinuz", []string{"partition 1 (FAT)"}},
		{"boot/firmware/which", "LABEL=BOOT /boot/firmware vfat defaults", false, "/boot/firmware/which", nil}, // as on a machine
		{"", "UUID=" + homeID + " /home ext4 defaults\n/dev/mmcblk0p2 / ext4 defaults", false, "/boot/which", []string{"partition 3 is left out, which the fstab mounts at /home"}},
		{"", "LABEL=home /home ext4 defaults", false, "/boot/which", []string{"partition 3 is left out, which the fstab mounts at /home"}},
		{"", "PARTUUID=c0ffee01-03 /home ext4 defaults", true, "/boot/which", []string{"mounts at /home: it is encrypted (LUKS)"}},
		{"", "PARTUUID=c0ffee01-03 none swap sw", false, "/boot/which", nil},
		{"", "LABEL=BOOT /srv/data vfat defaults", false, "", []string{"partition 1 is left out, which the fstab mounts at /srv/data"}},
	} {
		root := t.TempDir()
		check(t, os.MkdirAll(root+"/boot", 0o755))
		check(t, os.Mkdir(root+"/etc", 0o755))
		if c.inRoot != "" {
			check(t, os.MkdirAll(filepath.Dir(root+"/"+c.inRoot), 0o755))
			check(t, os.WriteFile(root+"/"+c.inRoot, []byte("root"), 0o644))
		}
		check(t, os.WriteFile(root+"/etc/fstab", []byte(c.fstab+"\n"), 0o644))
		check(t, os.RemoveAll(img))
		check(t, os.WriteFile(img, nil, 0o644))
		check(t, os.Truncate(img, 18*mib))
		run(t, "label: dos\nlabel-id: 0xc0ffee01\nstart=2048, size=8192\nstart=10240, size=16384\nstart=26624, size=8192\n", "sfdisk", "-q", img)
		run(t, "", "dd", "if="+boot, "of="+img, "bs=1M", "seek=1", "conv=notrunc,sparse")
		run(t, "", "mkfs.ext4", "-q", "-F", "-d", root, "-E", fmt.Sprintf("offset=%d", 5*mib), img, "8M")
		run(t, "", "mkfs.ext4", "-q", "-F", "-L", "home", "-U", homeID, "-E", fmt.Sprintf("offset=%d", 13*mib), img, "4M")
		b, err := os.ReadFile(img)
		check(t, err)
		if c.luks {
			copy(b[13*mib:], "LUKS\xba\xbe")
		}
		v, warnings, err := disk.Open(bytes.NewReader(b), int64(len(b)))
		check(t, err)
		if len(warnings) != len(c.want) || len(c.want) > 0 && !strings.Contains(warnings[0], c.want[0]) {
			t.Errorf("%q, %q: warnings %q; want %q", c.inRoot, c.fstab, warnings, c.want)
		}
		if c.where == "" {
			if infos, err := v.ReadDir("/boot"); err != nil || len(infos) > 0 {
				t.Errorf("%q: /boot has %d names, %v", c.fstab, len(infos), err)
			}
			continue
		}
		f, err := v.Open(c.where)
		if err != nil {
			t.Errorf("%q, %q: %v", c.inRoot, c.fstab, err)
			continue
		}
		want := "root"
		if c.where != "/"+c.inRoot || strings.Contains(c.fstab, "LABEL=BOOT") {
			want = "partition"
		}
		if got, err := io.ReadAll(f); err != nil || string(got) != want {
			t.Errorf("%q, %q: %s is that of the %s, %v; want that of the %s", c.inRoot, c.fstab, c.where, got, err, want)
		}
	}
}

// TestRefused: tables that cannot be are refused with the reason.
func TestRefused(t *testing.T) {
	img, err := os.ReadFile(makeDisk(t, "dos", "12", "", 4*mib))
	check(t, err)
	const second = 446 + 16
	for want, change := range map[string]func(b []byte) []byte{
		"overlap":   func(b []byte) []byte { b[second+9]--; return b },
		"cut off":   func(b []byte) []byte { return b[:8*mib] },
		"no /etc":   func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("\x03\x02etc"), []byte("\x03\x02xyz")) },
		"LUKS":      func(b []byte) []byte { copy(b[5*mib:], "LUKS\xba\xbe"); return b },
		"e2fsck":    func(b []byte) []byte { b[5*mib+1024+0x60] |= 4; return b },
		"neither a": func(b []byte) []byte { b[510] = 0; return b },
	} {
		b := change(bytes.Clone(img))
		if _, _, err := disk.Open(bytes.NewReader(b), int64(len(b))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open: %v, want an error about %q", err, want)
		}
	}
}

// TestSquashfs finds a root of squashfs in a partition.
func TestSquashfs(t *testing.T) {
	volumetest.Need(t, false, "mksquashfs", "sfdisk")
	dir, file := t.TempDir(), t.TempDir()+"/img"
	check(t, os.MkdirAll(dir+"/etc", 0o755))
	check(t, os.WriteFile(dir+"/etc/hostname", []byte("pi\n"), 0o644))
	run(t, "", "mksquashfs", dir, dir+"/img", "-quiet", "-no-progress")
	root, err := os.ReadFile(dir + "/img")
	check(t, err)
	check(t, os.WriteFile(file, append(make([]byte, mib), root...), 0o644))
	check(t, os.Truncate(file, 4*mib))
	run(t, "label: dos\nstart=2048, type=83\n", "sfdisk", "-q", "--wipe=never", file)
	if _, err := open(t, file).Lstat("/etc/hostname"); err != nil {
		t.Error(err)
	}
}

// TestGPT reads the copy of a GPT that is damaged, and refuses what cannot be.
func TestGPT(t *testing.T) {
	img, err := os.ReadFile(makeDisk(t, "gpt", "12", "", 4*mib))
	check(t, err)
	end := len(img)
	damaged := func(b []byte, at ...int) {
		for _, i := range at {
			b[i] ^= 1
		}
	}
	const header, entries = 512, 1024
	for name, at := range map[string][]int{
		"header": {header + 40}, "no header": {header}, "entries": {entries + 32}, "copy": {end - 500},
	} {
		b := bytes.Clone(img)
		damaged(b, at...)
		v, _, err := disk.Open(bytes.NewReader(b), int64(end))
		if err != nil {
			t.Errorf("%s damaged: %v", name, err)
		} else if _, err := v.Lstat("/boot/firmware/config.txt"); err != nil {
			t.Errorf("%s damaged: %v", name, err)
		}
	}
	// Partitions that cannot be, in tables whose sums are right.
	for want, change := range map[string]func(b []byte){
		"damaged, and so is its copy": func(b []byte) { damaged(b, header, end-500) },
		"overlap":                     func(b []byte) { b[entries+128+33]-- },
		"cut off":                     func(b []byte) { b[entries+128+42] = 0xFF },
		"goes from":                   func(b []byte) { copy(b[entries+40:], make([]byte, 8)) },
	} {
		b := bytes.Clone(img)
		change(b)
		if want != "damaged, and so is its copy" {
			h := b[header:][:92]
			binary.LittleEndian.PutUint32(h[88:], crc32.ChecksumIEEE(b[entries:][:128*128]))
			clear(h[16:20])
			binary.LittleEndian.PutUint32(h[16:], crc32.ChecksumIEEE(h))
		}
		if _, _, err := disk.Open(bytes.NewReader(b), int64(end)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open: %v, want an error about %q", err, want)
		}
	}
}

// TestLogical finds root and boot partition in an extended partition.
func TestLogical(t *testing.T) {
	const boot, root, ebr, size = 2 * mib, 7 * mib, 446, 16 * mib
	whole, err := os.ReadFile(makeDisk(t, "dos", "12", "", 4*mib))
	check(t, err)
	file := t.TempDir() + "/img"
	b := make([]byte, size)
	copy(b[boot:], whole[mib:5*mib])
	copy(b[root:], whole[5*mib:])
	check(t, os.WriteFile(file, b, 0o644))
	run(t, "label: dos\nstart=2048, size=30000, type=5\nstart=4096, size=8192, type=c\nstart=14336, size=16384\n", "sfdisk", "-q", "--wipe=never", file)
	b, err = os.ReadFile(file)
	check(t, err)
	v, _, err := disk.Open(bytes.NewReader(b), size)
	check(t, err)
	if _, err := v.Lstat("/boot/firmware/config.txt"); err != nil {
		t.Error(err)
	}
	next := mib + int(binary.LittleEndian.Uint32(b[mib+ebr+16+8:]))*512
	for want, change := range map[string]func(b []byte){
		"more than 128":   func(b []byte) { clear(b[mib+ebr+16+8:][:4]) }, // the first table is the next one
		"one outside":     func(b []byte) { b[mib+ebr+16+10] = 0xFF },
		"not to be found": func(b []byte) { b[next+510] = 0 },
		"which it is in":  func(b []byte) { b[next+ebr+14] = 0xFF },
		"overlap":         func(b []byte) { b[mib+ebr+13] += 16 },
	} {
		c := bytes.Clone(b)
		change(c)
		if _, _, err := disk.Open(bytes.NewReader(c), size); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open: %v, want an error about %q", err, want)
		}
	}
}

// walk reads all of a tree.
func walk(v *volume.FS, dir string) error {
	infos, err := v.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, info := range infos {
		p := dir + "/" + info.Name()
		if info.IsDir() {
			err = walk(v, p)
		} else if f, err2 := v.Open(p); err2 != nil {
			err = err2
		} else {
			_, err = f.ReadAt(make([]byte, min(info.Size(), mib)), 0)
		}
		if err != nil && err != io.EOF {
			return err
		}
	}
	return nil
}

// TestDamage: whatever bytes of the boot partition change, reading ends.
func TestDamage(t *testing.T) {
	img, err := os.ReadFile(makeDisk(t, "dos", "12", "", 4*mib))
	check(t, err)
	random := rand.New(rand.NewPCG(3, 4))
	failed := 0
	for range 300 {
		at := make(map[int]byte)
		for range 1 + random.IntN(20) {
			i := mib + random.IntN(32<<10)
			if _, again := at[i]; !again {
				at[i], img[i] = img[i], byte(random.Uint32())
			}
		}
		if v, _, err := disk.Open(bytes.NewReader(img), int64(len(img))); err != nil || walk(v, "/") != nil {
			failed++
		}
		for i, b := range at {
			img[i] = b
		}
	}
	if failed == 0 {
		t.Error("no damage was noticed")
	}
}

// FuzzRead changes bytes of the partition table and of the boot partition, which is
// all that is read of it.
func FuzzRead(f *testing.F) {
	img, err := os.ReadFile(makeDisk(f, "gpt", "12", "", 4*mib))
	check(f, err)
	f.Add(uint32(446), []byte{0, 0, 0, 0, 0x0C})
	f.Add(uint32(1024), []byte{1, 2, 3})
	f.Add(uint32(mib), []byte{0xEB, 0xFE})
	f.Add(uint32(mib+512), []byte{0, 0, 2, 0, 3})
	f.Fuzz(func(t *testing.T, at uint32, change []byte) {
		at %= mib + 32<<10
		if n := int(mib + 32<<10 - at); len(change) > n {
			change = change[:n]
		}
		was := bytes.Clone(img[at:][:len(change)])
		copy(img[at:], change)
		defer copy(img[at:], was)
		v, _, err := disk.Open(bytes.NewReader(img), int64(len(img)))
		if err != nil {
			return
		}
		for _, dir := range []string{"/boot/firmware", "/boot/firmware/overlays"} {
			infos, err := v.ReadDir(dir)
			if err != nil {
				return
			}
			for _, info := range infos {
				if info.Size() < 1000 {
					v.Open(dir + "/" + info.Name())
				}
			}
		}
	})
}
