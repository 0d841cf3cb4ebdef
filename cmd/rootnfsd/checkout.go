package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs/image"
)

func checkoutCommand() *cli.Command {
	return &cli.Command{
		Name:      "checkout",
		Usage:     "make a directory of a version",
		ArgsUsage: "VERSION DIR",
		Description: `Makes DIR, which must not be there or be empty, what VERSION is: owners, modes,
times, hard links, holes, devices and extended attributes are kept, and sealing
DIR gives the version's digest again. That takes root; with --no-owner anybody
gets a tree of files of his own.

DIR is made under a temporary name beside it and appears when it is complete.

Examples:
   rootnfsd checkout v2 /srv/images/v3          to change it, and seal that
   rootnfsd checkout v2 /tmp/v2 --no-owner      to look at it`,
		Flags: []cli.Flag{
			exportFlag(), configFlag(), jsonFlag(),
			&cli.BoolFlag{Name: "no-owner", Usage: "leave out owners, devices, file capabilities, and setuid and setgid bits of others"},
			&cli.BoolFlag{Name: "no-xattrs", Usage: "leave out extended attributes"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() != 2 {
				return usageError(c, "want a version and a directory, got %d arguments", c.NArg())
			}
			s, err := openOneStore(c)
			if err != nil {
				return err
			}
			v, err := s.version(c.Args().Get(0))
			if err != nil {
				return err
			}
			to := c.Args().Get(1)
			if err := refuseOccupied(to); err != nil {
				return err
			}
			opts := image.ExtractOptions{NoOwner: c.Bool("no-owner"), NoXattrs: c.Bool("no-xattrs")}
			if !opts.NoOwner {
				if err := refuseUnprivileged(v); err != nil {
					return err
				}
			}
			ctx, stop := stoppable(c.Context)
			defer stop()
			name := v.Info().Name
			p := newProgress("checking out " + name)
			opts.Progress = p.update
			done, err := v.Extract(ctx, v.Root(), to, opts)
			p.done()
			if err != nil {
				return fmt.Errorf("nothing was made: %w", explainExtract(err))
			}
			if c.Bool("json") {
				return writeJSON(c.App.Writer, extractedOf(name+":/", to, done))
			}
			fmt.Fprintf(c.App.Writer, "checked out %s to %s: %d objects, %s\n", name, to, done.Objects, size(done.Bytes))
			if done.LeftOut != (image.Privileged{}) {
				fmt.Fprintf(c.App.Writer, "left out: %v\n", done.LeftOut)
			}
			return nil
		},
	}
}

// refuseOccupied refuses to make a directory where something is.
func refuseOccupied(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case err == nil && len(entries) > 0:
		return fmt.Errorf("%s is not empty: name a directory that is not there yet", dir)
	case errors.Is(err, unix.ENOTDIR):
		return fmt.Errorf("%s is there and no directory: name one that is not there yet", dir)
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return err
	}
	if _, err := os.Stat(filepath.Dir(filepath.Clean(dir))); err != nil {
		return fmt.Errorf("%w: make the directory that %s is to be in first", err, dir)
	}
	return nil
}

// refuseUnprivileged says what would be lost, if this user cannot keep it.
func refuseUnprivileged(v *image.Version) error {
	if os.Geteuid() == 0 {
		return nil
	}
	lost, err := v.NeedsRoot(v.Root())
	if err != nil || lost == (image.Privileged{}) {
		return err
	}
	return fmt.Errorf("only root can keep all of %s (%v): run as root, or leave that out with --no-owner", v.Info().Name, lost)
}

// explainExtract adds to an error what can be done about it.
func explainExtract(err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return errors.New("it was stopped")
	case errors.Is(err, unix.ENOTSUP):
		return fmt.Errorf("%w (that file system has no extended attributes: --no-xattrs leaves them out)", err)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w (--no-owner leaves out what takes rights)", err)
	}
	return err
}

// extractedJSON is what checkout and cp print with --json.
type extractedJSON struct {
	From         string `json:"from"`
	To           string `json:"to"`
	Objects      uint64 `json:"objects"`
	Bytes        uint64 `json:"bytes"`
	Owners       uint64 `json:"owners_left_out"`
	Devices      uint64 `json:"devices_left_out"`
	Capabilities uint64 `json:"capabilities_left_out"`
}

func extractedOf(from, to string, e image.Extracted) extractedJSON {
	return extractedJSON{from, to, e.Objects, e.Bytes, e.LeftOut.Owners, e.LeftOut.Devices, e.LeftOut.Capabilities}
}
