package report

import (
	"math"
	"slices"

	"github.com/rootnfsd/rootnfsd/bench"
)

// look is how one name of a chart is drawn.
type look struct {
	colour string
	dash   string // of lines, for those who cannot tell the colours
	marker func(c *canvas, x, y float64, colour string)
}

// lookOf returns the look of a name, the i-th of its chart. A server looks the
// same in all charts. The colours are those of Okabe and Ito, which the
// colour-blind can tell apart.
func lookOf(name string, i int) look {
	all := []look{
		{"#0072b2", "", circleMarker},
		{"#d55e00", "8 3", squareMarker},
		{"#009e73", "4 3", triangleMarker},
		{"#cc79a7", "2 3", diamondMarker},
		{"#6e7781", "10 3 2 3", triangleMarker},
		{"#e69f00", "6 6", squareMarker},
		{"#56b4e9", "1 4", diamondMarker},
	}
	if known := slices.Index(serverOrder, name); known >= 0 {
		i = known
	}
	return all[i%len(all)]
}

func circleMarker(c *canvas, x, y float64, colour string) { c.circle(x, y, 4, colour) }
func squareMarker(c *canvas, x, y float64, colour string) { c.rect(x-3.5, y-3.5, 7, 7, colour) }
func triangleMarker(c *canvas, x, y float64, colour string) {
	c.polygon([]point{{x, y - 5}, {x + 5, y + 4}, {x - 5, y + 4}}, colour)
}
func diamondMarker(c *canvas, x, y float64, colour string) {
	c.polygon([]point{{x, y - 5}, {x + 5, y}, {x, y + 5}, {x - 5, y}}, colour)
}

const (
	chartWidth = 840
	margin     = 16
	lineHeight = 20
)

// sample is what was measured at one place of the horizontal axis.
type sample struct {
	x int
	bench.Summary
}

// lines is a chart with a line for each name and logarithmic axes.
type lines struct {
	title, x, y string // words for the chart and its axes, with units
	unit        quantity
	names       []string
	samples     map[string][]sample // of each name, by ascending x
}

func (l lines) draw() []byte {
	const plotHeight = 300
	c := &canvas{width: chartWidth}
	top := c.head(l.title, l.names, lineKey) + lineHeight
	bottom := top + plotHeight
	c.height = bottom + 3*lineHeight
	xs, low, high := l.extent()
	right := c.width - 2*margin
	vertical := span(low, high, bottom, top)
	left := margin + labelWidth(vertical.ticks(), l.unit) + 8
	horizontal := scale{float64(xs[0]), float64(xs[len(xs)-1]), left + margin, right - margin}
	if horizontal.low == horizontal.high {
		horizontal.low, horizontal.high = horizontal.low/2, horizontal.high*2
	}

	for _, v := range vertical.ticks() {
		y := vertical.place(v)
		c.line(left, y, right, y, faint)
		c.text(left-8, y+4, end, l.unit.exact(v))
	}
	c.text(margin, top-12, start, l.y)
	free := 0.0 // where the next label may begin
	for _, v := range xs {
		x, label := horizontal.place(float64(v)), whole(v)
		c.line(x, bottom, x, bottom+5, ink)
		if half := textWidth(label) / 2; x-half >= free {
			c.text(x, bottom+lineHeight, middle, label)
			free = x + half + 8
		}
	}
	c.line(left, bottom, right, bottom, ink)
	c.text((left+right)/2, bottom+2*lineHeight, middle, l.x)
	for i, name := range slices.Backward(l.names) { // the first on top
		c.drawLine(lookOf(name, i), l.samples[name], horizontal, vertical)
	}
	return c.svg(l.title)
}

func (c *canvas) drawLine(look look, samples []sample, horizontal, vertical scale) {
	var points []point
	for _, s := range samples {
		p := point{horizontal.place(float64(s.x)), vertical.place(s.Median)}
		points = append(points, p)
		c.line(p.x, vertical.place(s.Min), p.x, vertical.place(s.Max), look.colour)
	}
	c.polyline(points, look.colour, look.dash)
	for _, p := range points {
		look.marker(c, p.x, p.y, look.colour)
	}
}

