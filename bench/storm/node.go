package storm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/rootnfsd/rootnfsd/bench/rpc"
)

// node is a node of a storm while it boots.
type node struct {
	*storm
	plan    *Plan
	options rpc.Options
	conns   []*rpc.Conn
	seen    []bool // replies of the current burst
	debt    time.Duration

	calls, bytes, wrong uint64
	latencies           []time.Duration // not yet in the storm's histogram
}

// boot mounts, makes all calls of the plan, and returns the error that ended it
// early, if one did. Wrong replies do not: they are counted.
func (n *node) boot(ctx context.Context) error {
	defer n.flush()
	defer n.hangUp()
	if err := n.mount(); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, n.hangUp)() // a storm that is given up ends at once
	for i := range n.plan.bursts {
		if err := n.play(ctx, &n.plan.bursts[i]); err != nil {
			return err
		}
	}
	return nil
}

func (n *node) hangUp() {
	for _, c := range n.conns {
		c.Close()
	}
}

// mount does what klibc's nfsmount does: MNT over a connection of its own.
func (n *node) mount() error {
	m, err := rpc.Dial(n.config.MountTarget, n.options)
	if err != nil {
		return err
	}
	defer m.Close()
	r, err := m.Do(0, n.plan.mount.call)
	if err == nil {
		err = n.plan.mount.check(r)
	}
	if err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	for range max(1, n.config.Connections) {
		c, err := rpc.Dial(n.config.Target, n.options)
		if err != nil {
			return err
		}
		n.conns = append(n.conns, c)
	}
	return nil
}

// play makes the calls of a burst and waits for all replies.
func (n *node) play(ctx context.Context, b *burst) error {
	if n.config.Think {
		n.think(ctx, b.think)
	}
	n.seen = append(n.seen[:0], make([]bool, b.next-b.first)...)
	begun := time.Now()
	for i, calls := range b.calls {
		if len(calls) > 0 {
			if err := n.conns[i].Send(calls); err != nil {
				return err
			}
		}
	}
	for i, c := range n.conns {
		for k := b.first + i; k < b.next; k += len(n.conns) {
			r, err := c.Receive()
			if err != nil {
				return fmt.Errorf("waiting for %s: %w", n.plan.steps[k].proc, err)
			}
			n.latencies = append(n.latencies, time.Since(begun))
			if err := n.check(b, r); err != nil {
				n.wrong++
				n.complain(err)
			}
		}
	}
	if len(n.latencies) >= flushAt {
		n.flush()
	}
	return nil
}

// minSleep is the shortest time that is worth sleeping: shorter ones are saved up.
const minSleep = 2 * time.Millisecond

// think waits as long as the node of the trace did.
func (n *node) think(ctx context.Context, d time.Duration) {
	n.debt += d
	if n.debt < minSleep {
		return
	}
	begun := time.Now()
	sleep(ctx, n.debt)
	n.debt -= time.Since(begun)
}

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// check holds a reply against what the scout got.
func (n *node) check(b *burst, r *rpc.Reply) error {
	k := int(r.XID)
	if k < b.first || k >= b.next || n.seen[k-b.first] {
		return fmt.Errorf("a reply to call %d, which waits for none", r.XID)
	}
	n.seen[k-b.first] = true
	n.calls++
	s := &n.plan.steps[k]
	if err := s.check(r); err != nil {
		return fmt.Errorf("%s: %w", s.proc, err)
	}
	n.bytes += uint64(s.payload)
	return nil
}

func (s *step) check(r *rpc.Reply) error {
	if r.Status != s.status || (s.status == 0) != r.OK() {
		return fmt.Errorf("status %d (%v), where the scout got %d", r.Status, r.Err(), s.status)
	}
	if r.Size != s.size {
		return fmt.Errorf("a reply of %d bytes, where the scout got %d", r.Size, s.size)
	}
	if s.status != 0 {
		return nil
	}
	switch s.proc {
	case Mnt:
		if handle, ok := r.Mount(); !ok || !bytes.Equal(handle, s.handle) {
			return errors.New("another handle than the scout got: was a version promoted meanwhile?")
		}
	case Lookup:
		var a rpc.Attr
		if handle, ok := r.Lookup(&a); !ok || !bytes.Equal(handle, s.handle) {
			return errors.New("another handle than the scout got")
		}
	case Read:
		if count, _, ok := r.Read(); !ok || count != s.payload {
			return fmt.Errorf("%d bytes, where the file has %d", count, s.payload)
		}
	}
	return nil
}

// flushAt is how many latencies a node saves up.
const flushAt = 256

// flush adds what the node has counted to the storm.
func (n *node) flush() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, d := range n.latencies {
		n.latency.RecordValue(min(d.Nanoseconds(), int64(maxLatency)))
	}
	n.result.Calls += n.calls
	n.result.Bytes += n.bytes
	n.result.Errors += n.wrong
	n.latencies, n.calls, n.bytes, n.wrong = n.latencies[:0], 0, 0, 0
}

// address is where node i calls from: on loopback all have one of their own.
func address(i int, target netip.Addr) netip.Addr {
	if !target.Is4() || !target.IsLoopback() {
		return netip.Addr{}
	}
	i++
	return netip.AddrFrom4([4]byte{127, byte(1 + i>>16), byte(i >> 8), byte(i)})
}
