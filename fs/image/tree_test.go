package image_test

import (
	"testing"

	"github.com/rootnfsd/rootnfsd/fs/fstest"
	"github.com/rootnfsd/rootnfsd/fs/image"
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

func newStore(t testing.TB) *image.Store {
	t.Helper()
	s, err := image.OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func seal(t *testing.T, s *image.Store, name, dir string) image.SealResult {
	t.Helper()
	r, err := s.Seal(t.Context(), name, openDir(t, dir), nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func open(t *testing.T, s *image.Store, name string) *image.Version {
	t.Helper()
	v, err := s.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestTree(t *testing.T) {
	sample, dir := fstest.Sample(), t.TempDir()
	if err := sample.Create(dir); err != nil {
		t.Fatal(err)
	}
	s := newStore(t)
	seal(t, s, "v1", dir)
	fstest.TestTree(t, open(t, s, "v1"), sample)
}
