package main

import (
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/rootnfsd/rootnfsd/bench"
	"github.com/rootnfsd/rootnfsd/bench/store"
)

func benchImportCommand() *cli.Command {
	return &cli.Command{
		Name:      "import",
		Usage:     "measure importing archives and images",
		ArgsUsage: "[SOURCE...]",
		Description: `Imports each SOURCE, which is compressed, into a new store, in turn with the
program that takes the compression off (gzip, bzip2, xz with one thread, zstd) and
writes to /dev/null, or to a file that is synced. With --tree, archives and a disk
image of that tree are made and imported, too.

Works in a new directory below --dir, on whose disk it depends what comes out,
and removes it.

Examples:
   rootnfsd bench import --dir /srv raspios.img.xz root.tar.zst
   rootnfsd bench import --dir /srv --tree images/v1`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "dir", Usage: "work below `DIR` (default: where temporary files are)"},
			&cli.StringFlag{Name: "tree", Usage: "make archives and an image of the tree at `DIR`"},
			&cli.IntFlag{Name: "runs", Value: 5, Usage: "repeat everything `N` times"},
			&cli.StringFlag{Name: "json", Usage: "write the results to `FILE`, - being standard output"},
		},
		Action: benchImport,
	}
}

func benchImport(c *cli.Context) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	line := newStatusLine()
	b := &store.Imports{
		Program: program, Dir: c.String("dir"), Sources: c.Args().Slice(), Tree: c.String("tree"), Runs: c.Int("runs"),
		Say: line.show, Note: line.print,
	}
	if err := b.Check(); err != nil {
		return usageError(c, "%v", err)
	}
	ctx, stop := signal.NotifyContext(c.Context, os.Interrupt, syscall.SIGTERM)
	defer stop()
	report := &bench.Report{Date: time.Now().UTC(), Machine: bench.ThisMachine(), Servers: b.About()}
	err = b.Run(ctx, report)
	line.clear()
	return publish(c, report, err, writeServers, importTable)
}

// importTable shows medians, and how far the runs are from each other.
func importTable(w io.Writer, r *bench.Report) error {
	rows := [][]string{{"SOURCE", "BY", "TIME", "LEAST", "MOST", "CPU", "MEMORY", "CONTENT"}}
	for _, x := range r.Results {
		took, cpu := bench.Summarize(x.Runs, bench.Seconds), bench.Summarize(x.Runs, cpuEach)
		most := bench.Summarize(x.Runs, func(r bench.Run) float64 { return float64(r.Resident) })
		rate := bench.Summarize(x.Runs, bench.BytesPerSecond)
		rows = append(rows, []string{
			x.Work, x.Server, short(took.Median), short(took.Min), short(took.Max), short(cpu.Median), memory(most.Median), size(uint64(rate.Median)) + "/s",
		})
	}
	return table(w, rows)
}
