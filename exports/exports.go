package exports

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/rootnfsd/rootnfsd/fs"
)

// Store is where versions come from. Versions lists them all, cheaply; it is
// called again whenever the table is made anew.
type Store interface {
	Versions() ([]Version, error)
}

// Version is a sealed version as a Store lists it.
type Version struct {
	Name   string
	Digest fs.Digest
	// Layout says where the content lies. When it is another one, what holds the
	// content is about to be deleted; Open then opens it where it lies now.
	Layout fs.Digest
	// Open opens the content with this very digest, whatever has happened to the
	// name since. It is called at most once at a time, and again only after it
	// failed.
	Open func() (fs.Tree, error)
	// Err is why the version cannot be used just now; Digest and Open are then
	// not set.
	Err error
}

// Image is one store that is served.
type Image struct {
	Name     string // mounted as /Name and /Name@version
	Dir      string // absolute path of the store, mounted by this too
	StateDir string // where rollout.json, nodes.json and the key are kept
	Versions Store
	Files    NodeFiles // makes what differs from node to node; nil for nothing
	AnyPort  bool      // these go to any port of a node, not only to those of its root
}

// Config is what New needs.
type Config struct {
	Images []Image        // the first one is also mounted as /
	Allow  []netip.Prefix // who may mount; empty means nobody
	Warm   bool           // bring what nodes read at boot into memory when the server starts, and after a promote
	Homes  *Homes         // what is mounted as /home; nil for nothing
	// Drafts opens the tree of a draft, in a directory that is there. Nil for a server that gives drafts to no node.
	Drafts func(dir string) (fs.WritableTree, error)
	// Starting says that versions are being sealed, so that nodes for which there is none yet are only too early. Started ends it.
	Starting bool
	Log      *zap.Logger
}

// Exports is what is served to whom. All methods may be called by many
// goroutines at once.
type Exports struct {
	allow []netip.Prefix
	warm  bool
	log   *zap.Logger
	nodes nodes
	homes *homes // nil if there are none
	table atomic.Pointer[table]

	layers     layers
	neighbours string // file of the kernel's neighbour table
	bootFiles  bootFiles
	started    chan struct{} // closed when nothing is being sealed any more (Config.Starting)
	closing    sync.Once     // of started

	warmed atomic.Uint64 // bytes
	began  time.Time     // when New was called

	refreshing  sync.Mutex            // guards the making of a new table, not its use, and what follows
	lastRefresh time.Time             // of a refresh asked for by a handle
	lastFailure string                // of a refresh, so that it is logged once
	stale       atomic.Pointer[error] // why an old state is served; nil if none is
}

// New reads the state of the images and makes the first table. An image with
// exactly one version and nothing promoted gets that version promoted.
func New(cfg Config) (*Exports, error) {
	x := &Exports{allow: cfg.Allow, warm: cfg.Warm, log: cfg.Log, neighbours: "/proc/net/arp", began: time.Now()}
	x.bootFiles.init(x.began)
	x.started = make(chan struct{})
	x.layers.limit, x.layers.making = mostLayerBytes, make(chan struct{}, mostMaking)
	first := &table{}
	seen := map[uint32]string{}
	for _, c := range cfg.Images {
		img, err := newImage(c, cfg.Drafts, cfg.Log)
		if err != nil {
			return nil, err
		}
		if other, ok := seen[img.id]; ok {
			return nil, fmt.Errorf("two stores would both be served as /%s and /%s with the same handles: name one of them differently with --export NAME=DIR", other, img.name)
		}
		seen[img.id] = img.name
		if err := img.drafts.settleIfFree(); err != nil {
			x.log.Error("what a crash left of a draft is still there", zap.String("image", img.name), zap.Error(err))
		}
		first.images = append(first.images, &imageView{image: img, inventory: new(Inventory)})
	}
	if cfg.Homes != nil {
		h, err := newHomes(*cfg.Homes, first.images)
		if err != nil {
			return nil, err
		}
		x.homes = h
	}
	x.table.Store(first)
	x.nodes.load(first, x.log)
	x.restoreBoots(first)
	if cfg.Starting {
		return x, x.Refresh()
	}
	return x, x.Started()
}

