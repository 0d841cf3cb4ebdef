package store

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/rootnfsd/rootnfsd/bench"
	"github.com/rootnfsd/rootnfsd/bench/load"
	"github.com/rootnfsd/rootnfsd/bench/peer"
	"github.com/rootnfsd/rootnfsd/bench/rpc"
)

// sizes measures what the number of objects costs: memory for sealing, time to
// open a version, and calls on objects all over the tree.
func (b *Bench) sizes(ctx context.Context, dir string, report *bench.Report) error {
	var servers []*peer.Server
	defer func() {
		for _, s := range servers {
			s.Stop()
		}
	}()
	for _, n := range b.Objects {
		store, err := b.sealMadeUp(ctx, dir, n, report)
		if err != nil {
			return err
		}
		for i := range b.Runs {
			b.Say(fmt.Sprintf("opening a version of %d objects: run %d of %d", n, i+1, b.Runs))
			s, err := peer.Rootnfsd(ctx, b.Program, store, "v1")
			if err != nil {
				return err
			}
			servers = append(servers, s)
			r, err := opened(s)
			if err != nil {
				return err
			}
			report.Add(bench.Case{Bench: benchStore, Work: workOpen, Server: ours, Objects: n}, r)
			if i < b.Runs-1 { // the last goes on
				s.Stop()
			}
		}
	}
	return b.calls(ctx, servers, report)
}

// sealMadeUp seals a tree of n objects, and again, into one store after the other,
// and keeps only the last.
func (b *Bench) sealMadeUp(ctx context.Context, dir string, n int, report *bench.Report) (store string, err error) {
	t, err := b.make(ctx, dir, n)
	if err != nil {
		return "", err
	}
	store = filepath.Join(dir, fmt.Sprintf("images-%d", n))
	if err := b.settle(ctx, t); err != nil {
		return "", err
	}
	for i := range b.Runs {
		if err := remove(store); err != nil {
			return "", err
		}
		if err := os.Mkdir(store, 0o755); err != nil {
			return "", err
		}
		for _, work := range []string{workSeal, workAgain} {
			b.Say(fmt.Sprintf("%s: %d objects, run %d of %d", work, n, i+1, b.Runs))
			if err := syncDisk(dir); err != nil {
				return "", err
			}
			r, err := run(ctx, b.Program, "seal", "--export", store, "--from", t.path, "v1")
			if err != nil {
				return "", err
			}
			report.Add(bench.Case{Bench: benchStore, Work: work, Server: ours, Objects: n}, r)
		}
	}
	return store, remove(t.path)
}

// opened mounts a version for the first time since the server was started, which
// opens it.
func opened(s *peer.Server) (bench.Run, error) {
	before := s.CPU()
	c, err := rpc.Dial(s.MountAddr, rpc.Options{})
	if err != nil {
		return bench.Run{}, err
	}
	defer c.Close()
	begun := time.Now()
	if _, err := c.Mount(s.MountPath); err != nil {
		return bench.Run{}, fmt.Errorf("mount %s: %w", s.MountPath, err)
	}
	r := bench.Run{Wall: time.Since(begun)}
	r.CPU, r.Resident = s.CPU()-before, s.Resident()
	return r, nil
}

// calls makes calls on all trees in turn.
func (b *Bench) calls(ctx context.Context, servers []*peer.Server, report *bench.Report) error {
	var targets []*load.Target
	for _, s := range servers {
		if !s.Alive() {
			continue
		}
		b.Say("listing a tree")
		t := load.TargetOf(s)
		if err := t.Survey(ctx); err != nil {
			return err
		}
		targets = append(targets, t)
	}
	if len(targets) == 0 {
		return nil
	}
	plan := &load.Plan{
		Works: callWorks(), Connections: []int{4}, InFlight: []int{16}, Runs: b.Runs, Duration: b.Duration, Seed: 1,
		Progress: func(done, total int, next string) {
			b.Say(fmt.Sprintf("calls: %d of %d: %s", done, total, next))
		},
		Note: b.Note,
	}
	return plan.Run(ctx, targets, benchStore, report)
}

// inUse is how many objects of a tree are asked for where its size alone is to
// matter: what nodes want while they boot is as much in a large tree as in a small
// one. Among all objects, chosen at random, it is the processor's caches that matter.
const inUse = 10_000

// callWorks are calls about what is in use, and about all.
func callWorks() (works []load.Work) {
	for _, w := range load.Works() {
		if w.Name == "GETATTR" || w.Name == "LOOKUP" {
			few := w
			few.Name, few.Among = w.Name+fewSuffix, inUse
			works = append(works, few, w)
		}
	}
	return works
}

const fewSuffix = " of 10,000 in use"
