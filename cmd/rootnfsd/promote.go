package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/rootnfsd/rootnfsd/exports"
	"github.com/rootnfsd/rootnfsd/fs/image"
	"github.com/rootnfsd/rootnfsd/fs/lint"
)

func promoteCommand() *cli.Command {
	return &cli.Command{
		Name:      "promote",
		Usage:     "make a version what nodes get at their next boot",
		ArgsUsage: "VERSION",
		Description: `Seals the tree <store>/VERSION first, if that is not done yet, checks what is
stored against its digests, and brings into memory what nodes read while they
booted the version before. Then the switch is atomic: a mount after it gets
VERSION; nodes that are up stay on what they booted until they reboot.

A version that nodes cannot boot, as rootnfsd lint says, is refused.

With --nodes, --label or --percent some nodes get VERSION first, and the others what
they got before. Promoting it for others widens it; without any of these it is for
all, but for nodes that are pinned. A part in percent is the same nodes each time, and
a larger one has the smaller one in it.

With --wait-good the server watches each node that is to get VERSION for that long from
its boot. One that boots again, or is not up by then, is bad; more of them than
--max-bad, and the promotion is taken back. The command follows until that is decided.
Its exit status is 0 if the version is good, 1 if it is not, and 2 if that is undecided: who
interrupts the command leaves the server to go on, or something else was promoted
meanwhile. With --json all of it is one document at the end, with an outcome: good,
taken back, bad or undecided.

Examples:
   rootnfsd promote v2
   rootnfsd promote v2 --nodes pi-[01-03] --dry-run
   rootnfsd promote v2 --label canary --wait-good 5m
   rootnfsd promote v2 --percent 10
   rootnfsd promote v2 --no-verify    do not read the whole version again first
   rootnfsd promote v2 --force        though nodes may not be able to boot it
   rootnfsd promote v2 --no-warm      the first nodes that boot wait for the disk`,
		Flags: []cli.Flag{
			exportFlag(), configFlag(), jsonFlag(),
			&cli.BoolFlag{Name: "no-verify", Usage: "do not check the stored content first"},
			&cli.BoolFlag{Name: "force", Usage: "promote what lint finds errors in"},
			&cli.BoolFlag{Name: "no-warm", Usage: "do not bring into memory what nodes read at boot"},
			&cli.StringSliceFlag{Name: "nodes", Usage: "for these `NODES` first: names or addresses, with ranges; may repeat"},
			&cli.StringSliceFlag{Name: "label", Usage: "for nodes with this `LABEL` first; may repeat"},
			&cli.Float64Flag{Name: "percent", Usage: "for this `PART` of all nodes first, in percent"},
			&cli.DurationFlag{Name: "wait-good", Usage: "watch each node for this `TIME` from its boot, and take the promotion back if it fails"},
			&cli.IntFlag{Name: "max-bad", Usage: "so many nodes may fail: `N`"},
			&cli.BoolFlag{Name: "dry-run", Usage: "only say what would be done"},
		},
		Action: onVersion(func(c *cli.Context, s *openedStore, name string) error {
			p, err := s.promotion(c)
			if err != nil {
				return err
			}
			if c.Bool("dry-run") {
				return s.previewPromote(c, name, p)
			}
			info, err := s.ready(c.Context, c.App.ErrWriter, name, !c.Bool("no-verify"))
			if err != nil {
				return err
			}
			if !c.Bool("force") {
				if err := s.bootable(c.Context, info); err != nil {
					return err
				}
			}
			if !c.Bool("no-warm") {
				if err := s.warm(c.Context, info); err != nil {
					return err
				}
			}
			p.Ref = refOf(info)
			if err := s.announceSwitch(c, p); err != nil {
				return err
			}
			return s.promote(c, p)
		}),
	}
}

// promote makes the switch, says so, and follows what becomes of it if it is watched.
func (s *openedStore) promote(c *cli.Context, p exports.Promotion) error {
	ctx := c.Context
	if p.Good > 0 { // from here on an interruption ends the waiting alone
		var stop context.CancelFunc
		ctx, stop = signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
		defer stop()
	}
	var before exports.Rollout
	_, changed, err := s.state.Promote(p, func() (err error) {
		if before, err = s.state.Rollout(); err != nil {
			return err
		}
		return s.holds(p.Ref)
	})
	if err != nil {
		return explainPromote(err)
	}
	out := switchOf(before, p)
	out.Changed = changed
	fleet, err := s.fleet(ctx)
	if err != nil {
		return err
	}
	out.waitingForBoot(fleet)
	if !c.Bool("json") {
		out.print(c.App.Writer)
		sayDrafts(c.App.ErrWriter, fleet, func(n *exports.NodeStatus) bool { return p.To == nil || p.To.Chooses(memberOf(n)) })
	}
	if p.Good > 0 {
		if out.Outcome, out.Note, err = s.follow(ctx, p.Ref); err != nil {
			return err
		}
	}
	switch {
	case c.Bool("json"):
		err = writeJSON(c.App.Writer, out)
	case out.Outcome == outcomeGood:
		_, err = fmt.Fprintf(c.App.Writer, "%s is good: %s\n", p.Version, out.Note)
	}
	if err != nil || p.Good == 0 {
		return err
	}
	return out.Outcome.err(p.Version, out.Note)
}

