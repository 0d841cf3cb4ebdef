package main

import (
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/urfave/cli/v2"
)

// version is set by the linker in a release (make build).
var version = "development"

func newApp() *cli.App {
	return &cli.App{
		Name:  "rootnfsd",
		Usage: "serve versioned golden root file systems to diskless nodes over NFSv3",
		Description: `A store is a directory of golden trees: images/v1, images/v2, ...

   rootnfsd serve --export images/    seal the trees and serve them
   rootnfsd promote v2                what nodes get at their next boot
   rootnfsd rollback                  back to what it was before
   rootnfsd status                    what is promoted, and who runs what

Nodes that are up stay on the version that they booted.`,
		Version:                   buildVersion(),
		Suggest:                   true,
		UseShortOptionHandling:    true,
		HideHelpCommand:           true,
		DisableSliceFlagSeparator: true, // a path may have a comma in it
		Commands: []*cli.Command{
			serveCommand(),
			makingWay(sealCommand()),
			makingWay(importCommand()),
			makingWay(exportCommand()),
			makingWay(draftCommand()),
			versionsCommand(),
			makingWay(promoteCommand()),
			rollbackCommand(),
			removeCommand(),
			makingWay(gcCommand()),
			statusCommand(),
			nodesCommand(),
			nodeCommand(),
			nodeSideCommand(),
			pinCommand(),
			unpinCommand(),
			historyCommand(),
			cmdlineCommand(),
			netbootCommand(),
			makingWay(lintCommand()),
			makingWay(diffCommand()),
			lsCommand(),
			catCommand(),
			cpCommand(),
			makingWay(checkoutCommand()),
			makingWay(verifyCommand()),
			benchCommand(),
		},
		Action: func(c *cli.Context) error {
			if c.NArg() == 0 {
				return cli.ShowAppHelp(c)
			}
			return fmt.Errorf("there is no command %q%s (see rootnfsd --help)", c.Args().First(), didYouMean(c))
		},
		// An error is printed once, by main, which also sets the exit status.
		ExitErrHandler: func(*cli.Context, error) {},
	}
}

// didYouMean names the commands that look like the one that is not there.
func didYouMean(c *cli.Context) string {
	var names []string
	for _, cmd := range c.App.Commands {
		names = append(names, cmd.Name)
	}
	near := nearest(c.Args().First(), names)
	if len(near) == 0 {
		return ""
	}
	return "; did you mean " + strings.Join(near, " or ") + "?"
}

func buildVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok && version == "development" {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return version + " " + s.Value
			}
		}
	}
	return version
}

// Flags that several commands take. Each call makes a new one, for the library
// keeps the state of parsing in them.

func exportFlag() cli.Flag {
	return &cli.StringSliceFlag{
		Name:    "export",
		Usage:   "the store: a `[NAME=]DIR` of golden trees (default: ./images)",
		EnvVars: []string{"ROOTNFSD_EXPORT"},
	}
}

func configFlag() cli.Flag {
	return &cli.StringFlag{
		Name:    "config",
		Usage:   "settings that no flag gives are read from this YAML `FILE`",
		Value:   defaultConfig,
		EnvVars: []string{"ROOTNFSD_CONFIG"},
	}
}

func jsonFlag() cli.Flag {
	return &cli.BoolFlag{Name: "json", Usage: "print JSON, for scripts"}
}

// usageError is a mistake in how a command was called. It reminds of the help.
func usageError(c *cli.Context, format string, args ...any) error {
	return fmt.Errorf("%s (see %s --help)", fmt.Sprintf(format, args...), c.Command.HelpName)
}

// onStore makes the action of a command that works on one store and takes no
// arguments.
func onStore(f func(c *cli.Context, s *openedStore) error) cli.ActionFunc {
	return func(c *cli.Context) error {
		if err := noArguments(c); err != nil {
			return err
		}
		s, err := openOneStore(c)
		if err != nil {
			return err
		}
		return f(c, s)
	}
}

// onVersion makes the action of a command whose only argument is a version.
func onVersion(f func(c *cli.Context, s *openedStore, name string) error) cli.ActionFunc {
	return func(c *cli.Context) error {
		if c.NArg() != 1 {
			return usageError(c, "want exactly one version, got %d arguments", c.NArg())
		}
		s, err := openOneStore(c)
		if err != nil {
			return err
		}
		return f(c, s, c.Args().First())
	}
}

// noArguments refuses what a command would silently ignore.
func noArguments(c *cli.Context) error {
	if c.NArg() != 0 {
		return usageError(c, "%q is one argument too many", c.Args().First())
	}
	return nil
}
