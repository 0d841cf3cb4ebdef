package guest

import (
	"testing"

	"github.com/rootnfsd/rootnfsd/bench/load"
)

// TestApart looks that the work that warms up is there, and that all goals of the
// race in a guest are measured.
func TestApart(t *testing.T) {
	warmUp, measured := apart(load.Works())
	if len(warmUp) != 1 {
		t.Errorf("%d works warm up, want 1", len(warmUp))
	}
	names := map[string]bool{}
	for _, w := range measured {
		names[w.Name] = true
	}
	for _, want := range []string{"GETATTR", "LOOKUP", "ACCESS", "READ 4 KiB", "READ 64 KiB", "READ 128 KiB", "READ 1 MiB", "READDIRPLUS walk"} {
		if !names[want] {
			t.Errorf("%s is not measured", want)
		}
	}
	if names[wholeWork] {
		t.Errorf("%s is measured", wholeWork)
	}
}
