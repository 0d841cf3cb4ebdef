package exports

import (
	"sync"

	"github.com/rootnfsd/rootnfsd/fs"
)

// Reading is a tree that can be written to as one that is read: for the boot files of a draft, which whoever gives them to nodes finds by
// name, as those of a version. Its objects are numbered as they are
// found, so it is made for one file, and then let go of. Its methods may be called by many goroutines at once.
type Reading struct {
	in fs.WritableTree

	mu      sync.Mutex // guards the rest
	handles []fs.Handle
	ids     map[fs.Handle]fs.NodeID
}

var _ fs.Tree = (*Reading)(nil)

// NewReading returns a tree that reads another one.
func NewReading(tree fs.WritableTree) *Reading {
	r := &Reading{in: tree, ids: map[fs.Handle]fs.NodeID{}}
	r.id(tree.Root())
	return r
}

// id returns the number of an object; that of the first one is 1.
func (r *Reading) id(h fs.Handle) fs.NodeID {
	r.mu.Lock()
	defer r.mu.Unlock()
	id, ok := r.ids[h]
	if !ok {
		r.handles = append(r.handles, h)
		id = fs.NodeID(len(r.handles))
		r.ids[h] = id
	}
	return id
}

func (r *Reading) handle(id fs.NodeID) (fs.Handle, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if id < 1 || id > fs.NodeID(len(r.handles)) {
		return fs.Handle{}, fs.ErrStale
	}
	return r.handles[id-1], nil
}

// FSID implements fs.Tree.
func (r *Reading) FSID() uint64 { return r.in.FSID() }

// Root implements fs.Tree.
func (r *Reading) Root() fs.NodeID { return 1 }

// Getattr implements fs.Tree.
func (r *Reading) Getattr(id fs.NodeID, a *fs.Attr) error {
	h, err := r.handle(id)
	if err != nil {
		return err
	}
	return r.in.Getattr(h, a)
}

// Lookup implements fs.Tree.
func (r *Reading) Lookup(c *fs.Cred, dir fs.NodeID, name fs.Name) (fs.NodeID, error) {
	h, err := r.handle(dir)
	if err != nil {
		return 0, err
	}
	var a fs.Attr
	if h, err = r.in.Lookup(c, h, name, &a); err != nil {
		return 0, err
	}
	return r.id(h), nil
}

// Readlink implements fs.Tree.
func (r *Reading) Readlink(id fs.NodeID) ([]byte, error) {
	h, err := r.handle(id)
	if err != nil {
		return nil, err
	}
	return r.in.Readlink(&fs.Cred{}, h, nil)
}

// ReadDir implements fs.Tree. Entries whose objects are gone by the time that they are looked at are left out.
func (r *Reading) ReadDir(c *fs.Cred, dir fs.NodeID, cookie uint64, entries []fs.DirEntry) (n int, eof bool, err error) {
	h, err := r.handle(dir)
	if err != nil {
		return 0, false, err
	}
	found := make([]fs.HostEntry, len(entries))
	for n == 0 && !eof && len(entries) > 0 {
		var got int
		if got, eof, err = r.in.ReadDir(c, h, cookie, true, found); err != nil || got == 0 {
			return 0, eof, err
		}
		for i := range found[:got] {
			e := &found[i]
			cookie = e.Cookie
			if e.Handle == (fs.Handle{}) {
				continue
			}
			entries[n] = fs.DirEntry{ID: r.id(e.Handle), FileID: e.FileID, Cookie: e.Cookie, Kind: e.Attr.Kind, Name: append([]byte(nil), e.Name...)}
			n++
		}
	}
	return n, eof, nil
}

// Read implements fs.Tree.
func (r *Reading) Read(c *fs.Cred, id fs.NodeID, off uint64, p []byte, nowait bool) (n int, eof bool, err error) {
	h, err := r.handle(id)
	if err != nil {
		return 0, false, err
	}
	if nowait {
		var a fs.Attr
		return r.in.ReadNow(c, h, off, p, &a)
	}
	return r.in.Read(c, h, off, p)
}

// Statfs implements fs.Tree.
func (r *Reading) Statfs() fs.Statfs {
	s, _ := r.in.Statfs(&fs.Cred{}) // what cannot be told is nothing
	return s
}
