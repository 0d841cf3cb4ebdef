package fstest

import (
	"fmt"
	"path"
	"strings"

	"github.com/rootnfsd/rootnfsd/fs"
)

// MemTree is a read-only fs.Tree in memory. It is built first, by one
// goroutine, and used afterwards, by any number. The methods that build it take
// slash-separated paths whose parents exist; they panic on one that makes no
// sense, because that is a mistake in a test.
//
// Its calls allocate nothing, so that a server over it can be measured.
type MemTree struct {
	fsid  uint64
	nodes []*memNode // of NodeID i+1
	used  uint64
}

var _ fs.Tree = (*MemTree)(nil)

type memNode struct {
	attr    fs.Attr
	content []byte // of a file, or the text of a symlink
	parent  fs.NodeID
	entries []memEntry // of a directory, in the order in which they were made
	names   map[string]fs.NodeID
}

type memEntry struct {
	name []byte
	id   fs.NodeID
}

// NewMemTree returns a tree of a root directory, owned by root with mode 0755.
// The identity fsid must not be zero.
func NewMemTree(fsid uint64) *MemTree {
	t := &MemTree{fsid: fsid}
	t.add(1, fs.Attr{Kind: fs.Directory, Mode: 0o755}, nil)
	return t
}

// Mkdir makes a directory and returns its id.
func (t *MemTree) Mkdir(p string, mode uint32) fs.NodeID {
	return t.make(p, fs.Attr{Kind: fs.Directory, Mode: mode}, nil)
}

// WriteFile makes a file with the content given, which it keeps.
func (t *MemTree) WriteFile(p string, mode uint32, content []byte) fs.NodeID {
	return t.make(p, fs.Attr{Kind: fs.Regular, Mode: mode}, content)
}

// Symlink makes a symlink of mode 0777.
func (t *MemTree) Symlink(p, text string) fs.NodeID {
	return t.make(p, fs.Attr{Kind: fs.Symlink, Mode: 0o777}, []byte(text))
}

// Mknod makes a device, a FIFO or a socket.
func (t *MemTree) Mknod(p string, kind fs.Kind, mode, major, minor uint32) fs.NodeID {
	return t.make(p, fs.Attr{Kind: kind, Mode: mode, Major: major, Minor: minor}, nil)
}

// Link gives the object id, which is no directory, another name.
func (t *MemTree) Link(p string, id fs.NodeID) {
	n := t.node(id)
	if n.attr.Kind == fs.Directory {
		panic("fstest: hard link to a directory: " + p)
	}
	n.attr.Nlink++
	t.enter(p, id)
}

// SetAttr changes owner, mode and times of an object: change gets its
// attributes and may alter those.
func (t *MemTree) SetAttr(id fs.NodeID, change func(*fs.Attr)) { change(&t.node(id).attr) }

// ID returns the object at a path, following no links.
func (t *MemTree) ID(p string) fs.NodeID {
	id := t.Root()
	for name := range strings.SplitSeq(p, "/") {
		if name == "" {
			continue
		}
		next, ok := t.node(id).names[name]
		if !ok {
			panic(fmt.Sprintf("fstest: no %s in %s", name, p))
		}
		id = next
	}
	return id
}

func (t *MemTree) make(p string, a fs.Attr, content []byte) fs.NodeID {
	parent := t.ID(path.Dir(p))
	id := t.add(parent, a, content)
	t.enter(p, id)
	if a.Kind == fs.Directory {
		t.node(parent).attr.Nlink++
	}
	return id
}

func (t *MemTree) add(parent fs.NodeID, a fs.Attr, content []byte) fs.NodeID {
	id := fs.NodeID(len(t.nodes) + 1)
	a.FSID, a.FileID, a.Nlink = t.fsid, uint64(id), 1
	a.Size = uint64(len(content))
	n := &memNode{content: content, parent: parent}
	switch a.Kind {
	case fs.Directory:
		a.Nlink, a.Size, n.names = 2, 4096, make(map[string]fs.NodeID)
	case fs.Regular:
		a.Used = a.Size
		t.used += a.Size
	}
	n.attr = a
	t.nodes = append(t.nodes, n)
	return id
}

