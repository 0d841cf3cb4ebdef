package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/go-git/go-billy/v5"
	"github.com/urfave/cli/v2"

	"github.com/rootnfsd/rootnfsd/fs/lint"
)

// fixFlags are the flags of the commands that put trees right.
func fixFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "fix", Usage: "put right what lint finds and needs no judgement"},
		&cli.StringFlag{Name: "caps", Usage: "warn, setuid or restore: `WHAT` --fix does about file capabilities", Value: string(lint.CapsWarn)},
		&cli.StringFlag{Name: "node-files", Usage: "put in the node files for a `SYSTEM`, as rootnfsd node-files has them"},
		&cli.StringFlag{Name: "home", Usage: "with --node-files: nodes mount `SERVER:/PATH` at /home"},
	}
}

// fixer returns a tree put right, and what was changed for that.
type fixer func(context.Context, billy.Filesystem) (billy.Filesystem, []lint.Change, error)

// fixerOf is the one that the flags ask for, nil for none. It shows what it changes,
// unless the output is JSON.
func fixerOf(c *cli.Context) (fixer, error) {
	caps, err := lint.ParseCaps(c.String("caps"))
	if err != nil {
		return nil, usageError(c, "--caps: %v", err)
	}
	if !c.Bool("fix") && c.IsSet("caps") {
		return nil, usageError(c, "--caps is for --fix")
	}
	// Node files first, so that there is less to fix.
	add, err := nodeFilesFixer(c)
	if err != nil {
		return nil, err
	}
	var steps []fixer
	if add != nil {
		steps = append(steps, add)
	}
	if c.Bool("fix") {
		steps = append(steps, func(ctx context.Context, tree billy.Filesystem) (billy.Filesystem, []lint.Change, error) {
			fixed, changes, err := lint.Fix(ctx, tree, caps)
			return fixed, changes, explainPermission(err)
		})
	}
	if len(steps) == 0 {
		return nil, nil
	}
	return func(ctx context.Context, tree billy.Filesystem) (billy.Filesystem, []lint.Change, error) {
		var all []lint.Change
		for _, step := range steps {
			fixed, changes, err := step(ctx, tree)
			if err != nil {
				return nil, nil, err
			}
			tree, all = fixed, append(all, changes...)
		}
		if !c.Bool("json") {
			paint, err := coloursFor("auto")
			if err = errors.Join(err, printChanges(c.App.Writer, all, paint)); err != nil {
				return nil, nil, err
			}
		}
		return tree, all, nil
	}, nil
}

// printChanges writes what was fixed in a tree, as a unified diff.
func printChanges(w io.Writer, changes []lint.Change, paint colours) error {
	out := bufio.NewWriter(w)
	for _, c := range changes {
		fmt.Fprintf(out, "%s\n", paint.paint(bold, fmt.Sprintf("fixed %s: %s [%s]", printable(c.File), c.What, c.Rule)))
		if c.Before == "" && c.After == "" {
			continue
		}
		before, after := "a"+c.File, "b"+c.File
		if c.Before == "" {
			before = "/dev/null"
		}
		fmt.Fprintf(out, "--- %s\n+++ %s\n", printable(before), printable(after))
		for _, h := range hunksOf(textLines(c.Before), textLines(c.After)) {
			fmt.Fprintln(out, h.head())
			for _, l := range h.lines {
				colour := map[byte]string{'-': red, '+': green}[l.sign]
				line := string(l.sign) + printableLine(strings.TrimSuffix(l.text, "\n"))
				if colour != "" {
					line = paint.paint(colour, line)
				}
				fmt.Fprintln(out, line)
			}
		}
	}
	return out.Flush()
}

// printableLine is printable for text, in which there may be tabs.
func printableLine(line string) string {
	if blanks := strings.ReplaceAll(line, "\t", " "); printable(blanks) == blanks {
		return line
	}
	return printable(line)
}

func textLines(s string) []string {
	var all []string
	for line := range strings.Lines(s) {
		all = append(all, line)
	}
	return all
}

// hunk is a part of a unified diff.
type hunk struct {
	before, after int // the lines that it begins with, from 0
	lines         []diffLine
}

type diffLine struct {
	sign byte // ' ', '-' or '+'
	text string
}

// head is the line in front of a hunk. Of an empty side, diff(1) has the line
// before it.
func (h *hunk) head() string {
	side := func(first int, other byte) string {
		n := 0
		for _, l := range h.lines {
			if l.sign != other {
				n++
			}
		}
		if n > 0 {
			first++
		}
		return fmt.Sprintf("%d,%d", first, n)
	}
	return fmt.Sprintf("@@ -%s +%s @@", side(h.before, '+'), side(h.after, '-'))
}

// hunksOf compares two texts.
func hunksOf(before, after []string) []hunk {
	const context = 3
	var all []hunk
	var h *hunk
	i, j, same := 0, 0, 0 // same: lines since the last that differs
	for _, l := range diffLines(before, after) {
		if l.sign == ' ' {
			if same++; h != nil && same <= 2*context {
				h.lines = append(h.lines, l)
			}
			i, j = i+1, j+1
			continue
		}
		if h != nil && same > 2*context {
			h.lines = h.lines[:len(h.lines)-context]
			h = nil
		}
		if h == nil {
			n := min(same, context)
			all = append(all, hunk{before: i - n, after: j - n})
			h = &all[len(all)-1]
			for _, text := range before[i-n : i] {
				h.lines = append(h.lines, diffLine{' ', text})
			}
		}
		h.lines = append(h.lines, l)
		if same = 0; l.sign == '-' {
			i++
		} else {
			j++
		}
	}
	if h != nil && same > context {
		h.lines = h.lines[:len(h.lines)-min(same, 2*context)+context]
	}
	return all
}

// diffLines lists the lines of both texts with what became of them, by their
// longest common subsequence, or, of very long ones, by what both begin and end with.
func diffLines(before, after []string) []diffLine {
	const most = 1 << 20
	var head, tail []diffLine
	for len(before) > 0 && len(after) > 0 && before[0] == after[0] {
		head = append(head, diffLine{' ', before[0]})
		before, after = before[1:], after[1:]
	}
	for len(before) > 0 && len(after) > 0 && before[len(before)-1] == after[len(after)-1] {
		tail = append(tail, diffLine{' ', before[len(before)-1]})
		before, after = before[:len(before)-1], after[:len(after)-1]
	}
	common := func(i, j int) int { return 0 }
	if n, m := len(before)+1, len(after)+1; int64(n)*int64(m) <= most {
		lengths := make([]int, n*m) // of what both have in common from line i and j on
		common = func(i, j int) int { return lengths[i*m+j] }
		for i := len(before) - 1; i >= 0; i-- {
			for j := len(after) - 1; j >= 0; j-- {
				if before[i] == after[j] {
					lengths[i*m+j] = common(i+1, j+1) + 1
				} else {
					lengths[i*m+j] = max(common(i+1, j), common(i, j+1))
				}
			}
		}
	}
	i, j := 0, 0
	for i < len(before) || j < len(after) {
		switch {
		case i < len(before) && j < len(after) && before[i] == after[j]:
			head = append(head, diffLine{' ', before[i]})
			i, j = i+1, j+1
		case i < len(before) && (j == len(after) || common(i+1, j) >= common(i, j+1)):
			head = append(head, diffLine{'-', before[i]})
			i++
		default:
			head = append(head, diffLine{'+', after[j]})
			j++
		}
	}
	slices.Reverse(tail)
	return append(head, tail...)
}
