package main

import (
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/rootnfsd/rootnfsd/exports"
)

func nodesCommand() *cli.Command {
	return &cli.Command{
		Name:  "nodes",
		Usage: "list the nodes, what they run and what they would get",
		Description: `The server learns this from the traffic alone: nothing runs on the nodes for it.
What is new is here within a second, the time of the last call within 15.

Examples:
   rootnfsd nodes
   rootnfsd nodes --json | jq -r '.[] | select(.reboot_needed) | .address'`,
		Flags: []cli.Flag{exportFlag(), configFlag(), jsonFlag()},
		Action: onStore(func(c *cli.Context, s *openedStore) error {
			nodes, err := s.nodes(time.Now())
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return writeJSON(c.App.Writer, nodes)
			}
			if len(nodes) == 0 {
				fmt.Fprintln(c.App.Writer, "no node has mounted anything yet")
				return nil
			}
			return nodeTable(c.App.Writer, nodes)
		}),
	}
}

// nodeStatus is one node and what it runs.
type nodeStatus struct {
	Address      netip.Addr `json:"address"`
	Running      string     `json:"running"` // empty if it was silent for a week
	Digest       string     `json:"digest"`
	Promised     string     `json:"promised"` // what it gets at its next boot
	RebootNeeded bool       `json:"reboot_needed"`
	Mounted      time.Time  `json:"mounted,omitzero"`
	LastCall     time.Time  `json:"last_call,omitzero"`
	Also         []string   `json:"also,omitempty"` // other versions that it may have in use
}

func (s *openedStore) nodes(now time.Time) ([]nodeStatus, error) {
	rollout, known, err := s.known()
	if err != nil {
		return nil, err
	}
	promised, anything := rollout.Promoted()
	list := []nodeStatus{}
	for _, n := range known {
		status := nodeStatus{Address: n.Addr, Promised: promised.Version}
		for _, u := range n.Uses {
			if u.LastCall.After(status.LastCall) {
				status.LastCall = u.LastCall
			}
		}
		for i, u := range n.Running(now) {
			if i > 0 {
				status.Also = append(status.Also, u.Version)
				continue
			}
			status.Running, status.Digest, status.Mounted = u.Version, u.Digest.String(), u.Mounted
			if u.Exact { // its command line names the version: it will get that again
				status.Promised = u.Version
				continue
			}
			status.RebootNeeded = anything && u.Digest != promised.Digest
		}
		list = append(list, status)
	}
	return list, nil
}

func nodeTable(w io.Writer, nodes []nodeStatus) error {
	rows := [][]string{{"NODE", "RUNNING", "DIGEST", "PROMISED", "MOUNTED", "LAST CALL", ""}}
	for _, n := range nodes {
		if n.Running == "" {
			rows = append(rows, []string{n.Address.String(), "-", "-", n.Promised, "-", when(n.LastCall), "gone"})
			continue
		}
		note := ""
		if n.RebootNeeded {
			note = "reboot needed"
		}
		rows = append(rows, []string{n.Address.String(), n.Running, n.Digest[:12], n.Promised, when(n.Mounted), when(n.LastCall), note})
	}
	return table(w, rows)
}

// runningOn lists the addresses of the nodes that run a version.
func runningOn(nodes []exports.Node, version exports.Ref, now time.Time) []string {
	addrs := []string{}
	for _, n := range nodes {
		for _, u := range n.Running(now) {
			if version.Is(u.Ref) {
				addrs = append(addrs, n.Addr.String())
			}
		}
	}
	return addrs
}
