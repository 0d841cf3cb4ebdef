package hostdir

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/capability"
	"github.com/rootnfsd/rootnfsd/fs"
)

// TestMain also runs the processes that tests need besides their own.
func TestMain(m *testing.M) {
	switch os.Getenv("HOSTDIR_TEST") {
	case "agent":
		runAgent()
	case "writer":
		runWriter()
	case "namespace":
		if err := capability.LayDown(unix.CAP_SYS_RESOURCE); err != nil && !errors.Is(err, syscall.ENOTSUP) {
			panic(err)
		}
		os.Exit(m.Run())
	case "single":
		dropTo(unprivileged)
		os.Exit(m.Run())
	default:
		os.Exit(m.Run())
	}
}

var (
	root         = &fs.Cred{}
	alice        = &fs.Cred{UID: 1001, GID: 1001, Groups: []uint32{1001, 2000}}
	bob          = &fs.Cred{UID: 1002, GID: 1002, Groups: []uint32{1002, 2000}}
	carol        = &fs.Cred{UID: 1003, GID: 1003}
	unprivileged = &fs.Cred{UID: 65534, GID: 65534}
)

func needRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
}

// tempDir is t.TempDir for a directory that all users can reach.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "hostdir-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

func newHost(t testing.TB, opt Options) *Host {
	t.Helper()
	h, err := NewHost(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

// world is a tree with paths, for tests.
type world struct {
	testing.TB
	*Tree
	dir string
}

func newWorld(t testing.TB) *world { return openWorld(t, tempDir(t)) }

func openWorld(t testing.TB, dir string) *world {
	t.Helper()
	tree, err := newHost(t, Options{}).Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return &world{t, tree, dir}
}

// at is the path on the host.
func (w *world) at(path string) string { return filepath.Join(w.dir, path) }

// look looks up a path as c, name by name.
func (w *world) look(c *fs.Cred, path string) (fs.Handle, fs.Attr, error) {
	h := w.Root()
	var a fs.Attr
	err := w.Getattr(h, &a)
	for name := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		if name != "" && err == nil {
			h, err = w.Lookup(c, h, fs.Name(name), &a)
		}
	}
	return h, a, err
}

// parent looks up the directory of a path as c.
func (w *world) parent(c *fs.Cred, path string) (fs.Handle, fs.Name, error) {
	h, _, err := w.look(c, filepath.Dir("/"+path))
	return h, fs.Name(filepath.Base(path)), err
}

// must looks up a path that is there.
func (w *world) must(path string) fs.Handle {
	w.Helper()
	h, _, err := w.look(root, path)
	if err != nil {
		w.Fatalf("%s: %v", path, err)
	}
	return h
}

func ptr[T any](v T) *T { return &v }

// create makes a file by the tree.
func (w *world) create(c *fs.Cred, path string, mode uint32) fs.Handle {
	w.Helper()
	dir, name, err := w.parent(c, path)
	if err != nil {
		w.Fatal(err)
	}
	var a fs.Attr
	h, _, err := w.Create(c, dir, name, fs.Guarded, &fs.SetAttr{Mode: &mode}, fs.Verifier{}, &a)
	if err != nil {
		w.Fatalf("create %s: %v", path, err)
	}
	return h
}

func (w *world) mkdir(c *fs.Cred, path string, mode uint32) fs.Handle {
	w.Helper()
	dir, name, err := w.parent(c, path)
	if err != nil {
		w.Fatal(err)
	}
	var a fs.Attr
	h, _, err := w.Mkdir(c, dir, name, &fs.SetAttr{Mode: &mode}, &a)
	if err != nil {
		w.Fatalf("mkdir %s: %v", path, err)
	}
	return h
}

func (w *world) write(c *fs.Cred, h fs.Handle, off uint64, text string, how fs.Stability) {
	w.Helper()
	if _, _, err := w.Write(c, h, off, []byte(text), how); err != nil {
		w.Fatal(err)
	}
}

// wantErr fails unless err is of the kind want.
func wantErr(t testing.TB, what string, err error, want fs.Error) {
	t.Helper()
	if fs.KindOf(err) != want {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// useDescriptors leaves the process so many to open until release is called,
// which it may be twice.
func useDescriptors(t testing.TB, free int) (release func()) {
	t.Helper()
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	probe, err := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(probe)
	// All below the limit are taken: the kernel gives out the lowest.
	short := unix.Rlimit{Cur: uint64(probe + free), Max: was.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &short); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
			t.Fatal(err)
		}
	}
}

// command runs a program of the host.
func command(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// disk is a file system in a file.
type disk struct {
	image string
	kind  string // ext4, xfs or ext2
	dir   string // where it is mounted
}

// newDisk makes a file system of so many MiB and mounts it.
func newDisk(t testing.TB, dir, kind string, mib int64, options ...string) *disk {
	t.Helper()
	needRoot(t)
	if _, err := exec.LookPath("mkfs." + kind); err != nil {
		t.Skip(err)
	}
	d := &disk{image: filepath.Join(dir, "disk"), kind: kind}
	f, err := os.Create(d.image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(mib << 20); err != nil {
		t.Fatal(err)
	}
	if kind == "ext4" {
		options = append([]string{"-F", "-b", "1024", "-J", "size=4"}, options...)
	}
	command(t, "mkfs."+kind, append(append(options, "-q"), d.image)...)
	d.mount(t)
	return d
}

// mount mounts the disk and makes all users at home in it. What is written to
// an ext4 stays off the disk for five minutes unless somebody asks for it.
func (d *disk) mount(t testing.TB) {
	t.Helper()
	d.dir = tempDir(t)
	options := map[string]string{"ext4": "loop,commit=300", "xfs": "loop,nouuid", "ext2": "loop"}[d.kind]
	command(t, "mount", "-o", options, d.image, d.dir)
	t.Cleanup(func() { unix.Unmount(d.dir, unix.MNT_DETACH) })
	if err := os.Chmod(d.dir, 0o777); err != nil {
		t.Fatal(err)
	}
}

// copy mounts a copy of the disk as it is now, with nothing but what was
// brought to it, as after a power cut: the journal is replayed.
func (d *disk) copy(t testing.TB) *disk {
	t.Helper()
	c := &disk{image: filepath.Join(tempDir(t), "copy"), kind: d.kind}
	command(t, "cp", "--sparse=always", d.image, c.image)
	c.mount(t)
	return c
}
