package homes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/rootnfsd/rootnfsd/bench"
)

// Setting is a number of connections, each with a number of jobs at a time.
type Setting struct{ Connections, InFlight int }

// Plan says what is measured, and how.
type Plan struct {
	Works    []Work
	Settings []Setting
	// Runs is how often everything is repeated. A run of work that has no end takes
	// the Duration. A server that takes longer than the Limit for anything is left
	// out of it.
	Runs     int
	Duration time.Duration
	Limit    time.Duration
	// Size is how many bytes are written and read, and Files how many are unpacked.
	Size, Files int

	// Progress is told before each run: how many are done, out of how many, and what
	// comes next. Note is told what is worth a line of its own.
	Progress func(done, total int, next string)
	Note     func(string)
}

const (
	maxConnections = 1024
	maxInFlight    = 1024
)

// Check refuses a plan that cannot be made.
func (p *Plan) Check() error {
	switch {
	case len(p.Works) == 0 || len(p.Settings) == 0:
		return errors.New("nothing to do")
	case p.Runs < 1:
		return errors.New("there must be at least one run")
	case p.Duration <= 0 || p.Limit <= 0:
		return errors.New("a run must have some time")
	case p.Size < mebi:
		return errors.New("there must be at least 1 MiB to write")
	case p.Files < 1:
		return errors.New("there must be at least one file to unpack")
	}
	for _, s := range p.Settings {
		if s.Connections < 1 || s.Connections > maxConnections || s.InFlight < 1 || s.InFlight > maxInFlight {
			return fmt.Errorf("the numbers of connections and of calls in flight must be from 1 to %d and %d", maxConnections, maxInFlight)
		}
	}
	return nil
}

// Run measures targets, which are prepared, against each other and adds the results to
// a report. A target that fails is left out of what it fails in, with a Note; an error
// ends it all.
func (p *Plan) Run(ctx context.Context, targets []*Target, report *bench.Report) error {
	total := 0
	for _, w := range p.Works {
		total += len(w.among(targets)) * len(p.Settings) * p.Runs
	}
	done := 0
	for _, w := range p.Works {
		for _, s := range p.Settings {
			var left []*Target // out
			for i := range p.Runs {
				entries := w.among(targets)
				for j := range entries {
					t := entries[(i+j)%len(entries)] // each is the first as often as any other
					p.Progress(done, total, fmt.Sprintf("%s: %s, %d x %d", t.Name, w.Name, s.Connections, s.InFlight))
					done++
					if slices.Contains(left, t) {
						continue
					}
					run, err := p.one(ctx, w, s, t, uint64(i+1))
					switch {
					case ctx.Err() != nil:
						return ctx.Err()
					case err != nil:
						left = append(left, t)
						p.Note(fmt.Sprintf("%s is left out of %s, %d x %d: %v", t.Name, w.Name, s.Connections, s.InFlight, err))
						continue
					}
					report.Add(bench.Case{
						Bench: "homes", Work: w.Name, Server: t.Name, Connections: s.Connections, InFlight: s.InFlight,
					}, run)
				}
			}
		}
	}
	return nil
}

// among returns the targets that take part in the work.
func (w *Work) among(targets []*Target) []*Target {
	var some []*Target
	for _, t := range targets {
		if w.Names || !t.NamesOnly {
			some = append(some, t)
		}
	}
	return some
}

// one makes one run of one target.
func (p *Plan) one(ctx context.Context, w Work, s Setting, t *Target, seed uint64) (bench.Run, error) {
	t.runs++
	r := &run{target: t, lines: s.Connections, seed: seed, size: p.Size, tree: p.Files, name: fmt.Sprintf("run-%d", t.runs), dir: new(node)}
	defer os.RemoveAll(r.path(""))
	f, err := newFleet(t, s.Connections, s.InFlight)
	if err != nil {
		return bench.Run{}, err
	}
	defer f.close()
	d := w.make(r)
	o, err := f.do(ctx, d.phases(), p.Duration, p.Limit)
	if err != nil {
		return o.Run, err
	}
	if o.failed != nil {
		p.Note(fmt.Sprintf("%s: %s: %d of %d calls failed: %v", t.Name, w.Name, o.Errors, o.Errors+o.Calls, o.failed))
	} else if err := d.check(); err != nil {
		o.Errors++
		p.Note(fmt.Sprintf("%s: %s: %v", t.Name, w.Name, err))
	}
	_, err = f.do(ctx, d.last(), p.Duration, p.Limit)
	return o.Run, err
}
