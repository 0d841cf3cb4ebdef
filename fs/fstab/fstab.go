// Package fstab reads tables of file systems (fstab(5)), which lie in trees that may come
// from anywhere. It knows nothing of what is to be done with them.
package fstab

import (
	"slices"
	"strconv"
	"strings"
)

// Mount is a line of a table.
type Mount struct {
	Line    int // in the table, from 0
	Spec    string
	File    string
	Kind    string
	Options []string
}

// Parse returns the lines that have all fields that they need.
func Parse(text string) []Mount {
	var all []Mount
	n := -1
	for line := range strings.Lines(text) {
		n++
		fields := strings.Fields(line)
		if len(fields) < 3 || fields[0][0] == '#' {
			continue
		}
		m := Mount{Line: n, Spec: unescape(fields[0]), File: unescape(fields[1]), Kind: fields[2]}
		if len(fields) > 3 {
			m.Options = strings.Split(fields[3], ",")
		}
		all = append(all, m)
	}
	return all
}

// unescape replaces the octal codes that stand for blanks.
func unescape(s string) string {
	var b strings.Builder
	for {
		plain, rest, ok := strings.Cut(s, `\`)
		b.WriteString(plain)
		if !ok {
			return b.String()
		}
		if code, err := strconv.ParseUint(rest[:min(len(rest), 3)], 8, 8); err == nil && len(rest) >= 3 {
			b.WriteByte(byte(code))
			rest = rest[3:]
		} else {
			b.WriteByte('\\')
		}
		s = rest
	}
}

// Has reports whether a mount has one of some options.
func (m *Mount) Has(options ...string) bool {
	return slices.ContainsFunc(m.Options, func(o string) bool { return slices.Contains(options, o) })
}

// IsSwap reports whether this is swap space.
func (m *Mount) IsSwap() bool { return m.Kind == "swap" }
