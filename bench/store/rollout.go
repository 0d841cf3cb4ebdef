package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/bench"
	"github.com/rootnfsd/rootnfsd/bench/peer"
	"github.com/rootnfsd/rootnfsd/bench/rpc"
)

const (
	benchRollout = "rollout"
	workPromote  = "promote"         // from the switch on disk to the first mount that gets it
	workCommand  = "promote command" // as long as it runs
	workCalls    = "calls"           // of the nodes meanwhile
	otherTree    = 1000              // objects of the second version
	nodes        = 64
)

// Rollout promotes two versions in turn, so many times in each run, while nodes call
// on the server, and adds to a report how long it takes and what the nodes notice of it.
// A promote is done as a user does it, content checked first; how long that takes
// depends on the tree and is told apart.
func (b *Bench) Rollout(ctx context.Context, promotes int, report *bench.Report) error {
	dir, err := os.MkdirTemp(b.Dir, "rootnfsd-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	r := &rollout{Bench: b, store: filepath.Join(dir, "images"), report: report}
	if err := r.prepare(ctx, dir); err != nil {
		return err
	}
	s, err := peer.Rootnfsd(ctx, b.Program, r.store, "v1")
	if err != nil {
		return err
	}
	defer s.Stop()
	if err := r.mountAll(s); err != nil {
		return err
	}
	for i := range b.Runs {
		if err := r.underLoad(ctx, s, i, promotes); err != nil {
			return err
		}
	}
	return nil
}

// rollout is a store with versions v1, which is promoted, and v2.
type rollout struct {
	*Bench
	store  string
	report *bench.Report
	mounts *rpc.Conn
	roots  [2][]byte // the handles of the versions
}

func (r *rollout) prepare(ctx context.Context, dir string) error {
	if err := os.Mkdir(r.store, 0o755); err != nil {
		return err
	}
	first := r.Tree
	if first == "" {
		t, err := r.make(ctx, dir, madeUp)
		if err != nil {
			return err
		}
		first = t.path
	}
	second, err := r.make(ctx, dir, otherTree)
	if err != nil {
		return err
	}
	r.Say("sealing two versions")
	for _, args := range [][]string{
		{"seal", "--export", r.store, "--from", first, "v1"},
		{"seal", "--export", r.store, "--from", second.path, "v2"},
		{"promote", "--export", r.store, "v1"},
	} {
		if _, err := run(ctx, r.Program, args...); err != nil {
			return err
		}
	}
	return nil
}

// mountAll learns the handles of both versions.
func (r *rollout) mountAll(s *peer.Server) (err error) {
	if r.mounts, err = rpc.Dial(s.MountAddr, rpc.Options{}); err != nil {
		return err
	}
	for i := range r.roots {
		h, err := r.mounts.Mount(fmt.Sprintf("/@v%d", i+1))
		if err != nil {
			return err
		}
		r.roots[i] = bytes.Clone(h)
	}
	return nil
}

// underLoad promotes while nodes that run v1 make calls: a run, counted from 0.
func (r *rollout) underLoad(ctx context.Context, s *peer.Server, n, promotes int) error {
	fleet, err := newNodes(s.Addr, r.roots[0])
	if err != nil {
		return err
	}
	defer fleet.close()
	stop := make(chan struct{})
	came := make(chan error, 1)
	go func() { came <- fleet.run(stop) }()
	highest := peer.Watch(s)
	failed := r.promotes(ctx, n, promotes)
	resident := highest()
	close(stop)
	if err := errors.Join(failed, <-came); err != nil {
		return err
	}
	fleet.count.Resident = resident
	if fleet.failed != nil {
		r.Note(fmt.Sprintf("%d of %d calls failed: %v", fleet.count.Errors, fleet.count.Errors+fleet.count.Calls, fleet.failed))
	}
	r.report.Add(bench.Case{Bench: benchRollout, Work: workCalls, Server: ours, Connections: nodes, InFlight: 1}, fleet.summary())
	return nil
}

// promotes promotes each time the version that is not promoted.
func (r *rollout) promotes(ctx context.Context, n, promotes int) error {
	for i := range promotes {
		r.Say(fmt.Sprintf("promoting under load: %d of %d, run %d of %d", i+1, promotes, n+1, r.Runs))
		if err := r.promote(ctx, (n*promotes+i+1)%2); err != nil {
			return err
		}
	}
	return nil
}

// promote promotes a version and mounts until a mount gets it.
func (r *rollout) promote(ctx context.Context, version int) error {
	was, err := r.onDisk()
	if err != nil {
		return err
	}
	type outcome struct {
		bench.Run
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		o, err := run(ctx, r.Program, "promote", "--export", r.store, fmt.Sprintf("v%d", version+1))
		done <- outcome{o, err}
	}()
	visible, err := r.awaitSwitch(ctx, was, r.roots[version])
	o := <-done
	if err := errors.Join(o.err, err); err != nil {
		return err
	}
	c := bench.Case{Bench: benchRollout, Server: ours, Connections: nodes, InFlight: 1}
	c.Work = workPromote
	r.report.Add(c, bench.Run{Wall: visible})
	c.Work = workCommand
	r.report.Add(c, o.Run)
	return nil
}

const (
	lookEvery    = 500 * time.Microsecond
	promoteLimit = 5 * time.Minute
)

// awaitSwitch returns how long after the switch was seen on disk a mount gets
// the version with a root. A mount that gets it before the switch was seen took
// no time, which is told as one nanosecond.
func (r *rollout) awaitSwitch(ctx context.Context, was uint64, root []byte) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, promoteLimit)
	defer cancel()
	var switched time.Time
	for ctx.Err() == nil {
		now, err := r.onDisk()
		if err != nil {
			return 0, err
		}
		if now != was && switched.IsZero() {
			switched = time.Now()
		}
		h, err := r.mounts.Mount("/")
		switch {
		case err != nil:
			return 0, fmt.Errorf("mount during a promote: %w", err)
		case !bytes.Equal(h, root):
		case switched.IsZero():
			return 1, nil
		default:
			return time.Since(switched), nil
		}
		time.Sleep(lookEvery)
	}
	return 0, fmt.Errorf("no mount got the version that was promoted: %w", ctx.Err())
}

// onDisk tells the file apart that says what is promoted: it is replaced by each
// promote.
func (r *rollout) onDisk() (uint64, error) {
	var st unix.Stat_t
	path := filepath.Join(r.store, ".rootnfsd", "rollout.json")
	if err := unix.Stat(path, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Ino ^ uint64(st.Mtim.Nano()), nil
}