func (t *MemTree) enter(p string, id fs.NodeID) {
	dir, name := t.node(t.ID(path.Dir(p))), path.Base(p)
	if _, taken := dir.names[name]; taken || dir.names == nil || name == "/" || name == "." || name == ".." {
		panic("fstest: cannot make " + p)
	}
	dir.names[name] = id
	dir.entries = append(dir.entries, memEntry{[]byte(name), id})
}

// node returns the object id, or nil if there is none.
func (t *MemTree) node(id fs.NodeID) *memNode {
	if id == 0 || uint64(id) > uint64(len(t.nodes)) {
		return nil
	}
	return t.nodes[id-1]
}

func (t *MemTree) dir(id fs.NodeID) (*memNode, error) {
	n := t.node(id)
	if n == nil {
		return nil, fs.ErrStale
	}
	if n.attr.Kind != fs.Directory {
		return nil, fs.ErrNotDir
	}
	return n, nil
}

// FSID implements fs.Tree.
func (t *MemTree) FSID() uint64 { return t.fsid }

// Root implements fs.Tree.
func (t *MemTree) Root() fs.NodeID { return 1 }

// Getattr implements fs.Tree.
func (t *MemTree) Getattr(id fs.NodeID, a *fs.Attr) error {
	n := t.node(id)
	if n == nil {
		return fs.ErrStale
	}
	*a = n.attr
	return nil
}

// Lookup implements fs.Tree.
func (t *MemTree) Lookup(c *fs.Cred, dir fs.NodeID, name fs.Name) (fs.NodeID, error) {
	n, err := t.dir(dir)
	if err != nil {
		return 0, err
	}
	if fs.Granted(&n.attr, c)&fs.MayExec == 0 {
		return 0, fs.ErrAccess
	}
	if name.IsDot() {
		return dir, nil
	}
	if name.IsDotDot() {
		return n.parent, nil
	}
	if id, ok := n.names[string(name)]; ok {
		return id, nil
	}
	return 0, fs.ErrNotExist
}

// Readlink implements fs.Tree.
func (t *MemTree) Readlink(id fs.NodeID) ([]byte, error) {
	n := t.node(id)
	if n == nil {
		return nil, fs.ErrStale
	}
	if n.attr.Kind != fs.Symlink {
		return nil, fs.ErrInvalid
	}
	return n.content, nil
}

var dot, dotDot = []byte("."), []byte("..")

// ReadDir implements fs.Tree. The cookie of an entry is its place in the
// listing, from 1.
func (t *MemTree) ReadDir(c *fs.Cred, dir fs.NodeID, cookie uint64, entries []fs.DirEntry) (int, bool, error) {
	n, err := t.dir(dir)
	if err != nil {
		return 0, false, err
	}
	if fs.Granted(&n.attr, c)&fs.MayRead == 0 {
		return 0, false, fs.ErrAccess
	}
	total := uint64(len(n.entries)) + 2
	if cookie > total {
		return 0, false, fs.ErrInvalid
	}
	i := 0
	for ; i < len(entries) && cookie < total; i++ {
		name, id := dot, dir
		switch {
		case cookie == 1:
			name, id = dotDot, n.parent
		case cookie > 1:
			name, id = n.entries[cookie-2].name, n.entries[cookie-2].id
		}
		cookie++
		entries[i] = fs.DirEntry{ID: id, FileID: uint64(id), Cookie: cookie, Kind: t.node(id).attr.Kind, Name: name}
	}
	return i, cookie == total, nil
}

// Read implements fs.Tree. It never waits.
func (t *MemTree) Read(c *fs.Cred, id fs.NodeID, off uint64, p []byte, nowait bool) (int, bool, error) {
	n := t.node(id)
	switch {
	case n == nil:
		return 0, false, fs.ErrStale
	case n.attr.Kind == fs.Directory:
		return 0, false, fs.ErrIsDir
	case n.attr.Kind != fs.Regular:
		return 0, false, fs.ErrInvalid
	case !fs.CanRead(&n.attr, c):
		return 0, false, fs.ErrAccess
	case off >= uint64(len(n.content)):
		return 0, true, nil
	}
	k := copy(p, n.content[off:])
	return k, off+uint64(k) == uint64(len(n.content)), nil
}

// Statfs implements fs.Tree.
func (t *MemTree) Statfs() fs.Statfs {
	return fs.Statfs{Bytes: t.used, Files: uint64(len(t.nodes))}
}
