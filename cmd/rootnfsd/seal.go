package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"time"

	"github.com/go-git/go-billy/v5"
	"github.com/urfave/cli/v2"

	"github.com/rootnfsd/rootnfsd/fs/image"
	"github.com/rootnfsd/rootnfsd/fs/lint"
	"github.com/rootnfsd/rootnfsd/fs/source"
)

func sealCommand() *cli.Command {
	return &cli.Command{
		Name:      "seal",
		Usage:     "make versions of golden trees",
		ArgsUsage: "[VERSION...]",
		Description: `Reads the tree <store>/VERSION and keeps an immutable copy of it: a version.
Without a VERSION, seals every tree of the store that is not sealed yet.

A draft (rootnfsd draft) is one no more when it is sealed. It is refused while its node is
on it, as far as is known.

Editing the tree afterwards changes nothing that is served. Sealing a changed
tree again makes a new version of that name; nodes that run the old one, and
the rollout that promoted it, keep it.

A file that is by all that stat(2) says what it was when the same tree was
sealed last, and was not changed in the minute before, is not read again.

Says what would go wrong when nodes without a disk boot the version, as
rootnfsd lint does.

Examples:
   rootnfsd seal                      all new trees of ./images
   rootnfsd seal v3                   the tree ./images/v3
   rootnfsd seal v3 --from /srv/chroot  another directory
   rootnfsd seal v3 --fix             put right what needs no judgement, see below

With --fix the version is not quite the tree, which stays as it is: lines of
fstab for disks are commented out, the machine-id is emptied, units for the first
boot and for swap are masked, the journal is kept in memory, overlayroot.conf
gets recurse=0. What was changed is shown as a diff, and written down in the
version, in ` + lint.FixesPath + `. All files are read for it.
--caps says what --fix does about file capabilities, which NFS does not carry:
warn does nothing, setuid makes ping and the like setuid, restore adds a service
that sets them when a node boots.`,
		Flags: append(fixFlags(),
			exportFlag(), configFlag(), jsonFlag(),
			&cli.StringFlag{Name: "from", Usage: "read the tree from `DIR` instead of <store>/VERSION"},
			&cli.BoolFlag{Name: "force", Usage: "take a draft away from a node that is on it"},
			&cli.BoolFlag{Name: "read-all", Usage: "read every file, changed or not"},
		),
		Action: func(c *cli.Context) error {
			// What a seal keeps is small or free of pointers: to collect garbage often
			// costs it no time, and a third of the memory is saved.
			debug.SetGCPercent(25)
			s, err := openOneStore(c)
			if err != nil {
				return err
			}
			names := c.Args().Slice()
			from := c.String("from")
			if from != "" && len(names) != 1 {
				return usageError(c, "--from wants exactly one version")
			}
			fix, err := fixerOf(c)
			if err != nil {
				return err
			}
			if len(names) == 0 {
				if names, err = s.unsealed(); err != nil {
					return err
				}
				if len(names) == 0 && !c.Bool("json") {
					fmt.Fprintln(c.App.Writer, "nothing to do: every tree is sealed (to seal one again that was edited, or whose version was removed, name it)")
				}
			}
			results := []sealedJSON{}
			var failed []error
			for _, name := range names {
				r, changes, err := s.sealAny(c, name, from, fix)
				if err != nil {
					failed = append(failed, err)
					continue
				}
				findings := s.findings(c.Context, r.Info)
				results = append(results, sealedOf(r, changes, findings))
				if !c.Bool("json") {
					reportSeal(c.App.Writer, r)
					reportFindings(c.App.Writer, name, findings)
				}
			}
			if c.Bool("json") {
				failed = append(failed, writeJSON(c.App.Writer, results))
			}
			return errors.Join(failed...)
		},
	}
}

type sealedJSON struct {
	versionJSON
	Unchanged bool           `json:"unchanged"`
	NewBytes  uint64         `json:"new_bytes"`
	Warnings  []string       `json:"warnings,omitempty"`
	Fixes     []lint.Change  `json:"fixes,omitempty"`    // what --fix changed
	Findings  []lint.Finding `json:"findings,omitempty"` // of lint
}

func sealedOf(r image.SealResult, changes []lint.Change, findings []lint.Finding) sealedJSON {
	return sealedJSON{versionJSON: versionOf(r.Info), Unchanged: r.Unchanged, NewBytes: r.NewBytes, Warnings: r.Warnings, Fixes: changes, Findings: findings}
}