// ready returns the version of that name, sealed and whole.
func (s *openedStore) ready(ctx context.Context, w io.Writer, name string, verify bool) (image.Info, error) {
	draft, err := s.draftOf(name)
	if err != nil {
		return image.Info{}, err
	}
	info, err := s.info(name)
	if err != nil || draft != nil {
		if !s.hasTree(name) {
			return info, err
		}
		r, err := s.sealOrEnd(ctx, name, draft)
		if err != nil {
			return info, err
		}
		reportSeal(w, r)
		if findings, err := s.lint(ctx, r.Info); err == nil { // else bootable says so
			reportFindings(w, name, findings)
		}
		info = r.Info
	}
	s.warnIfEdited(w, info)
	if verify { // a fresh seal too: most of its content may lie in older packs
		return info, s.check(ctx, name)
	}
	return info, nil
}

// sealOrEnd makes a version of a golden tree, and ends it if it is a draft.
func (s *openedStore) sealOrEnd(ctx context.Context, name string, draft *exports.Draft) (image.SealResult, error) {
	if draft == nil {
		return s.seal(ctx, name)
	}
	return s.sealDraft(ctx, name, false, func(ctx context.Context) (image.SealResult, error) { return s.seal(ctx, name) })
}

// bootable returns an error if nodes cannot boot a version.
func (s *openedStore) bootable(ctx context.Context, info image.Info) error {
	findings, err := s.lint(ctx, info)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		warnUnlinted(info.Name, err)
	case count(findings, lint.Error) > 0:
		return errUnbootable(info.Name, findings)
	}
	return nil
}

// warnIfEdited says so if the golden tree is not what was sealed any more: what
// is promoted is the sealed version, which may not be what somebody means.
func (s *openedStore) warnIfEdited(w io.Writer, info image.Info) {
	errFound := errors.New("found")
	root := filepath.Join(s.Dir(), info.Name)
	var edited string
	err := filepath.WalkDir(root, func(path string, d iofs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		stat, err := d.Info()
		if err == nil && changedAt(stat).After(info.Sealed) {
			edited = path
			return errFound
		}
		return err
	})
	if err == errFound { // any other error: there is no tree, or none that can be compared
		fmt.Fprintf(w, "warning: %s was changed after %s was sealed; what was sealed is promoted. To take the change: rootnfsd seal %s, and promote it again\n", edited, info.Name, info.Name)
	}
}

// changedAt is when an object was last changed in any way.
func changedAt(info os.FileInfo) time.Time {
	st := info.Sys().(*syscall.Stat_t)
	return time.Unix(int64(st.Ctim.Sec), int64(st.Ctim.Nsec))
}

// check re-hashes a version.
func (s *openedStore) check(ctx context.Context, name string) error {
	p := newProgress("checking " + name)
	damage, err := s.Verify(ctx, []string{name}, p.update)
	p.done()
	if err != nil {
		return err
	}
	if len(damage) > 0 {
		return fmt.Errorf("version %s is damaged, nothing was changed: %s: %w (rootnfsd verify %s lists all)", name, damage[0].Path, damage[0].Err, name)
	}
	return nil
}

// warm brings into memory what nodes read at boot. That it cannot is no reason
// not to promote; that the user stops it is.
func (s *openedStore) warm(ctx context.Context, info image.Info) error {
	set, err := s.state.BootSet(refOf(info))
	if err == nil && set == nil {
		return nil // no node was seen to boot
	}
	var v *image.Version
	if err == nil {
		v, err = s.OpenDigest(info.Name, info.Digest)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "warning: the first nodes that boot will wait for the disk: %v\n", err)
		return nil
	}
	p := newProgress("warming " + info.Name)
	defer p.done()
	_, err = v.Warm(ctx, set.In(v), func(done, total uint64) {
		p.update(image.Progress{Bytes: done, TotalBytes: total})
	})
	return err
}
