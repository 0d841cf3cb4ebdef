package report

import (
	"fmt"
	"math"
	"slices"
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
	runs         int    // the fewest of what is compared; 0 if it is not told by runs
}

// enoughRuns is how many it takes for a median to be believed. Fewer are marked.
const enoughRuns = 5

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
	withCPU    bool // tell the ratio of the servers' CPU, too
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
	peer := r.peer
	if peer == copying {
		peer += " and sync"
	}
	return much + r.times(quantity.exact, r.factor) + " of " + peer
}

// times writes a ratio as goals do: 1/12, 0.7× or 1.3×.
func (r relative) times(write func(quantity, float64) string, ratio float64) string {
	if r.factor < 0.7 && ratio < 1 {
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
		peer, ok := r.pair(m, result)
		a, b := medians(result, peer, r.figure)
		if !ok || a <= 0 || b <= 0 {
			continue
		}
		pairs++
		ratio := a / b
		if pairs > 1 && r.atLeast == (ratio > worstRatio) {
			continue
		}
		worstRatio = ratio
		worst = verdict{
			state:   stateBeside(r.holds(ratio), result, peer),
			ours:    r.unit.text(a) + failures(result),
			theirs:  r.unit.text(b) + failures(peer),
			ratio:   r.times(quantity.text, ratio) + r.cpuRatio(result, peer),
			setting: setting(result.Case),
			runs:    min(len(result.Runs), len(peer.Runs)),
		}
	}
	if pairs < 2 {
		worst.setting = ""
	}
	return worst
}

// stateBeside is stateOf where there is a peer. Who fails in calls has not done the
// work: rootnfsd misses its goal by that, and a peer that was faster is nobody to be
// held against.
func stateBeside(holds bool, ours, peer bench.Result) state {
	switch {
	case errorCount(ours.Runs) > 0:
		return missed
	case errorCount(peer.Runs) > 0 && !holds:
		return notMeasured
	}
	return stateOf(holds)
}

// failures marks a figure of a server that failed in calls.
func failures(r bench.Result) string {
	switch n := errorCount(r.Runs); n {
	case 0:
		return ""
	case 1:
		return " (1 error)"
	default:
		return " (" + whole(n) + " errors)"
	}
}

// cpuRatio tells how much CPU a server takes, if that is asked for and was measured.
func (r relative) cpuRatio(ours, peer bench.Result) string {
	a, b := medians(ours, peer, cpuSeconds)
	if !r.withCPU || a <= 0 || b <= 0 {
		return ""
	}
	return " (CPU " + quantity(times).text(a/b) + ")"
}

func medians(ours, theirs bench.Result, f bench.Figure) (a, b float64) {
	return bench.Summarize(ours.Runs, f).Median, bench.Summarize(theirs.Runs, f).Median
}

// pair returns the peer's result in the same setting.
func (r relative) pair(m measured, result bench.Result) (peer bench.Result, ok bool) {
	c := withServer(result.Case, r.peer)
	if r.peerWork != "" {
		c.Work = r.peerWork
	}
	return m.of(c)
}

func (r relative) holds(ratio float64) bool {
	if r.atLeast {
		return ratio >= r.factor
	}
	return ratio <= r.factor
}

// lead is the goal that rootnfsd does as many times the peer's calls in a second, or needs
// as many times less CPU for each: on one machine a server that waits for the disk, or
// shares its cores with the client, may show what it saves in one of the two alone.
type lead struct {
	bench.Case
	peer   string
	factor float64
}

func (l lead) want() string {
	factor := quantity(times).exact(l.factor)
	return "at least " + factor + " the rate of " + l.peer + ", or at most 1/" + quantity(number).exact(l.factor) + " of its CPU"
}

func (l lead) judge(m measured) verdict {
	var worst verdict
	least, pairs := math.Inf(1), 0
	for _, result := range m.like(withServer(l.Case, ours)) {
		peer, ok := m.of(withServer(result.Case, l.peer))
		rate, peerRate := medians(result, peer, bench.CallsPerSecond)
		cpu, peerCPU := medians(result, peer, bench.CPUPerCall)
		if !ok || rate <= 0 || peerRate <= 0 || cpu <= 0 || peerCPU <= 0 {
			continue
		}
		pairs++
		faster, cheaper := rate/peerRate, peerCPU/cpu
		if max(faster, cheaper) >= least {
			continue
		}
		least = max(faster, cheaper)
		both := func(rate, cpu float64, r bench.Result) string {
			return quantity(perSecond).text(rate) + ", " + quantity(duration).text(cpu) + failures(r)
		}
		worst = verdict{
			state:   stateBeside(least >= l.factor, result, peer),
			ours:    both(rate, cpu, result),
			theirs:  both(peerRate, peerCPU, peer),
			ratio:   quantity(times).text(faster) + ", CPU " + relative{factor: 1 / l.factor}.times(quantity.text, 1/cheaper),
			setting: setting(result.Case),
			runs:    min(len(result.Runs), len(peer.Runs)),
		}
	}
	if pairs < 2 {
		worst.setting = ""
	}
	return worst
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
	value := func(r bench.Result) (float64, bool) {
		s := bench.Summarize(r.Runs, b.figure)
		v := s.Median
		if b.worst {
			v = s.Max
		}
		return v, v > 0
	}
	return worstOf(m.like(withServer(b.Case, ours)), b.unit, value,
		func(v, than float64) bool { return v > than },
		func(v float64) bool { return v < b.bound })
}

// above is the goal that a figure of rootnfsd is at least a bound in every run.
type above struct {
	bench.Case
	figure bench.Figure
	unit   quantity
	bound  float64
}

func (a above) want() string { return "at least " + a.unit.exact(a.bound) }

func (a above) judge(m measured) verdict {
	value := func(r bench.Result) (float64, bool) {
		v := bench.Summarize(r.Runs, a.figure).Min
		return v, v > 0 || errorCount(r.Runs) > 0
	}
	return worstOf(m.like(withServer(a.Case, ours)), a.unit, value,
		func(v, than float64) bool { return v < than },
		func(v float64) bool { return v >= a.bound })
}

// worstOf is the verdict on the worst of rootnfsd's results, the first of those that are equal. value tells whether a
// result has one.
func worstOf(m measured, unit quantity, value func(bench.Result) (float64, bool), worse func(v, than float64) bool, holds func(float64) bool) verdict {
	var worst verdict
	var worstValue float64
	n := 0
	for _, result := range m {
		v, ok := value(result)
		if !ok {
			continue
		}
		n++
		if n > 1 && !worse(v, worstValue) {
			continue
		}
		worstValue = v
		worst = verdict{
			state:   stateOf(holds(v) && errorCount(result.Runs) == 0),
			ours:    unit.text(v) + failures(result),
			setting: setting(result.Case),
			runs:    len(result.Runs),
		}
	}
	if n < 2 {
		worst.setting = ""
	}
	return worst
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
	runs := len(results[0].Runs)
	for _, r := range results {
		runs = min(runs, len(r.Runs))
		failed += errorCount(r.Runs)
		all += callCount(r.Runs)
	}
	return verdict{state: stateOf(failed == 0), ours: fmt.Sprintf("%s of %s", whole(failed), whole(all)), runs: runs}
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
	fewest := func(m measured) int {
		return len(slices.MinFunc(m, func(a, b bench.Result) int { return len(a.Runs) - len(b.Runs) }).Runs)
	}
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
				runs:    fewest(of[c]),
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
