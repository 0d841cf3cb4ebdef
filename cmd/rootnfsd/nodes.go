package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/netip"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/rootnfsd/rootnfsd/admin"
	"github.com/rootnfsd/rootnfsd/exports"
	"github.com/rootnfsd/rootnfsd/hostlist"
)

func nodesCommand() *cli.Command {
	return &cli.Command{
		Name:      "nodes",
		Usage:     "list the nodes, what they run and what they would get",
		ArgsUsage: "[NODES]",
		Description: `The server learns this from the traffic alone: nothing runs on the nodes for it.
A node that nobody has named yet (rootnfsd node set) is listed as new, by its
address. NODES are names or addresses, with ranges: pi-[01-12].

A node is up when it mounted its home, said so (docs/admin.md), or went on
calling for a while after its boot. One that has not called for a quarter of an hour is
silent: it may be off, or idle with all that it needs in its caches.

Examples:
   rootnfsd nodes
   rootnfsd nodes --watch
   rootnfsd nodes --state booting,silent --sort seen
   rootnfsd nodes --label canary --version v2
   rootnfsd nodes --json | jq -r '.[] | select(.reboot_needed) | .address'`,
		Flags: append([]cli.Flag{
			exportFlag(), configFlag(), jsonFlag(),
			&cli.BoolFlag{Name: "watch", Aliases: []string{"w"}, Usage: "show it anew each second, until interrupted"},
			&cli.StringFlag{Name: "sort", Value: "name", Usage: "sort by `WHAT`: " + strings.Join(sortNames(), ", ")},
		}, filterFlags()...),
		Action: nodesAction,
	}
}

func filterFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "state", Usage: "only those in these `STATES`: new, booting, up, silent"},
		&cli.StringFlag{Name: "version", Usage: "only those that run this `VERSION`"},
		&cli.StringFlag{Name: "label", Usage: "only those with one of these `LABELS`"},
		&cli.BoolFlag{Name: "reboot-needed", Usage: "only those that run something else than they are promised"},
	}
}

