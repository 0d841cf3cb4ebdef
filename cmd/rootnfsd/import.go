package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"

	"github.com/go-git/go-billy/v5"
	"github.com/urfave/cli/v2"

	"github.com/rootnfsd/rootnfsd/fs/image"
	"github.com/rootnfsd/rootnfsd/fs/lint"
)

func importCommand() *cli.Command {
	return &cli.Command{
		Name:      "import",
		Usage:     "make a version of a disk image, a tarball, a container image or another store's version",
		ArgsUsage: "SOURCE VERSION",
		Description: `Makes VERSION of SOURCE without mounting anything and without root:
owners, modes, devices and extended attributes go into the version. SOURCE is,
by what is in it and not by its name,

   a tar archive, also compressed by gzip, bzip2, xz or zstd; - is standard input
   a disk image with a root of ext4 or squashfs, as Raspberry Pi OS and Ubuntu have
   them, or such a file system; a compressed one is unpacked to a temporary file in
   the store first
   a container image: an OCI layout (directory or archive), or what docker save wrote
   DIR@VERSION, a version of the store DIR
   a directory, as seal has it

Whatever goes wrong, the store stays as it was.

Examples:
   rootnfsd import root.tar.xz v3
   docker export $(docker create debian:12) | rootnfsd import - v3
   rootnfsd import image.oci v3 --platform linux/arm64
   rootnfsd import /srv/other@v2 v3
   rootnfsd import root.tar.xz v3 --dry-run
   rootnfsd import raspios.img v3 --fix     put right what hurts nodes without a disk

Says what would go wrong when nodes without a disk boot the version, as
rootnfsd lint does. --fix and --caps are those of rootnfsd seal.`,
		Flags: append(fixFlags(),
			exportFlag(), configFlag(), jsonFlag(),
			&cli.BoolFlag{Name: "dry-run", Usage: "read all of it and say what would come of it, but store nothing"},
			&cli.StringFlag{Name: "platform", Usage: "which image of several, such as `linux/arm64`"},
			&cli.Uint64Flag{Name: "max-size", Usage: "refuse a tree whose files are larger in all than `GIB`, holes counted", Value: 1024},
		),
		Action: func(c *cli.Context) error {
			debug.SetGCPercent(25) // as seal does
			if c.NArg() != 2 {
				return usageError(c, "want a source and a version, got %d arguments", c.NArg())
			}
			name := c.Args().Get(1)
			if err := image.ValidName(name); err != nil {
				return err
			}
			if n := c.Uint64("max-size"); n < 1 || n > 1<<30 {
				return usageError(c, "--max-size is in GiB, and at least 1")
			}
			fix, err := fixerOf(c)
			if err != nil {
				return err
			}
			s, err := openOneStore(c)
			if err != nil {
				return err
			}
			if err := s.notDraft(name); err != nil {
				return err
			}
			ctx, stop := stoppable(c.Context)
			defer stop()
			opts := importOptions{dryRun: c.Bool("dry-run"), platform: c.String("platform"), maxBytes: c.Uint64("max-size") << 30, fix: fix}
			r, changes, err := s.importFrom(ctx, c.Args().First(), name, opts)
			if err != nil {
				return fmt.Errorf("nothing was changed: %w", explainImport(err))
			}
			var findings []lint.Finding
			if !opts.dryRun {
				findings = s.findings(ctx, r.Info)
			}
			if c.Bool("json") {
				return writeJSON(c.App.Writer, importedJSON{sealedOf(r, changes, findings), opts.dryRun})
			}
			reportImport(c.App.Writer, r, opts.dryRun)
			reportFindings(c.App.Writer, name, findings)
			return nil
		},
	}
}

type importOptions struct {
	dryRun   bool
	platform string
	maxBytes uint64
	fix      fixer // nil for none
}

type importedJSON struct {
	sealedJSON
	DryRun bool `json:"dry_run"`
}

func explainImport(err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return errors.New("it was stopped")
	case errors.Is(err, image.ErrTooMuch):
		return fmt.Errorf("%w (--max-size)", err)
	}
	return err
}

