package squashfs_test

import (
	"bytes"
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs/fstest"
	"github.com/rootnfsd/rootnfsd/fs/image"
	"github.com/rootnfsd/rootnfsd/fs/image/imagetest"
	"github.com/rootnfsd/rootnfsd/fs/source"
	"github.com/rootnfsd/rootnfsd/fs/source/squashfs"
	"github.com/rootnfsd/rootnfsd/fs/source/volume"
	"github.com/rootnfsd/rootnfsd/fs/source/volume/volumetest"
)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// mksquashfs makes an image of a directory.
func mksquashfs(t testing.TB, dir string, args ...string) []byte {
	t.Helper()
	img := filepath.Join(t.TempDir(), "img")
	cmd := exec.Command("mksquashfs", append([]string{dir, img, "-quiet", "-no-progress"}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("mksquashfs %q: %v\n%s", args, err, out)
	}
	b, err := os.ReadFile(img)
	check(t, err)
	return b
}

func open(b []byte) (*volume.FS, error) {
	v, err := squashfs.Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return nil, err
	}
	return volume.New(v), nil
}

// fill makes in dir what a squashfs image stores in different ways, with times that it
// can keep.
func fill(t testing.TB, dir string) {
	t.Helper()
	check(t, fstest.Sample().Create(dir))
	many := dir + "/many" // a listing of several blocks, and inodes in several blocks
	check(t, os.Mkdir(many, 0o750))
	for i := range 2500 {
		check(t, os.WriteFile(fmt.Sprintf("%s/%s%d", many, strings.Repeat("n", 1+i%60), i), fstest.Bytes(i%200), 0o640))
	}
	for i, n := range []int{0, 1, 4095, 4096, 4097, 100_000, 131_072, 131_073, 1 << 20, 1<<20 + 1} { // around blocks
		check(t, os.WriteFile(fmt.Sprintf("%s/file%d", dir, n), fstest.Bytes(n), 0o644))
		check(t, os.WriteFile(fmt.Sprintf("%s/text%d", dir, n), bytes.Repeat([]byte{byte('a' + i)}, n), 0o644))
	}
	f, err := os.Create(dir + "/holes")
	check(t, err)
	for _, off := range []int64{0, 3 << 20, 3<<20 + 8192, 64 << 20} {
		_, err := f.WriteAt([]byte("data"), off)
		check(t, err)
	}
	check(t, f.Close())
	x := dir + "/xattrs"
	check(t, os.WriteFile(x, []byte("x"), 0o755))
	check(t, os.WriteFile(x+"2", []byte("x"), 0o755))
	for _, p := range []string{x, x + "2"} { // whose values are stored once
		check(t, unix.Setxattr(p, "user.large", fstest.Bytes(3000), 0))
	}
	check(t, unix.Setxattr(x, "user.empty", nil, 0))
	check(t, unix.Setxattr(dir, "user.root", []byte("value"), 0))
	check(t, unix.Setxattr(many, "user.dir", []byte("value"), 0))
	check(t, unix.Setxattr(x, "security.capability", []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0))
	check(t, unix.Mknod(dir+"/bigdev", unix.S_IFBLK|0o600, int(unix.Mkdev(259, 300000))))
	check(t, os.WriteFile(dir+"/owner", nil, 0o600))
	check(t, os.Chown(dir+"/owner", 100000, 2000000000))
	check(t, filepath.WalkDir(dir, func(path string, _ iofs.DirEntry, err error) error {
		check(t, err)
		for _, acl := range []string{"system.posix_acl_access", "system.posix_acl_default"} {
			if err := unix.Lremovexattr(path, acl); err != nil && err != unix.ENODATA && err != unix.ENOTSUP {
				t.Fatal(err)
			}
		}
		at := unix.NsecToTimespec((1_700_000_000 + int64(len(path))) * 1e9)
		return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW)
	}))
}

// TestAsSealed has the same digest come of an image as of the directory in it.
func TestAsSealed(t *testing.T) {
	volumetest.Need(t, true, "mksquashfs")
	dir := t.TempDir()
	fill(t, dir)
	s, err := image.OpenStore(t.TempDir())
	check(t, err)
	d, err := source.OpenDir(dir)
	check(t, err)
	defer d.Close()
	want, err := s.Seal(t.Context(), "directory", d, image.SealOptions{})
	check(t, err)
	for i, args := range []string{
		"-comp gzip", "-comp xz", "-comp zstd -b 1M", "-comp lz4 -b 4K", "-comp zstd -no-fragments",
		"-comp gzip -noI -noD -noF -noX", "-comp zstd -always-use-fragments -no-exports -no-duplicates",
	} {
		v, err := open(mksquashfs(t, dir, strings.Fields(args)...))
		check(t, err)
		name := fmt.Sprintf("v%d", i)
		got, err := s.Seal(t.Context(), name, v, image.SealOptions{})
		if err != nil {
			t.Errorf("%s: %v", args, err)
			continue
		}
		if got.Digest != want.Digest {
			t.Errorf("%s: the digest is not that of the directory%s", args, imagetest.Differences(t, s, "directory", name))
		}
	}
}

func TestRefused(t *testing.T) {
	volumetest.Need(t, false, "mksquashfs")
	b := small(t, "-comp", "gzip")
	for want, change := range map[string]func(b []byte){
		"no squashfs":            func(b []byte) { b[0] = 'x' },
		"of version 3.0":         func(b []byte) { b[28] = 3 },
		"compressed by lzo":      func(b []byte) { b[20] = 3 },
		"compressed by method 9": func(b []byte) { b[20] = 9 },
		"cut off":                func(b []byte) { b[44] = 1 },
		"damaged":                func(b []byte) { b[15] = 0xFF },
	} {
		c := bytes.Clone(b)
		change(c)
		if _, err := open(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open: %v, want an error about %q", err, want)
		}
	}
}

