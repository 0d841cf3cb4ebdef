package fstab

import (
	"strings"
	"testing"
)

// TestUnescape reads names with blanks in them.
func TestUnescape(t *testing.T) {
	for s, want := range map[string]string{"": "", `a\040b\011`: "a b\t", `\`: `\`, `\04`: `\04`, `\999\134`: `\999\`, `\777`: `\777`, `x\\040`: `x\ `} {
		if got := unescape(s); got != want {
			t.Errorf("%q is %q; want %q", s, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("PARTUUID=1-01 /boot\\040x vfat defaults,nofail 0 2\n# x\nproc /proc proc\n")
	f.Fuzz(func(t *testing.T, text string) {
		lines := strings.Count(text, "\n") + 1
		for _, m := range Parse(text) {
			if m.Spec == "" || m.File == "" || m.Line >= lines {
				t.Errorf("%+v of %d lines", m, lines)
			}
		}
	})
}
