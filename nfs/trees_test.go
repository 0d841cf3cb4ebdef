package nfs

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/fstest"
)

// fileTree is a tree whose large file lies in a host file, which it can point
// at, as a sealed version does with its packs.
type fileTree struct {
	*fstest.MemTree
	big  fs.NodeID
	file *os.File
	// cut, if set, says how a range is cut into spans; a span without a file
	// is a hole.
	cut func(off, n int64) []fs.Span
}

var _ fs.Spanner = (*fileTree)(nil)

// newFileTree returns a tree with a file /big of that content.
func newFileTree(t testing.TB, content []byte) *fileTree {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pack")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	m := sample()
	return &fileTree{MemTree: m, big: m.WriteFile("/big", 0o644, content), file: file}
}

func (t *fileTree) Spans(c *fs.Cred, id fs.NodeID, off uint64, count uint32, spans []fs.Span, nowait bool) (int, bool, error) {
	if id != t.big {
		return 0, false, fs.ErrWouldBlock
	}
	var a fs.Attr
	if err := t.Getattr(id, &a); err != nil {
		return 0, false, err
	}
	if !fs.CanRead(&a, c) {
		return 0, false, fs.ErrAccess
	}
	n := min(int64(count), int64(a.Size-off))
	if t.cut == nil {
		spans[0] = fs.Span{File: t.file, Off: int64(off), Len: n}
		return 1, off+uint64(n) == a.Size, nil
	}
	k := copy(spans, t.cut(int64(off), n))
	var sum int64
	for _, s := range spans[:k] {
		sum += s.Len
	}
	return k, off+uint64(sum) == a.Size, nil
}

// faultTree is a tree in which a test can make reads fail, wait or panic.
type faultTree struct {
	fs.Tree
	// These are called first, if they are set.
	read   func(id fs.NodeID, nowait bool) error
	lookup func(name fs.Name)
}

func (t *faultTree) Read(c *fs.Cred, id fs.NodeID, off uint64, p []byte, nowait bool) (int, bool, error) {
	if t.read != nil {
		if err := t.read(id, nowait); err != nil {
			return 0, false, err
		}
	}
	return t.Tree.Read(c, id, off, p, nowait)
}

func (t *faultTree) Lookup(c *fs.Cred, dir fs.NodeID, name fs.Name) (fs.NodeID, error) {
	if t.lookup != nil {
		t.lookup(name)
	}
	return t.Tree.Lookup(c, dir, name)
}

// coldTree is a tree none of whose content is in memory.
func coldTree(tree fs.Tree) *faultTree {
	return &faultTree{Tree: tree, read: func(_ fs.NodeID, nowait bool) error {
		if nowait {
			return fs.ErrWouldBlock
		}
		return nil
	}}
}
