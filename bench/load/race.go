package load

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rootnfsd/rootnfsd/bench"
)

// Plan says what is measured, and how.
type Plan struct {
	Works                 []Work
	Connections, InFlight []int
	// Runs is how often everything is repeated. A run of work that has no end takes
	// the Duration. A server that takes longer than the WholeLimit for work that has
	// one is not measured in it.
	Runs       int
	Duration   time.Duration
	WholeLimit time.Duration
	// Cold adds the works that read content in large pieces, with the page cache
	// dropped before each run.
	Cold bool
	// Clients is how many goroutines make the calls; 0 is half as many as there are
	// cores.
	Clients int
	Seed    uint64

	// Progress is told before each run: how many are done, out of how many, and what
	// comes next. Note is told what is worth a line of its own.
	Progress func(done, total int, next string)
	Note     func(string)
}

// Cold works are done at this concurrency: it is the disk that is waited for.
const (
	coldConnections = 4
	coldInFlight    = 16
)

// cell is what all targets are measured in, in turn.
type cell struct {
	Work
	connections, inFlight int
	cold                  bool
}

func (p *Plan) cells() []cell {
	var cells []cell
	for _, w := range p.Works {
		for _, n := range p.Connections {
			for _, k := range p.InFlight {
				cells = append(cells, cell{w, n, k, false})
			}
		}
	}
	for _, w := range p.Works {
		if p.Cold && w.count == wholeRead {
			cells = append(cells, cell{w, coldConnections, coldInFlight, true})
		}
	}
	return cells
}

// race is a Plan at work.
type race struct {
	*Plan
	targets []*Target
	report  *bench.Report
	bench   string
	done    int
	total   int
	slow    map[slowness]bool
}

// slowness is whole work that takes a target too long.
type slowness struct{ target, work string }

// Run measures targets, which have been surveyed, against each other and adds the
// results to a report, as those of a bench of that name. A target that fails is left
// out of what it fails in, with a Note; an error ends it all.
func (p *Plan) Run(ctx context.Context, targets []*Target, name string, report *bench.Report) error {
	cells := p.cells()
	r := &race{p, targets, report, name, 0, len(cells) * p.Runs * len(targets), map[slowness]bool{}}
	for _, t := range targets {
		if err := r.warm(ctx, t); err != nil {
			return err
		}
	}
	for _, c := range cells {
		if err := r.cell(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// warmLimit is how long a server may take to read all of the tree once before it is
// measured.
const warmLimit = 10 * time.Second

// warm makes a target read the tree, so that its caches are as full as they get.
func (r *race) warm(ctx context.Context, t *Target) error {
	r.Progress(0, r.total, t.Name+": warming up")
	f, err := newFleet(t, coldConnections, coldInFlight, r.Clients)
	if err != nil {
		return err
	}
	defer f.close()
	w := Work{Whole: true, proc: read, count: wholeRead}
	_, err = f.run(ctx, w, w.prepare(t.tree)(r.Seed), warmLimit)
	return err
}

// entry is a target in a cell.
type entry struct {
	*fleet
	sources func(seed uint64) func(client int) source
	failed  bool // it is left out of the rest of the cell
}

// cell measures all targets in the same work, run by run.
func (r *race) cell(ctx context.Context, c cell) error {
	var entries []*entry
	defer func() {
		for _, e := range entries {
			e.close()
		}
	}()
	for _, t := range r.targets {
		f, err := newFleet(t, c.connections, c.inFlight, r.Clients)
		if err != nil {
			return err
		}
		entries = append(entries, &entry{fleet: f, sources: c.prepare(t.tree)})
	}
	for run := range r.Runs {
		for i := range entries {
			// Each is the first as often as any other.
			e := entries[(i+run)%len(entries)]
			if err := r.one(ctx, c, e, r.Seed+uint64(run)); err != nil {
				return err
			}
		}
	}
	return nil
}

// one makes one run of one target.
func (r *race) one(ctx context.Context, c cell, e *entry, seed uint64) error {
	t := e.target
	r.Progress(r.done, r.total, fmt.Sprintf("%s: %s, %d x %d", t.Name, c.name(), c.connections, c.inFlight))
	r.done++
	if e.failed || r.slow[slowness{t.Name, c.Name}] {
		return nil
	}
	if c.cold {
		if err := DropCaches(); err != nil {
			return err
		}
	}
	duration := r.Duration
	if c.Whole {
		duration = r.WholeLimit
	}
	o, err := e.run(ctx, c.Work, e.sources(seed), duration)
	if !o.complete {
		e.calm(ctx)
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		e.failed = true
		r.Note(fmt.Sprintf("%s is left out of %s with %d connections: %v", t.Name, c.name(), c.connections, err))
		return nil
	case c.Whole && !o.complete:
		r.slow[slowness{t.Name, c.Name}] = true
		r.Note(fmt.Sprintf("%s is left out of %s: it takes more than %v", t.Name, c.Name, r.WholeLimit))
		return nil
	case o.failed != nil:
		r.Note(fmt.Sprintf("%d of %d calls failed: %v", o.Errors, o.Errors+o.Calls, o.failed))
	}
	r.report.Add(bench.Case{
		Bench:       r.bench,
		Work:        c.Name,
		Server:      t.Name,
		Connections: c.connections,
		InFlight:    c.inFlight,
		Cold:        c.cold,
		Objects:     t.Objects(),
	}, o.Run)
	return nil
}

func (c *cell) name() string {
	if c.cold {
		return c.Name + " (cold)"
	}
	return c.Name
}

// Check refuses a plan that cannot be made.
func (p *Plan) Check() error {
	switch {
	case len(p.Works) == 0:
		return errors.New("no work to do")
	case len(p.Connections) == 0 || slices.Min(p.Connections) < 1 || slices.Max(p.Connections) > maxConnections:
		return fmt.Errorf("the number of connections must be from 1 to %d", maxConnections)
	case len(p.InFlight) == 0 || slices.Min(p.InFlight) < 1 || slices.Max(p.InFlight) > maxInFlight:
		return fmt.Errorf("the number of calls in flight must be from 1 to %d", maxInFlight)
	case p.Runs < 1:
		return errors.New("there must be at least one run")
	case p.Duration <= 0 || p.WholeLimit <= 0:
		return errors.New("a run must have some time")
	}
	return nil
}

const (
	maxConnections = 20_000 // from one address to one port there are 28 thousand
	maxInFlight    = 1024
)
