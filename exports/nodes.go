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
	now   atomic.Int64  // seconds since the epoch, ticked once a second: calls need no finer clock
	dirty atomic.Bool   // somebody is new, or mounted or unmounted something
	peers atomic.Uint32 // how many there have been

	mu     sync.Mutex // guards byAddr, and the making of uses
	byAddr map[netip.Addr]*node

	lastSave, lastFailure int64 // of save, which uses them alone
}

// node is a client that has used a version.
type node struct {
	addr netip.Addr
	// uses is copied on write, so that calls read it without a lock.
	uses atomic.Pointer[[]*use]
	good atomic.Int64 // when it last said that it is up; 0 if it never did
	home atomic.Int64 // when it last mounted its home; 0 as above
	// initramfs is set when the node was seen to boot by an initramfs, which tells (Caller.Booting).
	initramfs atomic.Bool
	netboot   atomic.Pointer[fetched] // nil if it never fetched boot files

	troubles troubles
}

// use is a node's use of one version. Times are in seconds since the epoch.
type use struct {
	version *version
	image   string
	ref     Ref
	first   int64
	mounted atomic.Int64           // when the node last mounted it; 0 if that was not seen
	booted  atomic.Int64           // when it last did so while booting; 0 as above
	last    atomic.Int64           // when it last made a call with one of its handles
	began   atomic.Int64           // when it last booted it, as far as that can be told; 0 as above
	boots   atomic.Int64           // how often that was
	root    atomic.Pointer[string] // what it mounted then
	layer   atomic.Uint64          // what it booted it with, or else mounted it with last; 0 for none
	exact   atomic.Bool            // it asked for this version, not for the promoted one
	tally   *tally                 // what it did with it, which outlives a new name of the version
	path    atomic.Pointer[string] // what was mounted, until it is unmounted

	// boot is where it is noted what the node reads; nil unless it is booting.
	boot    atomic.Pointer[bootLog]
	bootEnd atomic.Int64
}

const (
	mostNodes = 16384 // beyond, the one that was silent for longest is forgotten
	mostUses  = 8     // versions remembered of one node: it runs one and may look at another
)

// tick sets the clock. It never goes back: a Pi without a clock of its own
// starts in the past, and the order of mounts and calls must stay what it was.
func (n *nodes) tick() { n.now.Store(max(n.now.Load(), time.Now().Unix())) }

func (n *nodes) get(addr netip.Addr) *node {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.byAddr[addr]
}

func (n *nodes) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.byAddr)
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
	oldest.uses.Store(&[]*use{}) // so that it is known again with its next call
}

// lastCall is when the node last made a call about a version, mounts included.
func (nd *node) lastCall() int64 {
	var last int64
	for _, u := range *nd.uses.Load() {
		last = max(last, u.last.Load(), u.mounted.Load())
	}
	return last
}

// use returns nd's use of v, making it if it is new. The caller holds nodes.mu.
func (nd *node) use(v *version, now int64) *use {
	uses := slices.Clone(*nd.uses.Load())
	fresh := &use{version: v, image: v.image.name, ref: Ref{Version: v.name, Digest: v.digest}, first: now, tally: new(tally)}
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
		fresh.booted.Store(uses[i].booted.Load())
		fresh.began.Store(uses[i].began.Load())
		fresh.boots.Store(uses[i].boots.Load())
		fresh.root.Store(uses[i].root.Load())
		fresh.layer.Store(uses[i].layer.Load())
		fresh.tally = uses[i].tally
		fresh.exact.Store(uses[i].exact.Load())
		fresh.last.Store(uses[i].last.Load())
		fresh.path.Store(uses[i].path.Load())
		fresh.bootEnd.Store(uses[i].bootEnd.Load())
		fresh.boot.Store(uses[i].boot.Load())
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
	Good time.Time  `json:"good,omitzero"` // when it last said that it is up
	Home time.Time  `json:"home,omitzero"` // when it last mounted its home
	// Netboot is what the node was given when it last fetched boot files; nil if it never did.
	Netboot *Netboot `json:"netboot,omitempty"`
	Trouble
}

// Use is what is known of a node's use of one version.
type Use struct {
	Ref
	Path      string    `json:"path,omitempty"`  // as mounted; empty if unmounted or not seen
	Exact     bool      `json:"exact,omitempty"` // the mount asked for this version, not for the promoted one
	FirstSeen time.Time `json:"first_seen"`
	Mounted   time.Time `json:"mounted,omitzero"`
	Booted    time.Time `json:"booted,omitzero"` // the last mount from an initramfs
	LastCall  time.Time `json:"last_call,omitzero"`
	Began     time.Time `json:"began,omitzero"`  // the last boot, by an initramfs or without
	Boots     int64     `json:"boots,omitempty"` // how often it booted this version
	Root      string    `json:"root,omitempty"`  // what it mounted when it booted
	Layer     uint64    `json:"layer,omitempty"` // that has the node's own files; 0 for none
	Tally
}

