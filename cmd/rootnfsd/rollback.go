package main

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/rootnfsd/rootnfsd/exports"
)

func rollbackCommand() *cli.Command {
	return &cli.Command{
		Name:  "rollback",
		Usage: "return to the version that was promoted before",
		Description: `Takes back what is promoted for some nodes alone, if there is such a version; else
each rollback goes back one more promote. Pinned nodes keep their version. Nodes that
are up stay on what they booted until they reboot.

Examples:
   rootnfsd rollback
   rootnfsd rollback --export /srv/images --json`,
		Flags: []cli.Flag{exportFlag(), configFlag(), jsonFlag()},
		Action: onStore(func(c *cli.Context, s *openedStore) error {
			before, err := s.state.Rollout()
			if err != nil {
				return err
			}
			from, to, err := s.state.Rollback(operator(), func(ref exports.Ref) bool { return s.holds(ref) == nil })
			if errors.Is(err, exports.ErrNothingBefore) {
				return errors.New("there is nothing to go back to: no version that still exists was promoted before (rootnfsd versions lists those that can be promoted)")
			}
			if err != nil {
				return err
			}
			out := switchJSON{Before: from.Version, Promoted: to.Version, Changed: true, RebootNeeded: []string{}}
			if p := before.Partial; p != nil && p.Ref == from {
				out.For = p.String()
			}
			fleet, err := s.fleet(c.Context)
			if err != nil {
				return err
			}
			out.waitingForBoot(fleet)
			sayDrafts(c.App.ErrWriter, fleet, func(*exports.NodeStatus) bool { return true })
			switch {
			case c.Bool("json"):
				return writeJSON(c.App.Writer, out)
			case out.For != "":
				fmt.Fprintf(c.App.Writer, "%s is taken back from %s; all get %s\n", out.Before, out.For, out.Promoted)
				printWaiting(c.App.Writer, out.RebootNeeded)
			default:
				out.print(c.App.Writer)
			}
			return nil
		}),
	}
}
