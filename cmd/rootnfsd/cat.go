package main

import (
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/rootnfsd/rootnfsd/fs"
)

func catCommand() *cli.Command {
	return &cli.Command{
		Name:      "cat",
		Usage:     "print files of a version",
		ArgsUsage: "VERSION:PATH...",
		Description: `Symlinks are followed within the version. What is printed was held against its
digest.

Examples:
   rootnfsd cat v2:/etc/os-release
   diff <(rootnfsd cat v1:/etc/fstab) <(rootnfsd cat v2:/etc/fstab)`,
		Flags: []cli.Flag{exportFlag(), configFlag()},
		Action: func(c *cli.Context) error {
			if c.NArg() == 0 {
				return usageError(c, "want VERSION:PATH")
			}
			s, err := openOneStore(c)
			if err != nil {
				return err
			}
			for _, arg := range c.Args().Slice() {
				if err := s.cat(c.App.Writer, arg); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func (s *openedStore) cat(w io.Writer, arg string) error {
	f, err := s.find(arg, true)
	if err != nil {
		return err
	}
	switch f.object.Kind {
	case fs.Regular:
	case fs.Directory:
		return fmt.Errorf("%s is a directory: rootnfsd ls %s lists it", arg, arg)
	default:
		return fmt.Errorf("%s is a %v and has no content", arg, f.object.Kind)
	}
	file, err := f.files.Open(f.path)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = io.CopyBuffer(struct{ io.Writer }{w}, file, make([]byte, 1<<20))
	return err
}
