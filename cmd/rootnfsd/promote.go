package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

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

Examples:
   rootnfsd promote v2
   rootnfsd promote v2 --no-verify    do not read the whole version again first
   rootnfsd promote v2 --force        though nodes may not be able to boot it
   rootnfsd promote v2 --no-warm      the first nodes that boot wait for the disk`,
		Flags: []cli.Flag{
			exportFlag(), configFlag(), jsonFlag(),
			&cli.BoolFlag{Name: "no-verify", Usage: "do not check the stored content first"},
			&cli.BoolFlag{Name: "force", Usage: "promote what lint finds errors in"},
			&cli.BoolFlag{Name: "no-warm", Usage: "do not bring into memory what nodes read at boot"},
		},
		Action: onVersion(func(c *cli.Context, s *openedStore, name string) error {
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
			before, err := s.state.Promote(refOf(info), operator(), func() error { return s.holds(refOf(info)) })
			if err != nil {
				return err
			}
			return s.reportSwitch(c, before.Version, info.Name, before == refOf(info))
		}),
	}
}

// ready returns the version of that name, sealed and whole.
func (s *openedStore) ready(ctx context.Context, w io.Writer, name string, verify bool) (image.Info, error) {
	info, err := s.info(name)
	if err != nil {
		if !s.hasTree(name) {
			return info, err
		}
		r, err := s.seal(ctx, name)
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

// switchJSON is what promote and rollback print with --json.
type switchJSON struct {
	Before       string   `json:"before"`
	Promoted     string   `json:"promoted"`
	Changed      bool     `json:"changed"`
	RebootNeeded []string `json:"reboot_needed"` // addresses of nodes on another version
}

// reportSwitch says what is promoted now, and who has to reboot for it.
func (s *openedStore) reportSwitch(c *cli.Context, before, after string, same bool) error {
	nodes, err := s.nodes(time.Now())
	if err != nil {
		return err
	}
	out := switchJSON{Before: before, Promoted: after, Changed: !same, RebootNeeded: []string{}}
	for _, n := range nodes {
		if n.RebootNeeded {
			out.RebootNeeded = append(out.RebootNeeded, n.Address.String())
		}
	}
	if c.Bool("json") {
		return writeJSON(c.App.Writer, out)
	}
	switch {
	case same:
		fmt.Fprintf(c.App.Writer, "%s is promoted already\n", after)
	case before == "":
		fmt.Fprintf(c.App.Writer, "promoted %s\n", after)
	default:
		fmt.Fprintf(c.App.Writer, "promoted %s (before: %s)\n", after, before)
	}
	if n := len(out.RebootNeeded); n > 0 {
		fmt.Fprintf(c.App.Writer, "%s running another version until rebooted (rootnfsd nodes)\n", plural(n, "node")+map[bool]string{true: " is", false: " are"}[n == 1])
	}
	return nil
}
