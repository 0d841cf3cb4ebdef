package report

import "math"

// scale maps values, which are greater than zero, to places on a canvas by
// their logarithms: what is twice as much is as far away everywhere.
type scale struct {
	low, high   float64 // values
	first, last float64 // their places
}

// span makes a scale that values from low to high fit on, whose ends are round.
// Values that are much the same look so.
func span(low, high, first, last float64) scale {
	if high/low < 4 {
		low, high = low/2, high*2
	}
	return scale{low: roundDown(low), high: roundUp(high), first: first, last: last}
}

func (s scale) place(v float64) float64 {
	return s.first + (s.last-s.first)*math.Log(v/s.low)/math.Log(s.high/s.low)
}

// ticks are the values to mark: powers of ten, and where these are few, twice
// and five times them too.
func (s scale) ticks() []float64 {
	steps := []float64{1, 2, 5}
	if s.high/s.low > 1e3 {
		steps = steps[:1]
	}
	var ticks []float64
	for e := int(math.Floor(math.Log10(s.low))) - 1; e <= int(math.Ceil(math.Log10(s.high))); e++ {
		for _, step := range steps {
			// The ends are such values, but for the last bit.
			if v := step * math.Pow10(e); v > s.low*0.999 && v < s.high*1.001 {
				ticks = append(ticks, v)
			}
		}
	}
	return ticks
}

// roundDown returns the greatest of 1, 2 and 5 times a power of ten that is not
// above v.
func roundDown(v float64) float64 {
	power := math.Pow10(int(math.Floor(math.Log10(v))))
	for _, step := range []float64{5, 2} {
		if step*power <= v {
			return step * power
		}
	}
	return power
}

// roundUp returns the least of them that is not below v.
func roundUp(v float64) float64 {
	power := math.Pow10(int(math.Floor(math.Log10(v))))
	for _, step := range []float64{1, 2, 5} {
		if step*power >= v {
			return step * power
		}
	}
	return 10 * power
}
