package homes

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/rootnfsd/rootnfsd/bench"
	"github.com/rootnfsd/rootnfsd/bench/peer"
)

// fleet is all connections to a target, driven by a few clients.
type fleet struct {
	target  *Target
	clients []*client
}

// newFleet makes connections, each with room for a number of jobs. As many clients
// drive them as half of the cores have room for: the other half is the server's.
func newFleet(t *Target, connections, inFlight int) (*fleet, error) {
	f := &fleet{target: t}
	n := min(max(1, runtime.NumCPU()/2), connections)
	for i := range n {
		first, end := i*connections/n, (i+1)*connections/n
		c, err := newClient(t.Server.Addr, t.Options, first, end-first, inFlight)
		if err != nil {
			f.close()
			return nil, fmt.Errorf("%s: %w", t.Name, err)
		}
		f.clients = append(f.clients, c)
	}
	return f, nil
}

func (f *fleet) close() {
	for _, c := range f.clients {
		c.close()
	}
}

// phase is a part of a work that is over when all of its calls are answered.
type phase struct {
	source source
	timed  bool // it counts; else it prepares what does, or cleans up
	whole  bool // it goes on until the source has no more, else for a time
}

// outcome is what came of a work.
type outcome struct {
	bench.Run
	failed error // the first call that failed, if any
}

// do does the phases of a work, those that are not whole for a time. What is not timed
// must not fail.
func (f *fleet) do(ctx context.Context, phases []phase, duration, limit time.Duration) (o outcome, err error) {
	latency := newTally().latency
	for _, p := range phases {
		count, run, err := f.phase(ctx, p, duration, limit)
		if err != nil {
			return o, fmt.Errorf("%s: %w", f.target.Name, err)
		}
		if !p.timed {
			if count.failed != nil {
				return o, fmt.Errorf("%s: %w", f.target.Name, count.failed)
			}
			continue
		}
		o.Wall += run.Wall
		o.CPU += run.CPU
		o.DiskRead += run.DiskRead
		o.Resident = max(o.Resident, run.Resident)
		o.Calls += count.calls
		o.Bytes += count.bytes
		o.Errors += count.errors
		o.failed = cmp.Or(o.failed, count.failed)
		latency.Merge(count.latency)
	}
	o.SetLatency(latency)
	return o, nil
}

// phase does one phase, and meters the server.
func (f *fleet) phase(ctx context.Context, p phase, duration, limit time.Duration) (tally, bench.Run, error) {
	meter := f.target.Server.Meter
	highest := peer.Watch(meter)
	cpu, disk := meter.CPU(), meter.DiskRead()
	begun := time.Now()
	var deadline time.Time
	if !p.whole {
		deadline = begun.Add(duration)
	}
	errs := make([]error, len(f.clients))
	var running sync.WaitGroup
	for i, c := range f.clients {
		running.Go(func() { errs[i] = c.run(ctx, p.source, deadline, begun.Add(duration+limit)) })
	}
	running.Wait()
	run := bench.Run{Wall: time.Since(begun), CPU: meter.CPU() - cpu, DiskRead: meter.DiskRead() - disk, Resident: highest()}
	sum := newTally()
	for _, c := range f.clients {
		sum.calls += c.count.calls
		sum.bytes += c.count.bytes
		sum.errors += c.count.errors
		sum.failed = cmp.Or(sum.failed, c.count.failed)
		sum.latency.Merge(c.count.latency)
	}
	return sum, run, errors.Join(errs...)
}
