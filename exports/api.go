package exports

import (
	"net/netip"

	"github.com/rootnfsd/rootnfsd/fs"
)

// MaxHandle is the longest file handle: what NFSv3 allows (RFC 1813, section 2.4).
const MaxHandle = 64

// Exports is the table of what is served. All methods may be called by many goroutines at once.
type Exports struct{}

// Peer is a client as the network knows it: an address. It is shared by all
// connections from that address; a connection asks for it once.
type Peer struct{}

// Peer returns the record of the client at addr.
func (x *Exports) Peer(addr netip.Addr) *Peer { panic("todo") }

// Object is what a handle names.
type Object struct {
	Tree fs.Tree
	ID   fs.NodeID
	exp  *struct{}
}

// Resolve decodes a handle that p presents and fills o. It allocates nothing and takes no lock.
// Errors: fs.ErrBadHandle for a handle that this server never made, fs.ErrStale where the
// version is gone, fs.ErrAccess where p's address may not use the export.
func (x *Exports) Resolve(p *Peer, handle []byte, o *Object) error { panic("todo") }

// AppendHandle appends the handle of another object in the same tree to b (at most MaxHandle bytes).
func (o *Object) AppendHandle(b []byte, id fs.NodeID) []byte { panic("todo") }

// Mount resolves a mount path for p and returns the handle of its root. Errors: fs.ErrNotExist,
// fs.ErrAccess, fs.ErrNotDir, fs.ErrNameTooLong, fs.ErrInvalid.
func (x *Exports) Mount(p *Peer, path string) (handle []byte, err error) { panic("todo") }

// Unmount forgets that p mounted path; UnmountAll forgets all its mounts (they are bookkeeping for showmount -a).
func (x *Exports) Unmount(p *Peer, path string) { panic("todo") }

// UnmountAll forgets all mounts of p.
func (x *Exports) UnmountAll(p *Peer) { panic("todo") }

// MountEntry is one line of showmount -a.
type MountEntry struct{ Host, Path string }

// Mounts lists the mounts known, bounded.
func (x *Exports) Mounts() []MountEntry { panic("todo") }

// Listing is one line of showmount -e: a path and who may mount it.
type Listing struct {
	Path    string
	Clients []string
}

// List returns the paths that can be mounted.
func (x *Exports) List() []Listing { panic("todo") }