// Sealed says that all is sealed that was to be of the image of a name, though not yet of the others (Config.Starting): it is
// served from now on. The error is that its only version could not be promoted, or that the table could not be made anew.
func (x *Exports) Sealed(image string) error {
	for _, img := range x.table.Load().images {
		if img.name != image {
			continue
		}
		if err := x.promoteOnly(img.image); err != nil {
			return err
		}
	}
	return x.Refresh()
}

// Started says that all is sealed that was to be (Config.Starting). An image whose only version cannot be promoted, which is
// the error, does not keep the others from being served.
func (x *Exports) Started() error {
	defer x.closing.Do(func() { close(x.started) })
	var failed []error
	for _, img := range x.table.Load().images {
		failed = append(failed, x.promoteOnly(img.image))
	}
	return errors.Join(append(failed, x.Refresh())...)
}

func newImage(c Image, drafts func(dir string) (fs.WritableTree, error), log *zap.Logger) (*image, error) {
	key, err := loadKey(c.StateDir)
	if err != nil {
		return nil, err
	}
	state := OpenState(c.StateDir)
	img := &image{
		name:      c.Name,
		paths:     pathsOf(c.Dir),
		id:        exportID(c.Name),
		key:       key,
		state:     state,
		store:     c.Versions,
		files:     c.Files,
		anyPort:   c.AnyPort,
		drafts:    newDraftTrees(state, c.Dir, drafts),
		journal:   journal{dir: c.StateDir},
		initramfs: state.initramfs(),
	}
	img.layerBytes.Store(state.layerBytes())
	img.machines.load(state, log)
	return img, nil
}

// pathsOf returns a directory and, if that is another, where its symlinks lead.
func pathsOf(dir string) []string {
	paths := []string{filepath.Clean(dir)}
	if real, err := filepath.EvalSymlinks(dir); err == nil && real != paths[0] {
		paths = append(paths, real)
	}
	return paths
}

var errPromoted = errors.New("something is promoted")

// promoteOnly promotes the version of an image that has exactly one and no
// rollout yet: there is nothing that an operator could have meant instead.
func (x *Exports) promoteOnly(img *image) error {
	rollout, err := img.state.Rollout()
	if err != nil {
		return err
	}
	versions, err := img.store.Versions()
	if err != nil {
		return err
	}
	if _, ok := rollout.Promoted(); ok || len(rollout.History) > 0 || len(versions) != 1 || versions[0].Err != nil {
		return nil
	}
	only := Ref{Version: versions[0].Name, Digest: versions[0].Digest}
	nothingYet := func() error { // an operator may have been faster
		if now, err := img.state.Rollout(); err != nil || len(now.History) > 0 {
			return cmp.Or(err, errPromoted)
		}
		return nil
	}
	_, _, err = img.state.Promote(Promotion{Ref: only, By: "rootnfsd serve: the only version"}, nothingYet)
	if errors.Is(err, errPromoted) {
		return nil
	}
	if err != nil {
		return err
	}
	x.log.Info("promoted the only version", zap.String("image", img.name), zap.String("version", only.Version))
	return nil
}

// Run keeps the table, the record of nodes and what is known of their boots up
// to date until ctx ends, then saves both a last time. A mount does not depend
// on it: Mount looks for a new rollout itself.
func (x *Exports) Run(ctx context.Context) {
	var others sync.WaitGroup
	others.Go(func() { x.watchBoots(ctx) })
	others.Go(func() { x.watchLayers(ctx) })
	defer others.Wait()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			x.nodes.save(x.table.Load().images, x.log, true)
			return
		case <-tick.C:
			x.nodes.tick()
			x.bootFiles.sweep()
			if x.homes != nil {
				x.homes.sweep(time.Now())
			}
			x.nodes.save(x.table.Load().images, x.log, false)
			x.refreshIfPromoted()
			x.watchRollouts(time.Now())
		}
	}
}

// Refresh makes a new table from what the stores and rollouts say now and
// swaps it in. On an error the old table stays.
func (x *Exports) Refresh() error {
	x.refreshing.Lock()
	defer x.refreshing.Unlock()
	return x.refresh()
}

