package load

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rootnfsd/rootnfsd/bench"
	"github.com/rootnfsd/rootnfsd/bench/benchtest"
	"github.com/rootnfsd/rootnfsd/bench/peer"
)

// testTree makes a store with a version v1 that has a little of everything, and
// returns the store and the sum of the sizes of its files.
func testTree(t *testing.T, program string) (store string, bytes uint64) {
	t.Helper()
	store = filepath.Join(t.TempDir(), "images")
	root := filepath.Join(store, "v1")
	// More entries than one reply lists, and a READ of each size.
	files := map[string]int{"etc/passwd": 1000, "usr/lib/large": 3<<20 + 5, "usr/empty": 0, "usr/lib/medium": 200_000}
	for i := range 700 {
		files[fmt.Sprintf("many/a file with a name that takes some room %03d", i)] = i
	}
	for name, size := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.Repeat("x", size)), 0o644); err != nil {
			t.Fatal(err)
		}
		bytes += uint64(size)
	}
	if err := os.Symlink("passwd", filepath.Join(root, "etc/link")); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(program, "seal", "--export", store, "v1").CombinedOutput(); err != nil {
		t.Fatalf("seal: %v\n%s", err, out)
	}
	return store, bytes
}

// startAll starts all servers that there are here on the same tree.
func startAll(t *testing.T, program, store string) []*Target {
	t.Helper()
	ctx := t.Context()
	tree := filepath.Join(store, "v1")
	packs, _ := filepath.Glob(filepath.Join(store, ".rootnfsd/packs/*.pack"))
	if len(packs) == 0 {
		t.Fatal("the store has no pack")
	}
	pack, err := os.Stat(packs[0])
	if err != nil {
		t.Fatal(err)
	}
	var targets []*Target
	started := func(s *peer.Server, err error) *peer.Server {
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Stop)
		return s
	}
	nfs := func(s *peer.Server, err error) {
		target := TargetOf(started(s, err))
		if err := target.Survey(ctx); err != nil {
			t.Fatal(err)
		}
		targets = append(targets, target)
	}
	nfs(peer.RootnfsdAside(ctx, program, store, "v1"))
	nfs(peer.GoNFS(ctx, program, tree))
	switch err := peer.MissingGanesha(); {
	case err == nil:
		nfs(peer.Ganesha(ctx, tree))
	case os.Getenv("ROOTNFSD_TEST_ALL") != "":
		t.Fatalf("nothing may be left out (ROOTNFSD_TEST_ALL is set): %v", err)
	}
	limit := started(peer.Limit(ctx, program, packs[0]))
	return append(targets, LimitOf(limit, targets[0], pack.Size()))
}

// TestRace runs a short race of all servers in all works.
func TestRace(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and starts servers")
	}
	program := benchtest.Program(t)
	store, bytes := testTree(t, program)
	targets := startAll(t, program, store)
	for _, other := range targets[1:] {
		if other.Objects() != targets[0].Objects() {
			t.Errorf("%s has %d objects, and %s has %d", targets[0].Name, targets[0].Objects(), other.Name, other.Objects())
		}
	}

	plan := testPlan(t)
	var report bench.Report
	if err := plan.Run(t.Context(), targets, "race", &report); err != nil {
		t.Fatal(err)
	}
	cases := len(plan.Works) * len(plan.Connections) * len(plan.InFlight) * len(targets)
	if len(report.Results) != cases {
		t.Errorf("%d cases were measured; want %d", len(report.Results), cases)
	}
	for _, x := range report.Results {
		if len(x.Runs) != plan.Runs {
			t.Errorf("%+v: %d runs; want %d", x.Case, len(x.Runs), plan.Runs)
		}
		for _, r := range x.Runs {
			if err := plausible(x.Case, r, bytes); err != nil {
				t.Errorf("%+v: %v: %+v", x.Case, err, r)
			}
		}
	}
}

func testPlan(t *testing.T) *Plan {
	return &Plan{
		Works:       Works(),
		Connections: []int{1, 3},
		InFlight:    []int{1, 4},
		Runs:        2,
		Duration:    5 * time.Millisecond,
		WholeLimit:  time.Minute,
		Clients:     2,
		Progress:    func(int, int, string) {},
		Note:        func(s string) { t.Error(s) },
	}
}

// plausible finds what cannot be in a run over a tree with so many bytes in files.
func plausible(c bench.Case, r bench.Run, tree uint64) error {
	whole := c.Work == "whole tree"
	switch {
	case r.Errors != 0 || r.Calls == 0:
		return errors.New("it did not work")
	case whole && r.Bytes != tree:
		return fmt.Errorf("want all of the %d bytes", tree)
	case strings.HasPrefix(c.Work, "READ ") && r.Bytes == 0, !whole && !strings.HasPrefix(c.Work, "READ ") && r.Bytes != 0:
		return errors.New("the wrong calls were made")
	case c.Work == "READ 1 MiB" && r.Bytes != r.Calls<<20:
		return errors.New("READs were short")
	case r.CPU <= 0 || r.Resident == 0 || r.Wall <= 0:
		return errors.New("it was not metered")
	case r.P50 <= 0 || r.P50 > r.P99 || r.P99 > r.P999 || r.P999 > r.Max || r.Max > r.Wall*2:
		return errors.New("these cannot be latencies")
	}
	return nil
}