func reportImport(w io.Writer, r image.SealResult, dryRun bool) {
	if !dryRun {
		reportSeal(w, r)
		return
	}
	for _, warning := range r.Warnings {
		fmt.Fprintf(w, "warning: %s\n", warning)
	}
	fmt.Fprintf(w, "%s would be %s: %d objects, %s, of which %s are new\n", r.Name, r.Digest.Short(), r.Objects, size(r.Bytes), size(r.NewBytes))
}

// importFrom makes a version of what the argument names, and shows the progress.
func (s *openedStore) importFrom(ctx context.Context, arg, name string, opts importOptions) (r image.SealResult, changes []lint.Change, err error) {
	o, err := openOrigin(ctx, arg, opts.platform, s.spooler(opts.maxBytes))
	if err != nil {
		return r, nil, err
	}
	defer o.close()
	if opts.fix != nil && o.tree != nil {
		if o.tree, changes, err = opts.fix(ctx, o.tree); err != nil {
			return r, nil, err
		}
	}
	p := newProgress("importing " + name)
	defer p.done()
	update := func(now image.Progress) {
		if o.progress != nil { // which knows how much there is
			now.Bytes, now.TotalBytes = o.progress()
		}
		p.update(now)
	}
	if o.tree != nil {
		r, err = s.Seal(ctx, name, o.tree, image.SealOptions{DryRun: opts.dryRun, MaxBytes: opts.maxBytes, Progress: update})
	} else {
		importing := image.ImportOptions{DryRun: opts.dryRun, MaxBytes: opts.maxBytes, Progress: update}
		if opts.fix != nil {
			importing.Amend = func(tree billy.Filesystem) (billy.Filesystem, error) {
				p.done() // for what was changed is shown
				tree, changes, err = opts.fix(ctx, tree)
				return tree, err
			}
		}
		r, err = s.Import(ctx, name, o.fill, importing)
	}
	if err != nil {
		return r, nil, err
	}
	r.Warnings = slices.Concat(o.warnings, r.Warnings)
	if !opts.dryRun {
		r.Warnings = append(r.Warnings, s.otherMachine(name)...)
	}
	return r, changes, nil
}

// spooler returns one that takes not more than most bytes, and shows the progress.
func (s *openedStore) spooler(most uint64) spooler {
	return func(in io.Reader, read *counter) (*os.File, error) {
		p := newProgress("unpacking")
		defer p.done()
		return s.Spool(io.TeeReader(in, said(func() {
			done, total := read.progress()
			p.update(image.Progress{Bytes: done, TotalBytes: total})
		})), most)
	}
}

// said is called for whatever is written to it.
type said func()

func (say said) Write(b []byte) (int, error) {
	say()
	return len(b), nil
}

// otherMachine warns if a version is for other machines than the store's other ones.
func (s *openedStore) otherMachine(name string) []string {
	mine := s.machineOf(name)
	versions, err := s.Versions()
	if err != nil || mine == "" {
		return nil
	}
	for _, v := range versions {
		if v.Name == name || v.Err != nil {
			continue
		}
		if theirs := s.machineOf(v.Name); theirs != "" {
			if theirs == mine {
				return nil
			}
			return []string{fmt.Sprintf("%s is for %s, but %s for %s: which nodes is it for?", name, mine, v.Name, theirs)}
		}
	}
	return nil
}

// machineOf is for which machines the programs of a version are, "" if that is not known.
func (s *openedStore) machineOf(name string) string {
	v, err := s.Open(name)
	if err != nil {
		return ""
	}
	for _, path := range []string{"/bin/sh", "/usr/bin/sh", "/bin/busybox", "/sbin/init", "/usr/lib/systemd/systemd"} {
		f, err := v.Filesystem().Open(path)
		if err != nil {
			continue
		}
		machine := elfMachine(f)
		f.Close()
		if machine != "" {
			return machine
		}
	}
	return ""
}

// refuseTerminal refuses to wait for somebody to type an archive.
func refuseTerminal(f *os.File, isTerminal func(int) bool) error {
	if isTerminal(int(f.Fd())) {
		return errors.New("standard input is a terminal: pipe an archive into it")
	}
	return nil
}