// extent returns all places of the horizontal axis, and the least and the most
// of the values.
func (l lines) extent() (xs []int, low, high float64) {
	low, high = math.Inf(1), 0
	for _, samples := range l.samples {
		for _, s := range samples {
			xs = append(xs, s.x)
			low, high = min(low, s.Min), max(high, s.Max)
		}
	}
	slices.Sort(xs)
	return slices.Compact(xs), low, high
}

// bars is a chart with a group of horizontal bars for each work, one bar for
// each server, on a logarithmic axis.
type bars struct {
	title, axis string
	unit        quantity
	servers     []string // all, in the order of the legend
	groups      []barGroup
}

type barGroup struct {
	name string
	bars []bar
}

type bar struct {
	server string
	bench.Summary
}

func (b bars) draw() []byte {
	const barHeight, barStep, groupGap = 13, 16, 14
	c := &canvas{width: chartWidth}
	top := c.head(b.title, b.servers, barKey)
	left, low, high, n := margin+0.0, math.Inf(1), 0.0, 0
	for _, g := range b.groups {
		left = max(left, margin+textWidth(g.name)+10)
		for _, bar := range g.bars {
			low, high = min(low, bar.Min), max(high, bar.Max)
			n++
		}
	}
	bottom := top + float64(n*barStep+(len(b.groups)+1)*groupGap)
	c.height = bottom + 3*lineHeight
	// No bar has no length: the axis begins below the least value.
	horizontal := span(low/1.5, high, left, c.width-margin-90)

	for _, v := range horizontal.ticks() {
		x := horizontal.place(v)
		c.line(x, top, x, bottom, faint)
		c.text(x, bottom+lineHeight, middle, b.unit.exact(v))
	}
	c.text((horizontal.first+horizontal.last)/2, bottom+2*lineHeight, middle, b.axis)
	y := top + groupGap
	for _, g := range b.groups {
		height := float64(len(g.bars) * barStep)
		c.text(left-10, y+height/2+3, end, g.name)
		for _, bar := range g.bars {
			look := lookOf(bar.server, slices.Index(b.servers, bar.server))
			x := horizontal.place(bar.Median)
			c.rect(left, y, x-left, barHeight, look.colour)
			c.line(horizontal.place(bar.Min), y+barHeight/2, horizontal.place(bar.Max), y+barHeight/2, ink)
			c.text(horizontal.place(bar.Max)+6, y+barHeight-2, start, b.unit.text(bar.Median))
			y += barStep
		}
		y += groupGap
	}
	c.line(left, top, left, bottom, ink)
	return c.svg(b.title)
}

// head writes the title and the legend and returns where the rest may begin.
func (c *canvas) head(title string, names []string, key func(*canvas, float64, float64, look)) float64 {
	x, y := float64(margin), float64(margin+10)
	c.heading(x, y, title)
	y += lineHeight + 4
	for i, name := range names {
		width := 24 + textWidth(name) + margin
		if x+width > c.width && x > margin {
			x, y = margin, y+lineHeight
		}
		key(c, x, y-4, lookOf(name, i))
		c.text(x+24, y, start, name)
		x += width
	}
	return y + lineHeight
}

func lineKey(c *canvas, x, y float64, l look) {
	c.polyline([]point{{x, y}, {x + 18, y}}, l.colour, l.dash)
	l.marker(c, x+9, y, l.colour)
}

func barKey(c *canvas, x, y float64, l look) { c.rect(x, y-6, 18, 12, l.colour) }

// labelWidth is that of the widest label of an axis.
func labelWidth(values []float64, unit quantity) (w float64) {
	for _, v := range values {
		w = max(w, textWidth(unit.exact(v)))
	}
	return w
}
