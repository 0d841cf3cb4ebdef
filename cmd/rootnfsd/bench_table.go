package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/rootnfsd/rootnfsd/bench"
	"github.com/rootnfsd/rootnfsd/bench/homes"
	"github.com/rootnfsd/rootnfsd/bench/load"
)

// loadTable shows results of load: medians, and how rootnfsd stands to the others.
func loadTable(w io.Writer, r *bench.Report) error {
	rows := [][]string{{"WORK", "CONNS", "SERVER", "TIME", "CALLS/S", "", "MB/S", "CPU/CALL", "P50", "P99", "P99.9", "MEMORY", "RATE", "CPU"}}
	ours := oursOf(r.Results)
	// Results come in the order in which things were measured, so those of a case
	// follow each other.
	var last bench.Case
	for _, x := range r.Results {
		row := make([]string, 2, len(rows[0]))
		if k := withoutServer(x.Case); k != last {
			last = k
			row[0], row[1] = x.Work, fmt.Sprintf("%dx%d", x.Connections, x.InFlight)
			if x.Cold {
				row[0] += " (cold)"
			}
		}
		row = append(row, x.Server, wholeTime(x))
		row = append(row, figures(x.Runs)...)
		if us, ok := ours[withoutServer(x.Case)]; ok && x.Server != "rootnfsd" {
			row = append(row, ratio(us, x, bench.CallsPerSecond), ratio(us, x, bench.CPUPerCall))
		}
		rows = append(rows, row)
	}
	if len(rows) == 1 {
		return nil
	}
	if err := table(w, rows); err != nil || len(ours) == 0 || len(ours) == len(r.Results) {
		return err
	}
	_, err := fmt.Fprintln(w, "\nRATE and CPU are rootnfsd's, divided by that of the server in the line.")
	return err
}

// wholeTime is how long work took that ran to its end.
func wholeTime(x bench.Result) string {
	if slices.ContainsFunc(load.Works(), func(w load.Work) bool { return w.Whole && w.Name == x.Work }) ||
		slices.ContainsFunc(homes.Works(), func(w homes.Work) bool { return w.Whole && w.Name == x.Work }) {
		return short(bench.Summarize(x.Runs, bench.Seconds).Median)
	}
	return ""
}

func withoutServer(c bench.Case) bench.Case {
	c.Server = ""
	return c
}

// figures are the medians of runs: rate and its spread, throughput, CPU, latency,
// memory.
func figures(runs []bench.Run) []string {
	median := func(f bench.Figure) float64 { return bench.Summarize(runs, f).Median }
	rate := bench.Summarize(runs, bench.CallsPerSecond)
	spread := ""
	if rate.Median > 0 {
		spread = fmt.Sprintf("±%.0f%%", (rate.Max-rate.Min)/rate.Median*50)
	}
	lasted := func(f func(bench.Run) time.Duration) string {
		return short(median(func(r bench.Run) float64 { return f(r).Seconds() }))
	}
	return []string{
		three(rate.Median), spread,
		three(median(bench.BytesPerSecond) / 1e6),
		short(median(bench.CPUPerCall)),
		lasted(func(r bench.Run) time.Duration { return r.P50 }),
		lasted(func(r bench.Run) time.Duration { return r.P99 }),
		lasted(func(r bench.Run) time.Duration { return r.P999 }),
		memory(median(func(r bench.Run) float64 { return float64(r.Resident) })),
	}
}

func ratio(us, other bench.Result, f bench.Figure) string {
	a, b := bench.Summarize(us.Runs, f).Median, bench.Summarize(other.Runs, f).Median
	switch {
	case a == 0 || b == 0:
		return "-"
	case a < b:
		return "1/" + three(b/a)
	default:
		return three(a/b) + "x"
	}
}

// three writes a number with three digits, or all those before the point; - is for
// what was not measured.
func three(v float64) string {
	switch {
	case v == 0:
		return "-"
	case v < 10:
		return strconv.FormatFloat(v, 'f', 2, 64)
	case v < 100:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
}

// short writes seconds in the unit that suits them.
func short(seconds float64) string {
	switch {
	case seconds == 0:
		return "-"
	case seconds < 1e-3:
		return three(seconds*1e6) + " us"
	case seconds < 1:
		return three(seconds*1e3) + " ms"
	default:
		return three(seconds) + " s"
	}
}

func memory(bytes float64) string {
	if bytes == 0 {
		return "-"
	}
	return size(uint64(bytes))
}

// oursOf returns the results of rootnfsd, by what was measured.
func oursOf(results []bench.Result) map[bench.Case]bench.Result {
	ours := map[bench.Case]bench.Result{}
	for _, x := range results {
		if x.Server == "rootnfsd" {
			ours[withoutServer(x.Case)] = x
		}
	}
	return ours
}
