package exports

import (
	"cmp"
	"errors"
	"iter"
	"maps"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/layer"
)

// NodeFiles makes what one node has of its own over a version.
type NodeFiles interface {
	// Files returns the files of a node that mounts a version with the content of base, within
	// the bounds of a layer, and what is wrong with files that it leaves out. It
	// may wait for a disk, and is called by many goroutines at once.
	Files(n Mounting, base fs.Tree) (files []layer.File, problems []error)
}

// Mounting is a node that mounts a version.
type Mounting struct {
	Name     string // empty for a node that nobody named
	Address  netip.Addr
	Hostname string // these are empty if nobody said
	MAC      string
	Serial   string
	Labels   []string
	Image    string
	Version  string
}

// layerKey finds a layer by what a handle says of it.
type layerKey struct {
	treeKey
	layer uint64
}

const (
	layerShards = 256
	// mostLayerBytes is how much memory layers take that are open, of about 10,000 nodes with an
	// identity each. Beyond, those that were not used for longest are closed, and opened again
	// when they are.
	mostLayerBytes = 64 << 20
	// mostMaking is how many layers are made at once: each takes several times its content meanwhile, and
	// a whole fleet may mount at once. More are hardly faster, for they wait for one disk.
	mostMaking = 8
	// What a layer takes besides content, and each of its files.
	layerOverhead, layerFileOverhead = 1024, 512
)

// layers are those that somebody has used. Finding one takes no lock: a shard is a map that is never
// changed but replaced, and small enough for that to be cheap.
type layers struct {
	shards [layerShards]atomic.Pointer[map[layerKey]*nodeLayer]

	mu    sync.Mutex // guards the making of shards, and the rest
	limit int        // of bytes
	bytes int        // that open layers take
	texts map[string]*text

	making   chan struct{} // holds one for each layer that is being made
	portSaid atomic.Bool   // that a node mounts from a port that is not reserved
}

// text is the content of files, which may be those of many nodes.
type text struct {
	content string
	files   int
}

// nodeLayer is a layer, whether it is open or not.
type nodeLayer struct {
	key  layerKey
	used atomic.Int64 // when a node last used it, in seconds since the epoch
	over atomic.Pointer[overlaid]

	opening sync.Mutex // one opens it, the others wait for it; locked before layers.mu
	lost    string     // why it could not be opened, as it was logged
}

// overlaid is a layer over a version as that is open.
type overlaid struct {
	base  fs.Tree
	owner owner
	all   *layer.Tree // what the owner sees; nil if the layer is lost
	rest  *layer.Tree // what others see

	lost  fs.Error // what a lost layer's objects are
	again int64    // when to look for it again, in seconds since the epoch

	files []layer.File // which share their content with others
}

// retryLost is after how many seconds a layer that is lost is looked for again: somebody may
// have restored it.
const retryLost = 10

// owner is the node that a layer was made for.
type owner struct {
	name string
	addr netip.Addr // of a node that had no name then
}

func ownerOf(key string) owner {
	if addr, err := netip.ParseAddr(key); err == nil {
		return owner{addr: addr}
	}
	return owner{name: key}
}

// owns reports whether p, which presents the handle of o, is the owner. One that had no name goes by its address
// until it mounts again, and for others the inventory says where they are: an address that
// has become another node's does not give away what was made for the first. A node whose name was
// taken away keeps what it mounted.
func (x *Exports) owns(p *Peer, w owner, o *Object, t *table) bool {
	if w.addr.IsValid() {
		return w.addr == p.addr
	}
	if is := x.identify(p, t).in(o.ver.image); is.entry != nil {
		return is.entry.Name == w.name && is.standing != stranger
	}
	return t.imageOf(o.ver.image.id).inventory.Named(w.name) == nil && p.mountedLayer(o.ver, o.layer)
}

// mountedLayer reports whether what p has mounted last of a version is that with the layer.
func (p *Peer) mountedLayer(v *version, layer uint64) bool {
	n := p.node.Load()
	return n != nil && slices.ContainsFunc(*n.uses.Load(), func(u *use) bool {
		return u.ref.Digest == v.digest && u.image == v.image.name && u.layer.Load() == layer
	})
}

// resolveLayer makes the tree of o, which is that of its version, the one that p sees with its
// layer. Any process of a node can call with credentials that it made up, but only
// its root from a reserved port: from others the node is like a stranger.
func (x *Exports) resolveLayer(p *Peer, t *table, o *Object) error {
	key := layerKey{treeKey{o.ver.image.id, o.ver.treeID}, o.layer}
	now := x.nodes.now.Load()
	l := x.layers.get(key)
	var over *overlaid
	if l != nil {
		over = l.over.Load()
	}
	if over == nil || over.base != o.Tree || over.all == nil && now >= over.again {
		l, over = x.openLayer(key, o.ver, o.Tree)
	}
	if l.used.Load() != now {
		l.used.Store(now)
	}
	o.own = over.rest.Owns(o.ID)
	mine := over.all != nil && o.ver.image.trusts(p) && x.owns(p, over.owner, o, t)
	switch {
	case mine:
		o.Tree = over.all
	case o.own && over.all == nil:
		return over.lost
	case o.own:
		return fs.ErrAccess
	default:
		o.Tree = over.rest
	}
	return nil
}

