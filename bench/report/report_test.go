package report_test

import (
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rootnfsd/rootnfsd/bench"
	"github.com/rootnfsd/rootnfsd/bench/report"
)

var update = flag.Bool("update", false, "write what comes out to testdata/golden, to be looked at")

func load(t *testing.T) []*bench.Report {
	t.Helper()
	paths, err := filepath.Glob("testdata/*.json")
	if err != nil || len(paths) < 2 {
		t.Fatalf("%d reports in testdata: %v", len(paths), err)
	}
	var reports []*bench.Report
	for _, path := range paths {
		r, err := bench.Load(path)
		if err != nil {
			t.Fatal(err)
		}
		reports = append(reports, r)
	}
	return reports
}

func TestGolden(t *testing.T) {
	const golden = "testdata/golden"
	d := report.New(load(t)...)
	if *update {
		if err := os.RemoveAll(golden); err != nil {
			t.Fatal(err)
		}
		if err := d.Write(golden); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	if err := d.Write(dir); err != nil {
		t.Fatal(err)
	}
	got, want := filesBelow(t, dir), filesBelow(t, golden)
	if g, w := slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)); !slices.Equal(g, w) {
		t.Errorf("files are %q; want %q", g, w)
	}
	for path, content := range want {
		if got[path] != content {
			t.Errorf("%s: %s", path, firstDifference(got[path], content))
		}
	}
}

func filesBelow(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		files[strings.TrimPrefix(path, dir)] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return "got\n" + g[i] + "\nwant\n" + w[i]
		}
	}
	return "one has more lines"
}

// TestDeterministic shuffles what is told, which must not change what is shown.
func TestDeterministic(t *testing.T) {
	reports := load(t)
	want := report.New(reports...).Files
	random := rand.New(rand.NewPCG(1, 2))
	for range 5 {
		swap := func(i, j int) { reports[i], reports[j] = reports[j], reports[i] }
		random.Shuffle(len(reports), swap)
		for _, r := range reports {
			random.Shuffle(len(r.Results), func(i, j int) { r.Results[i], r.Results[j] = r.Results[j], r.Results[i] })
		}
		for path, content := range report.New(reports...).Files {
			if string(content) != string(want[path]) {
				t.Fatalf("%s: %s", path, firstDifference(string(content), string(want[path])))
			}
		}
	}
}

func TestNewestWins(t *testing.T) {
	c := bench.Case{Bench: "race", Work: "GETATTR", Server: "rootnfsd", Connections: 4, InFlight: 16}
	other := c
	other.Cold = true
	older := reportOf(result(c, bench.Run{Wall: time.Second, Calls: 1000}), result(other, bench.Run{Wall: time.Second, Calls: 3000}))
	older.Date = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	older.Machine.Kernel, older.Servers = "6.1-older", map[string]string{"rootnfsd": "release 1"}
	newer := reportOf(result(c, bench.Run{Wall: time.Second, Calls: 2000}))
	newer.Date = older.Date.Add(time.Hour)
	newer.Machine.Kernel, newer.Servers = "6.2-newer", map[string]string{"rootnfsd": "release 2"}
	outdone := reportOf(result(c, bench.Run{Wall: time.Second, Calls: 500}))
	outdone.Machine.Kernel, outdone.Servers = "6.0-outdone", map[string]string{"rootnfsd": "release 0"}

	for _, reports := range [][]*bench.Report{{older, newer, outdone}, {outdone, newer, older}} {
		page := results(report.New(reports...))
		for _, want := range []string{"| 2,000 |", "| 3,000 |", "6.1-older", "6.2-newer", "release 1", "release 2"} {
			if !strings.Contains(page, want) {
				t.Errorf("%q is not told:\n%s", want, page)
			}
		}
		for _, not := range []string{"| 1,000 |", "| 500 |", "6.0-outdone", "release 0"} {
			if strings.Contains(page, not) {
				t.Errorf("%q is told, though something newer is there:\n%s", not, page)
			}
		}
	}
}

// TestWellFormed reads the plots as XML, with names and numbers that are meant
// to break them.
func TestWellFormed(t *testing.T) {
	reports := load(t)
	nasty := reports[0]
	nasty.Results = slices.Clone(nasty.Results)
	for _, name := range []string{`"><script>`, "a & b", "\xff\x00", "|"} {
		for i, run := range []bench.Run{
			{Wall: math.MaxInt64, Calls: 1, CPU: 1},
			{Wall: 1, Calls: math.MaxUint64, CPU: math.MaxInt64},
			{Wall: -1, Calls: 1, CPU: -1},
			{},
		} {
			server := name + strconv.Itoa(i)
			nasty.Results = append(nasty.Results,
				result(bench.Case{Bench: "race", Work: "GETATTR", Server: server, Connections: 4, InFlight: 16}, run),
				result(bench.Case{Bench: "storm", Work: server, Server: server, Nodes: math.MaxInt32}, run, run),
				result(bench.Case{Bench: "storm", Work: "<storm>", Server: server, Nodes: -5, RTT: -1}, run),
				result(bench.Case{Bench: server, Objects: -1}, run))
		}
	}
	plots := 0
	d := report.New(reports...)
	for path, content := range d.Files {
		if filepath.Ext(path) != ".svg" {
			continue
		}
		plots++
		if err := wellFormed(string(content)); err != nil {
			t.Errorf("%s: %v\n%s", path, err, content)
		}
		for _, not := range []string{"NaN", "Inf", "<script"} {
			if strings.Contains(string(content), not) {
				t.Errorf("%s has %q in it", path, not)
			}
		}
		if !strings.Contains(results(d), "]("+path+")") {
			t.Errorf("%s is not shown", path)
		}
	}
	if plots < 5 {
		t.Errorf("%d plots; the test has too little to look at", plots)
	}
	if strings.Contains(results(d), "<script") {
		t.Error("the name of a server was taken for HTML")
	}
}

func wellFormed(s string) error {
	d := xml.NewDecoder(strings.NewReader(s))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// TestNothing makes a document of nothing: all goals are open.
func TestNothing(t *testing.T) {
	for _, d := range []*report.Document{report.New(), report.New(&bench.Report{}), report.New(reportOf(result(bench.Case{})))} {
		if d.Reached != 0 || d.Missed != 0 || d.NotMeasured == 0 {
			t.Errorf("nothing was measured, and yet %d goals are reached and %d missed", d.Reached, d.Missed)
		}
		if len(d.Files) != 1 || !strings.Contains(results(d), "not measured") {
			t.Errorf("%d files; want the page alone:\n%s", len(d.Files), results(d))
		}
	}
}

func results(d *report.Document) string { return string(d.Files["RESULTS.md"]) }

func reportOf(results ...bench.Result) *bench.Report { return &bench.Report{Results: results} }

func result(c bench.Case, runs ...bench.Run) bench.Result { return bench.Result{Case: c, Runs: runs} }
