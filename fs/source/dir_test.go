package source_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-git/go-billy/v5"
	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/fstest"
	"github.com/rootnfsd/rootnfsd/fs/source"
)

func openDir(t *testing.T, path string) *source.Dir {
	t.Helper()
	d, err := source.OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// TestMeta reads back every object of the sample, from its directory and by itself.
func TestMeta(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: makes devices and files of other owners")
	}
	sample, dir := fstest.Sample(), t.TempDir()
	if err := sample.Create(dir); err != nil {
		t.Fatal(err)
	}
	d := openDir(t, dir)
	for _, x := range sample {
		if x.LinkTo != "" {
			continue
		}
		single, err := d.Lstat(x.Path)
		if err != nil {
			t.Error(err)
			continue
		}
		infos := []os.FileInfo{single}
		if x.Path != "/" {
			infos = append(infos, inDir(t, d, x.Path))
		}
		for _, info := range infos {
			m := source.MetaOf(info)
			if m.Kind != x.Kind || m.Mode != x.Mode || m.UID != x.UID || m.GID != x.GID || m.Mtime != x.Mtime || m.Major != x.Major || m.Minor != x.Minor {
				t.Errorf("%q: %+v, want %+v", x.Path, *m, x)
			}
			if want := len(x.Content) + len(x.Target); x.Kind != fs.Directory && m.Size != uint64(want) {
				t.Errorf("%q: size %d, want %d", x.Path, m.Size, want)
			}
		}
		if x.Kind == fs.Symlink {
			if text, err := d.Readlink(x.Path); text != x.Target || err != nil {
				t.Errorf("%q: text %q, %v", x.Path, text, err)
			}
		}
	}
}

// TestReadDirOfMany lists names of all lengths, more than the kernel tells at once.
func TestReadDirOfMany(t *testing.T) {
	dir := t.TempDir()
	var want []string
	for i := range 3000 {
		name := fmt.Sprintf("%c%0*d\xff", rune(1+i%40), 4+i%250, i)
		name = strings.ReplaceAll(name, "/", "\\")
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, i), 0o644); err != nil {
			t.Fatal(err)
		}
		want = append(want, name)
	}
	slices.Sort(want)
	infos, err := openDir(t, dir).ReadDir("/")
	if err != nil || len(infos) != len(want) {
		t.Fatalf("%d entries, %v", len(infos), err)
	}
	for i, info := range infos {
		if info.Name() != want[i] {
			t.Fatalf("entry %d is %q, want %q", i, info.Name(), want[i])
		}
		if stat, err := os.Lstat(filepath.Join(dir, want[i])); err != nil || stat.Size() != info.Size() {
			t.Errorf("%q has %d bytes: %v", want[i], info.Size(), err)
		}
	}
}

// inDir finds an object in the listing of its directory.
func inDir(t *testing.T, d *source.Dir, path string) os.FileInfo {
	t.Helper()
	infos, err := d.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	names := make([]string, len(infos))
	for i, info := range infos {
		names[i] = info.Name()
	}
	i, found := slices.BinarySearch(names, filepath.Base(path))
	if !found {
		t.Fatalf("%q is not in %q", path, names)
	}
	return infos[i]
}

// TestNextData finds the data of a file with holes. A file system may call more
// data than was written, never less.
func TestNextData(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	content := slices.Concat(make([]byte, 1<<20), bytes.Repeat([]byte{1}, 5000), make([]byte, 1<<20))
	if _, err := f.WriteAt(content[1<<20:][:5000], 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(int64(len(content))); err != nil {
		t.Fatal(err)
	}
	opened, err := openDir(t, dir).Open("f")
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	got := make([]byte, len(content))
	for off := int64(0); ; {
		from, to, err := opened.(source.DataFinder).NextData(off)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil || from < off || to <= from {
			t.Fatalf("NextData(%d): %d, %d, %v", off, from, to, err)
		}
		if _, err := opened.ReadAt(got[from:to], from); err != nil {
			t.Fatal(err)
		}
		off = to
	}
	if !bytes.Equal(got, content) {
		t.Error("data outside of what NextData found")
	}
}

func TestReadOnly(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	d := openDir(t, dir)
	f, err := d.Open("f")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, create := d.Create("g")
	_, openFile := d.OpenFile("f", os.O_RDWR, 0)
	_, write := f.Write([]byte("y"))
	for what, err := range map[string]error{
		"Create": create, "OpenFile": openFile, "Write": write, "Truncate": f.Truncate(0), "Remove": d.Remove("f"),
		"Rename": d.Rename("f", "g"), "MkdirAll": d.MkdirAll("d", 0o755), "Symlink": d.Symlink("f", "g"),
	} {
		if !errors.Is(err, billy.ErrReadOnly) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestSpecialFilesAreNotOpened: a FIFO or a socket would block or fail.
func TestSpecialFilesAreNotOpened(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: makes devices")
	}
	dir := t.TempDir()
	for name, mode := range map[string]uint32{"fifo": unix.S_IFIFO, "sock": unix.S_IFSOCK, "tty": unix.S_IFCHR} {
		if err := unix.Mknod(filepath.Join(dir, name), mode, int(unix.Mkdev(5, 0))); err != nil {
			t.Fatal(err)
		}
	}
	d := openDir(t, dir)
	for _, name := range []string{"fifo", "sock", "tty"} {
		if f, err := d.Open(name); err == nil {
			f.Close()
			t.Errorf("opened %s", name)
		}
	}
}

// TestSourceStaysInside: no path leads out of the directory, though root reads it.
func TestSourceStaysInside(t *testing.T) {
	top := t.TempDir()
	err := errors.Join(os.Mkdir(top+"/outside", 0o755), os.Mkdir(top+"/tree", 0o755),
		os.WriteFile(top+"/outside/secret", []byte("secret"), 0o644), os.WriteFile(top+"/tree/x", []byte("x"), 0o644))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(top+"/outside/secret", "user.secret", []byte("secret"), 0); err != nil && err != unix.ENOTSUP {
		t.Fatal(err)
	}
	for link, text := range map[string]string{"abs": top + "/outside", "rel": "../outside", "file": "x"} {
		if err := os.Symlink(text, filepath.Join(top, "tree", link)); err != nil {
			t.Fatal(err)
		}
	}
	d := openDir(t, filepath.Join(top, "tree"))
	for _, p := range []string{"abs/secret", "rel/secret", "../outside/secret", "file"} {
		if f, err := d.Open(p); err == nil {
			b, _ := io.ReadAll(f)
			f.Close()
			t.Errorf("read %q by %s", b, p)
		}
		if xattrs, _ := d.Xattrs(p); len(xattrs) > 0 {
			t.Errorf("read %+v by %s", xattrs, p)
		}
		if _, err := d.ReadDir(filepath.Dir(p)); err == nil && filepath.Dir(p) != "." && filepath.Dir(p) != "../outside" {
			t.Errorf("listed %s", filepath.Dir(p))
		}
	}
}
