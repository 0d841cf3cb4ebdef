package homes

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rootnfsd/rootnfsd/bench"
	"github.com/rootnfsd/rootnfsd/bench/benchtest"
	"github.com/rootnfsd/rootnfsd/bench/peer"
	"github.com/rootnfsd/rootnfsd/bench/rpc"
)

// user is who calls: not root, if that can be.
func user() rpc.Options {
	if os.Geteuid() == 0 {
		return rpc.Options{UID: 1000, GID: 1000}
	}
	return rpc.Options{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
}

// startAll starts all servers that there are here on directories of one file system.
func startAll(t *testing.T) []*Target {
	t.Helper()
	dir, err := os.MkdirTemp("", "homes") // the directories of tests are closed to other users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	export := func(name string) string {
		path := filepath.Join(dir, name)
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	started := func(s *peer.Server, err error) *peer.Server {
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Stop)
		return s
	}
	home := export("rootnfsd")
	targets := []*Target{{Name: "rootnfsd", Export: home, Dir: home, Server: started(peer.RootnfsdHome(t.Context(), benchtest.Program(t), home))}}
	switch err := peer.MissingGanesha(); {
	case err == nil:
		home := export("ganesha")
		s := started(peer.GaneshaWritable(t.Context(), home))
		targets = append(targets,
			&Target{Name: "nfs-ganesha", Export: home, Dir: filepath.Join(home, "synced"), Server: s, Durable: true},
			&Target{Name: "nfs-ganesha, not synced", Export: home, Dir: filepath.Join(home, "plain"), Server: s, NamesOnly: true})
	case os.Getenv("ROOTNFSD_TEST_ALL") != "":
		t.Fatalf("nothing may be left out (ROOTNFSD_TEST_ALL is set): %v", err)
	}
	var prepared []*Target
	for _, target := range targets {
		target.Options = user()
		err := target.Prepare()
		if target.Durable && errors.Is(err, errNoSyncedNames) && os.Getenv("ROOTNFSD_TEST_ALL") == "" {
			t.Logf("%s is left out: %v", target.Name, err)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		prepared = append(prepared, target)
	}
	return prepared
}

func testPlan(t *testing.T) *Plan {
	return &Plan{
		Works:    Works(),
		Settings: []Setting{{1, 1}, {3, 4}},
		Runs:     2,
		Duration: 5 * time.Millisecond,
		Limit:    time.Minute,
		Size:     4 * mebi,
		Files:    60,
		Progress: func(int, int, string) {},
		Note:     func(s string) { t.Error(s) },
	}
}

// TestRace runs a short race of all servers in all works.
func TestRace(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and starts servers")
	}
	targets := startAll(t)
	plan := testPlan(t)
	var report bench.Report
	if err := plan.Run(t.Context(), targets, &report); err != nil {
		t.Fatal(err)
	}
	cases := 0
	for _, w := range plan.Works {
		cases += len(w.among(targets)) * len(plan.Settings)
	}
	if len(report.Results) != cases {
		t.Errorf("%d cases were measured; want %d", len(report.Results), cases)
	}
	for _, x := range report.Results {
		if len(x.Runs) != plan.Runs {
			t.Errorf("%+v: %d runs; want %d", x.Case, len(x.Runs), plan.Runs)
		}
		for _, r := range x.Runs {
			if err := plausible(x.Case, r); err != nil {
				t.Errorf("%+v: %v: %+v", x.Case, err, r)
			}
		}
	}
	for _, target := range targets {
		if left, err := os.ReadDir(target.Dir); err != nil || len(left) != 0 {
			t.Errorf("%s: %d directories are left behind, %v", target.Name, len(left), err)
		}
	}
}

// plausible finds what cannot be in a run of testPlan.
func plausible(c bench.Case, r bench.Run) error {
	lines := uint64(c.Connections)
	written := max(1, 4/lines) * lines * mebi
	switch {
	case r.Errors != 0 || r.Calls == 0 || r.Bytes == 0:
		return errors.New("it did not work")
	case c.Work == "write 1 MiB" && (r.Bytes != written || r.Calls != written/mebi+lines):
		return fmt.Errorf("want %d bytes, a COMMIT on each line, and no more", written)
	case c.Work == "read 1 MiB" && r.Bytes != r.Calls*mebi:
		return errors.New("READs were short")
	case c.Work == "write 4 KiB" && r.Bytes != (r.Calls-lines)*4096:
		return errors.New("the wrong calls were made")
	case r.CPU <= 0 || r.Resident == 0 || r.Wall <= 0:
		return errors.New("it was not metered")
	case r.P50 <= 0 || r.P50 > r.P99 || r.P99 > r.P999 || r.P999 > r.Max || r.Max > r.Wall*2:
		return errors.New("these cannot be latencies")
	}
	return nil
}

