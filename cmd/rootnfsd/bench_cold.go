package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/rootnfsd/rootnfsd/bench"
	"github.com/rootnfsd/rootnfsd/bench/load"
	"github.com/rootnfsd/rootnfsd/bench/peer"
	"github.com/rootnfsd/rootnfsd/bench/storm"
)

func benchColdCommand() *cli.Command {
	return &cli.Command{
		Name:  "cold",
		Usage: "boot many nodes from a server that has nothing in memory",
		Description: `Replays a boot as many nodes at once, as bench storm does, but takes the content of
the store out of memory first. It does so with no warming at all, with the server
warming itself from the moment that it starts, and with a promote that did it before;
last comes a second storm over the same server.

What the fastest of disks loses by this is little: limit the rate of reading
(systemd-run -p "IOReadBandwidthMax=/dev/sda 40M") to see what an SD card does.
The store must not be served meanwhile.

Examples:
   rootnfsd bench cold --export images/
   rootnfsd bench cold --export images/ --nodes 16 --runs 3 --json cold.json`,
		Flags: []cli.Flag{
			exportFlag(), configFlag(),
			&cli.StringFlag{Name: "trace", Usage: "replay the recording in `FILE` (default: a Debian boot)"},
			&cli.StringFlag{Name: "client", Usage: "replay what the client at `ADDR` did (default: the one that did most)"},
			&cli.IntFlag{Name: "nodes", Value: 64, Usage: "boot `N` nodes"},
			&cli.IntFlag{Name: "runs", Value: 5, Usage: "repeat `N` times"},
			&cli.StringFlag{Name: "json", Usage: "write the results to `FILE`, - being standard output"},
		},
		Action: benchCold,
	}
}

func benchCold(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	if n := c.Int("nodes"); n < 1 || n > storm.MaxNodes || c.Int("runs") < 1 {
		return usageError(c, "want 1 to %d nodes, and at least one run", storm.MaxNodes)
	}
	b, err := newColdBench(c)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(c.Context, os.Interrupt, syscall.SIGTERM)
	defer stop()
	remove, err := b.setAside(ctx)
	if err != nil {
		return err
	}
	defer remove()
	report := &bench.Report{Date: time.Now().UTC(), Machine: bench.ThisMachine(), Servers: map[string]string{}}
	for run := range c.Int("runs") {
		for _, w := range coldWays {
			b.line.show(fmt.Sprintf("run %d of %d: %s", run+1, c.Int("runs"), w.name))
			if err := b.measure(ctx, w, report); err != nil {
				b.line.clear()
				return fmt.Errorf("%s: %w", w.name, err)
			}
		}
	}
	b.line.clear()
	return publish(c, report, nil, coldTable)
}

// coldTable shows the results.
func coldTable(w io.Writer, report *bench.Report) error {
	rows := [][]string{{"STORM", "ALL BOOTED", "", "ONE NODE", "CALL P99", "FROM DISK", "CPU", "ERRORS"}}
	for _, r := range report.Results {
		median := func(f bench.Figure) float64 { return bench.Summarize(r.Runs, f).Median }
		lasted := func(f func(bench.Run) time.Duration) string {
			return short(median(func(run bench.Run) float64 { return f(run).Seconds() }))
		}
		wall := bench.Summarize(r.Runs, bench.Seconds)
		rows = append(rows, []string{
			r.Work, fmt.Sprintf("%.3f s", wall.Median), fmt.Sprintf("%.3f to %.3f", wall.Min, wall.Max),
			lasted(func(run bench.Run) time.Duration { return run.NodeP50 }),
			lasted(func(run bench.Run) time.Duration { return run.P99 }),
			size(uint64(median(func(run bench.Run) float64 { return float64(run.DiskRead) }))),
			lasted(func(run bench.Run) time.Duration { return run.CPU }),
			fmt.Sprint(errorsOf(r.Runs)),
		})
	}
	return table(w, rows)
}

// coldBench boots nodes from a store that lies on the disk.
type coldBench struct {
	program string
	store   *openedStore
	version string
	scratch string // a store beside it, which learns of these boots alone
	config  storm.Config
	trace   *storm.Trace
	plan    *storm.Plan // made once: handles outlive a server
	line    *statusLine
}

