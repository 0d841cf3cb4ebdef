package report

import (
	"fmt"
	"strings"

	"github.com/rootnfsd/rootnfsd/bench"
)

// headlines are sentences that say the most important of what was measured.
func (p page) headlines() []string {
	var all []string
	tell := func(sentence string) {
		if sentence != "" {
			all = append(all, sentence)
		}
	}
	for _, n := range []int{256, 1024} {
		tell(p.results.duel("rootnfsd boots "+whole(n)+" nodes in %s", bench.Seconds, duration,
			bench.Case{Bench: "storm", Nodes: n}))
	}
	for _, w := range []string{"GETATTR", "READ 4 KiB", "READ 128 KiB"} {
		tell(p.results.duel("A "+strings.Replace(w, "READ ", "READ of ", 1)+" costs rootnfsd %s of CPU", bench.CPUPerCall, duration,
			bench.Case{Bench: "race", Work: w, Connections: 4, InFlight: 16}))
	}
	tell(p.results.duel("In a guest rootnfsd answers %s GETATTRs a second", bench.CallsPerSecond, number,
		bench.Case{Bench: "guest", Work: "GETATTR", Connections: 4, InFlight: 16}))
	tell(p.results.duel("rootnfsd seals a tree in %s", bench.Seconds, duration, bench.Case{Bench: "store", Work: "seal"}))
	tell(p.results.duel("64 nodes have a boot file from rootnfsd in %s", bench.Seconds, duration,
		bench.Case{Bench: "tftp", Work: bootBlocks, Nodes: 64}))
	for _, r := range p.results.like(bench.Case{Bench: "boot"}) {
		tell(fmt.Sprintf("A boot with %s makes %s calls and takes %s.", escape(r.Work),
			counted(bench.Summarize(r.Runs, calls)), quantity(duration).spread(bench.Summarize(r.Runs, bench.Seconds))))
	}
	return all
}

// duel writes what rootnfsd's figure is in the first of the cases like c, and
// what those of the others are. It is empty unless both sides were measured.
func (m measured) duel(lead string, f bench.Figure, q quantity, c bench.Case) string {
	mine := m.like(withServer(c, ours))
	if len(mine) == 0 {
		return ""
	}
	own := bench.Summarize(mine[0].Runs, f).Median
	var others []string
	for _, r := range m {
		value := bench.Summarize(r.Runs, f).Median
		if r.Server == ours || withServer(r.Case, ours) != mine[0].Case || value <= 0 {
			continue
		}
		how := " (" + quantity(times).text(value/own) + ")"
		if errorCount(r.Runs) > 0 {
			how = failures(r) // its time is not that of the whole work
		}
		others = append(others, escape(r.Server)+" "+q.text(value)+how)
	}
	if own <= 0 || len(others) == 0 {
		return ""
	}
	return fmt.Sprintf(lead, q.text(own)) + failures(mine[0]) + "; " + strings.Join(others, ", ") + "."
}
