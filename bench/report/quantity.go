package report

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/rootnfsd/rootnfsd/bench"
)

// A quantity tells the unit in which a value is best read: how much one unit
// is, and its name, which is empty for bare numbers.
type quantity func(v float64) (unit float64, name string)

func number(float64) (float64, string) { return 1, "" }

// duration is of values in seconds.
func duration(v float64) (float64, string) {
	switch {
	case v >= 1:
		return 1, "s"
	case v >= 1e-3:
		return 1e-3, "ms"
	case v >= 1e-6:
		return 1e-6, "µs"
	default:
		return 1e-9, "ns"
	}
}

// size is of bytes.
func size(v float64) (float64, string) {
	switch {
	case v >= 1<<30:
		return 1 << 30, "GiB"
	case v >= 1<<20:
		return 1 << 20, "MiB"
	case v >= 1<<10:
		return 1 << 10, "KiB"
	default:
		return 1, "B"
	}
}

func byteRate(float64) (float64, string) { return 1 << 20, "MiB/s" }

// times is of ratios.
func times(float64) (float64, string) { return 1, "×" }

// percent is of parts of a whole.
func percent(float64) (float64, string) { return 1e-2, "%" }

func perSecond(float64) (float64, string) { return 1, "/s" }

// noBreak keeps a number and its unit on one line.
const noBreak = "\u00a0"

// text writes a measured value.
func (q quantity) text(v float64) string {
	unit, name := q(v)
	return withUnit(digits(v/unit), name)
}

// exact writes a value that nobody measured: "1 ms", where text has "1.00 ms".
func (q quantity) exact(v float64) string {
	unit, name := q(v)
	value := digits(v / unit)
	if strings.Contains(value, ".") {
		value = strings.TrimRight(strings.TrimRight(value, "0"), ".")
	}
	return withUnit(value, name)
}

func withUnit(value, unit string) string {
	switch unit {
	case "", "×", "/s":
		return value + unit
	default:
		return value + noBreak + unit
	}
}

// spread writes the median, and in brackets the least and the most in the same
// unit unless they read the same. It is empty where nothing was measured.
func (q quantity) spread(s bench.Summary) string {
	if s.Median <= 0 {
		return ""
	}
	unit, _ := q(s.Median)
	least, most := digits(s.Min/unit), digits(s.Max/unit)
	if least == most {
		return q.text(s.Median)
	}
	return q.text(s.Median) + " (" + least + "–" + most + ")"
}

// counted is spread for what is counted rather than measured: in full.
func counted(s bench.Summary) string {
	full := func(v float64) string { return thousands(strconv.FormatFloat(v, 'f', 0, 64)) }
	switch {
	case s.Median <= 0:
		return ""
	case s.Min == s.Max:
		return full(s.Median)
	default:
		return full(s.Median) + " (" + full(s.Min) + "–" + full(s.Max) + ")"
	}
}

// digits writes a number with three significant digits, which is more than
// measurements repeat to, and commas between thousands.
func digits(v float64) string {
	if v == 0 || math.IsInf(v, 0) || math.IsNaN(v) {
		return strconv.FormatFloat(v, 'g', 3, 64)
	}
	before := int(math.Floor(math.Log10(math.Abs(v)))) + 1 // digits before the point
	if before < 3 {
		return strconv.FormatFloat(v, 'f', min(3-before, 6), 64)
	}
	scale := math.Pow10(before - 3)
	return thousands(strconv.FormatFloat(math.Round(v/scale)*scale, 'f', 0, 64))
}

func thousands(s string) string {
	var b strings.Builder
	for i, r := range s {
		if i > 0 && (len(s)-i)%3 == 0 && s[i-1] != '-' {
			b.WriteByte(',')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// whole writes a whole number in full.
func whole[N int | uint64](n N) string { return thousands(fmt.Sprint(n)) }

// roundTrip writes an added delay.
func roundTrip(d time.Duration) string { return quantity(duration).exact(d.Seconds()) }

// Figures that package bench does not have.

func cpuSeconds(r bench.Run) float64 { return r.CPU.Seconds() }
func calls(r bench.Run) float64      { return float64(r.Calls) }
func resident(r bench.Run) float64   { return float64(r.Resident) }
func diskRead(r bench.Run) float64   { return float64(r.DiskRead) }
func p50(r bench.Run) float64        { return r.P50.Seconds() }
func p99(r bench.Run) float64        { return r.P99.Seconds() }
func p999(r bench.Run) float64       { return r.P999.Seconds() }
func nodeP50(r bench.Run) float64    { return r.NodeP50.Seconds() }
func nodeMax(r bench.Run) float64    { return r.NodeMax.Seconds() }
func slowest(r bench.Run) float64    { return r.Max.Seconds() }

// tail is how many times as long as the median call the slowest in a hundred is.
func tail(r bench.Run) float64 {
	if r.P50 <= 0 {
		return 0
	}
	return float64(r.P99) / float64(r.P50)
}

// secondsPerCall is what a call costs: the server's CPU, or the time that
// passed where only that was measured.
func secondsPerCall(r bench.Run) float64 {
	if cpu := bench.CPUPerCall(r); cpu > 0 {
		return cpu
	}
	if r.Calls == 0 {
		return 0
	}
	return r.Wall.Seconds() / float64(r.Calls)
}

func callCount(runs []bench.Run) (n uint64) {
	for _, r := range runs {
		n += r.Calls
	}
	return n
}

func resentCount(runs []bench.Run) (n uint64) {
	for _, r := range runs {
		n += r.Resent
	}
	return n
}

func errorCount(runs []bench.Run) (n uint64) {
	for _, r := range runs {
		n += r.Errors
	}
	return n
}
