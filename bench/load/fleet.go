package load

import (
	"cmp"
	"context"
	"errors"
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

// newFleet has connections, each with a number of calls in flight, ready to be
// made. As many clients drive them as are asked for, or as half of the cores have
// room for: the other half is the server's.
func newFleet(t *Target, connections, inFlight, clients int) (*fleet, error) {
	if clients == 0 {
		clients = max(1, runtime.NumCPU()/2)
	}
	clients = min(clients, connections)
	f := &fleet{target: t}
	for i := range clients {
		c, err := newClient(t, share(connections, clients, i), inFlight)
		if err != nil {
			f.close()
			return nil, err
		}
		f.clients = append(f.clients, c)
	}
	return f, nil
}

// share is the part of n that is the i-th of so many.
func share(n, of, i int) int { return (i+1)*n/of - i*n/of }

func (f *fleet) close() {
	for _, c := range f.clients {
		c.close()
	}
}

func (f *fleet) connect() error {
	for _, c := range f.clients {
		if err := c.connect(); err != nil {
			return err
		}
	}
	return nil
}

// drainLimit is how long replies are waited for after the last call.
const drainLimit = time.Second

// outcome is what came of a run.
type outcome struct {
	bench.Run
	complete bool  // all replies came in time
	failed   error // the first call that failed, if any
}

// run does a work for some time, or to its end if it is whole, which may take no
// longer.
func (f *fleet) run(ctx context.Context, w Work, sources func(client int) source, duration time.Duration) (outcome, error) {
	if err := f.connect(); err != nil {
		return outcome{}, err
	}
	highest := func() uint64 { return 0 }
	if f.target.Meter != nil {
		highest = peer.Watch(f.target.Meter)
	}
	before := f.used()
	begun := time.Now()
	deadline := begun.Add(duration)
	limit := deadline
	if !w.Whole {
		limit = limit.Add(drainLimit)
	}
	errs := make([]error, len(f.clients))
	var running sync.WaitGroup
	for i, c := range f.clients {
		running.Go(func() { errs[i] = c.run(ctx, sources(i), deadline, limit) })
	}
	running.Wait()
	o := f.sum()
	o.Wall = time.Since(begun)
	after := f.used()
	o.CPU, o.DiskRead, o.Resident = after.CPU-before.CPU, after.DiskRead-before.DiskRead, highest()
	return o, errors.Join(append(errs, ctx.Err())...)
}

const (
	calmLook  = 100 * time.Millisecond
	calmCPU   = 5 * time.Millisecond // in that time
	calmLimit = 10 * time.Second
)

// calm waits until the server does not work any more on calls that were given up,
// which would be charged to the next run.
func (f *fleet) calm(ctx context.Context) {
	m := f.target.Meter
	if m == nil {
		return
	}
	for end := time.Now().Add(calmLimit); time.Now().Before(end) && ctx.Err() == nil; {
		before := m.CPU()
		time.Sleep(calmLook)
		if m.CPU()-before < calmCPU {
			return
		}
	}
}

// used is what the server has used so far.
func (f *fleet) used() bench.Run {
	m := f.target.Meter
	if m == nil {
		return bench.Run{}
	}
	return bench.Run{CPU: m.CPU(), DiskRead: m.DiskRead()}
}

// sum adds up what the clients counted.
func (f *fleet) sum() outcome {
	o := outcome{complete: true}
	latency := newTally().latency
	for _, c := range f.clients {
		n := &c.count
		o.Calls += n.calls
		o.Bytes += n.bytes
		o.Errors += n.errors
		o.failed = cmp.Or(o.failed, n.failed)
		o.complete = o.complete && n.complete
		latency.Merge(n.latency)
	}
	o.SetLatency(latency)
	return o
}