func nodesAction(c *cli.Context) error {
	s, err := openOneStore(c)
	if err != nil {
		return err
	}
	view, err := newNodesView(c)
	if err != nil {
		return err
	}
	if !c.Bool("watch") {
		nodes, err := view.nodes(c.Context, s)
		switch {
		case err != nil:
			return err
		case c.Bool("json"):
			return writeJSON(c.App.Writer, nodes)
		case len(nodes) == 0 && view.all():
			fmt.Fprintln(c.App.Writer, "no node has mounted anything yet, and none is named (rootnfsd node set)")
			return nil
		}
		return nodeTable(c.App.Writer, nodes)
	}
	if c.Bool("json") {
		return usageError(c, "--watch is for people, --json for scripts: choose one")
	}
	ctx, stop := signal.NotifyContext(c.Context, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	return view.watch(ctx, c.App.Writer, s)
}

// nodesView is which nodes are listed, and in which order.
type nodesView struct {
	keys           []string // names or addresses; nil for all
	states, labels []string
	version        string
	rebootNeeded   bool
	order          func(a, b exports.NodeStatus) int
}

// nodeOrders are what nodes can be sorted by.
var nodeOrders = map[string]func(a, b exports.NodeStatus) int{
	"name":     func(a, b exports.NodeStatus) int { return 0 }, // as they come
	"address":  func(a, b exports.NodeStatus) int { return a.Address.Compare(b.Address) },
	"running":  func(a, b exports.NodeStatus) int { return strings.Compare(a.Running, b.Running) },
	"promised": func(a, b exports.NodeStatus) int { return strings.Compare(a.Promised, b.Promised) },
	"state":    func(a, b exports.NodeStatus) int { return strings.Compare(string(a.State), string(b.State)) },
	"booted":   func(a, b exports.NodeStatus) int { return b.Mounted.Compare(a.Mounted) },
	"seen":     func(a, b exports.NodeStatus) int { return b.LastCall.Compare(a.LastCall) },
	"calls":    func(a, b exports.NodeStatus) int { return cmp.Compare(b.Calls, a.Calls) },
	"read":     func(a, b exports.NodeStatus) int { return cmp.Compare(b.ReadBytes, a.ReadBytes) },
}

func sortNames() []string {
	return []string{"name", "address", "running", "promised", "state", "booted", "seen", "calls", "read"}
}

func newNodesView(c *cli.Context) (*nodesView, error) {
	v := &nodesView{version: c.String("version"), rebootNeeded: c.Bool("reboot-needed")}
	var err error
	if c.NArg() > 0 {
		if v.keys, err = hostlist.Expand(c.Args().Slice()...); err != nil {
			return nil, err
		}
	}
	if v.states = splitCommas([]string{c.String("state")}); len(v.states) > 0 {
		for _, s := range v.states {
			if !slices.Contains([]exports.NodeState{exports.StateNew, exports.StateBooting, exports.StateUp, exports.StateSilent}, exports.NodeState(s)) {
				return nil, usageError(c, "--state %s: want new, booting, up or silent", s)
			}
		}
	}
	v.labels = splitCommas([]string{c.String("label")})
	if v.order = nodeOrders[c.String("sort")]; v.order == nil {
		return nil, usageError(c, "--sort %s: want one of %s", c.String("sort"), strings.Join(sortNames(), ", "))
	}
	return v, nil
}

// all reports whether no node is left out.
func (v *nodesView) all() bool {
	return v.keys == nil && len(v.states) == 0 && len(v.labels) == 0 && v.version == "" && !v.rebootNeeded
}

func (v *nodesView) nodes(ctx context.Context, s *openedStore) ([]exports.NodeStatus, error) {
	fleet, err := s.fleet(ctx)
	if err != nil {
		return nil, err
	}
	if v.keys != nil {
		if err := unknownNodes(v.keys, fleet); err != nil {
			return nil, err
		}
	}
	if v.version != "" && !slices.ContainsFunc(fleet, func(n exports.NodeStatus) bool { return n.Running == v.version }) {
		if _, err := s.info(v.version); err != nil {
			return nil, err
		}
	}
	if err := unknownLabels(v.labels, fleet); err != nil {
		return nil, err
	}
	list := slices.DeleteFunc(fleet, func(n exports.NodeStatus) bool { return !v.shows(&n) })
	slices.SortStableFunc(list, v.order)
	return list, nil
}

func (v *nodesView) shows(n *exports.NodeStatus) bool {
	return (v.keys == nil || slices.ContainsFunc(v.keys, func(k string) bool { return goesBy(n, k) })) &&
		(len(v.states) == 0 || slices.Contains(v.states, string(n.State))) &&
		(len(v.labels) == 0 || slices.ContainsFunc(v.labels, func(l string) bool { return slices.Contains(n.Labels, l) })) &&
		(v.version == "" || n.Running == v.version) &&
		(!v.rebootNeeded || n.RebootNeeded)
}

// goesBy reports whether a name or an address is a node's.
func goesBy(n *exports.NodeStatus, key string) bool {
	return key == n.Key() || slices.Contains(addressesOf(n), key)
}

// addressesOf are all addresses of a node, that where it was seen last first.
func addressesOf(n *exports.NodeStatus) []string {
	var addrs []string
	for _, a := range append([]netip.Addr{n.Address}, n.Others...) {
		if a.IsValid() {
			addrs = append(addrs, a.String())
		}
	}
	return addrs
}

// watch shows the nodes until ctx ends.
func (v *nodesView) watch(ctx context.Context, w io.Writer, s *openedStore) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		nodes, err := v.nodes(ctx, s)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		var page strings.Builder
		page.WriteString("\x1b[H\x1b[J") // to the top, and nothing below
		fmt.Fprintf(&page, "%s  %s  %s\n\n", s.Dir(), fleetLine(nodes), time.Now().Format(time.TimeOnly))
		if err := nodeTable(&page, nodes); err != nil {
			return err
		}
		if _, err := io.WriteString(w, page.String()); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			fmt.Fprintln(w)
			return nil
		case <-tick.C:
		}
	}
}

// fleetLine says how many nodes are in which state.
func fleetLine(nodes []exports.NodeStatus) string {
	count := map[exports.NodeState]int{}
	reboot := 0
	for _, n := range nodes {
		count[n.State]++
		if n.RebootNeeded {
			reboot++
		}
	}
	parts := []string{plural(len(nodes), "node")}
	for _, s := range []exports.NodeState{exports.StateUp, exports.StateBooting, exports.StateSilent, exports.StateNew} {
		if count[s] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", count[s], s))
		}
	}
	if reboot > 0 {
		parts = append(parts, fmt.Sprintf("%d to be rebooted", reboot))
	}
	return strings.Join(parts, ", ")
}

