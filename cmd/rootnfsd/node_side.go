package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/go-git/go-billy/v5"
	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/lint"
	"github.com/rootnfsd/rootnfsd/fs/source"
	"github.com/rootnfsd/rootnfsd/nodeside"
)

// nodeFilesRule is what stands for node files where a version tells what was changed in it.
const nodeFilesRule = "node-files"

func nodeSideCommand() *cli.Command {
	return &cli.Command{
		Name:  "node-files",
		Usage: "print or install what a golden tree needs on the node's side: overlay, journal, home",
		Description: `Prints the files for a kind of system, or puts them into a golden tree: what keeps the
journal in memory, mounts the home, tells the server that the node is well, and, for
systems with initramfs-tools, what lays an overlay over the root as rootnfsd.overlay= on
the kernel's command line says (docs/overlay.md).

` + targetList() + `
Examples:
   rootnfsd node-files --for debian                       print them
   rootnfsd node-files --for debian --into images/v2 --home 192.168.1.66:/home
   rootnfsd node-files --for alpine --tar | tar -C images/v2 -x

--into shows what would change and asks; with --yes it does not ask. Then the hook
has to get into the initramfs, before the tree is sealed:
   chroot images/v2 update-initramfs -u -k all`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "for", Usage: "the `SYSTEM`: " + strings.Join(nodeside.TargetNames(), ", ")},
			&cli.StringFlag{Name: "into", Usage: "put them into the golden tree in `DIR`"},
			&cli.BoolFlag{Name: "tar", Usage: "write a tar archive of them"},
			&cli.StringFlag{Name: "home", Usage: "mount `SERVER:/PATH` at /home; without it nothing is"},
			&cli.BoolFlag{Name: "dry-run", Usage: "with --into: only show what would change"},
			&cli.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "with --into: do not ask"},
		},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			into := c.String("into")
			switch {
			case into != "" && c.Bool("tar"):
				return usageError(c, "--into and --tar: want one of them")
			case into == "" && (c.Bool("dry-run") || c.Bool("yes")):
				return usageError(c, "--dry-run and --yes are for --into")
			case c.IsSet("into") && into == "":
				return usageError(c, "--into wants a directory")
			case c.String("for") == "":
				return usageError(c, "say with --for what they are for: %s", strings.Join(nodeside.TargetNames(), ", "))
			}
			files, err := nodeFilesFor(c.String("for"), c.String("home"))
			if err != nil {
				return err
			}
			switch {
			case into != "":
				return installNodeFiles(c, into, files)
			case c.Bool("tar"):
				if term.IsTerminal(int(os.Stdout.Fd())) {
					return errors.New("standard output is a terminal: pipe it into tar -x")
				}
				return nodeside.WriteTar(c.App.Writer, files)
			}
			return printNodeFiles(c.App.Writer, files)
		},
	}
}

func targetList() string {
	var b strings.Builder
	for _, t := range nodeside.Targets() {
		fmt.Fprintf(&b, "   %-14s %s\n", t.Name, t.About)
	}
	return b.String()
}

// nodeFilesFor returns the files of a target, or an error with the one that may be meant.
func nodeFilesFor(target, home string) ([]nodeside.File, error) {
	files, err := nodeside.Files(target, home)
	if errors.Is(err, nodeside.ErrTarget) {
		return nil, unknownName("system", target, nodeside.TargetNames(), "", "")
	}
	return files, err
}

// printNodeFiles writes files for people, each behind its path.
func printNodeFiles(w io.Writer, files []nodeside.File) error {
	out := bufio.NewWriter(w)
	for i, f := range files {
		if i > 0 {
			fmt.Fprintln(out)
		}
		switch f.Kind {
		case fs.Symlink:
			fmt.Fprintf(out, "# %s -> %s\n", f.Path, f.Content)
		case fs.Directory:
			fmt.Fprintf(out, "# %s/\n", f.Path)
		default:
			fmt.Fprintf(out, "# %s (mode %04o)\n%s", f.Path, f.Mode, f.Content)
		}
	}
	return out.Flush()
}

// additionsOf are the files as additions to a tree.
func additionsOf(files []nodeside.File) []lint.Addition {
	var all []lint.Addition
	for _, f := range files {
		all = append(all, lint.Addition(f))
	}
	return all
}

// installNodeFiles puts files into a tree of the host, and shows what that changes first.
func installNodeFiles(c *cli.Context, dir string, files []nodeside.File) error {
	dryRun := c.Bool("dry-run")
	if !dryRun && os.Geteuid() != 0 {
		return errors.New("this needs root, for the files belong to root (--dry-run does not)")
	}
	src, err := source.OpenDir(dir)
	if err != nil {
		return err
	}
	defer src.Close()
	_, changes, made, err := lint.Add(c.Context, src, nodeFilesRule, additionsOf(files))
	if err != nil {
		return fmt.Errorf("nothing was changed: %w", explainPermission(err))
	}
	if len(changes) == 0 {
		fmt.Fprintf(c.App.Writer, "nothing to do: %s has them all\n", dir)
		return nil
	}
	paint, err := coloursFor("auto")
	if err != nil {
		return err
	}
	if err := printChanges(c.App.Writer, changes, paint); err != nil || dryRun {
		return err
	}
	if !c.Bool("yes") {
		if err := confirm(c, fmt.Sprintf("Make these changes in %s?", dir)); err != nil {
			return err
		}
	}
	tree, err := nodeside.OpenTree(dir)
	if err != nil {
		return err
	}
	defer tree.Close()
	for _, a := range made {
		if err := tree.Put(nodeside.File(a)); err != nil {
			return fmt.Errorf("%w (run it again when that is put right: what is there already stays)", err)
		}
	}
	fmt.Fprintf(c.App.Writer, "installed into %s\n", dir)
	remindOfInitramfs(c.App.Writer, made, "chroot "+dir+" update-initramfs -u -k all")
	return nil
}

// confirm asks a person.
func confirm(c *cli.Context, question string) error {
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return errors.New("nothing was changed: standard input is no terminal to ask at, so say --yes")
	}
	fmt.Fprintf(c.App.Writer, "%s [y/N] ", question)
	answer, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil && err != io.EOF {
		return err
	}
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return errors.New("nothing was changed")
	}
	return nil
}

// remindOfInitramfs says what is left to do if the overlay's hook is new or changed.
func remindOfInitramfs(w io.Writer, made []lint.Addition, command string) {
	for _, a := range made {
		if strings.Contains(a.Path, "/initramfs-tools/") {
			fmt.Fprintf(w, "rootnfsd.overlay= works when the initramfs has the hook: %s\n", command)
			return
		}
	}
}

// nodeFilesFixer returns what puts node files into a tree that becomes a version, nil if none are wanted.
func nodeFilesFixer(c *cli.Context) (fixer, error) {
	target := c.String("node-files")
	if target == "" {
		if c.IsSet("node-files") || c.IsSet("home") {
			return nil, usageError(c, "--node-files wants a system: %s", strings.Join(nodeside.TargetNames(), ", "))
		}
		return nil, nil
	}
	files, err := nodeFilesFor(target, c.String("home"))
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, tree billy.Filesystem) (billy.Filesystem, []lint.Change, error) {
		out, changes, made, err := lint.Add(ctx, tree, nodeFilesRule, additionsOf(files))
		if err != nil {
			return nil, nil, explainPermission(err)
		}
		if !c.Bool("json") {
			remindOfInitramfs(c.App.Writer, made, "update-initramfs -u -k all in a tree of this version (rootnfsd checkout), and seal that")
		}
		return out, changes, nil
	}, nil
}
