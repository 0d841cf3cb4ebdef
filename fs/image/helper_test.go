package image_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-git/go-billy/v5"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/fstest"
	"github.com/rootnfsd/rootnfsd/fs/image"
	"github.com/rootnfsd/rootnfsd/fs/source"
)

func needRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: makes devices and files of other owners")
	}
}

func openDir(t testing.TB, path string) *source.Dir {
	t.Helper()
	d, err := source.OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// newStore returns an empty store, which is verified when the test is over
// unless something in it was broken on purpose.
func newStore(t testing.TB) *image.Store {
	t.Helper()
	s := reopen(t, t.TempDir())
	t.Cleanup(func() { checkStore(t, s) })
	return s
}

// newBrokenStore is newStore for tests that do damage.
func newBrokenStore(t testing.TB) *image.Store {
	t.Helper()
	return reopen(t, t.TempDir())
}

func reopen(t testing.TB, dir string) *image.Store {
	t.Helper()
	s, err := image.OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// checkStore makes sure that all is well in a store and nothing lies about.
func checkStore(t testing.TB, s *image.Store) {
	t.Helper()
	damage, err := s.Verify(context.Background(), nil, nil)
	if err != nil || len(damage) > 0 {
		t.Errorf("Verify: %v, %v", damage, err)
	}
	for _, pattern := range []string{"versions/.tmp-*", "packs/.tmp-*"} {
		left, err := filepath.Glob(filepath.Join(s.StateDir(), pattern))
		if err != nil || len(left) > 0 {
			t.Errorf("temporary files left: %v, %v", left, err)
		}
	}
}

func seal(t testing.TB, s *image.Store, name string, src billy.Filesystem) image.SealResult {
	t.Helper()
	r, err := s.Seal(context.Background(), name, src, image.SealOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func sealDir(t testing.TB, s *image.Store, name, dir string) image.SealResult {
	t.Helper()
	return seal(t, s, name, openDir(t, dir))
}

func open(t testing.TB, s *image.Store, name string) *image.Version {
	t.Helper()
	v, err := s.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// sampleDir makes fstest.Sample on the host.
func sampleDir(t testing.TB) (string, fstest.Objects) {
	t.Helper()
	needRoot(t)
	sample, dir := fstest.Sample(), t.TempDir()
	if err := sample.Create(dir); err != nil {
		t.Fatal(err)
	}
	return dir, sample
}

// ramDir is t.TempDir in memory, where there is such a place.
func ramDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "rootnfsd-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// writeFiles makes a tree of files, by path, in a new directory.
func writeFiles(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		write(t, filepath.Join(dir, name), content)
	}
	return dir
}

func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

var root = &fs.Cred{}

// lookup finds the object at a path.
func lookup(t testing.TB, tree fs.Tree, path string) fs.NodeID {
	t.Helper()
	id := tree.Root()
	for name := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		next, err := tree.Lookup(root, id, fs.Name(name))
		if err != nil {
			t.Fatalf("Lookup of %q in %q: %v", name, path, err)
		}
		id = next
	}
	return id
}

// readAll reads the file at a path.
func readAll(t testing.TB, tree fs.Tree, path string) string {
	t.Helper()
	b, err := content(tree, lookup(t, tree, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func content(tree fs.Tree, id fs.NodeID) ([]byte, error) {
	var a fs.Attr
	if err := tree.Getattr(id, &a); err != nil {
		return nil, err
	}
	b := make([]byte, a.Size)
	n, eof, err := tree.Read(root, id, 0, b, false)
	if err == nil && (n < len(b) || !eof) {
		err = errors.New("short read")
	}
	return b, err
}

// packs returns the paths of the packs of a store.
func packs(t testing.TB, s *image.Store) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(s.StateDir(), "packs", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

func indexOf(s *image.Store, name string) string {
	return filepath.Join(s.StateDir(), "versions", name+".index")
}

// versionNames lists a store, of which no version is damaged.
func versionNames(t testing.TB, s *image.Store) []string {
	t.Helper()
	infos, err := s.Versions()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, i := range infos {
		if i.Err != nil {
			t.Error(i.Err)
		}
		names = append(names, i.Name)
	}
	return names
}

func run(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}