// coldWay is a way to come by what is on the disk.
type coldWay struct {
	name    string
	promote bool     // do it, which warms
	serve   []string // further flags
	again   string   // a second storm over the same server goes by this name
}

var coldWays = []coldWay{
	{name: "not warmed", serve: []string{"--no-warm"}},
	{name: "warming since it started"},
	{name: "warmed by promote", promote: true, serve: []string{"--no-warm"}, again: "in memory"},
}

func newColdBench(c *cli.Context) (*coldBench, error) {
	b := &coldBench{config: storm.Config{Nodes: c.Int("nodes"), Connections: 1}, line: newStatusLine()}
	var err error
	if b.program, err = os.Executable(); err != nil {
		return nil, err
	}
	if b.store, err = openOneStore(c); err != nil {
		return nil, err
	}
	if pid := servedBy(b.store.StateDir()); pid != 0 {
		return nil, fmt.Errorf("the store %s is served by process %d, which keeps it in memory: stop that one, or use a copy of the store", b.store.Dir(), pid)
	}
	rollout, err := b.store.state.Rollout()
	if err != nil {
		return nil, err
	}
	promoted, ok := rollout.Promoted()
	if !ok {
		return nil, errors.New("no version is promoted: rootnfsd promote VERSION")
	}
	b.version = promoted.Version
	_, b.trace, err = readTrace(c)
	return b, err
}

// setAside makes the scratch store.
func (b *coldBench) setAside(ctx context.Context) (remove func(), err error) {
	dir, err := os.MkdirTemp("", "rootnfsd-bench")
	if err != nil {
		return nil, err
	}
	b.scratch = filepath.Join(dir, "images")
	remove = func() { os.RemoveAll(dir) }
	if err := peer.Scratch(ctx, b.program, b.store.Dir(), b.version, b.scratch); err != nil {
		remove()
		return nil, err
	}
	return remove, nil
}

// measure makes one storm of a kind, or two.
func (b *coldBench) measure(ctx context.Context, w coldWay, report *bench.Report) error {
	if err := b.makePlan(ctx); err != nil {
		return err
	}
	if err := b.chill(); err != nil {
		return err
	}
	if w.promote {
		cmd := exec.CommandContext(ctx, b.program, "promote", b.version, "--force", "--no-verify", "--export", b.scratch)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("promote: %w\n%s", err, out)
		}
	}
	server, err := b.start(ctx, w.serve...)
	if err != nil {
		return err
	}
	defer server.Stop()
	report.Servers["rootnfsd"] = server.About
	if err := b.storm(ctx, server, w.name, true, report); err != nil || w.again == "" {
		return err
	}
	return b.storm(ctx, server, w.again, false, report)
}

// makePlan boots a scout, by whom the server also learns what a boot reads, if
// it does not know yet.
func (b *coldBench) makePlan(ctx context.Context) error {
	if b.plan != nil {
		return nil
	}
	server, err := b.start(ctx)
	if err != nil {
		return err
	}
	defer server.Stop() // which saves what was learnt
	b.plan, err = storm.Scout(b.trace, server.MountPath, b.config)
	return err
}

// start starts a server and aims at it.
func (b *coldBench) start(ctx context.Context, flags ...string) (*peer.Server, error) {
	server, err := peer.Rootnfsd(ctx, b.program, b.scratch, b.version, flags...)
	if err == nil {
		b.config.Target, b.config.MountTarget = server.Addr, server.MountAddr
	}
	return server, err
}

func (b *coldBench) storm(ctx context.Context, server *peer.Server, name string, cold bool, report *bench.Report) error {
	run, complaints, err := b.plan.Measure(ctx, b.config, server.Meter, func(int) {})
	for _, line := range complaints {
		b.line.print(line)
	}
	if err != nil {
		return err
	}
	report.Add(bench.Case{Bench: "cold", Work: "storm, " + name, Server: "rootnfsd", Nodes: b.config.Nodes, Cold: cold}, run)
	return nil
}

// chill takes the packs of the store out of memory. No server may have them mapped.
func (b *coldBench) chill() error {
	packs, err := filepath.Glob(filepath.Join(b.store.StateDir(), "packs", "*.pack"))
	if err != nil {
		return err
	}
	for _, path := range packs {
		if err := load.Chill(path); err != nil {
			return err
		}
	}
	return nil
}
