package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/image"
)

func diffCommand() *cli.Command {
	return &cli.Command{
		Name:      "diff",
		Usage:     "tell what changed from one version to another",
		ArgsUsage: "VERSION VERSION",
		Description: `Lists what the second version has that the first has not (+), the other way
round (-), and what is in both and differs (~), then how many there are of these
by directory and, in a Debian tree, by package. Objects of which only the time
of the last change differs are counted, and listed with --times.

Content is told apart by its digest and not read, so this takes no time to
speak of.

Examples:
   rootnfsd diff v1 v2
   rootnfsd diff v1 v2 --summary
   rootnfsd diff v1 v2 --color always | less -R
   rootnfsd diff v1 v2 --json | jq -r '.changes[] | select(.change == "added") | .path'
   rootnfsd diff v1 v2 --exit-code >/dev/null || echo 'they differ'`,
		Flags: []cli.Flag{
			exportFlag(), configFlag(), jsonFlag(),
			&cli.BoolFlag{Name: "summary", Usage: "only count, do not list"},
			&cli.BoolFlag{Name: "times", Usage: "list what differs in its time only, too"},
			&cli.BoolFlag{Name: "exit-code", Usage: "exit with status 1 if the versions differ, 2 if something went wrong"},
			&cli.StringFlag{Name: "color", Usage: "auto, always or never: `WHEN` to use colours", Value: "auto"},
		},
		Action: func(c *cli.Context) error {
			differ, err := diff(c)
			switch {
			case !c.Bool("exit-code"):
				return err
			case err != nil:
				return statusError{err, 2}
			case differ:
				return statusError{nil, 1}
			}
			return nil
		},
	}
}

// diff prints how two versions differ, and reports whether they do.
func diff(c *cli.Context) (differ bool, err error) {
	if c.NArg() != 2 {
		return false, usageError(c, "want two versions, got %d arguments", c.NArg())
	}
	paint, err := coloursFor(c.String("color"))
	if err != nil {
		return false, err
	}
	s, err := openOneStore(c)
	if err != nil {
		return false, err
	}
	before, err := s.version(c.Args().Get(0))
	if err != nil {
		return false, err
	}
	after, err := s.version(c.Args().Get(1))
	if err != nil {
		return false, err
	}
	out := bufio.NewWriterSize(c.App.Writer, 64<<10)
	p := diffPrinter{out: out, colours: paint, times: c.Bool("times"), silent: c.Bool("summary")}
	t := newTally(before, after)
	show := p.text
	if c.Bool("json") {
		p.begin()
		show = p.json
	}
	err = image.Diff(before, after, func(change *image.Change) error {
		t.add(change)
		return show(change)
	})
	if err != nil {
		return false, fmt.Errorf("%s and %s cannot be compared: %w (rootnfsd verify says what is damaged)", before.Info().Name, after.Info().Name, err)
	}
	sum := t.summary()
	if sum.Packages, err = t.packages(); err != nil {
		// dpkg's files in a tree may be anything. That is no reason to tell less of all else.
		fmt.Fprintf(c.App.ErrWriter, "warning: %s\n", printable(err.Error()))
		sum.Packages, err = []packageJSON{}, nil
	}
	if c.Bool("json") {
		err = p.end(sum)
	} else {
		p.summary(sum)
	}
	return t.differ, errors.Join(err, out.Flush())
}

// version opens a version for its content to be looked at.
func (s *openedStore) version(name string) (*image.Version, error) {
	info, err := s.info(name)
	if err != nil {
		return nil, err
	}
	v, err := s.OpenDigest(info.Name, info.Digest)
	return v, explainPermission(err)
}

// diffPrinter writes changes as they are found: there may be very many.
type diffPrinter struct {
	out     *bufio.Writer
	colours colours
	times   bool // list those of times only
	silent  bool // list none
	listed  int
}

// lists reports whether a change is to be listed.
func (p *diffPrinter) lists(c *image.Change) bool {
	return !p.silent && (p.times || c.What != image.ChangedTimes)
}

// text writes a line.
func (p *diffPrinter) text(c *image.Change) error {
	if !p.lists(c) {
		return nil
	}
	p.listed++
	what := ""
	switch {
	case c.Before == nil:
		what = named(c.After)
	case c.After == nil:
		what = named(c.Before)
	default:
		what = "  " + strings.Join(p.details(c), ", ")
	}
	_, err := fmt.Fprintf(p.out, "%s%s\n", p.colours.paint(colourOf(c), signOf(c)+" "+printable(c.Path)), what)
	return err
}

func signOf(c *image.Change) string {
	switch {
	case c.Before == nil:
		return "+"
	case c.After == nil:
		return "-"
	}
	return "~"
}

func colourOf(c *image.Change) string {
	switch {
	case c.Before == nil:
		return green
	case c.After == nil:
		return red
	}
	return yellow
}