// openLayer opens a layer over base, the tree of v.
func (x *Exports) openLayer(key layerKey, v *version, base fs.Tree) (*nodeLayer, *overlaid) {
	l := x.layers.at(key)
	l.opening.Lock()
	defer l.opening.Unlock()
	now := x.nodes.now.Load()
	if over := l.over.Load(); over != nil && over.base == base && (over.all != nil || now < over.again) {
		return l, over
	}
	n, err := v.image.state.layer(key.tree, key.layer)
	var over *overlaid
	if err == nil {
		over, err = x.layers.overlay(n, key.layer, base)
	}
	if err != nil {
		over = lostLayer(key.layer, base, err, now)
		if err.Error() != l.lost {
			x.log.Error("the files that are a node's own cannot be read: it has them again after its next boot", zap.String("image", v.image.name),
				zap.String("file", v.image.state.layerPath(key.tree, key.layer)), zap.Error(err))
		}
		l.lost = err.Error()
	} else {
		l.lost = ""
	}
	x.layers.put(l, over)
	return l, over
}

// lostLayer is what is left where a layer cannot be opened.
func lostLayer(id uint64, base fs.Tree, err error, now int64) *overlaid {
	lost := fs.ErrIO
	switch {
	case errors.Is(err, os.ErrNotExist):
		lost = fs.ErrStale
	case errors.Is(shortage(err), fs.ErrWouldBlock):
		lost = fs.ErrWouldBlock
	}
	return &overlaid{base: base, rest: layer.Bare(base, id, lost), lost: lost, again: now + retryLost}
}

// overlay lays the files of a node over base.
func (s *layers) overlay(n *ownFiles, id uint64, base fs.Tree) (*overlaid, error) {
	over := &overlaid{base: base, owner: ownerOf(n.owner), rest: layer.Bare(base, id, fs.ErrAccess), files: s.share(n.files)}
	var err error
	if over.all, err = layer.New(base, id, over.files); err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.unshare(over.files)
		return nil, err
	}
	return over, nil
}

// get returns a layer that has been used, or nil.
func (s *layers) get(key layerKey) *nodeLayer {
	if m := s.shard(key).Load(); m != nil {
		return (*m)[key]
	}
	return nil
}

func (s *layers) shard(key layerKey) *atomic.Pointer[map[layerKey]*nodeLayer] {
	return &s.shards[key.layer%layerShards]
}

// at is get, but makes one that is not open.
func (s *layers) at(key layerKey) *nodeLayer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.get(key); l != nil {
		return l
	}
	l := &nodeLayer{key: key}
	s.change(key, func(m map[layerKey]*nodeLayer) { m[key] = l })
	return l
}

// forget lets go of a layer that is not kept any more.
func (s *layers) forget(key layerKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.get(key); l != nil {
		s.close(l)
		s.change(key, func(m map[layerKey]*nodeLayer) { delete(m, key) })
	}
}

// change replaces the map that a key is in. The caller holds mu.
func (s *layers) change(key layerKey, do func(map[layerKey]*nodeLayer)) {
	next := map[layerKey]*nodeLayer{}
	if m := s.shard(key).Load(); m != nil {
		maps.Copy(next, *m)
	}
	do(next)
	s.shard(key).Store(&next)
}

// all returns the layers that have been used.
func (s *layers) all() iter.Seq[*nodeLayer] {
	return func(yield func(*nodeLayer) bool) {
		for i := range s.shards {
			m := s.shards[i].Load()
			if m == nil {
				continue
			}
			for _, l := range *m {
				if !yield(l) {
					return
				}
			}
		}
	}
}

// put opens a layer, and closes others if there is no room for it beside them.
func (s *layers) put(l *nodeLayer, over *overlaid) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.get(l.key) != l { // it was forgotten meanwhile
		s.change(l.key, func(m map[layerKey]*nodeLayer) { m[l.key] = l })
	}
	s.close(l)
	l.over.Store(over)
	s.bytes += over.size()
	if s.bytes > s.limit {
		s.shed(l)
	}
}

// size is what it takes in memory besides content.
func (over *overlaid) size() int { return layerOverhead + layerFileOverhead*len(over.files) }

// close lets go of what is open of a layer. The caller holds mu.
func (s *layers) close(l *nodeLayer) {
	if over := l.over.Swap(nil); over != nil {
		s.bytes -= over.size()
		s.unshare(over.files)
	}
}

// shed closes layers that were not used for long, until a quarter of the room is free. The caller
// holds mu.
func (s *layers) shed(keep *nodeLayer) {
	type aged struct {
		*nodeLayer
		used int64
	}
	var open []aged
	for l := range s.all() {
		if l != keep && l.over.Load() != nil {
			open = append(open, aged{l, l.used.Load()})
		}
	}
	slices.SortFunc(open, func(a, b aged) int { return cmp.Compare(a.used, b.used) })
	for _, l := range open {
		if s.bytes <= s.limit/4*3 {
			return
		}
		s.close(l.nodeLayer)
	}
}

// letGo closes layers over versions that are not open any more as they were.
func (s *layers) letGo(t *table) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range s.all() {
		over := l.over.Load()
		if over == nil {
			continue
		}
		if v := t.trees[l.key.treeKey]; v != nil {
			if tree := v.tree.Load(); tree != nil && tree.Tree == over.base {
				continue
			}
		}
		s.close(l)
	}
}

// share returns the files with content that is in memory once, whoever has it.
func (s *layers) share(files []layer.File) []layer.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	files = slices.Clone(files)
	for i := range files {
		t := s.texts[files[i].Content]
		if t == nil {
			t = &text{content: files[i].Content}
			if s.texts == nil {
				s.texts = map[string]*text{}
			}
			s.texts[t.content] = t
			s.bytes += len(t.content)
		}
		t.files++
		files[i].Content = t.content
	}
	return files
}

// unshare takes back what share did. The caller holds mu.
func (s *layers) unshare(files []layer.File) {
	for i := range files {
		t := s.texts[files[i].Content]
		if t.files--; t.files == 0 {
			delete(s.texts, t.content)
			s.bytes -= len(t.content)
		}
	}
}
