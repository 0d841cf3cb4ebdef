package tftp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/rootnfsd/rootnfsd/bench"
	"github.com/rootnfsd/rootnfsd/bench/peer"
)

// Target is a server that gives out the file.
type Target struct {
	Name string
	// Addr is where it is, and Far where it seems to be with a round trip added.
	Addr netip.AddrPort
	Far  map[time.Duration]netip.AddrPort
	// Family is its processes.
	Family peer.Family
}

// Plan says what is measured, and how.
type Plan struct {
	File    string // its name on the servers
	Content []byte // what should be in it
	Options []Options
	Clients []int
	RTT     []time.Duration // added round trips, of which 0 is none
	// Runs is how often everything is repeated. A server that takes longer than the
	// Limit for a run is left out of it.
	Runs  int
	Limit time.Duration

	// Progress is told before each run: how many are done, out of how many, and what
	// comes next. Note is told what is worth a line of its own.
	Progress func(done, total int, next string)
	Note     func(string)
}

const (
	maxClients = 4096
	// watchEvery is how often it is looked what memory a server has.
	watchEvery = 250 * time.Millisecond
)

// Check refuses a plan that cannot be made.
func (p *Plan) Check() error {
	switch {
	case len(p.Content) == 0:
		return errors.New("the file is empty")
	case len(p.Options) == 0 || len(p.RTT) == 0:
		return errors.New("nothing to do")
	case len(p.Clients) == 0 || slices.Min(p.Clients) < 1 || slices.Max(p.Clients) > maxClients:
		return fmt.Errorf("the number of clients must be from 1 to %d", maxClients)
	case slices.Min(p.RTT) < 0:
		return errors.New("a round trip cannot be shorter than it is")
	case p.Runs < 1:
		return errors.New("there must be at least one run")
	case p.Limit <= 0:
		return errors.New("a run must have some time")
	}
	for _, o := range p.Options {
		if err := o.Check(); err != nil {
			return err
		}
	}
	return nil
}

// setting is what all targets are measured in, in turn.
type setting struct {
	Options
	clients int
	rtt     time.Duration
}

func (s setting) String() string {
	far := ""
	if s.rtt > 0 {
		far = fmt.Sprintf(", %v away", s.rtt)
	}
	return fmt.Sprintf("%v, %d clients%s", s.Options, s.clients, far)
}

func (p *Plan) settings() (all []setting) {
	for _, rtt := range p.RTT {
		for _, o := range p.Options {
			for _, n := range p.Clients {
				all = append(all, setting{o, n, rtt})
			}
		}
	}
	return all
}

// Run measures targets against each other and adds the results to a report. A target
// that fails, or does not grant what is asked for, is left out of what it fails in, with
// a Note; an error ends it all.
func (p *Plan) Run(ctx context.Context, targets []*Target, report *bench.Report) error {
	settings := p.settings()
	total, done := len(settings)*len(targets)*p.Runs, 0
	granting := map[Options][]*Target{}
	for _, o := range p.Options {
		for _, t := range targets {
			p.Progress(0, total, fmt.Sprintf("%s: warming up", t.Name))
			_, failed, err := p.fetch(ctx, t, setting{o, 1, 0})
			switch {
			case err != nil:
				return err
			case failed != nil:
				p.Note(fmt.Sprintf("%s is left out of %v: %v", t.Name, o, failed))
			default:
				granting[o] = append(granting[o], t)
			}
		}
	}
	total = 0
	for _, s := range settings {
		total += len(granting[s.Options]) * p.Runs
	}
	for _, s := range settings {
		entries := granting[s.Options]
		var left []*Target // out
		for i := range p.Runs {
			for j := range entries {
				t := entries[(i+j)%len(entries)] // each is the first as often as any other
				p.Progress(done, total, fmt.Sprintf("%s: %v", t.Name, s))
				done++
				if slices.Contains(left, t) {
					continue
				}
				run, failed, err := p.fetch(ctx, t, s)
				if err != nil {
					return err
				}
				if failed != nil {
					p.Note(fmt.Sprintf("%s: %v: %d of %d clients failed: %v", t.Name, s, run.Errors, s.clients, failed))
				}
				if run.Errors == uint64(s.clients) {
					left = append(left, t)
				}
				report.Add(bench.Case{Bench: "tftp", Work: s.Options.String(), Server: t.Name, Nodes: s.clients, RTT: s.rtt}, run)
			}
		}
	}
	return nil
}

// fetch makes one run, and meters the server.
func (p *Plan) fetch(ctx context.Context, t *Target, s setting) (r bench.Run, failed, err error) {
	addr := t.Addr
	if s.rtt > 0 {
		addr = t.Far[s.rtt]
	}
	f, err := newFleet(addr, p.Content, s.Options, s.clients)
	if err != nil {
		return r, nil, fmt.Errorf("%s: %w", t.Name, err)
	}
	defer f.close()
	t.Family.Settle(ctx)
	highest := peer.WatchEvery(t.Family, watchEvery)
	cpu := t.Family.CPU()
	r, failed, err = f.fetch(ctx, p.File, p.Limit)
	r.Resident = highest()
	t.Family.Settle(ctx)
	r.CPU = t.Family.CPU() - cpu
	return r, failed, err
}
