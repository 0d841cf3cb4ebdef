package report

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"unicode/utf8"
)

// canvas writes an SVG of few shapes. Lengths are in user units, from the top
// left corner; colours are the program's own words, all other text is escaped.
//
// It is all that the charts need. The library that was tried instead
// (go-analyze/charts 0.5.10) made rootnfsd 2.0 MB larger and has no chart of
// grouped bars on a logarithmic axis.
type canvas struct {
	body          bytes.Buffer
	width, height float64
}

const (
	fontSize = 12
	ink      = "#1f2328"
	faint    = "#d0d7de"
)

// textWidth estimates how wide text is in a sans-serif font that nobody knows:
// what wants to be clear of it had better not count on less.
func textWidth(s string) float64 { return 0.58 * fontSize * float64(utf8.RuneCountInString(s)) }

func (c *canvas) rect(x, y, w, h float64, colour string) {
	fmt.Fprintf(&c.body, "<rect x=%s y=%s width=%s height=%s fill=%q/>\n", at(x), at(y), at(w), at(h), colour)
}

func (c *canvas) line(x1, y1, x2, y2 float64, colour string) {
	fmt.Fprintf(&c.body, "<line x1=%s y1=%s x2=%s y2=%s stroke=%q/>\n", at(x1), at(y1), at(x2), at(y2), colour)
}

// polyline draws a thick line through points, which is dashed if dash is not empty.
func (c *canvas) polyline(points []point, colour, dash string) {
	c.body.WriteString(`<polyline fill="none" stroke-width="2" stroke="` + colour + `"`)
	if dash != "" {
		fmt.Fprintf(&c.body, " stroke-dasharray=%q", dash)
	}
	c.endPoints(points)
}

func (c *canvas) polygon(points []point, colour string) {
	fmt.Fprintf(&c.body, "<polygon fill=%q", colour)
	c.endPoints(points)
}

// endPoints ends an element with the points that it goes through.
func (c *canvas) endPoints(points []point) {
	c.body.WriteString(` points="`)
	for i, p := range points {
		if i > 0 {
			c.body.WriteByte(' ')
		}
		fmt.Fprintf(&c.body, "%.1f,%.1f", p.x, p.y)
	}
	c.body.WriteString("\"/>\n")
}

func (c *canvas) circle(x, y, r float64, colour string) {
	fmt.Fprintf(&c.body, "<circle cx=%s cy=%s r=%s fill=%q/>\n", at(x), at(y), at(r), colour)
}

// anchor says which end of a text, or its middle, stands at the place given.
type anchor string

const (
	start  anchor = "start"
	middle anchor = "middle"
	end    anchor = "end"
)

// text writes at the base line y.
func (c *canvas) text(x, y float64, a anchor, s string) {
	fmt.Fprintf(&c.body, "<text x=%s y=%s text-anchor=%q>", at(x), at(y), a)
	xml.EscapeText(&c.body, []byte(s)) // cannot fail: a Buffer takes all
	c.body.WriteString("</text>\n")
}

// heading writes the title of the drawing.
func (c *canvas) heading(x, y float64, s string) {
	c.body.WriteString(`<g font-size="15" font-weight="600">`)
	c.text(x, y, start, s)
	c.body.WriteString("</g>\n")
}

// svg returns the drawing on white, which is read in the dark as well.
func (c *canvas) svg(title string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" width="%.0f" height="%.0f" role="img" font-family="system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', Arial, sans-serif" font-size="%d" fill="%s">`,
		c.width, c.height, c.width, c.height, fontSize, ink)
	b.WriteString("\n<title>")
	xml.EscapeText(&b, []byte(title))
	b.WriteString("</title>\n")
	fmt.Fprintf(&b, "<rect width=\"%.0f\" height=\"%.0f\" fill=\"#ffffff\"/>\n", c.width, c.height)
	b.Write(c.body.Bytes())
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// at writes an attribute that is a length; a tenth of a unit cannot be seen.
func at(v float64) string { return fmt.Sprintf(`"%.1f"`, v) }

type point struct{ x, y float64 }
