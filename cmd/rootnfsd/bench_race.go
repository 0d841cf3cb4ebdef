package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/rootnfsd/rootnfsd/bench"
	"github.com/rootnfsd/rootnfsd/bench/load"
	"github.com/rootnfsd/rootnfsd/bench/peer"
)

func benchRaceCommand() *cli.Command {
	return &cli.Command{
		Name:      "race",
		Usage:     "measure rootnfsd and its peers side by side on this machine",
		ArgsUsage: "[VERSION]",
		Description: `Serves a sealed version (the promoted one, if none is named) by rootnfsd, by
nfs-ganesha and by go-nfs, and beside them runs the limit: a program that sends the
same bytes with no NFS at all. All do the same work in turn, several times; shown
are the medians, and how far the runs are from each other.

The store must not be served meanwhile. nfs-ganesha needs root and its packages
(apt-get install nfs-ganesha nfs-ganesha-vfs); it is left out without.

Examples:
   rootnfsd bench race --quick
   rootnfsd bench race --export images/ --json race.json v2
   rootnfsd bench race --work GETATTR,LOOKUP --connections 4 --in-flight 16
   rootnfsd bench race --servers rootnfsd,limit --work "READ 128 KiB" --duration 2s`,
		Flags: append([]cli.Flag{
			exportFlag(), configFlag(), serversFlag(), congestionFlag(),
		}, planFlags(5)...),
		Action: benchRace,
	}
}

// planFlags are those of all commands that make load.
func planFlags(runs int) []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "work", Usage: "do only this `WORK,…` (default: all there is: " + strings.Join(workNames(), ", ") + ")"},
		&cli.StringFlag{Name: "connections", Value: "1,4,64,1024", Usage: "numbers of connections: `N,…`"},
		&cli.StringFlag{Name: "in-flight", Value: "1,16", Usage: "numbers of calls in flight on each: `N,…`"},
		&cli.IntFlag{Name: "runs", Value: runs, Usage: "repeat everything `N` times"},
		&cli.DurationFlag{Name: "duration", Value: 500 * time.Millisecond, Usage: "`TIME` of each run"},
		&cli.DurationFlag{Name: "whole-limit", Value: 20 * time.Second, Usage: "give up on a server that needs more than `TIME` for the whole tree"},
		&cli.BoolFlag{Name: "quick", Usage: "a first impression: few connections, 3 runs of 200 ms"},
		&cli.BoolFlag{Name: "cold", Value: load.CanDropCaches(), Usage: "also measure with the page cache dropped, for which root is needed"},
		&cli.IntFlag{Name: "clients", Usage: "make the calls on `N` cores (default: half of them)"},
		&cli.Uint64Flag{Name: "seed", Value: 1, Usage: "make the random choices that belong to `N`"},
		&cli.StringFlag{Name: "json", Usage: "write the results to `FILE`, - being standard output"},
	}
}

func workNames() []string {
	var names []string
	for _, w := range load.Works() {
		names = append(names, w.Name)
	}
	return names
}

func benchRace(c *cli.Context) error {
	if c.NArg() > 1 {
		return usageError(c, "want one version, got %d arguments", c.NArg())
	}
	plan, err := planOf(c)
	if err != nil {
		return err
	}
	x, err := findContestants(c, c.Args().First())
	if err != nil {
		return err
	}
	if ran, err := inOwnNetwork(c); ran {
		return err
	}
	ctx, stop := signal.NotifyContext(c.Context, os.Interrupt, syscall.SIGTERM)
	defer stop()
	line := newStatusLine()
	showPlan(plan, line)
	if err := x.start(ctx, plan.Note); err != nil {
		return err
	}
	defer x.stop()
	targets, err := surveyed(ctx, x, line)
	if err != nil {
		return err
	}
	report := &bench.Report{Date: time.Now().UTC(), Machine: bench.ThisMachine(), Servers: x.about()}
	report.Servers["TCP"] = "congestion control " + peer.Congestion() + ", loopback"
	err = plan.Run(ctx, targets, "race", report)
	line.clear()
	return publish(c, report, err, writeServers, loadTable)
}

