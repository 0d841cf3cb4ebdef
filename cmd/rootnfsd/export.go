package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/rootnfsd/rootnfsd/fs/durable"
	"github.com/rootnfsd/rootnfsd/fs/image"
	"github.com/rootnfsd/rootnfsd/fs/source/tarball"
)

func exportCommand() *cli.Command {
	return &cli.Command{
		Name:      "export",
		Usage:     "give a version back as a tar archive, a squashfs image or a directory",
		ArgsUsage: "VERSION",
		Description: `Writes VERSION with all that it has, extended attributes and hard links too, so
that importing it again gives the same digest.

   tar        to standard output, or to a file with -o; the same bytes each time
   squashfs   to a file; needs the program sqfstar (Debian: squashfs-tools). The format
              keeps whole seconds of times, and no ACLs
   dir        to a directory that is not there yet, as checkout does; needs root

Examples:
   rootnfsd export v3 | zstd >v3.tar.zst
   rootnfsd export v3 --format squashfs -o v3.squashfs
   rootnfsd export v3 --format dir -o /srv/chroot`,
		Flags: []cli.Flag{
			exportFlag(), configFlag(),
			&cli.StringFlag{Name: "format", Usage: "`tar`, squashfs or dir", Value: "tar"},
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write to `FILE`"},
		},
		Action: onVersion(func(c *cli.Context, s *openedStore, name string) error {
			v, err := s.version(name)
			if err != nil {
				return err
			}
			ctx, stop := stoppable(c.Context)
			defer stop()
			to, format := c.String("output"), c.String("format")
			if to == "" && format != "tar" {
				return usageError(c, "%s wants a file or directory to write to: -o", format)
			}
			switch format {
			case "tar":
				err = exportTar(ctx, v, to)
			case "squashfs":
				err = exportSquashfs(ctx, v, to)
			case "dir":
				err = exportDir(ctx, v, to)
			default:
				return usageError(c, "there is no format %q", format)
			}
			if errors.Is(err, context.Canceled) {
				err = errors.New("it was stopped: nothing was made")
			}
			return err
		}),
	}
}

func writeTar(ctx context.Context, v *image.Version, to io.Writer) error {
	w := bufio.NewWriterSize(to, 256<<10)
	if err := tarball.Write(ctx, w, v.Filesystem()); err != nil {
		return err
	}
	return w.Flush()
}

func exportTar(ctx context.Context, v *image.Version, to string) error {
	if to != "" && to != "-" {
		return makeFile(to, func(f *os.File) error { return writeTar(ctx, v, f) })
	}
	if term.IsTerminal(int(os.Stdout.Fd())) {
		return errors.New("standard output is a terminal: pipe it into something, or name a file with -o")
	}
	return writeTar(ctx, v, os.Stdout)
}

// makeFile makes a file that is there when it is complete.
func makeFile(to string, write func(*os.File) error) error {
	f, err := durable.CreateTemp(filepath.Dir(to), 0o644)
	if err != nil {
		return err
	}
	if err := write(f); err != nil {
		return errors.Join(err, durable.Discard(f))
	}
	return durable.Commit(f, to)
}

func exportDir(ctx context.Context, v *image.Version, to string) error {
	if err := refuseOccupied(to); err != nil {
		return err
	}
	if err := refuseUnprivileged(v); err != nil {
		return err
	}
	p := newProgress("exporting " + v.Info().Name)
	defer p.done()
	if _, err := v.Extract(ctx, v.Root(), to, image.ExtractOptions{Progress: p.update}); err != nil {
		return fmt.Errorf("nothing was made: %w", explainExtract(err))
	}
	return nil
}
