package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/rootnfsd/rootnfsd/exports"
)

func historyCommand() *cli.Command {
	return &cli.Command{
		Name:  "history",
		Usage: "show what was promoted, by whom, when, and how it went",
		Description: `The newest comes last. The last 1000 events are kept.

Examples:
   rootnfsd history
   rootnfsd history --last 5
   rootnfsd history --json | jq -r '.[] | select(.action == "rollback")'`,
		Flags: []cli.Flag{
			exportFlag(), configFlag(), jsonFlag(),
			&cli.IntFlag{Name: "last", Usage: "only the last `N` events"},
		},
		Action: onStore(func(c *cli.Context, s *openedStore) error {
			rollout, err := s.state.Rollout()
			if err != nil {
				return err
			}
			events := rollout.History
			if n := c.Int("last"); n > 0 {
				events = events[max(0, len(events)-n):]
			}
			switch {
			case c.Bool("json"):
				return writeJSON(c.App.Writer, append([]exports.Event{}, events...))
			case len(events) == 0:
				fmt.Fprintln(c.App.Writer, "nothing was promoted yet (rootnfsd promote VERSION)")
				return nil
			}
			return historyTable(c.App.Writer, events)
		}),
	}
}

func historyTable(w io.Writer, events []exports.Event) error {
	rows := [][]string{{"WHEN", "WHAT", "VERSION", "NODES", "BY", ""}}
	for _, e := range events {
		rows = append(rows, []string{e.Time.Local().Format("2006-01-02 15:04:05"), e.Action, cmp.Or(e.Version, "-"), cmp.Or(e.Nodes, "all"), e.By, e.Note})
	}
	for i, e := range events {
		if slices.Contains([]string{"remove", "gc"}, e.Action) {
			rows[i+1][3] = "-"
		}
	}
	return table(w, rows)
}
