package store

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rootnfsd/rootnfsd/bench"
	"github.com/rootnfsd/rootnfsd/bench/benchtest"
)

// TestBench measures the real program, with little work.
func TestBench(t *testing.T) {
	dir := t.TempDir()
	program := benchtest.Program(t)
	work := filepath.Join(dir, "work")
	if err := os.Mkdir(work, 0o755); err != nil {
		t.Fatal(err)
	}
	tree := filepath.Join(dir, "tree")
	if err := makeTree(t.Context(), tree, 300); err != nil {
		t.Fatal(err)
	}
	b := &Bench{
		Program: program, Dir: work, Tree: tree, Objects: []int{150, 600}, Runs: 2, Duration: 20 * time.Millisecond,
		Say: func(string) {}, Note: func(note string) { t.Error(note) },
	}
	if err := b.Check(); err != nil {
		t.Fatal(err)
	}
	report := new(bench.Report)
	if err := b.Run(t.Context(), report); err != nil {
		t.Fatal(err)
	}
	const promotes = 3
	if err := b.Rollout(t.Context(), promotes, report); err != nil {
		t.Fatal(err)
	}
	measured := map[string]int{} // runs
	for _, r := range report.Results {
		measured[r.Bench+", "+r.Work+", "+r.Server] += len(r.Runs)
		for _, run := range r.Runs {
			if run.Wall <= 0 || run.Errors > 0 || (r.Work == "GETATTR" || r.Work == "LOOKUP" || r.Work == workCalls) && run.Calls == 0 {
				t.Errorf("%+v: %+v", r.Case, run)
			}
		}
	}
	for what, runs := range map[string]int{
		"store, seal, rootnfsd": 2 + 4, "store, seal again, rootnfsd": 2 + 4, "store, seal, cp -a": 2, "store, seal, cp -a, not synced": 2,
		"store, open, rootnfsd": 4, "store, GETATTR, rootnfsd": 4, "store, LOOKUP, rootnfsd": 4,
		"rollout, promote, rootnfsd": 2 * promotes, "rollout, promote command, rootnfsd": 2 * promotes, "rollout, calls, rootnfsd": 2,
	} {
		if measured[what] != runs {
			t.Errorf("%s: %d runs, want %d", what, measured[what], runs)
		}
	}
	left, err := os.ReadDir(work)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
