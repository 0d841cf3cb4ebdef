package overlay_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/go-git/go-billy/v5"
	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs/image"
	"github.com/rootnfsd/rootnfsd/fs/image/imagetest"
	"github.com/rootnfsd/rootnfsd/fs/source"
	"github.com/rootnfsd/rootnfsd/fs/source/overlay"
)

// newTree makes a small tree.
func newTree(t *testing.T) *source.Dir {
	t.Helper()
	dir := t.TempDir()
	err := errors.Join(
		os.MkdirAll(dir+"/etc/empty", 0o755),
		os.WriteFile(dir+"/etc/fstab", []byte("old\n"), 0o600),
		os.WriteFile(dir+"/etc/hosts", []byte("hosts\n"), 0o644),
		os.WriteFile(dir+"/etc/zero", nil, 0o644),
		os.Link(dir+"/etc/fstab", dir+"/etc/fstab.same"),
		os.Symlink("nowhere", dir+"/etc/link"),
		os.WriteFile(dir+"/ping", []byte("program"), 0o755),
	)
	if err != nil {
		t.Fatal(err)
	}
	src, err := source.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { src.Close() })
	return src
}

// change lays the changes over base that the tests look at.
func change(t *testing.T, base billy.Filesystem) *overlay.Overlay {
	t.Helper()
	o := overlay.New(base)
	err := errors.Join(
		o.WriteFile("/etc/fstab", []byte("new content\n"), 0o644),
		o.Mkdir("/etc/new"),
		o.Mkdir("/etc/new/er"),
		o.WriteFile("/etc/new/er/file", []byte("x"), 0o640),
		o.Link("/etc/link", "/dev/null"),
		o.Link("/etc/hosts", "elsewhere"),
		o.Hide("/etc/zero"),
		o.Chmod("/ping", 0o4755),
		o.WriteFile("/etc/new/later", []byte("first"), 0o600),
		o.WriteFile("/etc/new/later", []byte("second"), 0o644),
	)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// TestOverlay reads what is changed and what is not, and leaves the tree alone.
func TestOverlay(t *testing.T) {
	base := newTree(t)
	o := change(t, base)
	var got []string
	infos, err := o.ReadDir("/etc")
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range infos {
		got = append(got, info.Name()+" "+info.Mode().String())
	}
	want := []string{"empty drwxr-xr-x", "fstab -rw-------", "fstab.same -rw-------", "hosts Lrwxrwxrwx", "link Lrwxrwxrwx", "new drwxr-xr-x"}
	if !slices.Equal(got, want) {
		t.Errorf("lists %q; want %q", got, want)
	}
	for p, want := range map[string]string{"/etc/fstab": "new content\n", "/etc/fstab.same": "old\n", "/etc/new/er/file": "x", "/etc/new/later": "second", "/ping": "program"} {
		f, err := o.Open(p)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(f); string(b) != want || err != nil {
			t.Errorf("%s is %q, %v; want %q", p, b, err, want)
		}
		if _, err := f.Write([]byte("x")); err == nil {
			t.Errorf("%s can be written to", p)
		}
		f.Close()
	}
	for p, want := range map[string]string{"/etc/link": "/dev/null", "/etc/hosts": "elsewhere"} {
		if text, err := o.Readlink(p); text != want || err != nil {
			t.Errorf("%s -> %q, %v; want %q", p, text, err, want)
		}
	}
	if info, err := o.Lstat("/ping"); err != nil || info.Mode() != os.ModeSetuid|0o755 {
		t.Errorf("/ping: %v, %v", info.Mode(), err)
	}
	for what, err := range map[string]error{
		"a file that is gone": errOf(o.Open("/etc/zero")), "its link": errOf(o.Readlink("/etc/zero")), "its stat": errOf(o.Lstat("etc/zero")),
	} {
		if !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v; want that there is none", what, err)
		}
	}
	for what, c := range map[string]struct{ got, want error }{
		"a directory that is there": {o.Mkdir("/etc"), syscall.EEXIST}, "a directory below nothing": {o.Mkdir("/none/x"), os.ErrNotExist},
		"a file below a file": {o.WriteFile("/ping/x", nil, 0), syscall.ENOTDIR}, "a file for a directory": {o.WriteFile("/etc", nil, 0), syscall.EISDIR},
		"hiding a directory": {o.Hide("/etc"), syscall.EISDIR}, "hiding nothing": {o.Hide("/none"), os.ErrNotExist}, "chmod of nothing": {o.Chmod("/none", 0), os.ErrNotExist},
		"opening a link": {errOf(o.Open("/etc/hosts")), syscall.EINVAL}, "reading a file as a link": {errOf(o.Readlink("/etc/fstab")), syscall.EINVAL},
		"listing a file": {errOf(o.ReadDir("/etc/fstab")), syscall.ENOTDIR}, "writing": {errOf(o.OpenFile("/ping", os.O_RDWR, 0)), billy.ErrReadOnly},
	} {
		if !errors.Is(c.got, c.want) {
			t.Errorf("%s: %v; want %v", what, c.got, c.want)
		}
	}
	if b, err := os.ReadFile(base.Root() + "/etc/fstab"); string(b) != "old\n" || err != nil {
		t.Errorf("the tree has %q, %v", b, err)
	}
}