// TestLoop: a directory is refused in which one above it is found again.
func TestLoop(t *testing.T) {
	volumetest.Need(t, false, "mksquashfs")
	dir := t.TempDir()
	check(t, os.MkdirAll(dir+"/a/b", 0o755))
	b := mksquashfs(t, dir, "-noI", "-comp", "gzip", "-no-exports", "-no-xattrs")
	inodes, root := int(b[64]), int(b[32]) // both are small numbers
	v, err := open(b)
	check(t, err)
	check(t, volumetest.ReadTree(v))
	// The inode of b gets the listing of the root: what is in b is a, then.
	const start, size, offset = 16, 24, 26
	record := b[inodes+2:]
	var inB []byte
	for at := 0; at < root; at += 32 {
		if record[at+size] == 3 { // an empty directory
			inB = record[at:]
		}
	}
	copy(inB[start:start+4], record[root+start:])
	copy(inB[size:size+4], record[root+size:])
	v, err = open(b)
	check(t, err)
	if err := volumetest.ReadTree(v); !errors.Is(err, volume.ErrElsewhere) {
		t.Errorf("a directory that is in one below it: %v", err)
	}
}

// TestTwice has an attribute twice.
func TestTwice(t *testing.T) {
	volumetest.Need(t, false, "mksquashfs")
	dir := t.TempDir()
	check(t, os.WriteFile(dir+"/f", nil, 0o644))
	check(t, unix.Setxattr(dir+"/f", "user.name-a", []byte("1"), 0))
	check(t, unix.Setxattr(dir+"/f", "user.name-b", []byte("2"), 0))
	b := mksquashfs(t, dir, "-noX", "-noI")
	for _, c := range []struct{ name, want string }{{"name-b", ""}, {"name-a", `"user.name-a" is there twice`}} {
		b = bytes.ReplaceAll(b, []byte("name-b"), []byte(c.name))
		v, err := open(b)
		check(t, err)
		if all, err := v.Xattrs("/f"); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("with %s: %q, %v; want %q", c.name, all, err, c.want)
		}
	}
}

// TestTwins: two directories are refused that are one by the number that they have.
func TestTwins(t *testing.T) {
	volumetest.Need(t, false, "mksquashfs")
	dir := t.TempDir()
	check(t, errors.Join(os.Mkdir(dir+"/a", 0o755), os.Mkdir(dir+"/b", 0o755)))
	img := mksquashfs(t, dir, "-noI", "-comp", "gzip", "-no-exports", "-no-xattrs")
	v, err := open(img)
	check(t, err)
	check(t, volumetest.ReadTree(v))
	const record, number = 32, 12
	inodes := img[int(img[64])+2:] // a small number, behind the length of the block
	copy(inodes[record+number:][:4], inodes[number:])
	v, err = open(img)
	check(t, err)
	if err := volumetest.ReadTree(v); err == nil || !strings.Contains(err.Error(), "two directories have the number") {
		t.Errorf("two directories of one number: %v", err)
	}
}

// small makes an image that has one of each.
func small(t testing.TB, args ...string) []byte {
	t.Helper()
	dir := t.TempDir()
	check(t, os.MkdirAll(dir+"/d/e", 0o755))
	check(t, os.WriteFile(dir+"/d/f", fstest.Bytes(20_000), 0o644))
	check(t, os.WriteFile(dir+"/d/g", bytes.Repeat([]byte("text"), 3000), 0o644))
	check(t, os.Link(dir+"/d/f", dir+"/link"))
	check(t, os.Symlink("d/f", dir+"/symlink"))
	check(t, os.Truncate(dir+"/d/g", 50_000))
	if err := unix.Setxattr(dir+"/d/f", "user.x", fstest.Bytes(500), 0); err != nil && err != unix.ENOTSUP {
		t.Fatal(err)
	}
	return mksquashfs(t, dir, append([]string{"-b", "4K"}, args...)...)
}

// TestDamage changes every byte and cuts at many: nothing but errors or other content
// comes of it.
func TestDamage(t *testing.T) {
	volumetest.Need(t, false, "mksquashfs")
	img := small(t, "-noI", "-noF", "-noX", "-comp", "gzip")
	for i := range img {
		if i > 200 && i < len(img)-3000 && i%61 != 0 { // content
			continue
		}
		for _, x := range []byte{0x01, 0x80, 0xFF} {
			b := bytes.Clone(img)
			b[i] ^= x
			if v, err := open(b); err == nil {
				_ = volumetest.ReadTree(v)
			}
		}
	}
	for n := 0; n < len(img)-4096; n += 509 { // images are padded to 4 KiB
		if _, err := open(img[:n]); err == nil {
			t.Errorf("cut off at %d: no error", n)
		}
	}
}

func FuzzRead(f *testing.F) {
	volumetest.Need(f, false, "mksquashfs")
	for _, args := range [][]string{{"-noI", "-noF", "-noX", "-comp", "zstd"}, {"-comp", "xz"}, {"-noI", "-comp", "lz4"}} {
		f.Add(small(f, args...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if v, err := open(b); err == nil {
			_ = volumetest.ReadTree(v)
		}
	})
}
