package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/rootnfsd/rootnfsd/exports"
)

func statusCommand() *cli.Command {
	return &cli.Command{
		Name:  "status",
		Usage: "show the store: who serves it, what is promoted, who runs what",
		Description: `Examples:
   rootnfsd status
   rootnfsd status --export /srv/images --json`,
		Flags: []cli.Flag{exportFlag(), configFlag(), jsonFlag()},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			stores, err := openStores(c)
			if err != nil {
				return err
			}
			all := []storeStatus{}
			for _, s := range stores {
				status, err := s.status(c.Context, time.Now())
				if err != nil {
					return err
				}
				all = append(all, status)
			}
			if c.Bool("json") {
				return writeJSON(c.App.Writer, all)
			}
			for _, status := range all {
				if err := status.print(c.App.Writer); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// storeStatus is all there is to say of a store.
type storeStatus struct {
	Image    string        `json:"image"`
	Dir      string        `json:"dir"`
	ServedBy int           `json:"served_by_pid"` // 0 if nobody serves it
	Promoted string        `json:"promoted"`
	Digest   string        `json:"digest"`
	Since    exports.Event `json:"since"`
	Versions []versionUse  `json:"versions"`
	Unsealed []string      `json:"unsealed_trees"`
	// Partial is what is promoted for some nodes alone, and Watch what is being watched.
	Partial *exports.Partial     `json:"partial,omitempty"`
	Watch   *exports.Watch       `json:"watch,omitempty"`
	Nodes   []exports.NodeStatus `json:"nodes"`
	History []exports.Event      `json:"history"`
}

func (s *openedStore) status(ctx context.Context, now time.Time) (storeStatus, error) {
	fleet, err := s.fleet(ctx)
	if err != nil {
		return storeStatus{}, err
	}
	return s.describe(servedBy(s.StateDir()), fleet, now)
}

// describe puts together what there is to say of a store with who serves it, and its nodes.
func (s *openedStore) describe(servedBy int, fleet []exports.NodeStatus, now time.Time) (storeStatus, error) {
	st := storeStatus{Image: s.name, Dir: s.Dir(), ServedBy: servedBy, Nodes: fleet}
	rollout, err := s.state.Rollout()
	if err != nil {
		return st, err
	}
	if promoted, ok := rollout.Promoted(); ok {
		st.Promoted, st.Digest = promoted.Version, promoted.Digest.String()
	}
	st.History, st.Partial, st.Watch = rollout.History, rollout.Partial, rollout.Watch
	for _, e := range rollout.History {
		if (e.Action == "promote" || e.Action == "rollback") && e.Nodes == "" {
			st.Since = e
		}
	}
	if st.Versions, err = s.overview(now); err != nil {
		return st, err
	}
	st.Unsealed, err = s.unsealed()
	return st, err
}

func (st *storeStatus) print(w io.Writer) error {
	served := "not served (rootnfsd serve)"
	if st.ServedBy != 0 {
		served = fmt.Sprintf("served by process %d", st.ServedBy)
	}
	fmt.Fprintf(w, "%s  image %s, %s\n", st.Dir, st.Image, served)
	if st.Promoted == "" {
		fmt.Fprintln(w, "nothing is promoted (rootnfsd promote VERSION)")
	} else {
		fmt.Fprintf(w, "promoted: %s  %s  %s by %s\n", st.Promoted, st.Digest[:12], when(st.Since.Time), st.Since.By)
	}
	if st.Partial != nil {
		fmt.Fprintf(w, "promoted for %s: %s  %s\n", st.Partial, st.Partial.Version, st.Partial.Digest.String()[:12])
	}
	if st.Watch != nil {
		booted, good, bad := st.Watch.Tally()
		fmt.Fprintf(w, "watched: %s since %s; %d booted it, %d good, %d bad, of whom there may be %d\n", st.Watch.Version, when(st.Watch.Since), booted, good, bad, st.Watch.MaxBad)
	}
	fmt.Fprintln(w)
	if err := versionTable(w, st.Versions); err != nil {
		return err
	}
	for _, tree := range st.Unsealed {
		fmt.Fprintf(w, "%s  not sealed yet (rootnfsd seal %s)\n", tree, tree)
	}
	if len(st.Nodes) == 0 {
		return nil
	}
	const few = 20
	if len(st.Nodes) > few {
		fmt.Fprintf(w, "\n%s (rootnfsd nodes)\n", fleetLine(st.Nodes))
		return nil
	}
	fmt.Fprintln(w)
	return nodeTable(w, st.Nodes)
}
