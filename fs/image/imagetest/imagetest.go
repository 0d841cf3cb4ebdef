// Package imagetest holds what tests share that make versions of what they are about.
package imagetest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/rootnfsd/rootnfsd/fs/image"
)

// Differences lists what is different in two versions of a store, for a test that wanted
// them to be the same.
func Differences(t testing.TB, s *image.Store, before, after string) string {
	t.Helper()
	var versions [2]*image.Version
	for i, name := range []string{before, after} {
		v, err := s.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		versions[i] = v
	}
	var b strings.Builder
	if err := image.Diff(versions[0], versions[1], func(c *image.Change) error {
		fmt.Fprintf(&b, "\n%s: %v %+v %+v", c.Path, c.What, c.Before, c.After)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
