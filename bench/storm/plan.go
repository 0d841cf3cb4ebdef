package storm

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Window is the time within which calls that arrive one after the other are taken
// to have been in flight together. Of the gaps between the calls of an emulated
// node one in ten is shorter than 64 us, nearly all others are longer than 256 us,
// and one in 200 lies between.
const Window = 150 * time.Microsecond

// Plan is what every node of a storm does: the calls of a trace with the handles of
// one server, and what the replies must be. It is not changed by use.
type Plan struct {
	Calls   int    // of each node, without MNT
	Bytes   uint64 // of file content that the replies carry
	Skipped Skipped

	mount  step // MNT, over a connection of its own
	steps  []step
	bursts []burst
}

// Skipped counts the calls of a trace that a plan does without.
type Skipped struct {
	Missing  int // of objects that are not there
	Unfit    int // of objects of another kind, and listings that have ended
	Unserved int // that the server does not offer: NFSACL, which few do
	Writes   int // that would change the tree
}

// Sum is how many they are.
func (s *Skipped) Sum() int { return s.Missing + s.Unfit + s.Unserved + s.Writes }

// String says what is left out and why.
func (s *Skipped) String() string {
	text := fmt.Sprintf("calls of the trace that are left out: %d", s.Sum())
	for _, part := range []struct {
		n   int
		why string
	}{
		{s.Missing, "about what is not there"},
		{s.Unfit, "that do not fit what is there"},
		{s.Unserved, "that the server does not offer"},
		{s.Writes, "that would write"},
	} {
		if part.n > 0 {
			text += fmt.Sprintf(", %d %s", part.n, part.why)
		}
	}
	return text
}

// step is a call and what its reply must be. The transaction's number is the step's
// own.
type step struct {
	proc    Proc
	status  uint32
	size    int    // of the reply
	payload int    // of it, file content
	handle  []byte // that LOOKUP or MNT gives
	call    []byte // the record to send
}

// burst is calls that are in flight together.
type burst struct {
	think       time.Duration // from the arrival of the call before to that of the first
	first, next int           // steps
	calls       [][]byte      // to send, for each connection of a node
}

// Clients returns the addresses in a trace, those that made most calls first.
func (t *Trace) Clients() []netip.Addr {
	counts := map[netip.Addr]int{}
	for _, c := range t.Calls {
		counts[c.Client]++
	}
	return slices.SortedFunc(maps.Keys(counts), func(a, b netip.Addr) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), a.Compare(b))
	})
}

// Of returns the calls of one client.
func (t *Trace) Of(client netip.Addr) *Trace {
	own := &Trace{}
	for _, c := range t.Calls {
		if c.Client == client {
			own.Calls = append(own.Calls, c)
		}
	}
	return own
}

// target is the path of the object that a call is about, and for LOOKUP the name.
func (c *Call) target() (path, name string) {
	if c.Proc != Lookup {
		return c.Path, ""
	}
	return split(c.Path)
}

// split cuts the last name off a path.
func split(path string) (dir, name string) {
	i := strings.LastIndexByte(path, '/')
	return path[:max(i, 0)], path[i+1:]
}

// planner makes bursts of the calls that are kept of a trace.
type planner struct {
	plan    *Plan
	last    time.Duration   // when the call before arrived
	learned map[string]bool // paths that LOOKUPs of the current burst ask for
}

// add adds a call to the plan.
func (p *planner) add(c *Call, s step) {
	steps := len(p.plan.steps)
	if steps == 0 {
		p.last = c.At
	}
	object, _ := c.target()
	if gap := c.At - p.last; steps == 0 || gap > Window || p.learned[object] {
		p.plan.bursts = append(p.plan.bursts, burst{think: gap, first: steps})
		p.learned = map[string]bool{}
	}
	if c.Proc == Lookup {
		p.learned[c.Path] = true
	}
	p.last = c.At
	p.plan.steps = append(p.plan.steps, s)
	p.plan.bursts[len(p.plan.bursts)-1].next = steps + 1
	p.plan.Calls++
	p.plan.Bytes += uint64(s.payload)
}

// spread makes the plan one for nodes of several connections, which share the calls
// of each burst.
func (p *Plan) spread(connections int) {
	for i := range p.bursts {
		b := &p.bursts[i]
		b.calls = make([][]byte, connections)
		for k := b.first; k < b.next; k++ {
			part := &b.calls[(k-b.first)%connections]
			*part = append(*part, p.steps[k].call...)
		}
	}
}
