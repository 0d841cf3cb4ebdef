package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/image"
)

func cpCommand() *cli.Command {
	return &cli.Command{
		Name:      "cp",
		Usage:     "copy files out of a version",
		ArgsUsage: "VERSION:PATH... DIR|FILE",
		Description: `Copies as cp(1) does: into DIR if that is there, else to FILE; the copies are
yours and of today. With -r it copies directories and keeps symlinks; devices are
left out. With -a it keeps all that checkout keeps, which takes root.

A file that is there is replaced, when the copy is complete. A directory is not.

Examples:
   rootnfsd cp v1:/etc/fstab .
   rootnfsd cp -r v1:/etc/ssh /tmp
   rootnfsd cp -a v1:/etc/ssh /srv/images/v3/etc/ssh`,
		Flags: []cli.Flag{
			exportFlag(), configFlag(), jsonFlag(),
			&cli.BoolFlag{Name: "r", Aliases: []string{"R"}, Usage: "copy directories with what is in them"},
			&cli.BoolFlag{Name: "a", Usage: "like -r, and keep owners, modes, times, devices and extended attributes"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() < 2 {
				return usageError(c, "want VERSION:PATH and where to copy it")
			}
			s, err := openOneStore(c)
			if err != nil {
				return err
			}
			from, to := c.Args().Slice()[:c.NArg()-1], c.Args().Get(c.NArg()-1)
			ctx, stop := stoppable(c.Context)
			defer stop()
			copies := []extractedJSON{}
			for _, arg := range from {
				done, err := s.copyOut(ctx, c, arg, to, len(from) > 1)
				if err != nil {
					return err
				}
				copies = append(copies, done)
			}
			if c.Bool("json") {
				return writeJSON(c.App.Writer, copies)
			}
			return nil
		},
	}
}

// copyOut copies what arg names to a path, or into a directory if there is one
// or there are several to be copied.
func (s *openedStore) copyOut(ctx context.Context, c *cli.Context, arg, to string, several bool) (extractedJSON, error) {
	var none extractedJSON
	archive := c.Bool("a")
	recursive := c.Bool("r") || archive
	f, err := s.find(arg, !recursive)
	if err != nil {
		return none, err
	}
	if f.object.Kind == fs.Directory && !recursive {
		return none, fmt.Errorf("%s is a directory: -r copies it with what is in it", arg)
	}
	target, err := copyTarget(f, to, several)
	if err != nil {
		return none, fmt.Errorf("%s: %w", arg, err)
	}
	p := newProgress("copying " + arg)
	done, err := f.Extract(ctx, f.id, target, image.ExtractOptions{Plain: !archive, Progress: p.update})
	p.done()
	if err != nil {
		return none, fmt.Errorf("%s was not copied: %w", arg, explainCopy(err))
	}
	if n := done.LeftOut.Devices; n > 0 {
		fmt.Fprintf(c.App.ErrWriter, "warning: %s: %s left out (-a copies them)\n", arg, plural(int(n), "device"))
	}
	if !archive { // nobody expects a copy to have the owner
		done.LeftOut.Owners, done.LeftOut.Capabilities = 0, 0
	}
	return extractedOf(arg, target, done), nil
}

// copyTarget says where a copy is to be, which nothing may be lost at.
func copyTarget(f *inVersion, to string, several bool) (string, error) {
	stat, err := os.Stat(to)
	isDir := err == nil && stat.IsDir()
	if !isDir && (several || strings.HasSuffix(to, "/")) {
		return "", fmt.Errorf("there is no directory %s to copy it to", to)
	}
	if isDir {
		if f.path == "/" {
			return "", fmt.Errorf("name the directory that is to be made of it (%s)", filepath.Join(to, f.Info().Name))
		}
		to = filepath.Join(to, path.Base(f.path))
		stat, err = os.Stat(to)
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		return to, nil
	case err != nil:
		return "", err
	case stat.IsDir():
		return "", fmt.Errorf("%s is there, a directory: remove it, or name another", to)
	case f.object.Kind == fs.Directory:
		return "", fmt.Errorf("%s is there and no directory: remove it, or name another", to)
	case !stat.Mode().IsRegular():
		return "", fmt.Errorf("%s is there and no file: rootnfsd cat prints to anything", to)
	}
	// What a symlink leads to is replaced, not the symlink.
	return filepath.EvalSymlinks(to)
}

// explainCopy is explainExtract for what has other options.
func explainCopy(err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return errors.New("it was stopped")
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w (-a takes root; -r does not)", err)
	}
	return err
}
