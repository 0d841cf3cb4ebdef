package storm

import (
	"context"
	"time"

	"github.com/rootnfsd/rootnfsd/bench"
	"github.com/rootnfsd/rootnfsd/bench/peer"
)

// Meter tells what a server has used so far, and what memory it has, in bytes. A
// peer.Meter does for a server that is one process.
type Meter interface {
	CPU() time.Duration
	Resident() uint64
	DiskRead() uint64
}

// Measure carries out a plan and returns what it took, of the server too if m
// is not nil. Complaints are some of the errors.
func (p *Plan) Measure(ctx context.Context, c Config, m Meter, progress Progress) (run bench.Run, complaints []string, err error) {
	var cpu time.Duration
	var disk uint64
	highest := func() uint64 { return 0 }
	if m != nil {
		cpu, disk = m.CPU(), m.DiskRead()
		highest = peer.Watch(m)
	}
	r, err := p.Run(ctx, c, progress)
	run.Resident = highest()
	if err != nil {
		return run, nil, err
	}
	if m != nil {
		run.CPU, run.DiskRead = m.CPU()-cpu, m.DiskRead()-disk
	}
	run.Wall, run.Calls, run.Bytes, run.Errors = r.Wall, r.Calls, r.Bytes, r.Errors
	run.NodeP50, run.NodeMax = r.NodeP50, r.NodeMax
	run.SetLatency(r.Latency)
	return run, r.Complaints, nil
}
