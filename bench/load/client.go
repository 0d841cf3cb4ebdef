package load

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/rootnfsd/rootnfsd/bench/rpc"
)

// client drives a part of the connections, on one goroutine.
type client struct {
	target   *Target
	loop     *rpc.Loop
	inFlight int // on each line
	lines    []*line

	// Of the current run.
	source   source
	deadline time.Time // no calls are made after it
	waiting  int       // calls without reply
	more     []request // go before those of the source
	count    tally
}

// line is a connection with the calls that are in flight on it.
type line struct {
	*rpc.Line
	calls []inFlight
	xid   uint32
}

type inFlight struct {
	request
	xid     uint32
	sent    time.Time
	waiting bool
}

// tally is what came of a run.
type tally struct {
	calls, bytes, errors uint64
	failed               error // the first of the errors
	latency              *hdrhistogram.Histogram
	complete             bool // every call was answered
}

// maxLatency is the longest that can be told apart.
const maxLatency = time.Minute

// newTally returns a tally for latencies to 1 %.
func newTally() tally {
	return tally{latency: hdrhistogram.New(1, maxLatency.Nanoseconds(), 2)}
}

func newClient(t *Target, connections, inFlight int) (*client, error) {
	loop, err := rpc.NewLoop()
	if err != nil {
		return nil, err
	}
	return &client{target: t, loop: loop, inFlight: inFlight, lines: make([]*line, connections)}, nil
}

// connect makes the connections that are not there. The loop numbers its lines
// from 0, and gives numbers that became free again first.
func (c *client) connect() error {
	for slices.Contains(c.lines, nil) {
		made, err := c.loop.Dial(c.target.Addr, c.target.Options)
		if err != nil {
			return fmt.Errorf("%s: %w", c.target.Name, err)
		}
		c.lines[made.Number] = &line{Line: made, calls: make([]inFlight, c.inFlight)}
	}
	return nil
}

// run makes calls until the deadline, or until the source has no more, and waits
// for their replies, at most until the limit. What came of it is in count.
func (c *client) run(ctx context.Context, s source, deadline, limit time.Time) error {
	c.source, c.deadline, c.count, c.more = s, deadline, newTally(), c.more[:0]
	now := time.Now()
	if !now.Before(deadline) {
		c.deadline = now.Add(1) // a busy machine may come to this late: the first calls are made
	}
	for _, l := range c.lines {
		for i := range l.calls {
			if !c.issue(l, uint32(i), now) {
				break
			}
		}
		if err := l.Flush(); err != nil {
			return err
		}
	}
	for c.waiting > 0 && ctx.Err() == nil {
		left := time.Until(limit)
		if left <= 0 {
			c.abandon(time.Now())
			return nil
		}
		if err := c.loop.Turn(min(left, attention), c); err != nil {
			return err
		}
	}
	c.count.complete = true
	return nil
}

// attention is how often it is looked whether the run is to be stopped.
const attention = 200 * time.Millisecond

// issue queues the next call, in a place among those in flight on a line, and
// reports whether there is one.
func (c *client) issue(l *line, place uint32, now time.Time) bool {
	if !now.Before(c.deadline) {
		return false
	}
	call := &l.calls[place]
	if n := len(c.more); n > 0 {
		call.request = c.more[n-1]
		c.more = c.more[:n-1]
	} else if !c.source.next(&call.request) {
		return false
	}
	l.xid++
	call.xid = l.xid*uint32(len(l.calls)) + place // so the place can be told from it
	call.sent, call.waiting = now, true
	c.waiting++
	l.Queue(c.target.encode(l.Buffer(), &l.Caller, call.xid, &call.request))
	return true
}

// Reply is what the loop calls.
func (c *client) Reply(rl *rpc.Line, r *rpc.Reply, at time.Time) {
	l := c.lines[rl.Number]
	place := r.XID % uint32(len(l.calls))
	call := &l.calls[place]
	if !call.waiting || call.xid != r.XID {
		c.fail(fmt.Errorf("a reply to call %#x, which was not made", r.XID))
		return
	}
	call.waiting = false
	c.waiting--
	c.count.latency.RecordValue(int64(at.Sub(call.sent)))
	n, more, ok := c.target.accept(&call.request, r)
	if !ok {
		err := r.Err()
		if err == nil {
			err = errors.New("a wrong reply")
		}
		c.fail(fmt.Errorf("%s of %s: %w", call.proc, c.target.tree.path(call.object), err))
	} else {
		c.count.calls++
		c.count.bytes += uint64(n)
		if more {
			c.more = append(c.more, call.request)
		}
	}
	c.issue(l, place, at)
}

func (c *client) fail(err error) {
	c.count.errors++
	if c.count.failed == nil {
		c.count.failed = fmt.Errorf("%s: %w", c.target.Name, err)
	}
}

// Broken is what the loop calls: the calls in flight on the line are lost.
func (c *client) Broken(rl *rpc.Line, err error) {
	l := c.lines[rl.Number]
	c.lines[rl.Number] = nil
	for i := range l.calls {
		if l.calls[i].waiting {
			c.waiting--
			c.fail(fmt.Errorf("the connection broke: %w", err))
		}
	}
}

// abandon gives up calls that are in flight, and the lines that they are on. They
// have failed, and have taken as long as they were waited for.
func (c *client) abandon(now time.Time) {
	c.waiting = 0
	for i, l := range c.lines {
		for j := range l.calls {
			call := &l.calls[j]
			if !call.waiting {
				continue
			}
			c.count.latency.RecordValue(int64(min(now.Sub(call.sent), maxLatency)))
			c.fail(fmt.Errorf("%s of %s: no reply in time", call.proc, c.target.tree.path(call.object)))
			if c.lines[i] != nil {
				l.Close()
				c.lines[i] = nil
			}
		}
	}
}

func (c *client) close() { c.loop.Close() }