// fleet is what is known of the nodes: by the server, or else, where there is none or it does not
// let this user in, by what it last left on disk.
func (s *openedStore) fleet(ctx context.Context) ([]exports.NodeStatus, error) {
	fleet := []exports.NodeStatus{}
	if err := admin.Dial(s.StateDir()).Get(ctx, "/v1/nodes", &fleet); err == nil {
		return fleet, nil
	}
	return s.state.Fleet(time.Now())
}

func nodeTable(w io.Writer, nodes []exports.NodeStatus) error {
	rows := [][]string{{"NODE", "ADDRESS", "RUNNING", "PROMISED", "STATE", "BOOTED", "LAST CALL", "CALLS", "READ", ""}}
	for _, n := range nodes {
		row := []string{cmp.Or(n.Name, "(new)"), "-", cmp.Or(n.Running, "-"), cmp.Or(n.Promised, "-"), string(n.State), when(n.Mounted), when(n.LastCall), "-", "-", strings.Join(nodeNotes(&n), "; ")}
		if n.Address.IsValid() {
			row[1] = n.Address.String()
		}
		if n.Calls > 0 {
			row[7], row[8] = strconv.FormatUint(n.Calls, 10), size(n.ReadBytes)
		}
		rows = append(rows, row)
	}
	return table(w, rows)
}

// nodeNotes is what is worth a word about a node.
func nodeNotes(n *exports.NodeStatus) []string {
	var notes []string
	if n.Name == "" { // what it can be named by
		if n.Serial != "" {
			notes = append(notes, "serial "+n.Serial)
		}
		if n.MAC != "" {
			notes = append(notes, "MAC "+n.MAC)
		}
	}
	if n.RebootNeeded {
		notes = append(notes, "reboot needed")
	}
	switch {
	case n.OnDraft != "" && n.OnDraft == n.Draft:
		notes = append(notes, "on draft "+n.OnDraft)
	case n.OnDraft != "":
		notes = append(notes, "on draft "+n.OnDraft+", which it does not boot any more")
	case n.Draft != "":
		notes = append(notes, "boots draft "+n.Draft)
	}
	if n.Why == exports.ByPin || n.Why == exports.ByCommandLine {
		notes = append(notes, map[exports.Why]string{exports.ByPin: "pinned", exports.ByCommandLine: "by its command line"}[n.Why])
	}
	if len(n.Also) > 0 {
		notes = append(notes, "also uses "+strings.Join(n.Also, ", "))
	}
	return append(notes, n.Hints...)
}

// memberOf is a node as a rollout sees it.
func memberOf(n *exports.NodeStatus) exports.Member {
	m := exports.Member{Key: n.Key(), Labels: n.Labels}
	for _, a := range append([]netip.Addr{n.Address}, n.Others...) {
		if a.IsValid() {
			m.Addresses = append(m.Addresses, a)
		}
	}
	return m
}

// unknownNodes is the error for the first name that no node has, with those that
// may be meant.
func unknownNodes(keys []string, fleet []exports.NodeStatus) error {
	var known []string
	have := map[string]bool{}
	for _, n := range fleet {
		have[n.Key()] = true
		for _, a := range addressesOf(&n) {
			have[a] = true
		}
		known = append(known, n.Key())
	}
	for _, k := range keys {
		if !have[k] {
			return unknownNode(k, known)
		}
	}
	return nil
}

// unknownLabels is the same for labels.
func unknownLabels(labels []string, fleet []exports.NodeStatus) error {
	var known []string
	for _, n := range fleet {
		known = append(known, n.Labels...)
	}
	slices.Sort(known)
	known = slices.Compact(known)
	for _, l := range labels {
		if !slices.Contains(known, l) {
			return unknownLabel(l, known)
		}
	}
	return nil
}

// runningOn lists the nodes that run a version, or boot it, by name or address.
func runningOn(inv *exports.Inventory, nodes []exports.Node, version exports.Ref, now time.Time) []string {
	keys := []string{}
	listed := map[string]bool{} // a node may have several addresses
	for _, n := range nodes {
		if key := inv.Key(&n); !listed[key] && n.Needs(version, now) {
			listed[key] = true
			keys = append(keys, key)
		}
	}
	return keys
}
