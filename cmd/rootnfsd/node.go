package main

import (
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/rootnfsd/rootnfsd/exports"
	"github.com/rootnfsd/rootnfsd/hostlist"
)

func nodeCommand() *cli.Command {
	return &cli.Command{
		Name:  "node",
		Usage: "give nodes names, labels and what else is known of them",
		Description: `A node that nobody has named works too: it goes by its address. With a name it can
have labels, by which versions are promoted for some nodes first, and be pinned
to a version. The server follows within a second; two operators at once lose
nothing. rootnfsd nodes shows what the nodes do.

Examples:
   rootnfsd node set pi-07 --address 192.168.1.57 --label canary
   rootnfsd node set pi-[01-12] --label rack1
   rootnfsd node import nodes.csv
   rootnfsd node show pi-07`,
		HideHelpCommand: true,
		Subcommands:     []*cli.Command{nodeSetCommand(), nodeListCommand(), nodeShowCommand(), nodeRemoveCommand(), nodeImportCommand()},
		Action: func(c *cli.Context) error {
			if c.NArg() == 0 {
				return cli.ShowSubcommandHelp(c)
			}
			var names []string
			for _, sub := range c.Command.Subcommands {
				names = append(names, sub.Name)
			}
			return unknownName("command", "node "+c.Args().First(), names, "", "rootnfsd node --help lists all")
		},
	}
}

func nodeSetCommand() *cli.Command {
	return &cli.Command{
		Name:      "set",
		Usage:     "name nodes, or change what is known of them",
		ArgsUsage: "NODES",
		Description: `What is not mentioned stays as it was; an empty value takes it away. NODES are names,
with ranges: pi-[01-12]. An address, a MAC and a serial number are one node's only.

Examples:
   rootnfsd node set pi-07 --address 192.168.1.57 --mac dc:a6:32:01:36:c2 --serial 0660cd37
   rootnfsd node set pi-07 --label canary --pin v6
   rootnfsd node set pi-[01-12] --label rack1     adds a label
   rootnfsd node set pi-07 --no-label canary      takes it away
   rootnfsd node set pi-[01-04] --cmdline "isolcpus=3 console=ttyAMA0,115200"
   rootnfsd node set pi-07 --pin ""               gets what is promoted again`,
		Flags: []cli.Flag{
			exportFlag(), configFlag(), jsonFlag(),
			&cli.StringSliceFlag{Name: "address", Usage: "the node's `ADDRESS`; may repeat, and replaces those before"},
			&cli.StringFlag{Name: "mac", Usage: "the `MAC` address of its network card"},
			&cli.StringFlag{Name: "serial", Usage: "the serial `NUMBER` of a Raspberry Pi: 8 or 16 hexadecimal digits"},
			&cli.StringSliceFlag{Name: "label", Usage: "add a `LABEL`; may repeat"},
			&cli.StringSliceFlag{Name: "no-label", Usage: "take a `LABEL` away; may repeat"},
			&cli.StringFlag{Name: "hostname", Usage: "what it calls itself, if not by its name: `NAME`"},
			&cli.StringFlag{Name: "cmdline", Usage: "its own `WORDS` on the kernel command line: added to those of all, or in place of those about the same"},
			&cli.StringFlag{Name: "pin", Usage: "the `VERSION` that it gets whatever is promoted"},
		},
		Action: func(c *cli.Context) error {
			names, s, err := namedNodes(c)
			if err != nil {
				return err
			}
			set, err := settingsOf(c, s)
			if err != nil {
				return err
			}
			if len(names) > 1 && (len(set.addresses) > 0 || set.mac != "" || set.serial != "" || set.hostname != "") {
				return usageError(c, "an address, a MAC, a serial number and a host name are one node's: %d nodes cannot share them", len(names))
			}
			var entries []exports.Entry
			err = s.state.UpdateInventory(operator(), s.holds, func(inv *exports.Inventory) error {
				if err := set.knowsLabels(inv, names); err != nil {
					return err
				}
				for _, name := range names {
					e := exports.Entry{Name: name}
					if known := inv.Named(name); known != nil {
						e = *known
					}
					set.apply(&e)
					inv.Set(e)
				}
				if err := inv.Check(); err != nil {
					return err
				}
				entries = entriesNamed(inv, names)
				return nil
			})
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return writeJSON(c.App.Writer, entries)
			}
			return entryTable(c.App.Writer, entries)
		},
	}
}

