package storm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/rootnfsd/rootnfsd/bench/rpc"
)

// MaxNodes is how many nodes there may be: as many as have addresses on loopback.
const MaxNodes = 1 << 20

// maxLatency is the longest that can be told apart.
const maxLatency = 100 * time.Second

// Config says how a plan is carried out, and on which server.
type Config struct {
	Target      string // host:port of NFS
	MountTarget string // host:port of MOUNT
	Nodes       int
	Connections int           // of each node; 0 is one. It is the same for Scout and Run
	Think       bool          // wait between bursts as the node of the trace did
	Ramp        time.Duration // from the start of the first node to that of the last
	// Options say as whom to call. On loopback Run chooses the addresses.
	Options rpc.Options
}

// Result is what came of a storm.
type Result struct {
	Nodes  int
	Booted int           // nodes that made all their calls
	Wall   time.Duration // until the last node had booted
	// How long the nodes took, each from its own start, those that booted.
	NodeP50, NodeMax time.Duration
	Calls            uint64
	Bytes            uint64 // of file content
	// Errors counts replies that were not what they must be, and the nodes that did
	// not boot; Complaints are the first of them.
	Errors     uint64
	Complaints []string
	Latency    *hdrhistogram.Histogram // of calls, in nanoseconds
}

// maxComplaints is how many are kept.
const maxComplaints = 10

// storm is what its nodes share.
type storm struct {
	config Config
	booted atomic.Int64

	mu      sync.Mutex // guards the rest
	result  Result
	latency *hdrhistogram.Histogram
	times   []time.Duration // of nodes that have booted
}

// Progress is told of a storm that goes on: how many nodes have booted.
type Progress func(booted int)

// Run carries out a plan and returns when the last node has booted. It returns an
// error only if ctx ends, or for a Config that makes no sense.
func (p *Plan) Run(ctx context.Context, c Config, progress Progress) (*Result, error) {
	if c.Nodes < 1 || c.Nodes > MaxNodes {
		return nil, fmt.Errorf("%d nodes: want 1 to %d", c.Nodes, MaxNodes)
	}
	if len(p.bursts) == 0 || max(1, c.Connections) != len(p.bursts[0].calls) {
		return nil, errors.New("the plan is for another number of connections")
	}
	target, err := addressOf(c.Target)
	if err != nil {
		return nil, err
	}
	s := &storm{config: c, latency: hdrhistogram.New(1, int64(maxLatency), 3)}
	s.result = Result{Nodes: c.Nodes, Latency: s.latency}

	stop := s.tell(progress)
	begun := time.Now()
	var nodes sync.WaitGroup
	for i := range c.Nodes {
		nodes.Go(func() {
			if c.Ramp > 0 {
				sleep(ctx, c.Ramp*time.Duration(i)/time.Duration(c.Nodes))
			}
			s.boot(ctx, p, address(i, target))
		})
	}
	nodes.Wait()
	s.result.Wall = time.Since(begun)
	stop()
	s.sum()
	return &s.result, ctx.Err()
}

// boot boots one node.
func (s *storm) boot(ctx context.Context, p *Plan, from netip.Addr) {
	n := &node{storm: s, plan: p, options: s.config.Options}
	if from.IsValid() {
		n.options.Local = from
	}
	begun := time.Now()
	err := n.boot(ctx)
	took := time.Since(begun)
	s.booted.Add(1)
	if err != nil {
		s.complain(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.result.Errors++
		return
	}
	s.times = append(s.times, took)
}

// complain keeps an error to be shown, if there are not too many.
func (s *storm) complain(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := err.Error()
	if len(s.result.Complaints) < maxComplaints && !slices.Contains(s.result.Complaints, text) {
		s.result.Complaints = append(s.result.Complaints, text)
	}
}

// tell shows the progress until stop is called.
func (s *storm) tell(progress Progress) (stop func()) {
	if progress == nil {
		return func() {}
	}
	done := make(chan struct{})
	var telling sync.WaitGroup
	telling.Go(func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				progress(int(s.booted.Load()))
			}
		}
	})
	return func() { close(done); telling.Wait() }
}

// sum completes the result.
func (s *storm) sum() {
	r := &s.result
	r.Booted = len(s.times)
	if r.Booted == 0 {
		return
	}
	slices.Sort(s.times)
	r.NodeP50, r.NodeMax = s.times[(r.Booted-1)/2], s.times[r.Booted-1]
}

// addressOf returns the address of a host:port.
func addressOf(target string) (netip.Addr, error) {
	a, err := net.ResolveTCPAddr("tcp", target)
	if err != nil {
		return netip.Addr{}, err
	}
	return a.AddrPort().Addr().Unmap(), nil
}
