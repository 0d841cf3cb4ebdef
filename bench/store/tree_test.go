package store

import (
	"io/fs"
	"path/filepath"
	"testing"
)

func TestMakeTree(t *testing.T) {
	for _, n := range []int{1, 2, 3, 4, 102, 103, 104, 10_000, 10_104, 10_105, 25_000} {
		dir, made := filepath.Join(t.TempDir(), "tree"), 0
		if err := makeTree(t.Context(), dir, n); err != nil {
			t.Fatal(err)
		}
		err := filepath.WalkDir(dir, func(_ string, _ fs.DirEntry, err error) error {
			made++
			return err
		})
		if made != n || err != nil {
			t.Errorf("made %d objects, want %d: %v", made, n, err)
		}
	}
}
