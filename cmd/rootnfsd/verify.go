package main

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

func verifyCommand() *cli.Command {
	return &cli.Command{
		Name:      "verify",
		Usage:     "check the stored content against its digests",
		ArgsUsage: "[VERSION...]",
		Description: `Reads everything that the versions named hold, or all of them, and names each
file that is damaged. The exit status is 1 if any is.

Examples:
   rootnfsd verify
   rootnfsd verify v2 --json`,
		Flags: []cli.Flag{exportFlag(), configFlag(), jsonFlag()},
		Action: func(c *cli.Context) error {
			s, err := openOneStore(c)
			if err != nil {
				return err
			}
			names := c.Args().Slice()
			for _, name := range names {
				if _, err := s.removable(name); err != nil {
					return err
				}
			}
			p := newProgress("checking")
			damage, err := s.Verify(c.Context, names, p.update)
			p.done()
			if err != nil {
				return err
			}
			list := []damageJSON{}
			for _, d := range damage {
				list = append(list, damageJSON{Version: d.Version, Path: d.Path, Error: d.Err.Error()})
			}
			if c.Bool("json") {
				if err := writeJSON(c.App.Writer, list); err != nil {
					return err
				}
			}
			for _, d := range list {
				if !c.Bool("json") {
					fmt.Fprintf(c.App.Writer, "%s: %s: %s\n", d.Version, d.Path, d.Error)
				}
			}
			if len(list) > 0 {
				return fmt.Errorf("%s: restore what is named from a backup; or move damaged packs away and seal the same trees again, which writes what is missing; then restart rootnfsd serve", plural(len(list), "damaged file"))
			}
			if !c.Bool("json") {
				versions, err := s.Versions()
				if err != nil {
					return err
				}
				if len(versions) == 0 {
					return fmt.Errorf("the store %s has no versions to check", s.Dir())
				}
				fmt.Fprintln(c.App.Writer, "everything is as it was sealed")
			}
			return nil
		},
	}
}

type damageJSON struct {
	Version string `json:"version"`
	Path    string `json:"path,omitempty"`
	Error   string `json:"error"`
}
