package exports

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/rootnfsd/rootnfsd/fs/durable"
)

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