// A node that reboots says nothing: it mounts, and its calls then carry other
// handles. A node that looks at another version beside its root does just the
// same, and its root may be silent for long, as attributes are cached. They
// differ in that a node which boots by an initramfs mounts without credentials.
// Where that was not seen, only the lack of any call for longer than attributes
// may be cached shows that a version does not run any more.
const (
	settleTime = time.Minute        // after a boot into another version
	cacheTime  = 25 * time.Hour     // after any other mount of another version
	goneTime   = 7 * 24 * time.Hour // a node that was silent for so long is taken to be gone
)

// Running returns the versions that the node runs at the time now, as far as
// the record shows it: first that which it booted last, as far as that was seen.
func (n *Node) Running(now time.Time) []Use {
	var running []Use
	for _, u := range n.Uses {
		if n.runs(u, now) {
			running = append(running, u)
		}
	}
	slices.SortStableFunc(running, func(a, b Use) int {
		return cmp.Or(b.booted().Compare(a.booted()), b.Mounted.Compare(a.Mounted), b.LastCall.Compare(a.LastCall))
	})
	return running
}

// Needs reports whether the node needs a version at the time now: it runs it, or boots it and has not mounted its root yet.
func (n *Node) Needs(version Ref, now time.Time) bool {
	return n.fetches(version, now) || slices.ContainsFunc(n.Running(now), func(u Use) bool { return version.Is(u.Ref) })
}

// fetches reports whether the node fetches boot files of a version at the time now.
func (n *Node) fetches(version Ref, now time.Time) bool {
	f := n.Netboot
	return f != nil && version.Is(f.Ref) && now.Sub(f.At) < bootFilesMost*time.Second
}

// booted is when the node booted the version as far as that is known. A version that nobody saw it
// mount was mounted while the server was down, or so shortly before it was killed that it was
// not saved.
func (u Use) booted() time.Time {
	if u.Mounted.IsZero() {
		return u.FirstSeen
	}
	return u.Booted
}

// start is when the node booted the version, or else mounted it last.
func (u Use) start() time.Time {
	if u.Began.IsZero() {
		return u.Mounted
	}
	return u.Began
}