// refreshIfPromoted refreshes if a rollout or an inventory was replaced since the table
// was made. Where that fails the exports stay as they were, which serves the
// nodes better than nothing.
func (x *Exports) refreshIfPromoted() {
	x.refreshing.Lock()
	defer x.refreshing.Unlock()
	for _, img := range x.table.Load().images {
		if !img.state.replaced(rolloutFile, img.rollout.stamp) && !img.state.replaced(inventoryFile, img.inventory.stamp) {
			continue
		}
		x.refresh() // which has logged why not
		return
	}
}

// refreshForHandle refreshes because a handle that this server's key signed
// names a version that the table lacks: it may have been sealed since. Such a
// version may also be gone for good, and its nodes ask again and again; so
// within a second of the last time it is fs.ErrWouldBlock, which makes a client
// ask later.
func (x *Exports) refreshForHandle() error {
	x.refreshing.Lock()
	defer x.refreshing.Unlock()
	if time.Since(x.lastRefresh) < time.Second {
		return fs.ErrWouldBlock
	}
	x.lastRefresh = time.Now()
	if err := x.refresh(); err != nil {
		return errors.Join(fs.ErrIO, err)
	}
	return nil
}

// refresh makes the table anew. What keeps it from that, or makes it take an old inventory, is
// logged once, and what Ready says.
func (x *Exports) refresh() error {
	unread, err := x.remake()
	failure := cmp.Or(err, unread)
	switch {
	case failure == nil:
		x.stale.Store(nil)
		x.lastFailure = ""
		return nil
	case failure.Error() != x.lastFailure && err != nil:
		x.log.Error("keeping the exports as they were", zap.Error(err))
	case failure.Error() != x.lastFailure:
		x.log.Error("keeping the names and pins of nodes as they were, for the inventory cannot be read", zap.Error(unread))
	}
	x.lastFailure = failure.Error()
	x.stale.Store(&failure)
	return err
}

// remake makes the table anew, but for inventories that cannot be read; unread is why.
func (x *Exports) remake() (unread, err error) {
	old := x.table.Load()
	next := &table{trees: map[treeKey]*version{}, drafts: map[uint64]*draft{}}
	for _, img := range old.images {
		view, err := x.view(img.image, old)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", img.name, err)
		}
		unread = cmp.Or(unread, view.unread)
		next.images = append(next.images, view)
		for _, v := range view.versions {
			next.trees[treeKey{v.image.id, v.treeID}] = v
		}
		for _, d := range view.drafts {
			next.drafts[d.tree.id] = d
		}
		if view.promoted != nil && view.promoted != img.promoted {
			x.log.Info("serving", zap.String("image", img.name), zap.String("version", view.promoted.name), zap.String("digest", view.promoted.digest.Short()))
		}
	}
	x.table.Store(next)
	for key, v := range old.trees {
		if next.trees[key] == nil {
			v.retire()
		}
	}
	x.layers.letGo(next)
	return unread, nil
}

// view looks at an image as it is now, taking over versions that old has open.
func (x *Exports) view(img *image, old *table) (*imageView, error) {
	rollout, err := img.state.Rollout()
	if err != nil {
		return nil, err
	}
	listed, err := img.store.Versions()
	if err != nil {
		return nil, err
	}
	before := old.imageOf(img.id)
	view := &imageView{image: img, rollout: rollout, inventory: before.inventory, unread: before.unread}
	view.drafts = img.draftsOf(&rollout, before)
	if img.state.replaced(inventoryFile, view.inventory.stamp) {
		view.inventory, view.unread = img.state.inventoryAfter(before.inventory)
		if view.unread == nil {
			img.machines.keep(view.inventory, x.log)
		}
	}
	for _, l := range listed {
		if l.Err != nil {
			view.damaged = true
			if v := old.named(img, l.Name); v != nil { // its nodes go on with what is open
				view.versions = append(view.versions, v)
			}
			continue
		}
		treeID := binary.BigEndian.Uint64(l.Digest[:8])
		v := old.trees[treeKey{img.id, treeID}]
		if v == nil || v.name != l.Name {
			v = &version{image: img, name: l.Name, digest: l.Digest, treeID: treeID, open: l.Open, layout: l.Layout}
		} else if v.layout != l.Layout {
			if err := v.moveTo(l.Layout, l.Open); err != nil {
				x.log.Warn("a version is read where it was, whose space is not freed", zap.String("image", img.name), zap.String("version", l.Name), zap.Error(err))
			}
		}
		view.versions = append(view.versions, v)
	}

	ref, ok := rollout.Promoted()
	if !ok {
		return view, nil
	}
	view.promoted = view.holding(ref)
	if view.promoted != nil {
		return view, nil
	}
	x.log.Error("the promoted version is gone: promote another one", zap.String("image", img.name), zap.String("version", ref.Version), zap.String("digest", ref.Digest.Short()))
	return view, nil
}

