package storm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rootnfsd/rootnfsd/bench"
	"github.com/rootnfsd/rootnfsd/bench/rpc"
)

// Contest is a storm over several servers, one after the other in each round, so
// that a noisy machine hurts all alike.
type Contest struct {
	Trace *Trace // of one client
	Work  string // names it in the results
	Nodes []int
	Runs  int // rounds
	// Connections of each node, Think and Ramp are as in Config.
	Connections int
	Think       bool
	Ramp        time.Duration
	// Cold, if it is not nil, empties the page cache before each run.
	Cold func() error
	// Say shows how far it is, Warn what goes wrong. Both take a line.
	Say, Warn func(line string)
}

// Entrant is a server of a contest.
type Entrant struct {
	Name string
	// Addr is where NFS is, MountAddr where MOUNT is, and MountPath what to mount.
	Addr, MountAddr, MountPath string
	Options                    rpc.Options
	Meter                      Meter         // nil for a server that is out of sight
	RTT                        time.Duration // of what is added on the way
	// Most is how many nodes it can stand in a reasonable time; 0 is any number.
	Most int
	// Like is, for the limit program, the server whose replies it imitates, and File
	// the size of the file that it sends from.
	Like *Entrant
	File uint64

	plan *Plan
}

// Run adds the results to a report. A server that the trace cannot be replayed on
// is left out, with a warning.
func (c *Contest) Run(ctx context.Context, entrants []*Entrant, report *bench.Report) error {
	for _, e := range entrants {
		if err := c.enter(e); err != nil {
			c.Warn(fmt.Sprintf("%s is left out: %v", e.Name, err))
		}
	}
	for _, nodes := range c.Nodes {
		for round := range c.Runs {
			for i := range entrants {
				e := entrants[(i+round)%len(entrants)] // each is the first as often as any other
				if e.plan == nil || e.Most > 0 && nodes > e.Most {
					continue
				}
				if err := c.measure(ctx, e, nodes, round, report); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// enter makes the plan for a server.
func (c *Contest) enter(e *Entrant) (err error) {
	switch {
	case e.Like == nil:
		e.plan, err = Scout(c.Trace, e.MountPath, c.config(e))
	case e.Like.plan == nil:
		err = errors.New("it has nothing to imitate")
	default:
		e.plan, err = e.Like.plan.Limit(e.File)
	}
	if err == nil && e.Like == nil && e.plan.Skipped.Sum() > 0 {
		c.Warn(fmt.Sprintf("%s: %s", e.Name, &e.plan.Skipped))
	}
	return err
}

// config is for a server, but for the number of nodes.
func (c *Contest) config(e *Entrant) Config {
	return Config{Target: e.Addr, MountTarget: e.MountAddr, Connections: c.Connections, Think: c.Think, Ramp: c.Ramp, Options: e.Options}
}

func (c *Contest) measure(ctx context.Context, e *Entrant, nodes, round int, report *bench.Report) error {
	what := fmt.Sprintf("%s: %d nodes, run %d of %d", e.Name, nodes, round+1, c.Runs)
	config := c.config(e)
	config.Nodes = nodes
	if c.Cold != nil {
		if err := c.Cold(); err != nil {
			return err
		}
	}
	run, complaints, err := e.plan.Measure(ctx, config, e.Meter, func(booted int) {
		c.Say(fmt.Sprintf("%s, %d booted", what, booted))
	})
	if err != nil {
		return err
	}
	for _, complaint := range complaints {
		c.Warn(what + ": " + complaint)
	}
	of := bench.Case{Bench: "storm", Work: c.Work, Server: e.Name, Nodes: nodes, RTT: e.RTT, Cold: c.Cold != nil}
	if c.Connections > 1 {
		of.Connections = c.Connections
	}
	report.Add(of, run)
	return nil
}