// surveyed makes targets of the servers, which then know what there is.
func surveyed(ctx context.Context, x *contestants, line *statusLine) ([]*load.Target, error) {
	var targets []*load.Target
	var ours *load.Target
	for _, s := range x.servers {
		if s.Name == "limit" {
			targets = append(targets, load.LimitOf(s, ours, x.packSize))
			continue
		}
		line.show(s.Name + ": listing the tree")
		t := load.TargetOf(s)
		if err := t.Survey(ctx); err != nil {
			return nil, err
		}
		targets = append(targets, t)
		if s.Name == "rootnfsd" {
			ours = t
		} else if ours != nil && t.Objects() != ours.Objects() {
			line.print(fmt.Sprintf("%s shows %d objects where rootnfsd has %d: the tree was changed after it was sealed, or cannot be read", s.Name, t.Objects(), ours.Objects()))
		}
	}
	return targets, nil
}

// showPlan makes a plan tell how far it is.
func showPlan(p *load.Plan, line *statusLine) {
	p.Progress = func(done, total int, next string) { line.show(fmt.Sprintf("%d of %d: %s", done, total, next)) }
	p.Note = line.print
}

// planOf reads the flags of planFlags.
func planOf(c *cli.Context) (*load.Plan, error) {
	p := &load.Plan{
		Works:      load.Works(),
		Runs:       c.Int("runs"),
		Duration:   c.Duration("duration"),
		WholeLimit: c.Duration("whole-limit"),
		Cold:       c.Bool("cold"),
		Clients:    c.Int("clients"),
		Seed:       c.Uint64("seed"),
	}
	connections, inFlight := c.String("connections"), c.String("in-flight")
	if c.Bool("quick") {
		connections, p.Cold = unlessSet(c, "connections", connections, "4,64"), c.IsSet("cold") && p.Cold
		p.Runs, p.Duration = unlessSet(c, "runs", p.Runs, 3), unlessSet(c, "duration", p.Duration, 200*time.Millisecond)
	}
	var err error
	if p.Connections, err = numbers(connections); err != nil {
		return nil, usageError(c, "--connections %v", err)
	}
	if p.InFlight, err = numbers(inFlight); err != nil {
		return nil, usageError(c, "--in-flight %v", err)
	}
	if p.Works, err = chosenWorks(load.Works(), func(w load.Work) string { return w.Name }, c.String("work")); err != nil {
		return nil, usageError(c, "--work %v", err)
	}
	if p.Cold && !load.CanDropCaches() {
		return nil, errors.New("only root can drop the page cache (--cold)")
	}
	if err := p.Check(); err != nil {
		return nil, usageError(c, "%v", err)
	}
	return p, nil
}

// unlessSet is what a flag says, or other if it was not given.
func unlessSet[T any](c *cli.Context, flag string, said, other T) T {
	if c.IsSet(flag) {
		return said
	}
	return other
}

func numbers(s string) ([]int, error) {
	var out []int
	for _, f := range splitCommas([]string{s}) {
		n, err := strconv.Atoi(f)
		if err != nil {
			return nil, fmt.Errorf("%s: want numbers, with commas between", s)
		}
		out = append(out, n)
	}
	return out, nil
}

// chosenWorks finds works by their names, for which case and spaces do not matter.
func chosenWorks[W any](all []W, name func(W) string, s string) ([]W, error) {
	plain := func(name string) string { return strings.ToLower(strings.ReplaceAll(name, " ", "")) }
	wanted := splitCommas([]string{s})
	if len(wanted) == 0 {
		return all, nil
	}
	var works []W
	for _, want := range wanted {
		i := slices.IndexFunc(all, func(w W) bool { return plain(name(w)) == plain(want) })
		if i < 0 {
			var names []string
			for _, w := range all {
				names = append(names, name(w))
			}
			return nil, fmt.Errorf("%s: there are %s", want, strings.Join(names, ", "))
		}
		works = append(works, all[i])
	}
	return works, nil
}

// writeServers says what was measured, and where.
func writeServers(w io.Writer, r *bench.Report) error {
	fmt.Fprintf(w, "%s, %d cores, %s, %s, %s\n", r.Machine.CPU, r.Machine.Cores, size(r.Machine.Memory), r.Machine.Kernel, r.Machine.System)
	var rows [][]string
	for _, name := range slices.Sorted(maps.Keys(r.Servers)) {
		rows = append(rows, []string{name, r.Servers[name]})
	}
	fmt.Fprintln(w)
	if err := table(w, rows); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w)
	return err
}
