package exports

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// nodes is the record of who uses what, learnt from the traffic alone. It is
// shared by all images; each image's part is saved with its store, so that
// removing a version can be refused while the server is down, and so that a
// server that was killed knows its nodes again.
type nodes struct {
	now   atomic.Int64 // seconds since the epoch, ticked once a second: calls need no finer clock
	dirty atomic.Bool  // somebody is new, or mounted or unmounted something

	mu     sync.Mutex // guards byAddr, and the making of uses
	byAddr map[netip.Addr]*node

	lastSave int64 // used by the saving goroutine only
}

// node is a client that has used a version.
type node struct {
	addr netip.Addr
	// uses is copied on write, so that calls read it without a lock.
	uses atomic.Pointer[[]*use]
}

// use is a node's use of one version. Times are in seconds since the epoch.
type use struct {
	version *version
	image   string
	ref     Ref
	first   int64
	mounted atomic.Int64           // when the node last mounted it; 0 if that was not seen
	last    atomic.Int64           // when it last made a call with one of its handles
	path    atomic.Pointer[string] // what was mounted, until it is unmounted
}

const (
	mostNodes = 65536 // beyond, the one that was silent for longest is forgotten
	mostUses  = 8     // versions remembered of one node: it runs one and may look at another
)

func (n *nodes) tick() { n.now.Store(time.Now().Unix()) }

func (n *nodes) get(addr netip.Addr) *node {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.byAddr[addr]
}

func (n *nodes) all() []*node {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := make([]*node, 0, len(n.byAddr))
	for _, node := range n.byAddr {
		list = append(list, node)
	}
	slices.SortFunc(list, func(a, b *node) int { return a.addr.Compare(b.addr) })
	return list
}

// use returns p's use of v, making node and use if they are new.
func (n *nodes) use(p *Peer, v *version) *use {
	n.mu.Lock()
	defer n.mu.Unlock()
	nd := n.node(p.addr)
	p.node.Store(nd)
	u := nd.use(v, n.now.Load())
	n.dirty.Store(true)
	return u
}

// node returns the node at addr, making it if need be. The caller holds n.mu.
func (n *nodes) node(addr netip.Addr) *node {
	if nd := n.byAddr[addr]; nd != nil {
		return nd
	}
	if len(n.byAddr) >= mostNodes {
		n.forgetOldest()
	}
	nd := &node{addr: addr}
	nd.uses.Store(&[]*use{})
	n.byAddr[addr] = nd
	return nd
}

func (n *nodes) forgetOldest() {
	var oldest *node
	for _, nd := range n.byAddr {
		if oldest == nil || nd.lastCall() < oldest.lastCall() {
			oldest = nd
		}
	}
	delete(n.byAddr, oldest.addr)
}

func (nd *node) lastCall() int64 {
	var last int64
	for _, u := range *nd.uses.Load() {
		last = max(last, u.last.Load())
	}
	return last
}

// use returns nd's use of v, making it if it is new. The caller holds nodes.mu.
func (nd *node) use(v *version, now int64) *use {
	uses := slices.Clone(*nd.uses.Load())
	fresh := &use{version: v, image: v.image.name, ref: Ref{Version: v.name, Digest: v.digest}, first: now}
	i := slices.IndexFunc(uses, func(u *use) bool { return u.image == fresh.image && u.ref.Digest == fresh.ref.Digest })
	switch {
	case i < 0:
		uses = append(uses, fresh)
	case uses[i].version == v:
		return uses[i]
	default:
		// Known from disk, or from before the version was given another name.
		fresh.first = uses[i].first
		fresh.mounted.Store(uses[i].mounted.Load())
		fresh.last.Store(uses[i].last.Load())
		fresh.path.Store(uses[i].path.Load())
		uses[i] = fresh
	}
	if len(uses) > mostUses {
		oldest := slices.MinFunc(uses[:len(uses)-1], func(a, b *use) int { return cmp.Compare(a.last.Load(), b.last.Load()) })
		uses = slices.DeleteFunc(uses, func(u *use) bool { return u == oldest })
	}
	nd.uses.Store(&uses)
	return fresh
}

// Node is what is known of a node's use of one image.
type Node struct {
	Addr netip.Addr `json:"address"`
	Uses []Use      `json:"uses"`
}

// Use is what is known of a node's use of one version.
type Use struct {
	Ref
	Path      string    `json:"path,omitempty"` // as mounted; empty if unmounted or not seen
	FirstSeen time.Time `json:"first_seen"`
	Mounted   time.Time `json:"mounted,omitzero"`
	LastCall  time.Time `json:"last_call,omitzero"`
}

