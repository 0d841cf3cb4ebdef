package exports

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/durable"
	"github.com/rootnfsd/rootnfsd/fs/layer"
)

// layerFor returns the layer that p gets with what it mounts, 0 for none. Whatever goes wrong,
// the node boots: it goes without the file that is the matter, or without any.
func (x *Exports) layerFor(p *Peer, to *target) uint64 {
	if to.image.files == nil || p.ambiguous() {
		return 0
	}
	e := to.image.inventory.At(p.addr)
	node := memberOf(e, p.addr).Key
	log := x.log.With(zap.String("image", to.image.name), zap.String("node", node))
	if e != nil && e.MAC != "" {
		if seen, strange := x.strangeMAC(p.addr, e.MAC); strange {
			log.Warn("another machine has the address of this node, and boots without the node's own files: give each its own address, or say what its MAC address is now (rootnfsd node set)",
				zap.Stringer("address", p.addr), zap.String("mac", e.MAC), zap.String("seen", seen))
			return 0
		}
	}
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
	own := &nodeFiles{version: to.version.digest, owner: node, files: files}
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
func (x *Exports) keepLayer(v *version, base fs.Tree, n *nodeFiles, named bool) error {
	id := n.id()
	l := x.layers.at(layerKey{treeKey{v.image.id, v.treeID}, id})
	l.opening.Lock()
	defer l.opening.Unlock()
	l.used.Store(x.nodes.now.Load())
	state := v.image.state
	if _, err := state.layer(v.treeID, id); err != nil {
		if !named && v.image.layerBytes.Load() > mostUnnamed {
			return errMostUnnamed
		}
		size, err := state.saveLayer(n)
		if err != nil {
			return err
		}
		v.image.layerBytes.Add(int64(size))
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

const (
	sweepInterval = time.Hour
	// layerTime is how long a layer is kept that nobody uses: as long as a silent node is taken to run,
	// and a day more, since its use is noted once a day.
	layerTime = goneTime + 24*time.Hour
	// mostNodeLayers is how many layers are kept of one node, those that it used last. What it runs is kept.
	mostNodeLayers = 8
)

// watchLayers removes, each hour, the layers that nodes do not need any more. It may take seconds, since a
// disk may hold thousands. Not when the server starts: it may have been off for long, under nodes that
// waited for it and have not called yet.
func (x *Exports) watchLayers(ctx context.Context) {
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			x.sweepLayers(now)
		}
	}
}

func (x *Exports) sweepLayers(now time.Time) {
	t := x.table.Load()
	x.layers.letGo(t)
	for _, img := range t.images {
		for _, f := range x.superfluous(t, img, now) {
			if err := x.removeLayer(f, now); err != nil {
				x.log.Error("cannot remove files of a node that are not needed any more", zap.Error(err))
			}
		}
		img.layerBytes.Store(img.state.layerBytes())
	}
}

// removeLayer removes a layer unless somebody has used it since it was listed.
func (x *Exports) removeLayer(f layerFile, now time.Time) error {
	l := x.layers.at(f.key)
	l.opening.Lock()
	defer l.opening.Unlock()
	info, err := os.Stat(f.path)
	if err != nil {
		return err
	}
	if now.Sub(instant(l.used.Load())) < sweepInterval || !info.ModTime().Equal(f.used) {
		return nil
	}
	x.layers.forget(f.key)
	return os.Remove(f.path)
}

// layerFile is a file of a layer.
type layerFile struct {
	key  layerKey
	path string
	used time.Time
}

// superfluous returns the files of layers that are not needed any more, and notes which are used.
func (x *Exports) superfluous(t *table, img *imageView, now time.Time) (gone []layerFile) {
	running := x.runningLayers(img, now)
	byOwner := map[string][]layerFile{}
	for _, f := range x.layerFiles(img, now) {
		versionGone := t.trees[f.key.treeKey] == nil && !img.damaged && now.Sub(f.used) > sweepInterval
		if !running[f.key] && (versionGone || now.Sub(f.used) > layerTime) {
			gone = append(gone, f)
		} else if owner, err := layerOwner(f.path); err == nil {
			byOwner[owner] = append(byOwner[owner], f)
		}
	}
	for _, files := range byOwner {
		slices.SortFunc(files, func(a, b layerFile) int { return b.used.Compare(a.used) })
		left := mostNodeLayers
		for _, f := range files {
			if running[f.key] {
				left--
			}
		}
		for _, f := range files {
			if running[f.key] {
				continue
			}
			if left--; left < 0 {
				gone = append(gone, f)
			}
		}
	}
	return gone
}

// layerFiles lists the layers of an image that are kept, and removes what a crash has left beside them.
func (x *Exports) layerFiles(img *imageView, now time.Time) (files []layerFile) {
	dir := filepath.Join(img.state.dir, layerDir)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		x.log.Error("cannot tell which files of nodes are not needed any more", zap.Error(err))
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue // it has gone
		}
		f := layerFile{path: filepath.Join(dir, e.Name()), used: info.ModTime()}
		tree, id, ok := parseLayerName(e.Name())
		if !ok {
			if strings.HasPrefix(e.Name(), durable.TempPattern) && now.Sub(f.used) > sweepInterval {
				os.Remove(f.path)
			}
			continue
		}
		f.key = layerKey{treeKey{img.id, tree}, id}
		if l := x.layers.get(f.key); l != nil {
			if used := instant(l.used.Load()); used.Sub(f.used) > 24*time.Hour {
				noteUse(f.path, used)
				f.used = used
			}
		}
		files = append(files, f)
	}
	return files
}

// runningLayers returns the layers that nodes run.
func (x *Exports) runningLayers(img *imageView, now time.Time) map[layerKey]bool {
	running := map[layerKey]bool{}
	for _, n := range usersOf(img.name, x.nodes.all()) {
		for _, u := range n.Running(now) {
			tree := binary.BigEndian.Uint64(u.Digest[:8])
			running[layerKey{treeKey{img.id, tree}, u.Layer}] = true
		}
	}
	return running
}