// Object is what a handle names.
type Object struct {
	Tree  fs.Tree
	ID    fs.NodeID
	ver   *version
	layer uint64 // 0 for none
	own   bool   // it is of the layer, not of the version
	part  *tallyPart
	boot  *bootLog // nil unless whoever presented the handle is booting
}

// NoteRead notes that content of the object is being read: for what is told of the node,
// and so that the next version can have it ready (BootSet). It allocates nothing and takes no lock.
func (o *Object) NoteRead(off uint64, count uint32) {
	o.part.read(count)
	if o.boot != nil && !o.own {
		o.boot.note(o.ID, off, count)
	}
}

// AppendHandle appends the handle of another object of the same tree to b. It
// takes at most MaxHandle bytes.
func (o *Object) AppendHandle(b []byte, id fs.NodeID) []byte {
	if o.layer != 0 {
		return appendLayerHandle(b, o.ver, o.layer, id)
	}
	return appendHandle(b, o.ver, id)
}

// Resolve fills o with what a handle names that p presents. Once a version, and the layer that a node has
// over it, is open it allocates nothing and takes no lock. Errors: fs.ErrBadHandle for a
// handle that this server never made, fs.ErrStale where the version is gone,
// fs.ErrAccess where the address of p may not use it, or the object is one of another node's
// own, fs.ErrIO where the version cannot be opened or a node's own files are damaged,
// fs.ErrWouldBlock where it is to be asked for later.
func (x *Exports) Resolve(p *Peer, handle []byte, o *Object) error {
	if !isVersion(handle) {
		return fs.ErrBadHandle
	}
	if !p.allowed {
		return fs.ErrAccess
	}
	key := treeKey{binary.BigEndian.Uint32(handle[4:]), binary.BigEndian.Uint64(handle[8:])}
	t := x.table.Load()
	v := t.trees[key]
	if v == nil {
		return x.resolveMissing(p, handle, o, key)
	}
	if !v.image.key.signed(handle) {
		return fs.ErrBadHandle
	}
	return x.resolved(p, t, v, handle, o)
}

func (x *Exports) resolved(p *Peer, t *table, v *version, handle []byte, o *Object) error {
	tree, err := v.Tree()
	if err != nil {
		return err
	}
	o.Tree, o.ID, o.ver, o.layer, o.own = tree, fs.NodeID(binary.BigEndian.Uint64(handle[16:])), v, 0, false
	if handle[1] == kindLayer {
		o.layer = binary.BigEndian.Uint64(handle[layerOffset:])
		if err := x.resolveLayer(p, t, o); err != nil {
			return err
		}
	}
	o.part, o.boot = p.touch(v)
	return nil
}

// resolveMissing resolves a handle whose version is not in the table: one that
// was sealed after the table was made, one that is gone, or a forgery.
func (x *Exports) resolveMissing(p *Peer, handle []byte, o *Object, key treeKey) error {
	img := x.table.Load().imageOf(key.export)
	if img == nil || !img.key.signed(handle) {
		return fs.ErrBadHandle
	}
	if err := x.refreshForHandle(); err != nil {
		return err
	}
	t := x.table.Load()
	if v := t.trees[key]; v != nil {
		return x.resolved(p, t, v, handle, o)
	}
	if t.imageOf(key.export).damaged {
		return fs.ErrIO // it may be the one that cannot be read, and come back
	}
	return fs.ErrStale
}
