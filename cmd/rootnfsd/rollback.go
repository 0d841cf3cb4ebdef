package main

import (
	"errors"

	"github.com/urfave/cli/v2"

	"github.com/rootnfsd/rootnfsd/exports"
)

func rollbackCommand() *cli.Command {
	return &cli.Command{
		Name:  "rollback",
		Usage: "return to the version that was promoted before",
		Description: `Each rollback goes back one more promote. Nodes that are up stay on what they
booted until they reboot.

Examples:
   rootnfsd rollback
   rootnfsd rollback --export /srv/images --json`,
		Flags: []cli.Flag{exportFlag(), configFlag(), jsonFlag()},
		Action: onStore(func(c *cli.Context, s *openedStore) error {
			from, to, err := s.state.Rollback(operator(), func(ref exports.Ref) bool { return s.holds(ref) == nil })
			if errors.Is(err, exports.ErrNothingBefore) {
				return errors.New("there is nothing to go back to: no version that still exists was promoted before (rootnfsd versions lists those that can be promoted)")
			}
			if err != nil {
				return err
			}
			return s.reportSwitch(c, from.Version, to.Version, false)
		}),
	}
}
