package store

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/rootnfsd/rootnfsd/bench"
	"github.com/rootnfsd/rootnfsd/bench/load"
)

// madeUp is the size of the tree that is sealed if there is none of the user's.
const madeUp = 20_000

// seals measures sealing a tree, and sealing it again, in turn with copying it.
// Seal writes to disk what it made before it ends. Cp does not, so that it is
// told twice what cp takes: with the time in which what it wrote gets to the
// disk, and without.
//
// Copies stay until all are made. Ext4 passes over inodes that were freed in the last
// minutes (recently_deleted in fs/ext4/ialloc.c), one by one: a copy made where one
// was removed takes five times as long.
func (b *Bench) seals(ctx context.Context, dir string, report *bench.Report) error {
	t, err := b.golden(ctx, dir)
	if err != nil {
		return err
	}
	copies := filepath.Join(dir, "copies")
	if err := os.Mkdir(copies, 0o755); err != nil {
		return err
	}
	for _, cold := range []bool{false, true} {
		if cold && !b.Cold {
			continue
		}
		for i := range b.Runs {
			b.Say(fmt.Sprintf("sealing and copying: run %d of %d%s", i+1, b.Runs, map[bool]string{true: " (cold)"}[cold]))
			s := &sealing{b, t, dir, copies, bench.Case{Bench: benchStore, Cold: cold, Objects: t.objects}, report}
			if err := s.run(ctx, i%2 == 0); err != nil {
				return err
			}
		}
	}
	return remove(copies)
}

// golden returns the tree that is to be sealed, ready to be sealed again, too.
func (b *Bench) golden(ctx context.Context, dir string) (made, error) {
	if b.Tree == "" {
		t, err := b.make(ctx, dir, madeUp)
		if err != nil {
			return t, err
		}
		return t, b.settle(ctx, t)
	}
	t := made{path: b.Tree}
	err := filepath.WalkDir(b.Tree, func(path string, e fs.DirEntry, err error) error {
		if err != nil || ctx.Err() != nil {
			return err
		}
		t.objects++
		if e.Type().IsRegular() {
			_, err := os.ReadFile(path) // so that the first run is no colder than the others
			return err
		}
		return nil
	})
	return t, err
}

// sealing is a tree that is sealed and copied.
type sealing struct {
	*Bench
	made
	dir    string
	copies string // a directory for them
	of     bench.Case
	report *bench.Report
}

// run does both once, one or the other first.
func (s *sealing) run(ctx context.Context, sealFirst bool) error {
	first, second := s.copy, s.seal
	if sealFirst {
		first, second = s.seal, s.copy
	}
	if err := first(ctx); err != nil {
		return err
	}
	return second(ctx)
}

func (s *sealing) seal(ctx context.Context) error {
	store := filepath.Join(s.dir, "images")
	if err := os.Mkdir(store, 0o755); err != nil {
		return err
	}
	for _, work := range []string{workSeal, workAgain} {
		if err := s.begin(); err != nil {
			return err
		}
		r, err := run(ctx, s.Program, "seal", "--export", store, "--from", s.path, "v1")
		if err != nil {
			return err
		}
		s.add(ours, work, r)
	}
	return remove(store)
}

func (s *sealing) copy(ctx context.Context) error {
	if err := s.begin(); err != nil {
		return err
	}
	target, err := os.MkdirTemp(s.copies, "")
	if err != nil {
		return err
	}
	begun := time.Now()
	r, err := run(ctx, "cp", "-a", s.path, target)
	if err != nil {
		return err
	}
	s.add(notSynced, workSeal, r)
	if err := syncDisk(s.dir); err != nil {
		return err
	}
	r.Wall = time.Since(begun)
	s.add(copying, workSeal, r)
	return nil
}

// begin brings the page cache into the state that a run begins with.
func (s *sealing) begin() error {
	if s.of.Cold {
		return load.DropCaches()
	}
	return syncDisk(s.dir)
}

func (s *sealing) add(server, work string, r bench.Run) {
	c := s.of
	c.Server, c.Work = server, work
	s.report.Add(c, r)
}
