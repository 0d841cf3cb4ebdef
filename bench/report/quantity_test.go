package report

import (
	"math"
	"testing"

	"github.com/rootnfsd/rootnfsd/bench"
)

func TestQuantities(t *testing.T) {
	for _, c := range []struct {
		of   quantity
		v    float64
		want string
	}{
		{duration, 0.83e-9, "0.830\u00a0ns"},
		{duration, 733.4e-9, "733\u00a0ns"},
		{duration, 13.24e-6, "13.2\u00a0µs"},
		{duration, 1e-3, "1.00\u00a0ms"},
		{duration, 0.9996, "1,000\u00a0ms"},
		{duration, 1234.5, "1,230\u00a0s"},
		{size, 512, "512\u00a0B"},
		{size, 64 << 20, "64.0\u00a0MiB"},
		{byteRate, 3 << 30, "3,070\u00a0MiB/s"},
		{perSecond, 82134, "82,100/s"},
		{number, 1234567, "1,230,000"},
		{number, -1234, "-1,230"},
		{number, -123456, "-123,000"},
		{number, 0, "0"},
		{number, math.Inf(1), "+Inf"},
		{times, 1.0849, "1.08×"},
	} {
		if got := c.of.text(c.v); got != c.want {
			t.Errorf("%g: %q; want %q", c.v, got, c.want)
		}
	}
	for v, want := range map[float64]string{1: "1×", 1.3: "1.3×", 20: "20×", 100: "100×"} {
		if got := quantity(times).exact(v); got != want {
			t.Errorf("exactly %g: %q; want %q", v, got, want)
		}
	}
}

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		s    bench.Summary
		want string
	}{
		{bench.Summary{}, ""},
		{bench.Summary{Median: 2e-3, Min: 2e-3, Max: 2e-3}, "2.00\u00a0ms"},
		{bench.Summary{Median: 2e-3, Min: 1.9999e-3, Max: 2.0001e-3}, "2.00\u00a0ms"},
		{bench.Summary{Median: 2e-3, Min: 0.5e-3, Max: 1.5}, "2.00\u00a0ms (0.500–1,500)"},
	} {
		if got := quantity(duration).spread(c.s); got != c.want {
			t.Errorf("%v: %q; want %q", c.s, got, c.want)
		}
	}
}

func TestScale(t *testing.T) {
	s := span(3, 700, 100, 500)
	if s.low != 2 || s.high != 1000 {
		t.Errorf("from %g to %g; want 2 to 1000", s.low, s.high)
	}
	if a, b := s.place(2), s.place(1000); !near(a, 100) || !near(b, 500) {
		t.Errorf("the ends are at %g and %g; want 100 and 500", a, b)
	}
	if a, b := s.place(40)-s.place(20), s.place(400)-s.place(200); math.Abs(a-b) > 1e-9 {
		t.Errorf("twice as much is %g away, and elsewhere %g", a, b)
	}
	for _, c := range []struct {
		low, high   float64
		n           int
		first, last float64
	}{
		{3, 700, 9, 2, 1000},          // 2 5 10 20 ... 1000
		{0.5e-6, 4e-3, 4, 1e-6, 1e-3}, // powers of ten alone
		{100, 101, 4, 50, 500},        // much the same
	} {
		ticks := span(c.low, c.high, 0, 1).ticks()
		if len(ticks) != c.n || !near(ticks[0], c.first) || !near(ticks[len(ticks)-1], c.last) {
			t.Errorf("%g to %g: ticks are %v; want %d from %g to %g", c.low, c.high, ticks, c.n, c.first, c.last)
		}
	}
}

func near(a, b float64) bool { return math.Abs(a-b) < 1e-6*math.Abs(b) }
