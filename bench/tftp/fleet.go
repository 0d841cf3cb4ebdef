package tftp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/rootnfsd/rootnfsd/bench"
	"github.com/rootnfsd/rootnfsd/bench/udp"
)

// attention is how often a loop looks for clients that got no answer, and whether it is
// to be stopped.
const attention = 100 * time.Millisecond

// fleet is all clients of a run, which several loops drive.
type fleet struct {
	loops []*loop
	// one is set when the first client has all of the file: until then each was to get
	// as much as any other.
	one atomic.Bool
}

// loop drives some of the clients, on one goroutine.
type loop struct {
	fleet   *fleet
	poll    *udp.Poll
	clients []*client
	open    int // of them that have not ended
	begun   time.Time
	latency *hdrhistogram.Histogram
	early   []int // bytes that each had when the first of all clients had all
	buf     [udp.MaxDatagram]byte
	errors  uint64
	failed  error // the first
}

// maxLatency is the longest that can be told apart.
const maxLatency = time.Minute

// newFleet makes clients of a server. As many loops drive them as half of the cores
// have room for: the other half is the server's.
func newFleet(server netip.AddrPort, content []byte, o Options, clients int) (*fleet, error) {
	f := new(fleet)
	n := min(max(1, runtime.NumCPU()/2), clients)
	for i := range n {
		poll, err := udp.NewPoll()
		if err != nil {
			f.close()
			return nil, err
		}
		l := &loop{fleet: f, poll: poll, latency: hdrhistogram.New(1, maxLatency.Nanoseconds(), 2)}
		f.loops = append(f.loops, l)
		for number := i * clients / n; number < (i+1)*clients/n; number++ {
			if err := l.add(number, server, content, o); err != nil {
				f.close()
				return nil, err
			}
		}
	}
	return f, nil
}

func (l *loop) add(number int, server netip.AddrPort, content []byte, o Options) error {
	record := func(d time.Duration) { l.latency.RecordValue(int64(min(d, maxLatency))) }
	c, err := newClient(address(number, server.Addr()), server, content, o, record)
	if err != nil {
		return err
	}
	l.clients = append(l.clients, c)
	return l.poll.Add(c.socket, int32(len(l.clients)-1))
}

// address is where a client calls from: on loopback all have one of their own.
func address(number int, server netip.Addr) netip.Addr {
	if !server.IsLoopback() {
		return netip.IPv4Unspecified()
	}
	number++
	return netip.AddrFrom4([4]byte{127, byte(1 + number>>16), byte(number >> 8), byte(number)})
}

func (f *fleet) close() {
	for _, l := range f.loops {
		for _, c := range l.clients {
			c.socket.Close()
		}
		l.poll.Close()
	}
}

// fetch has all clients fetch a file, at most for a time. What was measured of the
// clients is in the run; failed is the first error that one of them had.
func (f *fleet) fetch(ctx context.Context, file string, limit time.Duration) (r bench.Run, failed, err error) {
	begun := time.Now()
	errs := make([]error, len(f.loops))
	var running sync.WaitGroup
	for i, l := range f.loops {
		running.Go(func() { errs[i] = l.run(ctx, file, begun, limit) })
	}
	running.Wait()
	r.Wall = time.Since(begun)
	latency := hdrhistogram.New(1, maxLatency.Nanoseconds(), 2)
	var early []int
	var times []time.Duration
	for _, l := range f.loops {
		for _, c := range l.clients {
			r.Calls += uint64(c.blocks)
			r.Bytes += uint64(c.came)
			r.Resent += c.resent
			if c.done {
				times = append(times, c.took)
			}
		}
		r.Errors += l.errors
		failed = cmp.Or(failed, l.failed)
		early = append(early, l.early...)
		latency.Merge(l.latency)
	}
	r.SetLatency(latency)
	r.LeastShare = leastShare(early)
	if len(times) > 0 {
		slices.Sort(times)
		r.NodeP50, r.NodeMax = times[(len(times)-1)/2], times[len(times)-1]
	}
	return r, failed, errors.Join(errs...)
}

// noShare is what a share of nothing is told as: zero would mean that none was measured.
const noShare = 1e-9

// leastShare is the least of some numbers, divided by their mean; it is zero where there
// are no two of them, or all are nothing.
func leastShare(early []int) float64 {
	if len(early) < 2 {
		return 0
	}
	sum := 0
	for _, n := range early {
		sum += n
	}
	if sum == 0 {
		return 0
	}
	return max(noShare, float64(slices.Min(early))*float64(len(early))/float64(sum))
}

// run drives the clients until all have ended.
func (l *loop) run(ctx context.Context, file string, begun time.Time, limit time.Duration) error {
	l.begun, l.open = begun, len(l.clients)
	for _, c := range l.clients {
		if err := c.begin(file, time.Now()); err != nil {
			l.end(c, err, begun)
		}
	}
	looked := begun
	for l.open > 0 {
		ready, err := l.poll.Wait(attention)
		if err != nil {
			return err
		}
		now := time.Now()
		for _, key := range ready {
			c := l.clients[key]
			if c.ended {
				c.receive(l.buf[:]) // what comes too late is taken off, and nobody cares
				continue
			}
			if err := c.serve(l.buf[:], now); err != nil || c.done {
				l.end(c, err, now)
			}
		}
		l.note()
		if now.Sub(looked) < attention {
			continue
		}
		looked = now
		if err := l.look(ctx, now, limit); err != nil {
			return err
		}
	}
	l.note()
	return nil
}

// look sees to clients that got no answer.
func (l *loop) look(ctx context.Context, now time.Time, limit time.Duration) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	for _, c := range l.clients {
		if c.ended {
			continue
		}
		err := c.remind(now)
		if now.Sub(l.begun) > limit {
			err = fmt.Errorf("it has %d of %d bytes after %v", c.came, len(c.content), limit)
		}
		if err != nil {
			l.end(c, err, now)
		}
	}
	return nil
}

// end is for a client that has all, or has failed.
func (l *loop) end(c *client, err error, now time.Time) {
	c.ended = true
	c.took = now.Sub(l.begun)
	l.open--
	if err != nil {
		c.giveUp(err)
		l.errors++
		l.failed = cmp.Or(l.failed, err)
		return
	}
	l.fleet.one.Store(true)
	l.note()
}

// note notes what each client has when the first has all.
func (l *loop) note() {
	if l.early != nil || !l.fleet.one.Load() {
		return
	}
	l.early = make([]int, len(l.clients))
	for i, c := range l.clients {
		l.early[i] = c.came
	}
}
