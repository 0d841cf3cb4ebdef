package exports

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"go.uber.org/zap"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/layer"
)

// layerFor returns the layer that p gets with what it mounts, 0 for none. Whatever goes wrong,
// the node boots: it goes without the file that is the matter, or without any.
func (x *Exports) layerFor(t *table, p *Peer, to *target) uint64 {
	if to.image.files == nil || p.ambiguous() {
		return 0
	}
	is := x.identify(p, t).in(to.image.image)
	e := is.entry
	node := MemberOf(e, p.addr).Key
	log := x.log.With(zap.String("image", to.image.name), zap.String("node", node))
	if e != nil {
		if err := x.admit(p, to.image, is); errors.Is(err, errStranger) {
			why := to.image.machines.strange(e, p)
			log.Warn("another machine has the address of this node, and boots without the node's own files", zap.Stringer("address", p.addr), zap.String("why", why))
			p.noteStranger(why)
			return 0
		} else if err != nil {
			log.Error("the node boots without the files that are its own", zap.Error(err))
			return 0
		}
	}
	if !to.image.trusts(p) {
		if !x.layers.portSaid.Swap(true) {
			log.Warn("a node mounts from a port that any of its users could have, and gets no files of its own, nor do others like it: mount without noresvport, or serve with --node-ports any if a NAT changes ports",
				zap.Stringer("address", p.addr))
		}
		return 0
	}
	x.layers.making <- struct{}{}
	defer func() { <-x.layers.making }()
	return x.makeLayer(p, to, e, node, log)
}

// trusts reports whether p can be believed to be its node, and not some user there.
func (img *image) trusts(p *Peer) bool { return p.reserved || img.anyPort }

// makeLayer is layerFor for the node with that key, and that entry if it has one, once it is known to be the one.
func (x *Exports) makeLayer(p *Peer, to *target, e *Entry, node string, log *zap.Logger) uint64 {
	base, err := to.version.Tree()
	if err != nil {
		return 0 // it was open a moment ago
	}
	files, problems := to.image.files.Files(mounting(e, p.addr, to), base)
	files, refused := layer.Check(base, files)
	for _, err := range append(problems, refused...) {
		log.Warn("the node boots without a file that is its own", zap.Error(err))
	}
	if len(files) == 0 {
		return 0
	}
	own := &ownFiles{version: to.version.digest, owner: node, files: files}
	if err := x.keepLayer(to.version, base, own, e != nil); err != nil {
		log.Error("the node boots without the files that are its own", zap.Error(err))
		return 0
	}
	return own.id()
}

// mounting is what is known of a node, which has an entry or, where e is nil, has none, when it
// mounts.
func mounting(e *Entry, addr netip.Addr, to *target) Mounting {
	m := Mounting{Address: addr, Image: to.image.name, Version: to.version.name}
	if e != nil {
		m.Name, m.Hostname, m.MAC, m.Serial, m.Labels = e.Name, e.Hostname, e.MAC, e.Serial, e.Labels
	}
	return m
}

// mostUnnamed is how many bytes of layers there may be for nodes without a name to get new ones: a machine that may mount
// could take one address after the other, until the disk is full.
const mostUnnamed = 256 << 20

var errMostUnnamed = fmt.Errorf("there are more than %d MiB of files of nodes, so those that nobody has named get none: rootnfsd node set", mostUnnamed>>20)

// keepLayer sees to it that a layer is on the disk, and opens it over base, the tree of v.
func (x *Exports) keepLayer(v *version, base fs.Tree, n *ownFiles, named bool) error {
	id := n.id()
	state := v.image.state
	if !named && v.image.layerBytes.Load() > mostUnnamed && !state.hasLayer(v.treeID, id) {
		return errMostUnnamed // before anything is kept of it in memory
	}
	key := layerKey{treeKey{v.image.id, v.treeID}, id}
	l := x.layers.at(key)
	l.opening.Lock()
	defer l.opening.Unlock()
	l.used.Store(x.nodes.now.Load())
	if _, err := state.layer(v.treeID, id); err != nil {
		size, err := state.saveLayer(n)
		if err != nil {
			if l.over.Load() == nil {
				x.layers.forget(key)
			}
			return err
		}
		v.image.layerBytes.Add(onDisk(int64(size)))
	}
	noteUse(state.layerPath(v.treeID, id), time.Now())
	if over := l.over.Load(); over != nil && over.base == base && over.all != nil {
		return nil
	}
	over, err := x.layers.overlay(n, id, base)
	if err != nil {
		return err
	}
	x.layers.put(l, over)
	l.lost = ""
	return nil
}

// noteUse notes when a layer was last used: as the time of its file, which nobody needs otherwise.
// That it fails does no harm for a week.
func noteUse(path string, at time.Time) { _ = os.Chtimes(path, at, at) }