// named is what goes behind the path of an object, as ls -F has it.
func named(o *image.Object) string {
	switch o.Kind {
	case fs.Directory:
		return "/"
	case fs.Symlink:
		return " -> " + printable(o.Target)
	}
	return ""
}

// details says how an object differs.
func (p *diffPrinter) details(c *image.Change) []string {
	b, a := c.Before, c.After
	var all []string
	add := func(aspect image.Aspects, format string, args ...any) {
		if c.What&aspect != 0 {
			all = append(all, fmt.Sprintf(format, args...))
		}
	}
	add(image.ChangedType, "%v -> %v", b.Kind, a.Kind)
	if b.Size == a.Size {
		add(image.ChangedContent, "content")
	} else {
		add(image.ChangedContent, "content (%s -> %s)", size(b.Size), size(a.Size))
	}
	add(image.ChangedMode, "mode %s -> %s", octal(b.Mode), octal(a.Mode))
	add(image.ChangedOwner, "owner %d:%d -> %d:%d", b.UID, b.GID, a.UID, a.GID)
	add(image.ChangedXattrs, "xattrs %s", strings.Join(xattrChanges(b, a), " "))
	add(image.ChangedTarget, "-> %s (before: %s)", printable(a.Target), printable(b.Target))
	add(image.ChangedDevice, "device %s -> %s", device(b), device(a))
	if b.Nlink == a.Nlink {
		add(image.ChangedLinks, "hard link of others")
	} else {
		add(image.ChangedLinks, "links %d -> %d", b.Nlink, a.Nlink)
	}
	if p.times {
		add(image.ChangedTimes, "time %s -> %s", instant(b.Mtime), instant(a.Mtime))
	}
	return all
}

// xattrChanges lists the attributes that differ.
func xattrChanges(b, a *image.Object) []string {
	was, is := xattrMap(b.Xattrs), xattrMap(a.Xattrs)
	var all []string
	for _, x := range b.Xattrs {
		if value, ok := is[x.Name]; !ok {
			all = append(all, "-"+printable(x.Name))
		} else if string(value) != string(x.Value) {
			all = append(all, "~"+printable(x.Name))
		}
	}
	for _, x := range a.Xattrs {
		if _, ok := was[x.Name]; !ok {
			all = append(all, "+"+printable(x.Name))
		}
	}
	return all
}

// summary writes what there is of changes in all.
func (p *diffPrinter) summary(s *diffJSON) {
	if p.listed > 0 {
		fmt.Fprintln(p.out)
	}
	if len(s.Directories) > 0 {
		fmt.Fprintln(p.out, p.colours.paint(bold, "by directory"))
		rows := make([][]string, len(s.Directories))
		for i, d := range s.Directories {
			rows[i] = []string{"  " + printable(d.Path), d.counts.String()}
		}
		_ = table(p.out, rows) // an error shows when the buffer is flushed
		fmt.Fprintln(p.out)
	}
	if len(s.Packages) > 0 {
		fmt.Fprintln(p.out, p.colours.paint(bold, "by package"))
		rows := make([][]string, len(s.Packages))
		for i, k := range s.Packages {
			rows[i] = []string{"  " + printable(k.String()), k.counts.String()}
		}
		_ = table(p.out, rows)
		fmt.Fprintln(p.out)
	}
	total := s.counts.String()
	if total == "" {
		total = "no difference"
	}
	fmt.Fprintf(p.out, "%s -> %s: %s", s.Before.Name, s.After.Name, total)
	if s.TimesOnly > 0 {
		fmt.Fprintf(p.out, "; %d more in the time of the last change only", s.TimesOnly)
		if !p.times {
			fmt.Fprint(p.out, " (--times lists them)")
		}
	}
	fmt.Fprintln(p.out)
}

// changeJSON is a change in the output of --json.
type changeJSON struct {
	pathJSON
	Change string      `json:"change"`         // added, removed or changed
	What   []string    `json:"what,omitempty"` // of type, content, mode, owner, xattrs, target, device, links, times
	Before *objectJSON `json:"before,omitempty"`
	After  *objectJSON `json:"after,omitempty"`
}

// begin, json and end write one JSON object, whose list of changes is not held
// in memory.
func (p *diffPrinter) begin() { io.WriteString(p.out, "{\n  \"changes\": [") }

func (p *diffPrinter) json(c *image.Change) error {
	if !p.lists(c) {
		return nil
	}
	separator := ",\n    "
	if p.listed++; p.listed == 1 {
		separator = "\n    "
	}
	j := changeJSON{pathJSON: pathOf(c.Path), Change: "changed", What: c.What.Names(), Before: objectOf(c.Before), After: objectOf(c.After)}
	switch {
	case c.Before == nil:
		j.Change = "added"
	case c.After == nil:
		j.Change = "removed"
	}
	return p.member(separator, j)
}

func (p *diffPrinter) end(s *diffJSON) error {
	if err := p.member("\n  ],\n  \"summary\": ", s); err != nil {
		return err
	}
	_, err := io.WriteString(p.out, "\n}\n")
	return err
}
