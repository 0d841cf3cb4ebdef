package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/rootnfsd/rootnfsd/bench"
	"github.com/rootnfsd/rootnfsd/bench/load"
	"github.com/rootnfsd/rootnfsd/bench/store"
)

func benchStoreCommand() *cli.Command {
	return &cli.Command{
		Name:  "store",
		Usage: "measure sealing, what large trees cost, and promotes under load",
		Description: `Seals a tree in turn with cp -a, and again, unchanged. Then makes up trees of
several sizes, seals them, opens them, and calls on them all, to see what size
costs. Last, promotes two versions in turn while 64 nodes make calls.

Works in a new directory below --dir, on whose disk it depends what comes out,
and removes it. Two million objects take 20 GB there, and some minutes to make.

Examples:
   rootnfsd bench store --dir /srv
   rootnfsd bench store --dir /srv --tree images/v1 --objects ""   just that tree
   rootnfsd bench store --dir /srv --objects 10000,200000 --promotes 0`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "dir", Usage: "work below `DIR` (default: where temporary files are)"},
			&cli.StringFlag{Name: "tree", Usage: "seal and copy the tree at `DIR` (default: one is made up)"},
			&cli.StringFlag{Name: "objects", Value: "10000,200000,2000000", Usage: "sizes of trees: `N,…`"},
			&cli.IntFlag{Name: "runs", Value: 5, Usage: "repeat everything `N` times"},
			&cli.DurationFlag{Name: "duration", Value: 500 * time.Millisecond, Usage: "make calls for `TIME`"},
			&cli.IntFlag{Name: "promotes", Value: 100, Usage: "promote `N` times in each run"},
			&cli.BoolFlag{Name: "cold", Value: load.CanDropCaches(), Usage: "also seal with the page cache dropped, for which root is needed"},
			&cli.StringFlag{Name: "json", Usage: "write the results to `FILE`, - being standard output"},
		},
		Action: benchStore,
	}
}

func benchStore(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	b, err := storeBench(c)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(c.Context, os.Interrupt, syscall.SIGTERM)
	defer stop()
	line := newStatusLine()
	b.Say, b.Note = line.show, line.print
	report := &bench.Report{Date: time.Now().UTC(), Machine: bench.ThisMachine(), Servers: b.About()}
	err = b.Run(ctx, report)
	if n := c.Int("promotes"); err == nil && n > 0 {
		err = b.Rollout(ctx, n, report)
	}
	line.clear()
	return publish(c, report, err, writeServers, storeTable)
}

// storeBench reads the flags.
func storeBench(c *cli.Context) (*store.Bench, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	b := &store.Bench{
		Program: program, Dir: c.String("dir"), Tree: c.String("tree"),
		Runs: c.Int("runs"), Duration: c.Duration("duration"), Cold: c.Bool("cold"), Settle: store.Settled,
	}
	if b.Objects, err = numbers(c.String("objects")); err != nil {
		return nil, usageError(c, "--objects %v", err)
	}
	if err := b.Check(); err != nil {
		return nil, usageError(c, "%v", err)
	}
	return b, nil
}

// storeTable shows medians, and how far the runs are from each other.
func storeTable(w io.Writer, r *bench.Report) error {
	rows := [][]string{{"WORK", "OBJECTS", "BY", "TIME", "LEAST", "MOST", "CPU", "MEMORY", "CALLS", "FAILED", "SLOWEST"}}
	for _, x := range r.Results {
		work := x.Work
		if x.Cold {
			work += " (cold)"
		}
		row := []string{work, "", x.Server}
		if x.Objects > 0 {
			row[1] = strconv.Itoa(x.Objects)
		}
		took, cpu := bench.Summarize(x.Runs, secondsEach), bench.Summarize(x.Runs, cpuEach)
		memoryOf := bench.Summarize(x.Runs, func(r bench.Run) float64 { return float64(r.Resident) })
		slowest := bench.Summarize(x.Runs, func(r bench.Run) float64 { return r.Max.Seconds() })
		row = append(row, short(took.Median), short(took.Min), short(took.Max), short(cpu.Median), memory(memoryOf.Median))
		if calls, failed := sums(x.Runs); calls > 0 {
			row = append(row, fmt.Sprint(calls), fmt.Sprint(failed), short(slowest.Max))
		}
		rows = append(rows, row)
	}
	return table(w, rows)
}

// secondsEach and cpuEach are of a call where there were calls, else of all.
func secondsEach(r bench.Run) float64 { return r.Wall.Seconds() / float64(max(1, r.Calls)) }
func cpuEach(r bench.Run) float64     { return r.CPU.Seconds() / float64(max(1, r.Calls)) }

func sums(runs []bench.Run) (calls, failed uint64) {
	for _, r := range runs {
		calls += r.Calls
		failed += r.Errors
	}
	return calls, failed
}