// TestWholeTree holds the requests of whole works to each piece of each file, once.
func TestWholeTree(t *testing.T) {
	tr := &tree{objects: []object{
		{kind: 2, first: 1, end: 4},
		{kind: 1, size: 5},
		{kind: 2, first: 4, end: 6},
		{kind: 5, size: 9},
		{kind: 1, size: 2*wholeRead + 1},
		{kind: 1, size: 0},
	}}
	walk, whole := Works()[7], Works()[8]
	var lists, bytes int
	for _, q := range whole.whole(tr) {
		if q.proc == list {
			lists++
		} else {
			bytes += q.want(&tr.objects[q.object])
		}
	}
	if n := len(walk.whole(tr)); n != 2 || lists != 2 || bytes != 5+2*wholeRead+1 {
		t.Errorf("%d directories in a walk, and %d with %d bytes in all", n, lists, bytes)
	}
}

// TestChoices holds random READs to pieces of full size where there are any.
func TestChoices(t *testing.T) {
	tr := &tree{objects: []object{{kind: 2}, {kind: 1, size: 10_000}, {kind: 1, size: 4096}, {kind: 1, size: 5}}}
	for _, c := range []struct {
		count uint32
		want  []choice
	}{
		{4096, []choice{{1, 0}, {1, 1}, {2, 0}}},
		{1 << 20, []choice{{1, 0}, {2, 0}, {3, 0}}},
	} {
		if got := (Work{proc: read, count: c.count}).choices(tr); !slices.Equal(got, c.want) {
			t.Errorf("READ %d: %v; want %v", c.count, got, c.want)
		}
	}
	if got := (Work{proc: lookup}).choices(tr); len(got) != 3 {
		t.Errorf("LOOKUP: %v; want all but the root", got)
	}
	if got := (Work{proc: lookup, Among: 2}).choices(tr); !slices.Equal(got, []choice{{2, 0}, {3, 0}}) {
		t.Errorf("LOOKUP of two objects: %v; want the last two", got)
	}
}

// TestSameChoices holds all servers to the same random requests.
func TestSameChoices(t *testing.T) {
	tr := &tree{objects: make([]object, 1000)}
	draw := func(seed uint64, client int) (qs []request) {
		s := Works()[0].prepare(tr)(seed)(client)
		for range 100 {
			var q request
			s.next(&q)
			qs = append(qs, q)
		}
		return qs
	}
	if !slices.Equal(draw(1, 0), draw(1, 0)) {
		t.Error("the same seed makes other choices")
	}
	if slices.Equal(draw(1, 0), draw(2, 0)) || slices.Equal(draw(1, 0), draw(1, 1)) {
		t.Error("another seed, or another client, makes the same choices")
	}
}

func TestCheck(t *testing.T) {
	for name, spoil := range map[string]func(p *Plan){
		"":                func(p *Plan) {},
		"no work":         func(p *Plan) { p.Works = nil },
		"0 connections":   func(p *Plan) { p.Connections = []int{4, 0} },
		"too many":        func(p *Plan) { p.Connections = []int{1 << 30} },
		"none in flight":  func(p *Plan) { p.InFlight = nil },
		"-1 in flight":    func(p *Plan) { p.InFlight = []int{-1} },
		"no runs":         func(p *Plan) { p.Runs = 0 },
		"no time":         func(p *Plan) { p.Duration = 0 },
		"no time for all": func(p *Plan) { p.WholeLimit = 0 },
	} {
		p := testPlan(t)
		spoil(p)
		if err := p.Check(); (err != nil) != (name != "") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f := &fleet{target: &Target{}}
	if _, err := f.run(ctx, Work{}, nil, time.Second); !errors.Is(err, context.Canceled) {
		t.Errorf("a run that was cancelled: %v", err)
	}
}

// TestAside holds a server of a scratch store to leaving the store as it was, and
// nothing behind.
func TestAside(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and starts a server")
	}
	temporary := t.TempDir()
	program := benchtest.Program(t)
	store, _ := testTree(t, program)
	before := listed(t, store)
	t.Setenv("TMPDIR", temporary)
	s, err := peer.RootnfsdAside(t.Context(), program, store, "v1")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	if err := TargetOf(s).Survey(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	if after := listed(t, store); !slices.Equal(before, after) {
		t.Errorf("the store had %q and has %q", before, after)
	}
	if left := listed(t, temporary); len(left) != 1 {
		t.Errorf("%q are left behind", left)
	}
}

// listed are the paths of all that is in a directory, and of itself, with their sizes.
func listed(t *testing.T, dir string) (paths []string) {
	t.Helper()
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil {
			paths = append(paths, fmt.Sprint(path, " ", info.Size()))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}