// namedNodes returns the names that a command's arguments stand for, and the store.
func namedNodes(c *cli.Context) ([]string, *openedStore, error) {
	if c.NArg() == 0 {
		return nil, nil, usageError(c, "say which nodes, as in pi-07 or pi-[01-12]")
	}
	names, err := hostlist.Expand(c.Args().Slice()...)
	if err != nil {
		return nil, nil, err
	}
	s, err := openOneStore(c)
	return names, s, err
}

// settings is what node set changes.
type settings struct {
	c             *cli.Context
	addresses     []netip.Addr
	mac, serial   string
	hostname      string
	cmdline       string
	label, unwant []string
	pin           *exports.Ref
}

func settingsOf(c *cli.Context, s *openedStore) (*settings, error) {
	set := &settings{c: c, mac: c.String("mac"), serial: c.String("serial"), hostname: c.String("hostname"), cmdline: c.String("cmdline")}
	for _, text := range splitCommas(c.StringSlice("address")) {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return nil, usageError(c, "--address %s: want an address such as 192.168.1.57", text)
		}
		set.addresses = append(set.addresses, a)
	}
	set.label, set.unwant = splitCommas(c.StringSlice("label")), splitCommas(c.StringSlice("no-label"))
	if v := c.String("pin"); v != "" {
		info, err := s.info(v)
		if err != nil {
			return nil, err
		}
		ref := refOf(info)
		set.pin = &ref
	}
	return set, nil
}

// knowsLabels is the error for the first label to be taken away that none of the nodes has.
func (set *settings) knowsLabels(inv *exports.Inventory, names []string) error {
	var known []string
	for _, name := range names {
		if e := inv.Named(name); e != nil {
			known = append(known, e.Labels...)
		}
	}
	slices.Sort(known)
	known = slices.Compact(known)
	for _, l := range set.unwant {
		switch {
		case slices.Contains(known, l):
		case len(known) == 0:
			return fmt.Errorf("there is no label %s to take away: %s has none", l, hostlist.Compress(names))
		default:
			return unknownLabel(l, known)
		}
	}
	return nil
}

// apply changes what was mentioned.
func (set *settings) apply(e *exports.Entry) {
	for _, f := range []struct {
		flag, value string
		field       *string
	}{{"mac", set.mac, &e.MAC}, {"serial", set.serial, &e.Serial}, {"hostname", set.hostname, &e.Hostname}, {"cmdline", set.cmdline, &e.Cmdline}} {
		if set.c.IsSet(f.flag) {
			*f.field = f.value
		}
	}
	if set.c.IsSet("address") {
		e.Addresses = slices.Clone(set.addresses)
	}
	if set.c.IsSet("pin") {
		e.Pin = set.pin
	}
	e.Labels = slices.DeleteFunc(append(slices.Clone(e.Labels), set.label...), func(l string) bool { return slices.Contains(set.unwant, l) })
}

func entriesNamed(inv *exports.Inventory, names []string) []exports.Entry {
	return slices.DeleteFunc(slices.Clone(inv.Entries), func(e exports.Entry) bool { return !slices.Contains(names, e.Name) })
}

func nodeListCommand() *cli.Command {
	return &cli.Command{
		Name:  "list",
		Usage: "list the nodes that have names",
		Description: `Examples:
   rootnfsd node list
   rootnfsd node list --json`,
		Flags: []cli.Flag{exportFlag(), configFlag(), jsonFlag()},
		Action: onStore(func(c *cli.Context, s *openedStore) error {
			inv, err := s.state.Inventory()
			switch {
			case err != nil:
				return err
			case c.Bool("json"):
				return writeJSON(c.App.Writer, append([]exports.Entry{}, inv.Entries...))
			case len(inv.Entries) == 0:
				fmt.Fprintln(c.App.Writer, "no node is named yet (rootnfsd node set)")
				return nil
			}
			return entryTable(c.App.Writer, inv.Entries)
		}),
	}
}

func entryTable(w io.Writer, entries []exports.Entry) error {
	rows := [][]string{{"NODE", "ADDRESS", "MAC", "SERIAL", "LABELS", "PIN", "HOSTNAME"}}
	words := slices.ContainsFunc(entries, func(e exports.Entry) bool { return e.Cmdline != "" })
	if words {
		rows[0] = append(rows[0], "CMDLINE")
	}
	for _, e := range entries {
		var addrs []string
		for _, a := range e.Addresses {
			addrs = append(addrs, a.String())
		}
		pin := "-"
		if e.Pin != nil {
			pin = e.Pin.Version
		}
		row := []string{
			e.Name, cmp.Or(strings.Join(addrs, ","), "-"), cmp.Or(e.MAC, "-"), cmp.Or(e.Serial, "-"),
			cmp.Or(strings.Join(e.Labels, ","), "-"), pin, cmp.Or(e.Hostname, "-"),
		}
		if words {
			row = append(row, cmp.Or(e.Cmdline, "-"))
		}
		rows = append(rows, row)
	}
	return table(w, rows)
}