// unsealed lists the golden trees that no version was made of and that nobody
// removed the version of: a removed version must not come back by itself.
func (s *openedStore) unsealed() ([]string, error) {
	trees, err := s.Trees()
	if err != nil {
		return nil, err
	}
	versions, err := s.Versions()
	if err != nil {
		return nil, err
	}
	rollout, err := s.state.Rollout()
	if err != nil {
		return nil, err
	}
	removed := map[string]bool{}
	for _, e := range rollout.History {
		removed[e.Version] = e.Action == "remove"
	}
	return slices.DeleteFunc(trees, func(name string) bool {
		return removed[name] || rollout.DraftNamed(name) != nil || slices.ContainsFunc(versions, func(v image.Info) bool { return v.Name == name })
	}), nil
}

// sealAny is sealFixed for a draft, too, which that ends.
func (s *openedStore) sealAny(c *cli.Context, name, from string, fix fixer) (r image.SealResult, changes []lint.Change, err error) {
	draft, err := s.draftOf(name)
	if err != nil {
		return r, nil, err
	}
	if draft == nil {
		return s.sealFixed(c.Context, c, name, from, fix)
	}
	if from != "" {
		return r, nil, fmt.Errorf("%s is a draft of node %s: seal that without --from, or choose another name", name, draft.Node)
	}
	r, err = s.sealDraft(c.Context, name, c.Bool("force"), func(ctx context.Context) (r image.SealResult, err error) {
		r, changes, err = s.sealFixed(ctx, c, name, "", fix)
		return r, err
	})
	return r, changes, err
}

// sealFixed makes a version as the seal command's flags say, and tells what was
// fixed in it.
func (s *openedStore) sealFixed(ctx context.Context, c *cli.Context, name, from string, fix fixer) (image.SealResult, []lint.Change, error) {
	tree, err := s.openTree(name, from)
	if err != nil {
		return image.SealResult{}, nil, err
	}
	defer tree.Close()
	var src billy.Filesystem = tree
	var changes []lint.Change
	if fix != nil {
		if src, changes, err = fix(ctx, tree); err != nil {
			return image.SealResult{}, nil, fmt.Errorf("nothing was changed: %w", err)
		}
	}
	r, err := s.sealSource(ctx, name, src, c.Bool("read-all"))
	return r, changes, err
}

// seal makes a version of the store's own tree of that name.
func (s *openedStore) seal(ctx context.Context, name string) (image.SealResult, error) {
	tree, err := s.openTree(name, "")
	if err != nil {
		return image.SealResult{}, err
	}
	defer tree.Close()
	return s.sealSource(ctx, name, tree, false)
}

// openTree opens the tree at from, or the store's own tree of that name.
func (s *openedStore) openTree(name, from string) (*source.Dir, error) {
	if err := image.ValidName(name); err != nil {
		return nil, err
	}
	if from == "" {
		from = filepath.Join(s.Dir(), name)
		if _, err := os.Stat(from); errors.Is(err, os.ErrNotExist) {
			trees, err := s.Trees()
			if err != nil {
				return nil, err
			}
			if near := nearest(name, trees); len(near) > 0 {
				return nil, fmt.Errorf("there is no tree %s; did you mean %s?", from, near[0])
			}
			return nil, fmt.Errorf("there is no tree %s", from)
		}
	}
	return source.OpenDir(from)
}

// sealSource makes a version of a source and shows the progress.
func (s *openedStore) sealSource(ctx context.Context, name string, src billy.Filesystem, readAll bool) (image.SealResult, error) {
	p := newProgress("sealing " + name)
	r, err := s.Seal(ctx, name, src, image.SealOptions{ReadAll: readAll, Progress: p.update})
	p.done()
	if err != nil {
		return r, fmt.Errorf("nothing was changed: %w", err)
	}
	return r, nil
}

func reportSeal(w io.Writer, r image.SealResult) {
	for _, warning := range r.Warnings {
		fmt.Fprintf(w, "warning: %s\n", warning)
	}
	if r.Unchanged {
		fmt.Fprintf(w, "%s is sealed already, unchanged: %s\n", r.Name, r.Digest.Short())
		return
	}
	fmt.Fprintf(w, "sealed %s: %s, %d objects, %s, of which %s are new\n", r.Name, r.Digest.Short(), r.Objects, size(r.Bytes), size(r.NewBytes))
}

// versionJSON is a version in the output of --json.
type versionJSON struct {
	Name    string    `json:"name"`
	Digest  string    `json:"digest"`
	Sealed  time.Time `json:"sealed,omitzero"`
	Objects uint64    `json:"objects"`
	Bytes   uint64    `json:"bytes"`
	Error   string    `json:"error,omitempty"`
}

func versionOf(i image.Info) versionJSON {
	v := versionJSON{Name: i.Name, Digest: i.Digest.String(), Sealed: i.Sealed, Objects: i.Objects, Bytes: i.Bytes}
	if i.Err != nil {
		v.Digest, v.Error = "", i.Err.Error()
	}
	return v
}