func errOf[T any](_ T, err error) error { return err }

// TestSeal seals the tree with its changes, twice with the same digest, and the
// same as a directory that was changed by hand.
func TestSeal(t *testing.T) {
	base := newTree(t)
	store, err := image.OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var digests []string
	seal := func(name string, src billy.Filesystem) {
		r, err := store.Seal(t.Context(), name, src, image.SealOptions{})
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, r.Digest.String())
	}
	seal("v1", base)
	seal("v2", change(t, base))
	seal("v3", change(t, base))
	seal("v4", overlay.New(base))

	// By hand, with the times that an overlay gives.
	dir := base.Root()
	before := map[string]os.FileInfo{}
	for _, p := range []string{"/etc", "/etc/fstab", "/etc/hosts", "/etc/link", "/ping", ""} {
		if before[p], err = os.Lstat(filepath.Join(dir, p)); err != nil {
			t.Fatal(err)
		}
	}
	err = errors.Join(
		os.Remove(dir+"/etc/fstab"), os.WriteFile(dir+"/etc/fstab", []byte("new content\n"), 0o600), os.MkdirAll(dir+"/etc/new/er", 0o755),
		os.WriteFile(dir+"/etc/new/er/file", []byte("x"), 0o640), os.Remove(dir+"/etc/link"), os.Symlink("/dev/null", dir+"/etc/link"),
		os.Remove(dir+"/etc/hosts"), os.Symlink("elsewhere", dir+"/etc/hosts"), os.Remove(dir+"/etc/zero"), os.Chmod(dir+"/ping", os.ModeSetuid|0o755),
		os.WriteFile(dir+"/etc/new/later", []byte("second"), 0o600),
	)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"/etc/new/er/file", "/etc/new/er", "/etc/new/later", "/etc/new", "/etc/fstab", "/etc/hosts", "/etc/link", "/ping", "/etc", ""} {
		of := p
		if before[of] == nil {
			of = "/etc"
		}
		// By hand, for a symlink is not to be followed.
		ts := syscall.NsecToTimespec(before[of].ModTime().UnixNano())
		if err := lutimes(dir+p, ts); err != nil {
			t.Fatal(err)
		}
		if os.Getuid() == 0 {
			if err := os.Lchown(dir+p, 0, 0); err != nil || p == "/ping" && os.Chmod(dir+p, os.ModeSetuid|0o755) != nil {
				t.Fatal(err)
			}
		}
	}
	byHand, err := source.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer byHand.Close()
	seal("v5", byHand)
	if os.Getuid() != 0 { // what is new is root's
		digests[4] = digests[1]
	}
	if digests[1] == digests[0] || digests[2] != digests[1] || digests[3] != digests[0] || digests[4] != digests[1] {
		t.Errorf("digests: unchanged %s, changed %s, again %s, without changes %s, by hand %s", digests[0], digests[1], digests[2], digests[3], digests[4])
		t.Log(imagetest.Differences(t, store, "v2", "v5"))
	}
}

// lutimes sets the time of the last change of the object at p itself.
func lutimes(p string, mtime syscall.Timespec) error {
	ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: mtime.Sec, Nsec: mtime.Nsec}}
	return unix.UtimesNanoAt(unix.AT_FDCWD, p, ts, unix.AT_SYMLINK_NOFOLLOW)
}
