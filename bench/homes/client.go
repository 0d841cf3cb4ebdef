package homes

import (
	"context"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/rootnfsd/rootnfsd/bench/rpc"
)

// source gives the jobs of a phase, for each line its own.
type source interface {
	// next appends the calls of the line's next job, or nothing if there is no more.
	next(line int, job []call) []call
}

// client drives a part of the connections, on one goroutine.
type client struct {
	loop  *rpc.Loop
	lines []*line
	first int // the number of the first of them among all connections

	// Of the current phase.
	source   source
	deadline time.Time // no jobs are begun after it, if there is one
	waiting  int       // calls without reply
	count    tally
	broken   error
}

// line is a connection with the jobs that are under way on it.
type line struct {
	*rpc.Line
	number int
	places []place
	xid    uint32
}

// place has one job after the other.
type place struct {
	job  []call
	at   int // the call that is in flight
	xid  uint32
	sent time.Time
}

// tally is what came of a phase.
type tally struct {
	calls, bytes, errors uint64
	failed               error // the first of the errors
	latency              *hdrhistogram.Histogram
}

const maxLatency = time.Minute

// newTally returns a tally for latencies to 1 %.
func newTally() tally { return tally{latency: hdrhistogram.New(1, maxLatency.Nanoseconds(), 2)} }

func newClient(addr string, o rpc.Options, first, connections, inFlight int) (*client, error) {
	loop, err := rpc.NewLoop()
	if err != nil {
		return nil, err
	}
	c := &client{loop: loop, first: first}
	for i := range connections {
		l, err := loop.Dial(addr, o)
		if err != nil {
			loop.Close()
			return nil, err
		}
		c.lines = append(c.lines, &line{Line: l, number: first + i, places: make([]place, inFlight)})
	}
	return c, nil
}

func (c *client) close() { c.loop.Close() }

// attention is how often it is looked whether a phase is to be stopped.
const attention = 200 * time.Millisecond

// run does the jobs of a source until the deadline, if that is not zero, or until there
// are no more. A connection that breaks, and replies that do not come before the limit,
// are an error.
func (c *client) run(ctx context.Context, s source, deadline, limit time.Time) error {
	c.source, c.deadline, c.waiting, c.count = s, deadline, 0, newTally()
	now := time.Now()
	for _, l := range c.lines {
		for i := range l.places {
			c.begin(l, uint32(i), now)
		}
		if err := l.Flush(); err != nil {
			return err
		}
	}
	for c.waiting > 0 && c.broken == nil {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case time.Now().After(limit):
			return fmt.Errorf("%d calls have no reply", c.waiting)
		}
		if err := c.loop.Turn(attention, c); err != nil {
			return err
		}
	}
	return c.broken
}

// begin begins the next job in a place, if there is one.
func (c *client) begin(l *line, at uint32, now time.Time) {
	p := &l.places[at]
	p.job, p.at = p.job[:0], 0
	if !c.deadline.IsZero() && !now.Before(c.deadline) {
		return
	}
	if p.job = c.source.next(l.number, p.job); len(p.job) > 0 {
		c.issue(l, at, now)
	}
}

// issue queues the call that is next in a place.
func (c *client) issue(l *line, at uint32, now time.Time) {
	p := &l.places[at]
	l.xid++
	p.xid = l.xid*uint32(len(l.places)) + at // so the place can be told from it
	p.sent = now
	c.waiting++
	l.Queue(p.job[p.at].encode(l.Buffer(), &l.Caller, p.xid))
}

// Reply is what the loop calls.
func (c *client) Reply(rl *rpc.Line, r *rpc.Reply, now time.Time) {
	l := c.lines[rl.Number]
	at := r.XID % uint32(len(l.places))
	p := &l.places[at]
	if p.xid != r.XID || p.at >= len(p.job) {
		c.fail(fmt.Errorf("a reply to call %#x, which was not made", r.XID))
		return
	}
	c.waiting--
	q := &p.job[p.at]
	n, err := q.accept(r)
	if !q.extra {
		c.count.latency.RecordValue(int64(min(now.Sub(p.sent), maxLatency)))
	}
	switch {
	case err != nil:
		c.fail(fmt.Errorf("%s %s: %w", q.proc, q.name, err))
		p.at = len(p.job) // what follows needs what failed
	case !q.extra:
		c.count.calls++
		c.count.bytes += uint64(n)
	}
	if p.at++; p.at < len(p.job) {
		c.issue(l, at, now)
	} else {
		c.begin(l, at, now)
	}
}

// Broken is what the loop calls.
func (c *client) Broken(_ *rpc.Line, err error) {
	c.broken = fmt.Errorf("the connection broke: %w", err)
}

func (c *client) fail(err error) {
	c.count.errors++
	if c.count.failed == nil {
		c.count.failed = err
	}
}
