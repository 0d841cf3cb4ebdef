package guest

import (
	"context"
	"fmt"
	"time"

	"github.com/rootnfsd/rootnfsd/bench"
	"github.com/rootnfsd/rootnfsd/bench/load"
	"github.com/rootnfsd/rootnfsd/bench/peer"
)

// Race is a race of rootnfsd and the kernel's NFS server on the machine where it
// is run. The latter is at its usual port of loopback already.
type Race struct {
	Rootnfsd string // program
	Store    string // with a version that is sealed
	Version  string
	// MountPort is where the kernel's server has MOUNT, and Path what it exports:
	// the tree that the version was sealed from.
	MountPort uint16
	Path      string
	// Bench is what the results are filed under.
	Bench string
	// Settings are what the servers race with; nil is Settings.
	Settings []Setting
	// Runs is how often each work is repeated, and Duration how long a run takes.
	Runs     int
	Duration time.Duration
	// Progress is told before each run what comes next. Note is told what is worth
	// a line of its own.
	Progress, Note func(string)
}

// Setting is a number of connections, and of calls in flight on each.
type Setting struct{ Connections, InFlight int }

// Settings are what the servers race with by default.
var Settings = []Setting{{4, 16}, {64, 1}}

// wholeWork is the work that is no race but warms up: rootnfsd compares all
// content with its digests when it is first read.
const wholeWork = "whole tree"

// wholeLimit is how long work on the whole tree may take, under emulation.
const wholeLimit = 5 * time.Minute

// Run races.
func (r *Race) Run(ctx context.Context) (*bench.Report, error) {
	report := &bench.Report{Date: time.Now().UTC(), Machine: bench.ThisMachine(), Servers: map[string]string{}}
	server, err := peer.RootnfsdAside(ctx, r.Rootnfsd, r.Store, r.Version)
	if err != nil {
		return nil, err
	}
	defer server.Stop()
	ours := load.TargetOf(server)
	ours.Meter = Others{}
	report.Servers[ours.Name] = server.About
	theirs := &load.Target{Name: "knfsd", Path: r.Path, Meter: Others{}}
	if err := theirs.Find("127.0.0.1", 0, r.MountPort); err != nil {
		return nil, err
	}
	report.Servers[theirs.Name] = fmt.Sprintf("the NFS server of Linux %s, 8 threads, largest READ 1 MiB, export ro,no_root_squash,no_subtree_check,insecure", report.Machine.Kernel)
	targets := []*load.Target{ours, theirs}
	for _, t := range targets {
		r.Progress(t.Name + ": listing the tree")
		if err := t.Survey(ctx); err != nil {
			return nil, err
		}
	}
	if a, b := ours.Objects(), theirs.Objects(); a != b {
		return nil, fmt.Errorf("%s shows %d objects, and %s shows %d: not the same tree", ours.Name, a, theirs.Name, b)
	}
	return report, r.compete(ctx, targets, report)
}

// compete has targets, which have been surveyed, do all work.
func (r *Race) compete(ctx context.Context, targets []*load.Target, report *bench.Report) error {
	whole, works := apart(load.Works())
	warmUp := r.plan(whole)
	warmUp.Runs, warmUp.Connections, warmUp.InFlight = 1, []int{4}, []int{16}
	if err := warmUp.Run(ctx, targets, r.Bench, new(bench.Report)); err != nil {
		return err
	}
	settings := r.Settings
	if settings == nil {
		settings = Settings
	}
	for _, s := range settings {
		p := r.plan(works)
		p.Connections, p.InFlight = []int{s.Connections}, []int{s.InFlight}
		if err := p.Run(ctx, targets, r.Bench, report); err != nil {
			return err
		}
	}
	return nil
}

// apart parts the work that warms up from that which is measured.
func apart(works []load.Work) (warmUp, measured []load.Work) {
	for _, w := range works {
		if w.Name == wholeWork {
			warmUp = append(warmUp, w)
		} else {
			measured = append(measured, w)
		}
	}
	return warmUp, measured
}

func (r *Race) plan(works []load.Work) *load.Plan {
	return &load.Plan{
		Works:      works,
		Runs:       r.Runs,
		Duration:   r.Duration,
		WholeLimit: wholeLimit,
		Seed:       1,
		Progress:   func(done, total int, next string) { r.Progress(fmt.Sprintf("%d of %d: %s", done, total, next)) },
		Note:       r.Note,
	}
}
