package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rootnfsd/rootnfsd/bench"
)

func TestBenchReport(t *testing.T) {
	dir := t.TempDir()
	saved, out := filepath.Join(dir, "race.json"), filepath.Join(dir, "out")
	var r bench.Report
	r.Add(bench.Case{Bench: "race", Work: "GETATTR", Server: "rootnfsd"}, bench.Run{Wall: time.Second, Calls: 12_000})
	if err := r.Save(saved); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) (string, error) {
		app := newApp()
		var b strings.Builder
		app.Writer = &b
		err := app.Run(flagsFirst(app, append([]string{"rootnfsd", "bench", "report"}, args...)))
		return b.String(), err
	}
	said, err := run(saved, "--out", out)
	if err != nil || !strings.Contains(said, "not measured") {
		t.Errorf("%q, %v", said, err)
	}
	page, err := os.ReadFile(filepath.Join(out, "RESULTS.md"))
	if err != nil || !strings.Contains(string(page), "| 12,000 |") {
		t.Errorf("%v; want the calls in a second in\n%s", err, page)
	}
	for _, args := range [][]string{{}, {filepath.Join(dir, "missing.json")}, {saved, "--out", saved}} {
		if said, err := run(args...); err == nil {
			t.Errorf("%q: %q and no error", args, said)
		}
	}
}
