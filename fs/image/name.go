package image

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
)

const maxVersionName = 64

// ValidName checks the name of a version: 1 to 64 letters, digits, dots,
// underscores, pluses and minuses, of which the first is a letter or digit.
// Such a name can stand in a mount path and on a kernel's command line, where
// spaces, commas, colons and slashes have meanings of their own.
func ValidName(name string) error {
	if name == "" {
		return errors.New("a version needs a name, such as v1")
	}
	if len(name) > maxVersionName {
		return fmt.Errorf("version name %.20q... is longer than %d characters", name, maxVersionName)
	}
	for i, c := range []byte(name) {
		if !isAlphanumeric(c) && (i == 0 || !strings.ContainsRune("._+-", rune(c))) {
			return fmt.Errorf("version name %q: use letters, digits, and inside also . _ + -", name)
		}
	}
	return nil
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// A version that was sealed anew lives on under its name, a tilde and the start
// of its digest, for the nodes that run it.

// supersededName is the name under which version name with this digest lives on.
func supersededName(name string, d Digest) string { return name + "~" + d.Short() }

// namesOf returns where to look, in order, for the version that had a name and
// has this digest. A seal gives a version its second name before it takes the
// first away. The first again, last: meanwhile the version may have been sealed
// anew and what was superseded removed.
func namesOf(name string, d Digest) []string {
	base, _, _ := strings.Cut(name, "~")
	return []string{name, supersededName(base, d), base}
}

// validVersion checks a name that may be that of a superseded version, so that
// no path can be made of it.
func validVersion(name string) error {
	base, digest, superseded := strings.Cut(name, "~")
	if err := ValidName(base); err != nil {
		return err
	}
	if superseded && (len(digest) != 12 || strings.Trim(digest, "0123456789abcdef") != "") {
		return fmt.Errorf("version name %q: twelve hexadecimal digits go behind a ~", name)
	}
	return nil
}

// compareNames orders names as people do: runs of digits by their value, so
// that v2 is before v10.
func compareNames(a, b string) int {
	x, y := a, b
	for x != "" && y != "" {
		var p, q string
		p, x = cutRun(x)
		q, y = cutRun(y)
		if isDigit(p[0]) && isDigit(q[0]) {
			p, q = strings.TrimLeft(p, "0"), strings.TrimLeft(q, "0")
			if c := cmp.Compare(len(p), len(q)); c != 0 {
				return c
			}
		}
		if c := strings.Compare(p, q); c != 0 {
			return c
		}
	}
	if c := cmp.Compare(len(x), len(y)); c != 0 {
		return c
	}
	return strings.Compare(a, b)
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// cutRun cuts off the longest start of s, which is not empty, that is all
// digits or has none.
func cutRun(s string) (run, rest string) {
	i := 1
	for i < len(s) && isDigit(s[i]) == isDigit(s[0]) {
		i++
	}
	return s[:i], s[i:]
}
