package ext4_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs/fstest"
	"github.com/rootnfsd/rootnfsd/fs/image"
	"github.com/rootnfsd/rootnfsd/fs/image/imagetest"
	"github.com/rootnfsd/rootnfsd/fs/source"
	"github.com/rootnfsd/rootnfsd/fs/source/ext4"
	"github.com/rootnfsd/rootnfsd/fs/source/volume"
	"github.com/rootnfsd/rootnfsd/fs/source/volume/volumetest"
)

func run(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

// ramDir is in memory if the host has a place for it, which spares the test the disk.
func ramDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "ext4")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func makeFS(t testing.TB, size int64, args ...string) string {
	t.Helper()
	img := filepath.Join(ramDir(t), "img")
	if err := os.WriteFile(img, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(img, size); err != nil {
		t.Fatal(err)
	}
	run(t, "mkfs.ext4", append(append([]string{"-q", "-F"}, args...), img)...)
	return img
}

// mounted calls do with the directory that an image is mounted at.
func mounted(t testing.TB, img, opts string, do func(dir string)) {
	t.Helper()
	dir := t.TempDir()
	run(t, "mount", "-o", "loop,"+opts, img, dir)
	defer run(t, "umount", dir)
	do(dir)
}

func openVolume(t testing.TB, img string) *ext4.Volume {
	t.Helper()
	f, err := os.Open(img)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	v, err := ext4.Open(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func newStore(t testing.TB) *image.Store {
	t.Helper()
	s, err := image.OpenStore(ramDir(t))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// fill makes in dir what an ext4 file system stores in different ways.
func fill(t *testing.T, dir string) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	sample := slices.DeleteFunc(fstest.Sample(), func(x fstest.Object) bool {
		return len(x.Target) > 1000 // does not fit in a block of 1 KiB
	})
	check(sample.Create(dir))
	many := dir + "/many"
	check(os.Mkdir(many, 0o750))
	for i := range 1500 { // a hashed directory, of two levels in blocks of 1 KiB
		check(os.WriteFile(fmt.Sprintf("%s/%s%d", many, strings.Repeat("n", 1+i%60), i), fstest.Bytes(i%200), 0o640))
	}
	for _, n := range []int{0, 1, 59, 60, 61, 100, 155, 156, 160, 255, 256} { // around what fits in an inode
		check(os.WriteFile(fmt.Sprintf("%s/small%d", dir, n), fstest.Bytes(n), 0o644))
		if n > 0 {
			check(os.Symlink(strings.Repeat("t", n), fmt.Sprintf("%s/link%d", dir, n)))
		}
		check(os.Mkdir(fmt.Sprintf("%s/dir%d", dir, n), 0o755))
		for i := range n / 16 {
			check(os.WriteFile(fmt.Sprintf("%s/dir%d/%d", dir, n, i), nil, 0o644))
		}
	}
	check(os.Symlink(strings.Repeat("t", 1000), dir+"/longlink"))

	f, err := os.Create(dir + "/extents") // a tree of three levels, or all kinds of block numbers
	check(err)
	for i := range 700 {
		_, err := f.WriteAt(fstest.Bytes(3000), int64(i)*8192)
		check(err)
	}
	_, err = f.WriteAt([]byte("beyond 32 bits"), 5<<30)
	check(err)
	if err := unix.Fallocate(int(f.Fd()), 0, 1<<30, 3<<20); err != unix.ENOTSUP && err != unix.EOPNOTSUPP {
		check(err)
	}
	check(f.Close())

	x := dir + "/xattrs"
	check(os.WriteFile(x, []byte("x"), 0o755))
	check(unix.Setxattr(x, "user.small", []byte("value"), 0))
	check(unix.Setxattr(x, "user.large", fstest.Bytes(700), 0))
	check(unix.Setxattr(x, "user.empty", nil, 0))
	check(unix.Setxattr(x, "security.capability", []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0))
	check(unix.Setxattr(x, "system.posix_acl_access", []byte("\x02\x00\x00\x00"+
		"\x01\x00\x07\x00\xff\xff\xff\xff\x02\x00\x06\x00\xe8\x03\x00\x00\x04\x00\x05\x00\xff\xff\xff\xff"+
		"\x10\x00\x07\x00\xff\xff\xff\xff\x20\x00\x05\x00\xff\xff\xff\xff"), 0))

	check(unix.Mknod(dir+"/bigdev", unix.S_IFBLK|0o600, int(unix.Mkdev(259, 300000))))
	check(os.WriteFile(dir+"/owner", nil, 0o600))
	check(os.Chown(dir+"/owner", 100000, 2000000000))
	late := unix.NsecToTimespec(6000000000123456789) // 2160: beyond 32 bits
	check(unix.UtimesNanoAt(unix.AT_FDCWD, dir+"/owner", []unix.Timespec{late, late}, 0))
}

// TestAsTheKernelReads holds what is read of file systems of many kinds against what
// the kernel makes of them.
func TestAsTheKernelReads(t *testing.T) {
	volumetest.Need(t, true, "mkfs.ext4")
	for name, args := range map[string][]string{
		"4k": {"-b", "4096", "-I", "256"},
		"1k": {"-b", "1024", "-I", "256"},
		"ext4 1k, no 64bit, no checksums, inline": {"-b", "1024", "-I", "512", "-O", "^64bit,^metadata_csum,inline_data"},
		"inline":                {"-b", "4096", "-I", "256", "-O", "inline_data,64bit,metadata_csum"},
		"ext2":                  {"-b", "1024", "-I", "256", "-O", "^extents,^64bit,^metadata_csum,^has_journal,^flex_bg,^huge_file"},
		"values in inodes, 2k":  {"-b", "2048", "-I", "256", "-O", "ea_inode"},
		"no names of kinds, 4k": {"-b", "4096", "-I", "256", "-O", "^filetype,^flex_bg"},
	} {
		t.Run(name, func(t *testing.T) {
			img := makeFS(t, 48<<20, args...)
			mounted(t, img, "rw,user_xattr,acl", func(dir string) {
				fill(t, dir)
				if strings.HasPrefix(name, "values in") {
					if err := unix.Setxattr(dir+"/xattrs", "user.huge", fstest.Bytes(20000), 0); err != nil {
						t.Fatal(err)
					}
				}
			})
			s := newStore(t)
			var want image.SealResult
			mounted(t, img, "ro,noload", func(dir string) {
				d, err := source.OpenDir(dir)
				if err != nil {
					t.Fatal(err)
				}
				defer d.Close()
				if want, err = s.Seal(t.Context(), "kernel", d, image.SealOptions{}); err != nil {
					t.Fatal(err)
				}
			})
			got, err := s.Seal(t.Context(), "ours", volume.New(openVolume(t, img)), image.SealOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if got.Digest != want.Digest {
				t.Errorf("the digest is not that of what the kernel shows%s", imagetest.Differences(t, s, "kernel", "ours"))
			}
		})
	}
}

// TestPopulated compares a directory with the file system that mkfs made of it, which
// needs no mount.
func TestPopulated(t *testing.T) {
	volumetest.Need(t, false, "mkfs.ext4")
	dir := t.TempDir()
	if err := os.Mkdir(dir+"/lost+found", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/f", fstest.Bytes(100000), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(dir+"/f", dir+"/g"); err != nil {
		t.Fatal(err)
	}
	v := volume.New(openVolume(t, makeFS(t, 8<<20, "-d", dir)))
	f, err := v.Open("/g")
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(f)
	if err != nil || !bytes.Equal(got, fstest.Bytes(100000)) {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
	infos, err := v.ReadDir("/")
	if err != nil || len(infos) != 3 {
		t.Fatalf("ReadDir: %v, %v", infos, err)
	}
	a, b := source.MetaOf(infos[0]), source.MetaOf(infos[1])
	if a.Ino != b.Ino || a.Nlink != 2 || a.Mode != 0o640 {
		t.Errorf("hard links are %+v and %+v", a, b)
	}
}

// TestRefused: what cannot be read is refused by name.
func TestRefused(t *testing.T) {
	volumetest.Need(t, false, "mkfs.ext4")
	img, err := os.ReadFile(makeFS(t, 4<<20, "-O", "^metadata_csum"))
	if err != nil {
		t.Fatal(err)
	}
	const incompat = 1024 + 0x60
	for want, change := range map[string]func(b []byte) []byte{
		"e2fsck -p":          func(b []byte) []byte { b[incompat] |= 4; return b },
		"encrypt, casefold":  func(b []byte) []byte { b[incompat+2] |= 3; return b },
		"unknown feature 31": func(b []byte) []byte { b[incompat+3] |= 0x80; return b },
		"cut off":            func(b []byte) []byte { return b[:3<<20] },
		"not unmounted":      func(b []byte) []byte { b[1024+0x3A] &^= 1; return b },
		"e2fsck -f":          func(b []byte) []byte { b[1024+0x3A] |= 2; return b },
		"no ext4":            func(b []byte) []byte { return b[:1500] },
		"contradicts":        func(b []byte) []byte { clear(b[1024+0x28:][:4]); return b },
	} {
		b := change(bytes.Clone(img))
		_, err := ext4.Open(bytes.NewReader(b), int64(len(b)))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open: %v, want an error about %q", err, want)
		}
	}
	if sum, err := os.ReadFile(makeFS(t, 4<<20, "-O", "metadata_csum")); err != nil {
		t.Fatal(err)
	} else {
		sum[1024+0x78]++ // the label
		if _, err := ext4.Open(bytes.NewReader(sum), int64(len(sum))); err == nil || !strings.Contains(err.Error(), "checksum") {
			t.Errorf("a wrong checksum: %v", err)
		}
	}
}

// small makes a small file system that has one of each.
func small(t testing.TB, args ...string) []byte {
	dir := t.TempDir()
	for _, err := range []error{
		os.Mkdir(dir+"/d", 0o755), os.WriteFile(dir+"/d/f", fstest.Bytes(5000), 0o644),
		os.Symlink("target", dir+"/l"), os.Symlink(strings.Repeat("t", 100), dir+"/m"),
		os.WriteFile(dir+"/tiny", []byte("tiny"), 0o644), unix.Setxattr(dir+"/tiny", "user.x", fstest.Bytes(30), 0),
	} {
		if err != nil && err != unix.ENOTSUP {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(makeFS(t, 256<<10, append(args, "-d", dir, "-b", "1024", "-N", "32", "-O", "^has_journal,^resize_inode,^metadata_csum")...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestDamage: whatever bytes change, reading ends, without a panic.
func TestDamage(t *testing.T) {
	volumetest.Need(t, false, "mkfs.ext4")
	for _, args := range [][]string{nil, {"-O", "inline_data", "-I", "256"}, {"-O", "^extents,^64bit"}} {
		img := small(t, args...)
		v, err := ext4.Open(bytes.NewReader(img), int64(len(img)))
		if err != nil {
			t.Fatal(err)
		}
		if err := volumetest.ReadTree(volume.New(v)); err != nil {
			t.Fatalf("undamaged: %v", err)
		}
		random := rand.New(rand.NewPCG(1, 2))
		failed := 0
		for range 500 {
			b := bytes.Clone(img)
			for range 1 + random.IntN(8) {
				b[random.IntN(64<<10)] = byte(random.Uint32()) // metadata are there
			}
			if v, err := ext4.Open(bytes.NewReader(b), int64(len(b))); err != nil || volumetest.ReadTree(volume.New(v)) != nil {
				failed++
			}
		}
		if failed == 0 {
			t.Error("no damage was noticed")
		}
		for n := 0; n < len(img); n += 1021 {
			if _, err := ext4.Open(bytes.NewReader(img[:n]), int64(n)); err == nil {
				t.Errorf("cut off at %d: no error", n)
			}
		}
	}
}

// debugfs runs commands on an image, and returns what they print.
func debugfs(t *testing.T, img string, commands ...string) string {
	t.Helper()
	cmd := exec.Command("debugfs", "-w", "-f", "-", img)
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n"))
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("debugfs %q: %v\n%s", commands, err, out)
	}
	return string(out)
}

// TestSharedBlocks has directories share their blocks, by which a small image could
// have listings without end.
func TestSharedBlocks(t *testing.T) {
	volumetest.Need(t, false, "mkfs.ext4", "debugfs")
	const dirs, blocks, size = 30, 12, 256 << 10
	dir := t.TempDir()
	for i := range dirs {
		if err := os.Mkdir(fmt.Sprintf("%s/d%d", dir, i), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	img := makeFS(t, size, "-d", dir, "-b", "1024", "-N", "64", "-O", "^has_journal,^resize_inode,^metadata_csum,^extents,^64bit")
	readAll := func() error { return volumetest.ReadTree(volume.New(openVolume(t, img))) }
	if err := readAll(); err != nil {
		t.Fatalf("as mkfs made it: %v", err)
	}
	where := make([]string, dirs)
	for i := range dirs {
		lines := strings.Split(debugfs(t, img, fmt.Sprintf("bmap /d%d 0", i)), "\n")
		where[i] = strings.TrimSpace(lines[1])
	}
	var share []string
	for i := range dirs {
		share = append(share, fmt.Sprintf("set_inode_field /d%d size %d", i, blocks*1024))
		for n := 1; n < blocks; n++ {
			share = append(share, fmt.Sprintf("set_inode_field /d%d block[%d] %s", i, n, where[(i+n)%dirs]))
		}
	}
	debugfs(t, img, share...)
	if err := readAll(); err == nil || !strings.Contains(err.Error(), "larger in all") {
		t.Errorf("blocks of other directories: %v", err)
	}
	debugfs(t, img, "set_inode_field /d0 block[1] "+where[0])
	if err := readAll(); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("a block of its own again: %v", err)
	}
	debugfs(t, img, "set_inode_field /d0 size 0x20000000")
	if err := readAll(); err == nil || !strings.Contains(err.Error(), "directory of 536870912") {
		t.Errorf("a giant directory: %v", err)
	}
}

// TestSharedValues has attributes share a value, by which a block could have more of
// them than fits in memory.
func TestSharedValues(t *testing.T) {
	volumetest.Need(t, false, "mkfs.ext4")
	const block = 64 << 10
	dir := t.TempDir()
	err := errors.Join(os.WriteFile(dir+"/f", nil, 0o644), unix.Setxattr(dir+"/f", "user.x", fstest.Bytes(1000), 0))
	if err != nil {
		t.Fatal(err)
	}
	img := makeFS(t, 64*block, "-d", dir, "-b", fmt.Sprint(block), "-I", "128", "-O", "^metadata_csum")
	b, err := os.ReadFile(img)
	if err != nil {
		t.Fatal(err)
	}
	read := func() error {
		v, err := ext4.Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		_, err = volume.New(v).Xattrs("/f")
		return err
	}
	if err := read(); err != nil {
		t.Fatalf("as mkfs made it: %v", err)
	}
	at := 0
	for ; at < len(b) && !bytes.HasPrefix(b[at:], []byte("\x00\x00\x02\xea")); at += block {
	}
	records := b[at+32:]
	for i := range 20 { // of 20 bytes: the name's length, user., the value's place and size
		copy(records[20*i:], []byte{1, 1, 0, 0x10, 0, 0, 0, 0, 0x60, 0xea, 0, 0, 0, 0, 0, 0, byte('a' + i)})
	}
	if err := read(); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("20 attributes of 60000 bytes in a block of %d: %v", block, err)
	}
}

// TestStrangeAttributes has an attribute whose prefix has a number that is none, so that
// all of its name is what the record says, and one that is in the inode and in the block.
func TestStrangeAttributes(t *testing.T) {
	volumetest.Need(t, false, "mkfs.ext4")
	dir := t.TempDir()
	err := os.WriteFile(dir+"/f", nil, 0o644)
	for i := range 8 { // more than there is room for in the inode
		err = errors.Join(err, unix.Setxattr(dir+"/f", fmt.Sprintf("user.some-name-%d", i), fstest.Bytes(40), 0))
	}
	if err != nil {
		t.Fatal(err)
	}
	img, err := os.ReadFile(makeFS(t, 4<<20, "-d", dir, "-I", "256", "-O", "^metadata_csum"))
	if err != nil {
		t.Fatal(err)
	}
	read := func(b []byte) ([]source.Xattr, error) {
		v, err := ext4.Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		return volume.New(v).Xattrs("/f")
	}
	if all, err := read(img); err != nil || len(all) != 8 {
		t.Fatalf("as mkfs made it: %d attributes, %v", len(all), err)
	}
	const header, prefix = 16, 1
	name := func(b []byte, i int) int { return bytes.Index(b, fmt.Appendf(nil, "some-name-%d", i)) }

	b := bytes.Clone(img)
	at := name(b, 3)
	copy(b[at:], "user.name-3")
	b[at-header+prefix] = 99
	if all, err := read(b); err != nil || len(all) != 7 {
		t.Errorf("an unknown prefix: %q, %v; want the 7 others", all, err)
	}

	b = bytes.Clone(img)
	for i := range 8 {
		b[name(b, i)+len("some-name-")] = 'x'
	}
	if all, err := read(b); err == nil || !strings.Contains(err.Error(), `"user.some-name-x" is there twice`) {
		t.Errorf("one name for all: %q, %v", all, err)
	}
}

// TestDeep seals directories in each other, more than there are listings in memory, and
// refuses a path that is too long for a client.
func TestDeep(t *testing.T) {
	volumetest.Need(t, false, "mkfs.ext4", "debugfs")
	dir := t.TempDir()
	name := "/" + strings.Repeat("n", 20)
	if err := os.MkdirAll(dir+strings.Repeat(name, 150), 0o755); err != nil {
		t.Fatal(err)
	}
	img := makeFS(t, 4<<20, "-d", dir, "-b", "1024")
	seal := func() (image.SealResult, error) {
		return newStore(t).Seal(t.Context(), "v1", volume.New(openVolume(t, img)), image.SealOptions{})
	}
	if r, err := seal(); err != nil || r.Objects < 151 {
		t.Errorf("%d objects, %v", r.Objects, err)
	}
	down := []string{"cd " + strings.Repeat(name, 150)[1:]}
	for range 50 {
		down = append(down, "mkdir "+name[1:], "cd "+name[1:])
	}
	debugfs(t, img, down...)
	if _, err := seal(); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("a path of more than 4095 bytes: %v", err)
	}
}

// TestJournal: an image of a file system that is mounted is refused, with advice.
func TestJournal(t *testing.T) {
	volumetest.Need(t, true, "mkfs.ext4")
	img := makeFS(t, 16<<20)
	mounted(t, img, "rw", func(dir string) {
		f, err := os.Create(dir + "/f")
		if err != nil {
			t.Fatal(err)
		}
		b, err := []byte(nil), errors.Join(unix.Syncfs(int(f.Fd())), f.Close())
		if err == nil {
			b, err = os.ReadFile(img)
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ext4.Open(bytes.NewReader(b), int64(len(b))); err == nil || !strings.Contains(err.Error(), "e2fsck -p") {
			t.Errorf("Open: %v", err)
		}
	})
}

func FuzzRead(f *testing.F) {
	volumetest.Need(f, false, "mkfs.ext4")
	img := small(f, "-O", "inline_data", "-I", "256")
	f.Add(uint32(1024+0x60), []byte{4, 0, 0, 0})
	f.Add(uint32(6<<10), []byte{0xFF, 0xFF})
	f.Fuzz(func(t *testing.T, at uint32, change []byte) {
		r := &patched{img, int64(at % (64 << 10)), change}
		if v, err := ext4.Open(r, int64(len(img))); err == nil {
			volumetest.ReadTree(volume.New(v))
		}
	})
}

// patched is an image in which some bytes are others.
type patched struct {
	img    []byte
	at     int64
	change []byte
}

func (r *patched) ReadAt(p []byte, off int64) (int, error) {
	n, err := bytes.NewReader(r.img).ReadAt(p, off)
	for i, b := range r.change {
		if at := r.at + int64(i) - off; at >= 0 && at < int64(n) {
			p[at] = b
		}
	}
	return n, err
}
