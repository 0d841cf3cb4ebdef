package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// flagsFirst moves the flags of a command in front of its arguments, so that
// both "promote --export DIR v2" and "promote v2 --export DIR" work. The
// library, like the standard one, stops at the first argument that is no flag.
func flagsFirst(app *cli.App, args []string) []string {
	at := slices.IndexFunc(args, func(a string) bool { return app.Command(a) != nil })
	if at < 1 {
		return args
	}
	cmd := app.Command(args[at])
	if at+1 < len(args) {
		if sub := subcommand(cmd, args[at+1]); sub != nil {
			cmd, at = sub, at+1
		}
	}
	var flags, rest []string
	for todo := args[at+1:]; len(todo) > 0; {
		arg := todo[0]
		todo = todo[1:]
		switch {
		case arg == "--":
			rest = append(rest, todo...)
			todo = nil
		case len(arg) < 2 || arg[0] != '-':
			rest = append(rest, arg)
		default:
			flags = append(flags, arg)
			if takesValue(cmd, arg) && len(todo) > 0 {
				flags = append(flags, todo[0])
				todo = todo[1:]
			}
		}
	}
	out := append(slices.Clone(args[:at+1]), flags...)
	if len(rest) > 0 {
		// What follows a "--" is never a flag, whatever it looks like.
		out = append(append(out, "--"), rest...)
	}
	return out
}

// subcommand is the command of that name below another, or nil.
func subcommand(cmd *cli.Command, name string) *cli.Command {
	for _, sub := range cmd.Subcommands {
		if sub.HasName(name) {
			return sub
		}
	}
	return nil
}

// takesValue reports whether the argument behind flag belongs to it.
func takesValue(cmd *cli.Command, flag string) bool {
	name := strings.TrimLeft(flag, "-")
	if strings.Contains(name, "=") {
		return false
	}
	for _, f := range cmd.Flags {
		if slices.Contains(f.Names(), name) {
			_, isBool := f.(*cli.BoolFlag)
			return !isBool
		}
	}
	return false
}
