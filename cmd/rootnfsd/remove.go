package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/rootnfsd/rootnfsd/exports"
	"github.com/rootnfsd/rootnfsd/fs/image"
	"github.com/rootnfsd/rootnfsd/hostlist"
)

func removeCommand() *cli.Command {
	return &cli.Command{
		Name:      "remove",
		Usage:     "delete a version that nobody needs",
		ArgsUsage: "VERSION",
		Description: `Refuses if VERSION is promoted, a node is pinned to it, or one runs it: its files would be gone
under it. A node counts until it has booted another version, or was silent for a
week. (One that boots without an initramfs counts for a day after it mounted
another version: that may have been just a look.) The golden tree <store>/VERSION is yours and stays.

What lies in one pack with content that other versions need stays, too, until
rootnfsd gc rewrites that pack.

Examples:
   rootnfsd remove v1 --dry-run
   rootnfsd remove v1
   rootnfsd remove v1 --force         even under running nodes, which will fail`,
		Flags: []cli.Flag{
			exportFlag(), configFlag(), jsonFlag(),
			&cli.BoolFlag{Name: "force", Usage: "remove it under nodes that run it"},
			&cli.BoolFlag{Name: "dry-run", Usage: "only say what would be done"},
		},
		Action: onVersion(func(c *cli.Context, s *openedStore, name string) error {
			info, err := s.removable(name)
			if err != nil {
				return err
			}
			out := removedJSON{Name: info.Name, DryRun: c.Bool("dry-run")}
			r, err := s.remove(info, c.Bool("force"), out.DryRun)
			if err != nil {
				return err
			}
			out.Freed = r.Freed
			if r.Kept != nil {
				fmt.Fprintln(c.App.ErrWriter, "warning:", r.Kept)
			}
			if c.Bool("json") {
				return writeJSON(c.App.Writer, out)
			}
			s.reportRemoved(c.App.Writer, out)
			return nil
		}),
	}
}

// removable is info, but finds a damaged version too: removing it is one thing
// that can still be done with it.
func (s *openedStore) removable(name string) (image.Info, error) {
	versions, err := s.Versions()
	if err != nil {
		return image.Info{}, err
	}
	for _, v := range versions {
		if v.Name == name {
			return v, nil
		}
	}
	return s.info(name)
}

// refuseRunning refuses a version that nodes run, and names them.
func (s *openedStore) refuseRunning(info image.Info, force bool) error {
	_, inv, nodes, err := s.known()
	if err != nil {
		return err
	}
	addrs := runningOn(inv, nodes, refOf(info), time.Now())
	if len(addrs) == 0 || force {
		return nil
	}
	return fmt.Errorf("%s runs on %s: reboot into another version first, or lose those nodes with --force",
		info.Name, hostlist.Compress(slices.Sorted(slices.Values(addrs))))
}

type removedJSON struct {
	Name   string `json:"name"`
	Freed  uint64 `json:"freed_bytes"`
	DryRun bool   `json:"dry_run"`
}

// remove deletes a version that nobody needs.
func (s *openedStore) remove(info image.Info, force, dryRun bool) (r image.RemoveResult, err error) {
	if err := s.refuseRunning(info, force); err != nil {
		return r, err
	}
	remove := func() (err error) {
		r, err = s.Remove(info.Name, info.Digest)
		return err
	}
	if dryRun {
		remove = nil
	}
	err = s.state.Remove(refOf(info), operator(), remove)
	if errors.Is(err, exports.ErrPromoted) || errors.Is(err, exports.ErrPinned) {
		err = s.explainKept(info, err)
	}
	return r, err
}

// explainKept says which nodes hold a version that they alone hold, and what to do.
func (s *openedStore) explainKept(info image.Info, why error) error {
	rollout, inv, _, err := s.known()
	if err != nil {
		return errors.Join(why, err)
	}
	ref := refOf(info)
	promoted, _ := rollout.Promoted()
	pinned := inv.PinnedTo(ref)
	switch p := rollout.Partial; {
	case p != nil && ref.Is(p.Ref) && !ref.Is(promoted):
		return fmt.Errorf("%s stays: it is promoted for %s: take it back (rootnfsd rollback), or promote another version for all", info.Name, p)
	case errors.Is(why, exports.ErrPinned) && len(pinned) > 0:
		nodes := hostlist.Compress(pinned)
		return fmt.Errorf("%s stays: pinned to it: %s; unpin first (rootnfsd unpin %s)", info.Name, nodes, nodes)
	}
	return fmt.Errorf("%s stays: %w", info.Name, why)
}

func (s *openedStore) reportRemoved(w io.Writer, out removedJSON) {
	if out.DryRun {
		fmt.Fprintf(w, "%s can be removed\n", out.Name)
		return
	}
	fmt.Fprintf(w, "removed %s, %s freed\n", out.Name, size(out.Freed))
	if s.hasTree(out.Name) {
		fmt.Fprintf(w, "the golden tree %s is still there; rootnfsd seal %s makes a version of it again\n", filepath.Join(s.Dir(), out.Name), out.Name)
	}
}
