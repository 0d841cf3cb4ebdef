package source

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOpenEach opens by what older kernels have: no symlink is followed, be it
// in the middle or at the end.
func TestOpenEach(t *testing.T) {
	dir := t.TempDir()
	err := errors.Join(os.MkdirAll(dir+"/a/b", 0o755), os.WriteFile(dir+"/a/b/file", nil, 0o644),
		os.Symlink("a", dir+"/link"), os.Symlink("b", dir+"/a/link"), os.Symlink("file", dir+"/a/b/link"))
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for path, want := range map[string]error{
		".": nil, "a": nil, "a/b": nil, "a/b/file": nil, "a/none": unix.ENOENT, "none/file": unix.ENOENT, "a/b/file/x": unix.ENOTDIR,
		"link": unix.ELOOP, "link/b/file": unix.ENOTDIR, "a/link/file": unix.ENOTDIR, "a/b/link": unix.ELOOP,
	} {
		fd, err := openEach(int(root.Fd()), path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC)
		if err != want {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
		if err == nil {
			unix.Close(fd)
		}
	}
	before := countFDs(t)
	for range 10 {
		_, _ = openEach(int(root.Fd()), "a/b/link", unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC)
	}
	if n := countFDs(t); n > before {
		t.Errorf("%d file descriptors are left open", n-before)
	}
}

func countFDs(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}
