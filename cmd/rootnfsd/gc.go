package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/rootnfsd/rootnfsd/exports"
	"github.com/rootnfsd/rootnfsd/fs/image"
)

func gcCommand() *cli.Command {
	return &cli.Command{
		Name:  "gc",
		Usage: "remove old versions, and give back the space that nobody needs",
		Description: `Removes the versions that are not among the newest of --keep, nor as young as
--keep-days says; one that either keeps stays. Without these, none is removed.
What is promoted, what a rollback would return to and what a node runs is never
removed (rootnfsd remove says when a node counts).

Then it deletes content that no version needs: packs of which nothing is needed,
and, by rewriting them, those of which at least half is not. A server that is
running goes on meanwhile.

Examples:
   rootnfsd gc --keep 5 --dry-run
   rootnfsd gc --keep 5 --keep-days 30
   rootnfsd gc                        only content that no version needs`,
		Flags: []cli.Flag{
			exportFlag(), configFlag(), jsonFlag(),
			&cli.IntFlag{Name: "keep", Usage: "keep the `N` versions that were sealed last"},
			&cli.IntFlag{Name: "keep-days", Usage: "keep versions sealed in the last `D` days"},
			&cli.BoolFlag{Name: "dry-run", Usage: "only say what would be done"},
		},
		Action: onStore(func(c *cli.Context, s *openedStore) error {
			policy, err := policyOf(c)
			if err != nil {
				return err
			}
			ctx, stop := stoppable(c.Context)
			defer stop()
			out, err := s.gc(ctx, policy, c.Bool("dry-run"), c.App.ErrWriter)
			err = explainPermission(err)
			if out == nil {
				return err
			}
			if c.Bool("json") {
				return errors.Join(err, writeJSON(c.App.Writer, out))
			}
			return errors.Join(err, out.print(c.App.Writer))
		}),
	}
}

// gcPolicy says which versions to keep, besides those that are needed.
type gcPolicy struct {
	newest int       // how many; negative for all
	since  time.Time // those sealed later; zero for none
}

func policyOf(c *cli.Context) (gcPolicy, error) {
	p := gcPolicy{newest: -1}
	for _, flag := range []string{"keep", "keep-days"} {
		if c.Int(flag) < 0 {
			return p, usageError(c, "--%s %d: want a number that is not negative", flag, c.Int(flag))
		}
	}
	if c.IsSet("keep") || c.IsSet("keep-days") {
		p.newest = c.Int("keep")
	}
	if c.IsSet("keep-days") {
		p.since = time.Now().AddDate(0, 0, -c.Int("keep-days"))
	}
	return p, nil
}

// keeps says why a version is kept, of which n were sealed later; it is empty if
// it is not.
func (p gcPolicy) keeps(info image.Info, n int) string {
	switch {
	case p.newest < 0:
		return "no --keep was given"
	case n < p.newest:
		return fmt.Sprintf("one of the newest %d", p.newest)
	case !p.since.IsZero() && info.Sealed.After(p.since):
		return "sealed after " + p.since.Format("2006-01-02 15:04")
	}
	return ""
}

// gcJSON is what gc found and did, or would do.
type gcJSON struct {
	DryRun    bool            `json:"dry_run"`
	Versions  []gcVersionJSON `json:"versions"`
	Removed   int             `json:"packs_deleted"`
	Rewritten int             `json:"packs_rewritten"`
	Freed     uint64          `json:"freed_bytes"`
	Garbage   uint64          `json:"garbage_bytes"` // in packs that are mostly needed
	Warnings  []string        `json:"warnings,omitempty"`
}

// gcVersionJSON is what becomes of a version.
type gcVersionJSON struct {
	versionJSON
	Removed bool     `json:"removed"`
	HeldBy  []string `json:"held_by"`        // what needs it
	Kept    string   `json:"kept,omitempty"` // the policy that keeps it
	Frees   uint64   `json:"frees_bytes"`    // content that only it needs, and those removed before it

	info image.Info
}

// gc removes what the policy does not keep and nobody needs. Where it fails it
// also returns what it has done by then.
func (s *openedStore) gc(ctx context.Context, policy gcPolicy, dryRun bool, warn io.Writer) (*gcJSON, error) {
	out := &gcJSON{DryRun: dryRun}
	if err := s.planGC(out, policy); err != nil {
		return nil, err
	}
	var err error
	if !dryRun {
		err = s.removeAll(ctx, out)
	}
	if err == nil {
		err = s.compact(ctx, out)
	}
	for _, w := range out.Warnings {
		fmt.Fprintln(warn, "warning:", w)
	}
	return out, err
}

