package exports

import (
	"net/netip"
	"strings"
	"sync"
	"time"
)

// Trouble is what went wrong when a node asked for something, since it was first seen. It is kept of
// addresses that may mount.
type Trouble struct {
	// AskedNFS2 and AskedNFS4 count the calls of those versions of NFS, and WrongVersionAt is when
	// the last of them came: mount(8) tries 4 first where it is not told vers=3.
	AskedNFS2      uint64    `json:"asked_nfs2,omitempty"`
	AskedNFS4      uint64    `json:"asked_nfs4,omitempty"`
	WrongVersionAt time.Time `json:"wrong_version_at,omitzero"`
	// MountErrors counts the mounts that were refused.
	MountErrors uint64    `json:"mount_errors,omitempty"`
	LastError   string    `json:"last_error,omitempty"` // of a mount, or what it went without
	LastErrorAt time.Time `json:"last_error_at,omitzero"`
}

// maxErrorText bounds LastError, in bytes: a path of the client's is in it.
const maxErrorText = 256

// troubles is the Trouble of a node while the server runs.
type troubles struct {
	mu sync.Mutex // guards Trouble
	Trouble
}

// NoteWrongVersion notes that p made a call of a version of NFS that is not served.
func (p *Peer) NoteWrongVersion(vers uint32) {
	p.nodes.trouble(p, func(t *Trouble, now time.Time) {
		switch vers {
		case 2:
			t.AskedNFS2++
		case 4:
			t.AskedNFS4++
		}
		t.WrongVersionAt = now
	})
}

// noteMountError notes that a mount of p's was refused.
func (p *Peer) noteMountError(err error) {
	p.nodes.trouble(p, func(t *Trouble, now time.Time) {
		t.MountErrors++
		t.LastError, t.LastErrorAt = clip(err.Error(), maxErrorText), now
	})
}

// noteStranger notes why what booted at the address of a node is not that node.
func (p *Peer) noteStranger(why string) {
	p.nodes.trouble(p, func(t *Trouble, now time.Time) { t.LastError, t.LastErrorAt = clip(why, maxErrorText), now })
}

// clip returns what fits of s into so many bytes.
func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	const more = "…"
	return strings.ToValidUTF8(s[:most-len(more)], "") + more
}

// trouble notes something of the node at p's address, which is in the record from then on. Only who
// may mount gets there; the record is bounded, and those without calls are the first to go.
func (n *nodes) trouble(p *Peer, note func(t *Trouble, now time.Time)) {
	if !p.allowed {
		return
	}
	nd, fresh := n.known(p.addr)
	nd.troubles.mu.Lock()
	defer nd.troubles.mu.Unlock()
	note(&nd.troubles.Trouble, instant(n.now.Load()))
	if fresh {
		n.dirty.Store(true) // else it is saved when the next thing is
	}
}

// known returns the node at an address, which is in the record from then on, and whether it was not there before.
func (n *nodes) known(addr netip.Addr) (nd *node, fresh bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	fresh = n.byAddr[addr] == nil
	return n.node(addr), fresh
}

// last is when there was trouble last, in seconds since the epoch; 0 if there never was.
func (t *troubles) last() int64 {
	trouble := t.get()
	return seconds(trouble.seen())
}

func (t *troubles) get() Trouble {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.Trouble
}

// restore takes over what was saved, of several records the newest.
func (t *troubles) restore(saved Trouble) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.seen().Before(saved.seen()) {
		t.Trouble = saved
	}
}

// seen is when there was trouble last.
func (t *Trouble) seen() time.Time { return later(t.WrongVersionAt, t.LastErrorAt) }

// recordOf is what is known of the nodes of an image: those that use it and, in the first image, those
// that use none but had trouble, not so long ago that they are taken to be gone.
func recordOf(image string, first bool, all []*node) []Node {
	list := usersOf(image, all)
	if !first {
		return list
	}
	for _, nd := range all {
		t := nd.troubles.get()
		f := nd.netboot.Load() // which is in the list of its image while it is not too old
		if len(*nd.uses.Load()) == 0 && (f == nil || time.Since(f.At) >= goneTime) && time.Since(t.seen()) < goneTime {
			list = append(list, Node{Addr: nd.addr, Trouble: t})
		}
	}
	return list
}

// add adds the trouble that a node had at another address.
func (t *Trouble) add(other Trouble) {
	t.AskedNFS2 += other.AskedNFS2
	t.AskedNFS4 += other.AskedNFS4
	t.WrongVersionAt = later(t.WrongVersionAt, other.WrongVersionAt)
	t.MountErrors += other.MountErrors
	if other.LastErrorAt.After(t.LastErrorAt) {
		t.LastError, t.LastErrorAt = other.LastError, other.LastErrorAt
	}
}

// hints say what came of it since the node booted.
func (t *Trouble) hints(booted time.Time) []string {
	var list []string
	if t.WrongVersionAt.Add(time.Minute).After(booted) && t.AskedNFS2+t.AskedNFS4 > 0 { // it tries just before it mounts
		list = append(list, "it tries other versions of NFS first: add vers=3 to its mount options")
	}
	if !t.LastErrorAt.IsZero() && !t.LastErrorAt.Before(booted) {
		list = append(list, t.LastError)
	}
	return list
}