// TestWrongContent damages what has arrived, and wants that noticed.
func TestWrongContent(t *testing.T) {
	dir := t.TempDir()
	r := &run{target: &Target{Dir: dir}, lines: 1, size: 2 * mebi, tree: 30, name: "run"}
	if err := os.Mkdir(r.path(""), 0o755); err != nil {
		t.Fatal(err)
	}
	w := newWriting(r)
	right := slices.Concat(contentAt(0, 0, 0, mebi), contentAt(0, 0, mebi, mebi))
	for name, content := range map[string][]byte{
		"":          right,
		"a byte":    slices.Concat(right[:mebi], []byte{right[mebi] + 1}, right[mebi+1:]),
		"swapped":   slices.Concat(right[mebi:], right[:mebi]),
		"too short": right[:mebi],
		"too long":  append(slices.Clone(right), 0),
	} {
		if err := os.WriteFile(r.path(w.name(0)), content, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := w.check(); (err != nil) != (name != "") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := newUntar(r).check(); err == nil {
		t.Error("a tree that is not there is taken for one that was unpacked")
	}
}

// TestTree holds made-up trees to being the same for all servers, and to what source
// trees are like.
func TestTree(t *testing.T) {
	const files = 3000
	a, b := newTree(1, files), newTree(1, files)
	bytes := 0
	for i := range a.files {
		x, y := a.files[i], b.files[i]
		if x.path != y.path || x.size != y.size || x.link != y.link {
			t.Fatalf("%+v and %+v", x, y)
		}
		bytes += x.size
	}
	if mean := bytes / files; mean < 5<<10 || mean > 20<<10 {
		t.Errorf("files have %d bytes on average", mean)
	}
	for i, d := range a.dirs {
		if d.dir >= i {
			t.Errorf("directory %d is in %d, which comes later", i, d.dir)
		}
	}
}

func TestCheck(t *testing.T) {
	for name, spoil := range map[string]func(p *Plan){
		"":              func(p *Plan) {},
		"no work":       func(p *Plan) { p.Works = nil },
		"no setting":    func(p *Plan) { p.Settings = nil },
		"0 connections": func(p *Plan) { p.Settings = []Setting{{0, 1}} },
		"too many":      func(p *Plan) { p.Settings = []Setting{{1, 1 << 30}} },
		"no runs":       func(p *Plan) { p.Runs = 0 },
		"no time":       func(p *Plan) { p.Duration = 0 },
		"no limit":      func(p *Plan) { p.Limit = 0 },
		"no bytes":      func(p *Plan) { p.Size = 0 },
		"no files":      func(p *Plan) { p.Files = 0 },
	} {
		p := testPlan(t)
		spoil(p)
		if err := p.Check(); (err != nil) != (name != "") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestFailedCalls holds a run against a server that refuses everything to saying so.
func TestFailedCalls(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and starts a server")
	}
	home := t.TempDir()
	s, err := peer.RootnfsdHome(t.Context(), benchtest.Program(t), home)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	target := &Target{Name: "rootnfsd", Export: home, Dir: home, Server: s, Options: user()}
	if err := target.Prepare(); err != nil {
		t.Fatal(err)
	}
	target.root = []byte("no handle of this server")
	plan := testPlan(t)
	var notes []string
	plan.Note = func(s string) { notes = append(notes, s) }
	var report bench.Report
	if err := plan.Run(t.Context(), []*Target{target}, &report); err != nil {
		t.Fatal(err)
	}
	if want := len(plan.Works) * len(plan.Settings); len(report.Results) != 0 || len(notes) != want || !strings.Contains(notes[0], "left out") {
		t.Errorf("%d results and the notes %q; want %d", len(report.Results), notes, want)
	}
}