func (n *Node) runs(u Use, now time.Time) bool {
	if now.Sub(u.seen()) > goneTime {
		return false
	}
	for _, other := range n.Uses {
		gone := other.Booted.After(u.seen()) && now.Sub(other.Booted) > settleTime ||
			other.Mounted.After(u.seen()) && now.Sub(other.Mounted) > cacheTime
		if gone {
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
	// saveInterval is how old, in seconds, times and counts on disk may be while calls come
	// in, for so many nodes: flash cards wear. A boot is saved before it goes on, and what is new
	// otherwise within a second.
	saveInterval = 15
	saveNodes    = 250
)

// nodesOnDisk is what nodes.json holds.
type nodesOnDisk struct {
	Format int    `json:"format"`
	Nodes  []Node `json:"nodes"`
}

// Nodes reads who uses the store, as the server last saved it: before it went on for a boot,
// at most a second ago for what else is new, some seconds to a minute for the time of the last call.
func (s *State) Nodes() ([]Node, error) {
	nodes, err := s.savedNodes()
	if err != nil {
		return nil, err
	}
	return replay(s.dir, nodes)
}

func (s *State) savedNodes() ([]Node, error) {
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

// load reads the record of all images. One that is damaged is set aside: the
// nodes that make calls will be known again, and they need their server now.
func (n *nodes) load(t *table, log *zap.Logger) {
	n.tick()
	n.byAddr = map[netip.Addr]*node{}
	for _, img := range t.images {
		saved, err := img.state.savedNodes()
		if err != nil {
			path := filepath.Join(img.state.dir, nodesFile)
			log.Error("starting with no record of nodes, and keeping the old one beside it", zap.Error(err), zap.NamedError("rename", os.Rename(path, path+".damaged")))
		}
		if saved, err = replay(img.state.dir, saved); err != nil {
			log.Error("starting without the last boots of nodes", zap.Error(err))
		}
		for _, s := range saved {
			nd := n.node(s.Addr)
			uses := *nd.uses.Load()
			for _, u := range s.Uses {
				uses = append(uses, restoreUse(img.name, u))
				if !u.Booted.IsZero() {
					nd.initramfs.Store(true)
				}
				n.now.Store(max(n.now.Load(), u.seen().Unix()))
			}
			nd.uses.Store(&uses)
			nd.good.Store(max(nd.good.Load(), seconds(s.Good)))
			nd.home.Store(max(nd.home.Load(), seconds(s.Home)))
			nd.troubles.restore(s.Trouble)
			if known := nd.netboot.Load(); s.Netboot != nil && (known == nil || known.At.Before(s.Netboot.At)) {
				nd.netboot.Store(&fetched{img.name, *s.Netboot})
			}
		}
	}
}

func restoreUse(image string, saved Use) *use {
	u := &use{image: image, ref: saved.Ref, first: seconds(saved.FirstSeen), tally: new(tally)}
	u.tally.set(saved.Tally)
	u.began.Store(seconds(saved.Began))
	u.boots.Store(saved.Boots)
	if saved.Root != "" {
		u.root.Store(&saved.Root)
	}
	u.layer.Store(saved.Layer)
	u.mounted.Store(seconds(saved.Mounted))
	u.booted.Store(seconds(saved.Booted))
	u.last.Store(seconds(saved.LastCall))
	u.exact.Store(saved.Exact)
	if saved.Path != "" {
		u.path.Store(&saved.Path)
	}
	return u
}

// saveBoot makes it durable that the node booted a version. That it cannot is logged, and no
// reason for the node not to boot.
func (n *nodes) saveBoot(nd *node, u *use, log *zap.Logger) {
	line := lineOf(nd.addr, u)
	if line == nil {
		return
	}
	if err := u.version.image.journal.add(line); err != nil {
		log.Error("cannot save that a node booted", zap.Stringer("node", nd.addr), zap.Error(err))
	}
}

// save writes the record to each image's store, if there is news.
func (n *nodes) save(images []*imageView, log *zap.Logger, now bool) {
	at := n.now.Load()
	interval := int64(saveInterval * (1 + n.count()/saveNodes))
	if !now && at-n.lastFailure < interval {
		return // a full disk is not emptied within a second
	}
	fresh := n.dirty.Load()
	if !now && !fresh && at-n.lastSave < interval {
		return
	}
	if !now && !fresh && !slices.ContainsFunc(n.all(), func(nd *node) bool { return max(nd.lastCall(), nd.troubles.last()) >= n.lastSave }) {
		return
	}
	n.lastSave = at
	n.dirty.Store(false)
	for i, img := range images {
		err := img.journal.replacing(func() error {
			disk := nodesOnDisk{Format: nodesFormat, Nodes: recordOf(img.name, i == 0, n.all())}
			return replaceJSON(filepath.Join(img.state.dir, nodesFile), disk)
		})
		if err != nil {
			n.dirty.Store(true)
			n.lastFailure = at
			log.Error("cannot save the record of nodes", zap.String("image", img.name), zap.Error(err))
		}
	}
}

func usersOf(image string, all []*node) []Node {
	list := []Node{}
	for _, nd := range all {
		saved := Node{Addr: nd.addr, Good: instant(nd.good.Load()), Home: instant(nd.home.Load()), Trouble: nd.troubles.get()}
		for _, u := range *nd.uses.Load() {
			if u.image == image {
				saved.Uses = append(saved.Uses, u.export())
			}
		}
		if f := nd.netboot.Load(); f != nil && f.image == image {
			saved.Netboot = &f.Netboot
		}
		if saved.Uses != nil || saved.Netboot != nil && time.Since(saved.Netboot.At) < goneTime {
			list = append(list, saved)
		}
	}
	return list
}

func (u *use) export() Use {
	e := Use{
		Ref:       u.ref,
		Exact:     u.exact.Load(),
		FirstSeen: instant(u.first),
		Mounted:   instant(u.mounted.Load()),
		Booted:    instant(u.booted.Load()),
		LastCall:  instant(u.last.Load()),
		Began:     instant(u.began.Load()),
		Boots:     u.boots.Load(),
		Layer:     u.layer.Load(),
		Tally:     u.tally.sum(),
	}
	if path := u.path.Load(); path != nil {
		e.Path = *path
	}
	if root := u.root.Load(); root != nil {
		e.Root = *root
	}
	return e
}

// instant returns a time in seconds since the epoch as a time.Time; 0 is none.
func instant(sec int64) time.Time {
	if sec == 0 {
		return time.Time{}
	}
	return time.Unix(sec, 0).UTC()
}

func seconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}