func nodeShowCommand() *cli.Command {
	return &cli.Command{
		Name:      "show",
		Usage:     "show all that is known of nodes",
		ArgsUsage: "NODES",
		Description: `NODES are names or addresses.

Examples:
   rootnfsd node show pi-07
   rootnfsd node show 192.168.1.57 --json`,
		Flags: []cli.Flag{exportFlag(), configFlag(), jsonFlag()},
		Action: func(c *cli.Context) error {
			names, s, err := namedNodes(c)
			if err != nil {
				return err
			}
			view := nodesView{keys: names, order: nodeOrders["name"]}
			nodes, err := view.nodes(c.Context, s)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return writeJSON(c.App.Writer, nodes)
			}
			for i := range nodes {
				if i > 0 {
					fmt.Fprintln(c.App.Writer)
				}
				if err := showNode(c.App.Writer, &nodes[i]); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func showNode(w io.Writer, n *exports.NodeStatus) error {
	addrs := addressesOf(n)
	promised := n.Promised
	if promised != "" {
		promised += " (" + string(n.Why) + ")"
	}
	running := n.Running
	if running != "" {
		running += "  " + n.Digest[:12]
	}
	rows := [][]string{
		{"node", cmp.Or(n.Name, "new: nobody has named it (rootnfsd node set NAME --address "+strings.Join(addrs, ",")+")")},
		{"address", strings.Join(addrs, ", ")}, {"MAC", n.MAC}, {"serial", n.Serial}, {"host name", n.Hostname}, {"labels", strings.Join(n.Labels, ", ")}, {"command line", n.Cmdline},
		{"state", string(n.State)}, {"running", running}, {"promised", promised},
		{"booted", when(n.Mounted)}, {"last call", when(n.LastCall)}, {"said it is up", when(n.Good)},
	}
	if n.Calls > 0 {
		rows = append(rows, []string{"since then", fmt.Sprintf("%d calls, %d READs of %s, the largest %s", n.Calls, n.Reads, size(n.ReadBytes), size(n.LargestRead))})
	}
	for _, note := range nodeNotes(n) {
		rows = append(rows, []string{"note", note})
	}
	return table(w, slices.DeleteFunc(rows, func(row []string) bool { return row[1] == "" || row[1] == "-" }))
}

func nodeRemoveCommand() *cli.Command {
	return &cli.Command{
		Name:      "remove",
		Usage:     "forget the names of nodes, and what was said of them",
		ArgsUsage: "NODES",
		Description: `They go by their addresses again, and get what is promoted for all. Nothing changes
for nodes that are up.

Examples:
   rootnfsd node remove pi-07
   rootnfsd node remove pi-[01-12] --dry-run`,
		Flags: []cli.Flag{
			exportFlag(), configFlag(), jsonFlag(),
			&cli.BoolFlag{Name: "dry-run", Usage: "only say what would be done"},
		},
		Action: func(c *cli.Context) error {
			names, s, err := namedNodes(c)
			if err != nil {
				return err
			}
			inv, err := s.state.Inventory()
			if err != nil {
				return err
			}
			if err := namedIn(inv, names); err != nil {
				return err
			}
			removed := entriesNamed(inv, names)
			if !c.Bool("dry-run") {
				err = s.state.UpdateInventory(operator(), s.holds, func(inv *exports.Inventory) error {
					inv.Remove(names)
					return nil
				})
			}
			switch {
			case err != nil:
				return err
			case c.Bool("json"):
				return writeJSON(c.App.Writer, removed)
			case c.Bool("dry-run"):
				fmt.Fprint(c.App.Writer, "would be ")
			}
			fmt.Fprintf(c.App.Writer, "removed: %s\n", hostlist.Compress(names))
			return nil
		},
	}
}

// namedIn is the error for the first name that the inventory does not have.
func namedIn(inv *exports.Inventory, names []string) error {
	for _, name := range names {
		if inv.Named(name) != nil {
			continue
		}
		if addr, err := netip.ParseAddr(name); err == nil {
			if e := inv.At(addr); e != nil {
				return fmt.Errorf("%s is the address of node %s: say %s", name, e.Name, e.Name)
			}
			return fmt.Errorf("nobody has named the node at %s: rootnfsd node set NAME --address %s", name, name)
		}
		var known []string
		for _, e := range inv.Entries {
			known = append(known, e.Name)
		}
		return unknownNode(name, known)
	}
	return nil
}
