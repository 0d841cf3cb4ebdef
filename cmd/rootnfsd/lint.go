package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/rootnfsd/rootnfsd/fs/image"
	"github.com/rootnfsd/rootnfsd/fs/lint"
	"github.com/rootnfsd/rootnfsd/fs/source"
)

func lintCommand() *cli.Command {
	return &cli.Command{
		Name:      "lint",
		Usage:     "tell what goes wrong when nodes boot a version",
		ArgsUsage: "VERSION|DIR",
		Description: `Looks through a version, or through a golden tree that is not sealed yet, for
what hurts nodes without a disk: what keeps them from booting (error), what goes
wrong later (warning), what to know (info). Each finding has a fix, to be run as
root in the tree's directory; seal it again afterwards.

The exit status is 1 if there is an error. promote refuses such a version, too.

Examples:
   rootnfsd lint v2
   rootnfsd lint /srv/chroot
   rootnfsd lint v2 --json | jq -r '.findings[] | select(.severity != "info") | .rule'
   rootnfsd lint --rules             what is looked for, and why`,
		Flags: []cli.Flag{
			exportFlag(), configFlag(), jsonFlag(),
			&cli.BoolFlag{Name: "rules", Usage: "list what is looked for, and why"},
			&cli.StringFlag{Name: "color", Usage: "auto, always or never: `WHEN` to use colours", Value: "auto"},
		},
		Action: func(c *cli.Context) error {
			paint, err := coloursFor(c.String("color"))
			if err != nil {
				return err
			}
			if c.Bool("rules") {
				return errors.Join(noArguments(c), listRules(c, paint))
			}
			if c.NArg() != 1 {
				return usageError(c, "want one version or directory, got %d arguments", c.NArg())
			}
			findings, err := lintArgument(c, c.Args().First())
			if err != nil {
				return err
			}
			if c.Bool("json") {
				err = writeJSON(c.App.Writer, lintedOf(c.Args().First(), findings))
			} else {
				err = printFindings(c.App.Writer, c.Args().First(), findings, paint)
			}
			if err == nil && count(findings, lint.Error) > 0 {
				return statusError{nil, 1}
			}
			return err
		},
	}
}

// lintArgument looks through what somebody named: a version, the store's tree of
// that name if it is not sealed, or a directory anywhere.
func lintArgument(c *cli.Context, arg string) ([]lint.Finding, error) {
	if strings.Contains(arg, "/") || arg == "." || arg == ".." {
		return lintDir(c.Context, arg)
	}
	s, err := openOneStore(c)
	if err != nil {
		return nil, err
	}
	info, err := s.info(arg)
	switch {
	case err == nil:
		return s.lint(c.Context, info)
	case s.hasTree(arg):
		return lintDir(c.Context, filepath.Join(s.Dir(), arg))
	}
	return nil, err
}

func lintDir(ctx context.Context, dir string) ([]lint.Finding, error) {
	src, err := source.OpenDir(dir)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	findings, err := lint.Check(ctx, src)
	return findings, explainPermission(err)
}

// lintedJSON is what lint prints with --json.
type lintedJSON struct {
	Name     string         `json:"name"`
	Errors   int            `json:"errors"`
	Warnings int            `json:"warnings"`
	Infos    int            `json:"infos"`
	Findings []lint.Finding `json:"findings"`
}

func lintedOf(name string, findings []lint.Finding) lintedJSON {
	return lintedJSON{name, count(findings, lint.Error), count(findings, lint.Warning), count(findings, lint.Info), append([]lint.Finding{}, findings...)}
}

func count(findings []lint.Finding, s lint.Severity) (n int) {
	for _, f := range findings {
		if f.Severity == s {
			n++
		}
	}
	return n
}

func colourOfSeverity(s lint.Severity) string {
	switch s {
	case lint.Error:
		return red
	case lint.Warning:
		return yellow
	}
	return green
}

