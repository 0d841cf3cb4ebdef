package main

import (
	"testing"

	"github.com/rootnfsd/rootnfsd/bench"
)

// TestWrong holds a comparison to the errors of rootnfsd alone.
func TestWrong(t *testing.T) {
	storm := func(errors map[string]uint64) *bench.Report {
		r := new(bench.Report)
		for server, n := range errors {
			r.Add(bench.Case{Bench: "storm", Server: server, Nodes: 16}, bench.Run{Errors: n})
		}
		return r
	}
	for _, c := range []struct {
		errors   map[string]uint64
		compared bool
		want     bool // that a script stops
	}{
		{map[string]uint64{"rootnfsd": 0, "nfs-ganesha": 0}, true, false},
		{map[string]uint64{"rootnfsd": 0, "nfs-ganesha": 3}, true, false},
		{map[string]uint64{"rootnfsd": 1, "nfs-ganesha": 0}, true, true},
		{map[string]uint64{"server": 1}, false, true},
		{nil, true, true},
	} {
		if err := wrong(storm(c.errors), c.compared); (err != nil) != c.want {
			t.Errorf("%v, compared %v: %v", c.errors, c.compared, err)
		}
	}
}
