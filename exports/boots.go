package exports

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/rootnfsd/rootnfsd/fs"
)

// watchBoots saves what nodes read at boot, and brings what they are likely to
// read of a version into memory as soon as it is promoted: after a power cut all
// of them boot at once, and the server has nothing in memory either.
func (x *Exports) watchBoots(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	warmed := map[*image]*version{}
	for {
		for _, img := range x.table.Load().images {
			if v := img.promoted; x.warm && v != nil && warmed[img.image] != v {
				warmed[img.image] = v
				x.warmUp(ctx, v)
			}
		}
		select {
		case <-ctx.Done():
			x.saveBoots(time.Now(), true)
			return
		case now := <-tick.C:
			x.saveBoots(now, false)
		}
	}
}

// warmUp brings what nodes read at boot into memory.
func (x *Exports) warmUp(ctx context.Context, v *version) {
	begun := time.Now()
	bytes, err := v.warmUp(ctx)
	x.warmed.Add(bytes)
	log := x.log.With(zap.String("image", v.image.name), zap.String("version", v.name))
	switch {
	case ctx.Err() != nil:
	case err != nil:
		log.Warn("cannot bring into memory what nodes read at boot", zap.Error(err))
	case bytes > 0:
		log.Info("what nodes read at boot is in memory", zap.Uint64("bytes", bytes), zap.Duration("took", time.Since(begun)))
	}
}

func (v *version) warmUp(ctx context.Context) (uint64, error) {
	set, err := v.image.state.BootSet(Ref{v.name, v.digest})
	if err != nil || set == nil {
		return 0, err
	}
	tree, err := v.Tree()
	if err != nil {
		return 0, err
	}
	if tree, ok := tree.(fs.Warmer); ok {
		return tree.Warm(ctx, set.In(tree), nil)
	}
	return 0, nil
}

// saveBoots saves what was learnt of boots that seem to be over, or all.
func (x *Exports) saveBoots(now time.Time, all bool) {
	for _, img := range x.table.Load().images {
		for _, v := range img.versions {
			l := v.boot.Load()
			if l == nil || !l.settled(now) && !(all && l.seen != l.saved) {
				continue
			}
			err := v.saveBoot(l)
			if err == nil {
				l.saved, l.failed = l.seen, false
				continue
			}
			l.quiet = now // it is tried again after another quietTime
			if !l.failed {
				x.log.Error("cannot save what nodes read at boot", zap.String("image", img.name), zap.String("version", v.name), zap.Error(err))
			}
			l.failed = true
		}
	}
}

func (v *version) saveBoot(l *bootLog) error {
	tree, err := v.Tree()
	if err != nil {
		return err
	}
	set, err := l.bootSet(v, tree)
	if err != nil {
		return err
	}
	return v.image.state.saveBootSet(set)
}