// printFindings writes findings for people, the worst first.
func printFindings(w io.Writer, name string, findings []lint.Finding, paint colours) error {
	out := bufio.NewWriter(w)
	for _, f := range findings {
		fmt.Fprintf(out, "%s %s: %s\n", paint.paint(colourOfSeverity(f.Severity), f.Severity.String()), paint.paint(bold, printable(f.File)), f.Reason)
		for _, file := range f.Files {
			fmt.Fprintf(out, "    %s\n", printable(file))
		}
		fmt.Fprintf(out, "    fix: %s  [%s]\n", f.Fix, f.Rule)
	}
	fmt.Fprintf(out, "%s: %s\n", name, summary(findings))
	return out.Flush()
}

// summary counts findings.
func summary(findings []lint.Finding) string {
	if len(findings) == 0 {
		return "nothing found"
	}
	var parts []string
	for _, s := range []lint.Severity{lint.Error, lint.Warning} {
		if n := count(findings, s); n > 0 {
			parts = append(parts, plural(n, s.String()))
		}
	}
	if n := count(findings, lint.Info); n > 0 {
		parts = append(parts, plural(n, "thing")+" to know")
	}
	return strings.Join(parts, ", ")
}

// ruleJSON is a rule in the output of lint --rules --json.
type ruleJSON struct {
	ID       string        `json:"rule"`
	Severity lint.Severity `json:"severity"`
	Looks    string        `json:"looks_for"`
	Reason   string        `json:"reason"`
	Fix      string        `json:"fix"`
}

func listRules(c *cli.Context, paint colours) error {
	var all []ruleJSON
	for _, r := range lint.Rules() {
		all = append(all, ruleJSON{r.ID, r.Severity, r.Looks, r.Reason, r.Fix})
	}
	if c.Bool("json") {
		return writeJSON(c.App.Writer, all)
	}
	out := bufio.NewWriter(c.App.Writer)
	for _, r := range all {
		fmt.Fprintf(out, "%s (%s)\n    looks for %s\n    %s\n    fix: %s\n", paint.paint(bold, r.ID), paint.paint(colourOfSeverity(r.Severity), r.Severity.String()), r.Looks, r.Reason, r.Fix)
	}
	return out.Flush()
}

// reportFindings says in short what is wrong with a version that was sealed.
func reportFindings(w io.Writer, name string, findings []lint.Finding) {
	const most = 10
	serious := slices.DeleteFunc(slices.Clone(findings), func(f lint.Finding) bool { return f.Severity < lint.Warning })
	for _, f := range serious[:min(len(serious), most)] {
		fmt.Fprintf(w, "%s: %s: %s\n", f.Severity, printable(f.File), f.Reason)
	}
	if len(serious) > 0 {
		fmt.Fprintf(w, "%s has %s (rootnfsd lint %s says what to do)\n", name, summary(findings), name)
	}
}

// findings is what is wrong with a version that was just made. That it cannot be looked
// through is a warning.
func (s *openedStore) findings(ctx context.Context, info image.Info) []lint.Finding {
	findings, err := s.lint(ctx, info)
	if err != nil {
		warnUnlinted(info.Name, err)
	}
	return findings
}

// warnUnlinted says that a version could not be looked through. That is no
// reason not to seal or to promote it.
func warnUnlinted(name string, err error) {
	fmt.Fprintf(os.Stderr, "warning: %s could not be checked for what hurts nodes without a disk: %v\n", name, err)
}

// errUnbootable is the error for a version that nodes would not boot.
func errUnbootable(name string, findings []lint.Finding) error {
	var lines []string
	for _, f := range findings {
		if f.Severity == lint.Error {
			lines = append(lines, fmt.Sprintf("\n  %s: %s\n    fix: %s", printable(f.File), f.Reason, f.Fix))
		}
	}
	return fmt.Errorf("nodes would not boot %s, so nothing was changed:%s\nto promote it all the same: rootnfsd promote %s --force", name, strings.Join(lines, ""), name)
}
