package report

import (
	"fmt"
	"math"
	"strings"

	"github.com/rootnfsd/rootnfsd/bench"
)

type state string

const (
	notMeasured state = "not measured"
	reached     state = "reached"
	missed      state = "missed"
	byTest      state = "kept by a test"
)

// A verdict is what measurements say of a goal. What was not measured is empty.
type verdict struct {
	state
	ours, theirs string
	ratio        string
	setting      string // the one that was the worst, where there were several
}

// judged is a goal and the verdict on it.
type judged struct {
	goal
	verdict
}

func judge(m measured) []judged {
	var all []judged
	for _, g := range goals() {
		v := g.test.judge(m)
		if v.state == "" {
			v.state = notMeasured
		}
		all = append(all, judged{g, v})
	}
	return all
}

// tally counts the goals of each state.
func tally(goals []judged) map[state]int {
	n := make(map[state]int)
	for _, g := range goals {
		n[g.state]++
	}
	return n
}

func stateOf(good bool) state {
	if good {
		return reached
	}
	return missed
}

// comparison sets the figure of rootnfsd's results against a peer's in the same
// setting.
type comparison struct {
	bench.Case        // rootnfsd's
	peer       string // the server to compare with,
	peerWork   string // and what it does, if that has another name
	figure     bench.Figure
	unit       quantity
}

// atMost is the goal that the figure is at most so many times the peer's.
func (c comparison) atMost(factor float64) test { return relative{c, factor, false} }

// atLeast is the goal that the figure is at least so many times the peer's.
func (c comparison) atLeast(factor float64) test { return relative{c, factor, true} }

type relative struct {
	comparison
	factor  float64
	atLeast bool
}

func (r relative) want() string {
	much := "at most "
	if r.atLeast {
		much = "at least "
	}
	if r.peer == ours {
		return much + r.times(quantity.exact, r.factor) + " of " + r.peerWork
	}
	return much + r.times(quantity.exact, r.factor) + " of " + r.peer
}

// times writes a ratio as goals do: 1/12 or 1.3×.
func (r relative) times(write func(quantity, float64) string, ratio float64) string {
	if r.factor < 1 && ratio < 1 {
		return "1/" + write(number, 1/ratio)
	}
	return write(times, ratio)
}

func (r relative) judge(m measured) verdict {
	var worst verdict
	var worstRatio float64
	ours := m.like(withServer(r.Case, ours))
	pairs := 0
	for _, result := range ours {
		a, b, ok := r.pair(m, result)
		if !ok {
			continue
		}
		pairs++
		ratio := a / b
		if pairs > 1 && r.atLeast == (ratio > worstRatio) {
			continue
		}
		worstRatio = ratio
		worst = verdict{
			state:   stateOf(r.holds(ratio)),
			ours:    r.unit.text(a),
			theirs:  r.unit.text(b),
			ratio:   r.times(quantity.text, ratio),
			setting: setting(result.Case),
		}
	}
	if pairs < 2 {
		worst.setting = ""
	}
	return worst
}

// pair returns the medians of a result and of the peer's in the same setting.
func (r relative) pair(m measured, result bench.Result) (ours, theirs float64, ok bool) {
	c := withServer(result.Case, r.peer)
	if r.peerWork != "" {
		c.Work = r.peerWork
	}
	peer, ok := m.of(c)
	if !ok {
		return 0, 0, false
	}
	ours = bench.Summarize(result.Runs, r.figure).Median
	theirs = bench.Summarize(peer.Runs, r.figure).Median
	return ours, theirs, ours > 0 && theirs > 0
}

func (r relative) holds(ratio float64) bool {
	if r.atLeast {
		return ratio >= r.factor
	}
	return ratio <= r.factor
}

// below is the goal that a figure of rootnfsd stays below a bound.
type below struct {
	bench.Case
	figure bench.Figure
	unit   quantity
	bound  float64
	worst  bool // the worst of all runs counts, not the median
}

func (b below) want() string { return "below " + b.unit.exact(b.bound) }

func (b below) judge(m measured) verdict {
	var v verdict
	most, n := 0.0, 0
	for _, result := range m.like(withServer(b.Case, ours)) {
		s := bench.Summarize(result.Runs, b.figure)
		value := s.Median
		if b.worst {
			value = s.Max
		}
		if value <= 0 {
			continue
		}
		n++
		if value > most {
			most = value
			v = verdict{state: stateOf(value < b.bound), ours: b.unit.text(value), setting: setting(result.Case)}
		}
	}
	if n < 2 {
		v.setting = ""
	}
	return v
}

