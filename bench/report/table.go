package report

import (
	"slices"
	"strings"

	"github.com/rootnfsd/rootnfsd/bench"
)

// column is one of a table of results. Columns in which no row has anything are
// left out.
type column struct {
	name string
	cell func(bench.Result) string
}

// labels are the columns that say what was measured.
func labels() []column {
	return []column{
		{"work", func(r bench.Result) string { return escape(r.Work) }},
		{"page cache", func(r bench.Result) string { return ifTrue(r.Cold, "cold") }},
		{"added round trip", func(r bench.Result) string { return ifTrue(r.RTT > 0, roundTrip(r.RTT)) }},
		{"connections × in flight", func(r bench.Result) string { return ifTrue(r.Connections > 0, streams(r.Case)) }},
		{"nodes", func(r bench.Result) string { return ifTrue(r.Nodes > 0, whole(r.Nodes)) }},
		{"objects", func(r bench.Result) string { return ifTrue(r.Objects > 0, whole(r.Objects)) }},
		{"server", func(r bench.Result) string { return escape(r.Server) }},
	}
}

// figures are the columns that say what came out.
func figures() []column {
	return []column{
		{"time", ofWhole(summed(bench.Seconds, duration))},
		{"a node's p50", summed(nodeP50, duration)},
		{"slowest node", summed(nodeMax, duration)},
		{"least share", summed(bench.LeastShare, percent)},
		{"calls", ofWhole(func(r bench.Result) string { return counted(bench.Summarize(r.Runs, calls)) })},
		{"calls/s", summed(bench.CallsPerSecond, number)},
		{"content", summed(bench.BytesPerSecond, byteRate)},
		{"CPU", ofWhole(summed(cpuSeconds, duration))},
		{"CPU per call", summed(bench.CPUPerCall, duration)},
		{"CPU per GB", summed(bench.CPUPerGB, duration)},
		{"p50", summed(p50, duration)},
		{"p99", summed(p99, duration)},
		{"p99.9", summed(p999, duration)},
		{"slowest call", summed(slowest, duration)},
		{"memory", summed(resident, size)},
		{"read from disk", summed(diskRead, size)},
		{"sent again", func(r bench.Result) string {
			n := resentCount(r.Runs)
			return ifTrue(n > 0, whole(n))
		}},
		{"errors", func(r bench.Result) string {
			n := errorCount(r.Runs)
			return ifTrue(n > 0, whole(n))
		}},
		{"runs", func(r bench.Result) string { return whole(len(r.Runs)) }},
	}
}

func summed(f bench.Figure, q quantity) func(bench.Result) string {
	return func(r bench.Result) string { return q.spread(bench.Summarize(r.Runs, f)) }
}

// ofWhole leaves out what says nothing of work that simply went on until its
// time was over.
func ofWhole(cell func(bench.Result) string) func(bench.Result) string {
	return func(r bench.Result) string {
		timed := r.Bench == "race" || r.Bench == "guest" || r.Bench == "counted"
		if timed && slices.Contains(callWorks(), r.Work) {
			return ""
		}
		return cell(r)
	}
}

func ifTrue(ok bool, s string) string {
	if ok {
		return s
	}
	return ""
}

// table writes results as a table in Markdown, with figures at the right and
// without the columns that are told elsewhere.
func table(m measured, told ...string) string {
	var head, rule []string
	rows := make([][]string, len(m))
	add := func(columns []column, ruled string) {
		for _, c := range columns {
			cells := make([]string, len(m))
			for i, r := range m {
				cells[i] = c.cell(r)
			}
			if slices.Contains(told, c.name) || strings.Join(cells, "") == "" {
				continue
			}
			head, rule = append(head, c.name), append(rule, ruled)
			for i := range rows {
				rows[i] = append(rows[i], cells[i])
			}
		}
	}
	add(labels(), "---")
	add(figures(), "---:")
	return grid(head, rule, rows)
}

// grid writes a table in Markdown, whose cells are Markdown already.
func grid(head, rule []string, rows [][]string) string {
	var b strings.Builder
	for _, row := range slices.Concat([][]string{head, rule}, rows) {
		b.WriteByte('|')
		for _, cell := range row {
			b.WriteString(" " + cell + " |")
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// escape keeps text that came from a file from being taken for Markdown or HTML.
func escape(s string) string {
	return strings.NewReplacer(
		"|", `\|`, "\n", " ", "\r", " ", "<", "&lt;", ">", "&gt;", "&", "&amp;",
		"`", "\\`", "*", `\*`, "_", `\_`, "~", `\~`, "[", `\[`, "]", `\]`,
	).Replace(s)
}
