package main

import (
	"context"

	"github.com/urfave/cli/v2"

	"github.com/rootnfsd/rootnfsd/exports"
	"github.com/rootnfsd/rootnfsd/hostlist"
)

func pinCommand() *cli.Command {
	return &cli.Command{
		Name:      "pin",
		Usage:     "give nodes a version whatever is promoted",
		ArgsUsage: "NODES VERSION",
		Description: `They get it at their next boot, and keep it until they are unpinned. NODES are
names, with ranges.

Examples:
   rootnfsd pin pi-07 v6
   rootnfsd pin pi-[01-03] v6`,
		Flags: []cli.Flag{exportFlag(), configFlag(), jsonFlag()},
		Action: func(c *cli.Context) error {
			if c.NArg() != 2 {
				return usageError(c, "want nodes and a version, as in pin pi-07 v6; got %d arguments", c.NArg())
			}
			s, err := openOneStore(c)
			if err != nil {
				return err
			}
			info, err := s.info(c.Args().Get(1))
			if err != nil {
				return err
			}
			ref := refOf(info)
			return s.repin(c, c.Args().First(), &ref)
		},
	}
}

func unpinCommand() *cli.Command {
	return &cli.Command{
		Name:      "unpin",
		Usage:     "give nodes what is promoted again",
		ArgsUsage: "NODES",
		Description: `Examples:
   rootnfsd unpin pi-07
   rootnfsd unpin pi-[01-03]`,
		Flags: []cli.Flag{exportFlag(), configFlag(), jsonFlag()},
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return usageError(c, "want nodes, as in unpin pi-07; got %d arguments", c.NArg())
			}
			s, err := openOneStore(c)
			if err != nil {
				return err
			}
			return s.repin(c, c.Args().First(), nil)
		},
	}
}

// repin pins nodes to a version, or unpins them, and says what came of it.
func (s *openedStore) repin(c *cli.Context, list string, to *exports.Ref) error {
	names, err := hostlist.Expand(list)
	if err != nil {
		return err
	}
	if err := s.pin(names, to); err != nil {
		return err
	}
	nodes, err := (&nodesView{keys: names, order: nodeOrders["name"]}).nodes(context.Background(), s)
	switch {
	case err != nil:
		return err
	case c.Bool("json"):
		return writeJSON(c.App.Writer, nodes)
	}
	sayDrafts(c.App.ErrWriter, nodes, func(*exports.NodeStatus) bool { return true })
	return nodeTable(c.App.Writer, nodes)
}

// pin pins nodes, which must be named, to a version, or unpins them.
func (s *openedStore) pin(names []string, to *exports.Ref) error {
	inv, err := s.state.Inventory()
	if err != nil {
		return err
	}
	if err := namedIn(inv, names); err != nil {
		return err
	}
	return s.state.Pin(names, to, operator(), s.holds)
}
