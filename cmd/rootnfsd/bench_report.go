package main

import (
	"fmt"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/rootnfsd/rootnfsd/bench"
	"github.com/rootnfsd/rootnfsd/bench/report"
)

func benchReportCommand() *cli.Command {
	return &cli.Command{
		Name:      "report",
		Usage:     "write tables and plots of what the bench has measured",
		ArgsUsage: "FILE...",
		Description: `Merges what other bench commands saved with --json, and writes RESULTS.md and
the plots that it shows (plots/*.svg). Where several FILEs have measured the
same, the newest counts.

Examples:
   rootnfsd bench report race.json storm.json
   rootnfsd bench report --out /tmp/mine *.json`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "out", Usage: "write into this `DIR`", Value: "bench"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() == 0 {
				return usageError(c, "want at least one file that was saved with --json")
			}
			var reports []*bench.Report
			for _, path := range c.Args().Slice() {
				r, err := bench.Load(path)
				if err != nil {
					return err
				}
				reports = append(reports, r)
			}
			d := report.New(reports...)
			if err := d.Write(c.String("out")); err != nil {
				return err
			}
			fmt.Fprintf(c.App.Writer, "%s: of %d goals %d are reached, %d missed and %d not measured\n",
				filepath.Join(c.String("out"), "RESULTS.md"), d.Reached+d.Missed+d.NotMeasured, d.Reached, d.Missed, d.NotMeasured)
			return nil
		},
	}
}