// A node that reboots says nothing: it mounts, and its calls then carry other
// handles. So a version still counts as running on a node for settleTime after
// the node mounted another one, until it is clear that no call will come. A
// node that was silent for goneTime is taken to be gone.
const (
	settleTime = time.Minute
	goneTime   = 7 * 24 * time.Hour
)

// Running returns the versions that the node runs at the time now, as far as
// the record shows it, the last mounted first.
func (n *Node) Running(now time.Time) []Use {
	var running []Use
	for _, u := range n.Uses {
		if n.runs(u, now) {
			running = append(running, u)
		}
	}
	slices.SortStableFunc(running, func(a, b Use) int { return b.Mounted.Compare(a.Mounted) })
	return running
}

func (n *Node) runs(u Use, now time.Time) bool {
	if now.Sub(u.seen()) > goneTime {
		return false
	}
	for _, other := range n.Uses {
		superseded := other.Mounted.After(u.Mounted) && other.Mounted.After(u.LastCall)
		if superseded && now.Sub(other.Mounted) > settleTime {
			return false
		}
	}
	return true
}

// seen is when the use was last heard of.
func (u Use) seen() time.Time {
	if u.Mounted.After(u.LastCall) {
		return u.Mounted
	}
	return u.LastCall
}

const (
	nodesFile   = "nodes.json"
	nodesFormat = 1
	// saveInterval is how old the times on disk may be while calls come in. A
	// node or mount that is new is saved within a second.
	saveInterval = 15
)

// nodesOnDisk is what nodes.json holds.
type nodesOnDisk struct {
	Format int    `json:"format"`
	Nodes  []Node `json:"nodes"`
}

// Nodes reads who uses the store, as the server last saved it: at most a second
// ago for what is new, 15 seconds for the time of the last call.
func (s *State) Nodes() ([]Node, error) {
	path := filepath.Join(s.dir, nodesFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var disk nodesOnDisk
	if err := json.Unmarshal(b, &disk); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w; delete it and the nodes that make calls will be known again", path, err)
	}
	if disk.Format != nodesFormat {
		return nil, fmt.Errorf("%s: format %d is not known to this version of rootnfsd, which writes format %d", path, disk.Format, nodesFormat)
	}
	return disk.Nodes, nil
}

// load reads the record of all images.
func (n *nodes) load(t *table) error {
	n.tick()
	n.byAddr = map[netip.Addr]*node{}
	for _, img := range t.images {
		saved, err := img.state.Nodes()
		if err != nil {
			return err
		}
		for _, s := range saved {
			nd := n.node(s.Addr)
			uses := *nd.uses.Load()
			for _, u := range s.Uses {
				uses = append(uses, restoreUse(img.name, u))
			}
			nd.uses.Store(&uses)
		}
	}
	return nil
}

func restoreUse(image string, saved Use) *use {
	u := &use{image: image, ref: saved.Ref, first: saved.FirstSeen.Unix()}
	if !saved.Mounted.IsZero() {
		u.mounted.Store(saved.Mounted.Unix())
	}
	if !saved.LastCall.IsZero() {
		u.last.Store(saved.LastCall.Unix())
	}
	if saved.Path != "" {
		u.path.Store(&saved.Path)
	}
	return u
}

// save writes the record to each image's store, if there is news.
func (n *nodes) save(images []*imageView, log *zap.Logger, now bool) {
	fresh := n.dirty.Swap(false)
	at := n.now.Load()
	if !now && !fresh && at-n.lastSave < saveInterval {
		return
	}
	all := n.all()
	if !now && !fresh && !slices.ContainsFunc(all, func(nd *node) bool { return nd.lastCall() >= n.lastSave }) {
		return
	}
	n.lastSave = at
	for _, img := range images {
		disk := nodesOnDisk{Format: nodesFormat, Nodes: usersOf(img.name, all)}
		if err := replaceJSON(filepath.Join(img.state.dir, nodesFile), disk); err != nil {
			n.dirty.Store(true)
			log.Error("cannot save the record of nodes", zap.String("image", img.name), zap.Error(err))
		}
	}
}

func usersOf(image string, all []*node) []Node {
	list := []Node{}
	for _, nd := range all {
		saved := Node{Addr: nd.addr}
		for _, u := range *nd.uses.Load() {
			if u.image == image {
				saved.Uses = append(saved.Uses, u.export())
			}
		}
		if saved.Uses != nil {
			list = append(list, saved)
		}
	}
	return list
}

func (u *use) export() Use {
	e := Use{Ref: u.ref, FirstSeen: time.Unix(u.first, 0).UTC()}
	if at := u.mounted.Load(); at != 0 {
		e.Mounted = time.Unix(at, 0).UTC()
	}
	if at := u.last.Load(); at != 0 {
		e.LastCall = time.Unix(at, 0).UTC()
	}
	if path := u.path.Load(); path != nil {
		e.Path = *path
	}
	return e
}
