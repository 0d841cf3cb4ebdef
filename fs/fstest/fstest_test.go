package fstest_test

import (
	"testing"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/fstest"
)

func TestMemTree(t *testing.T) {
	sample := fstest.Sample()
	fstest.TestTree(t, sample.Mem(42), sample)
}

func TestMemTreeAllocatesNothing(t *testing.T) {
	tree := fstest.Sample().Mem(42)
	passwd, link := tree.ID("/etc/passwd"), tree.ID("/links/absolute")
	c, name, miss := &fs.Cred{UID: 1000}, fs.Name("etc"), fs.Name("usr")
	buf, entries := make([]byte, 100), make([]fs.DirEntry, 10)
	var a fs.Attr
	n := testing.AllocsPerRun(100, func() {
		_ = tree.Getattr(passwd, &a)
		_, _ = tree.Lookup(c, 1, name)
		_, _ = tree.Lookup(c, 1, miss)
		_, _ = tree.Readlink(link)
		_, _, _ = tree.ReadDir(c, 1, 0, entries)
		_, _, _ = tree.Read(c, passwd, 3, buf, true)
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}