// planGC says of each version what is to become of it.
func (s *openedStore) planGC(out *gcJSON, policy gcPolicy) error {
	infos, err := s.Versions()
	if err != nil {
		return err
	}
	holders, err := s.holders(time.Now())
	if err != nil {
		return err
	}
	newest := slices.Clone(infos)
	slices.SortStableFunc(newest, func(a, b image.Info) int { return b.Sealed.Compare(a.Sealed) })
	out.Versions = []gcVersionJSON{}
	for _, info := range infos {
		v := gcVersionJSON{versionJSON: versionOf(info), HeldBy: holders(info), info: info}
		place := slices.IndexFunc(newest, func(i image.Info) bool { return i.Name == info.Name })
		if v.Kept = policy.keeps(info, place); info.Err != nil {
			v.Kept = "damaged: rootnfsd remove " + info.Name + " removes it, sealing its tree again mends it"
		}
		v.Removed = len(v.HeldBy) == 0 && v.Kept == ""
		out.Versions = append(out.Versions, v)
	}
	// The oldest go first.
	slices.SortStableFunc(out.Versions, func(a, b gcVersionJSON) int { return cmp.Compare(a.info.Sealed.UnixNano(), b.info.Sealed.UnixNano()) })
	frees, err := s.Frees(out.removed())
	if err != nil {
		out.Warnings = append(out.Warnings, fmt.Sprintf("it cannot be told how much removing a version frees: %v", err))
		return nil
	}
	for i := range out.Versions {
		if v := &out.Versions[i]; v.Removed {
			v.Frees, frees = frees[0], frees[1:]
		}
	}
	return nil
}

// removed names the versions that are removed, in this order.
func (out *gcJSON) removed() []string {
	var names []string
	for _, v := range out.Versions {
		if v.Removed {
			names = append(names, v.Name)
		}
	}
	return names
}

// holders returns what tells what needs a version.
func (s *openedStore) holders(now time.Time) (func(image.Info) []string, error) {
	rollout, inv, nodes, err := s.known()
	if err != nil {
		return nil, err
	}
	promoted, anything := rollout.Promoted()
	before := rollout.Before(func(ref exports.Ref) bool { return s.holds(ref) == nil })
	return func(info image.Info) []string {
		ref := refOf(info)
		held := []string{}
		if anything && ref.Is(promoted) {
			held = append(held, "promoted")
		}
		if p := rollout.Partial; p != nil && ref.Is(p.Ref) {
			held = append(held, "promoted for "+p.String())
		}
		if names := inv.PinnedTo(ref); len(names) > 0 {
			held = append(held, nodesNamed(names)+" pinned to it")
		}
		if slices.ContainsFunc(before, ref.Is) {
			held = append(held, "a rollback returns to it")
		}
		if addrs := runningOn(inv, nodes, ref, now); len(addrs) > 0 {
			held = append(held, "runs on "+nodesNamed(addrs))
		}
		return held
	}, nil
}

// removeAll removes the versions of the plan. One that somebody came to need
// meanwhile stays.
func (s *openedStore) removeAll(ctx context.Context, out *gcJSON) error {
	for i := range out.Versions {
		v := &out.Versions[i]
		if !v.Removed {
			continue
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%s and what follows was not removed: %w", v.Name, err)
		}
		// No promote and no rollback can come between this look and the removal.
		err := s.state.Remove(refOf(v.info), operator(), func() error {
			holders, err := s.holders(time.Now())
			if err != nil {
				return err
			}
			if v.HeldBy = holders(v.info); len(v.HeldBy) > 0 {
				return errHeld
			}
			return s.RemoveOnly(v.Name, v.info.Digest)
		})
		if errors.Is(err, errHeld) || errors.Is(err, exports.ErrPromoted) || errors.Is(err, exports.ErrPinned) {
			v.Removed, v.Frees = false, 0
			continue
		}
		if err != nil {
			v.Removed, v.Frees = false, 0
			return fmt.Errorf("%s was not removed: %w", v.Name, err)
		}
	}
	return nil
}

var errHeld = errors.New("it came to be needed meanwhile")

// compact gives back the space of what nobody needs.
func (s *openedStore) compact(ctx context.Context, out *gcJSON) error {
	opts := image.CompactOptions{DryRun: out.DryRun}
	if out.DryRun {
		opts.Without = out.removed()
	}
	p := newProgress("rewriting packs")
	opts.Progress = p.update
	c, err := s.Compact(ctx, opts)
	p.done()
	out.Removed, out.Rewritten, out.Freed, out.Garbage = c.Removed, c.Rewritten, c.Freed, c.Garbage
	if c.Kept != nil {
		out.Warnings = append(out.Warnings, c.Kept.Error())
	}
	if c.Rewritten > 0 && !out.DryRun {
		err = errors.Join(err, s.state.Compacted(operator()))
	}
	return err
}

func (out *gcJSON) print(w io.Writer) error {
	if len(out.Versions) == 0 {
		fmt.Fprintln(w, "no versions yet")
		return nil
	}
	done, total := "removed", "done: "
	if out.DryRun {
		done, total = "would be removed", "would be done: "
	}
	rows := [][]string{{"VERSION", "DIGEST", "SEALED", "FREES", ""}}
	removed := 0
	for _, v := range out.Versions {
		row := []string{v.Name, "-", when(v.Sealed), "-", "kept: " + cmp.Or(strings.Join(v.HeldBy, "; "), v.Kept)}
		if v.Digest != "" {
			row[1] = v.Digest[:12]
		}
		if v.Removed {
			removed++
			row[3], row[4] = size(v.Frees), done
		}
		rows = append(rows, row)
	}
	if err := table(w, rows); err != nil {
		return err
	}
	fmt.Fprintf(w, "\n%s%s removed, %s deleted, %s rewritten, %s freed\n",
		total, plural(removed, "version"), plural(out.Removed, "pack"), plural(out.Rewritten, "pack"), size(out.Freed))
	if out.Garbage > 0 {
		fmt.Fprintf(w, "%s that nobody needs are left in packs that are mostly needed\n", size(out.Garbage))
	}
	return nil
}