// noErrors is the goal that no call fails.
type noErrors struct{ bench.Case }

func (noErrors) want() string { return "none" }

func (e noErrors) judge(m measured) verdict {
	results := m.like(withServer(e.Case, ours))
	if len(results) == 0 {
		return verdict{}
	}
	var failed, all uint64
	for _, r := range results {
		failed += errorCount(r.Runs)
		all += callCount(r.Runs)
	}
	return verdict{state: stateOf(failed == 0), ours: fmt.Sprintf("%s of %s", whole(failed), whole(all))}
}

// flat is the goal that a figure hardly grows with the number of objects.
type flat struct {
	bench.Case
	figure bench.Figure
	unit   quantity
	most   float64 // times the figure of the smallest tree
}

// The sizes of trees that a flat cost must be measured over at least, with
// some play, for nobody counts the objects of a tree that he makes.
const (
	smallTree = 12_000
	largeTree = 1_900_000
)

func (f flat) want() string {
	return fmt.Sprintf("within %.0f %%", (f.most-1)*100)
}

func (f flat) judge(m measured) verdict {
	keys, of := groups(m.like(withServer(f.Case, ours)), func(c bench.Case) bench.Case {
		c.Objects = 0
		return c
	})
	var worst verdict
	worstRatio, n := 0.0, 0
	for _, c := range keys {
		low, high, ok := f.extremes(of[c])
		if !ok {
			continue
		}
		n++
		if ratio := high / low; ratio > worstRatio {
			worstRatio = ratio
			worst = verdict{
				state:   stateOf(ratio <= f.most),
				ours:    f.unit.text(low) + " to " + f.unit.text(high),
				ratio:   quantity(times).text(ratio),
				setting: setting(c),
			}
		}
	}
	if n < 2 {
		worst.setting = ""
	}
	return worst
}

// extremes returns the least and the most of the figure, if trees of all sizes
// were measured.
func (f flat) extremes(m measured) (low, high float64, ok bool) {
	smallest, largest := math.MaxInt, 0
	low = math.Inf(1)
	for _, result := range m {
		v := bench.Summarize(result.Runs, f.figure).Median
		if v <= 0 || result.Objects <= 0 {
			continue
		}
		smallest, largest = min(smallest, result.Objects), max(largest, result.Objects)
		low, high = min(low, v), max(high, v)
	}
	return low, high, smallest <= smallTree && largest >= largeTree
}

// several is the goal that more than one way of doing the same was measured.
type several struct{ bench.Case }

func (several) want() string { return "both measured" }

func (s several) judge(m measured) verdict {
	keys, _ := groups(m.like(withServer(s.Case, ours)), func(c bench.Case) string { return c.Work })
	if len(keys) < 2 {
		return verdict{}
	}
	return verdict{state: reached, ours: "see below"}
}

// tested is a goal of which a test of package integration makes sure, because it
// is either kept or not, whatever the machine.
type tested struct{ wanted, by string }

func (t tested) want() string { return t.wanted }

func (t tested) judge(measured) verdict { return verdict{state: byTest, ours: "`" + t.by + "`"} }

func withServer(c bench.Case, server string) bench.Case {
	c.Server = server
	return c
}

// setting tells two cases of the same work apart.
func setting(c bench.Case) string {
	var s []string
	switch {
	case c.Connections == 1 && c.InFlight == 0:
		s = append(s, "1 connection")
	case c.Connections > 0 && c.InFlight == 0:
		s = append(s, whole(c.Connections)+" connections")
	case c.Connections > 0:
		s = append(s, streams(c))
	}
	if c.Nodes > 0 {
		s = append(s, whole(c.Nodes)+" nodes")
	}
	if c.Objects > 0 {
		s = append(s, whole(c.Objects)+" objects")
	}
	return strings.Join(s, ", ")
}

// streams writes connections × calls in flight on each.
func streams(c bench.Case) string {
	if c.InFlight == 0 {
		return whole(c.Connections)
	}
	return whole(c.Connections) + " × " + whole(c.InFlight)
}
