package main

import (
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/image"
)

func lsCommand() *cli.Command {
	return &cli.Command{
		Name:      "ls",
		Usage:     "list what is in a version",
		ArgsUsage: "VERSION:PATH...",
		Description: `Lists directories of versions as ls(1) does. Users and groups have the names that
the version's own /etc/passwd and /etc/group give them.

Examples:
   rootnfsd ls v2:/etc
   rootnfsd ls -la v2:/root
   rootnfsd ls -ld v2:/tmp
   rootnfsd ls v2:/usr/bin --json | jq -r '.[] | select(.mode | test("^[4-7]")) | .path'`,
		Flags: []cli.Flag{
			exportFlag(), configFlag(), jsonFlag(),
			&cli.BoolFlag{Name: "l", Usage: "list type, mode, links, owner, group, size and time"},
			&cli.BoolFlag{Name: "a", Usage: "list names that begin with a dot, too"},
			&cli.BoolFlag{Name: "d", Usage: "list directories themselves, not what is in them"},
			&cli.BoolFlag{Name: "n", Usage: "like -l, with numbers for users and groups"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() == 0 {
				return usageError(c, "want VERSION:PATH")
			}
			s, err := openOneStore(c)
			if err != nil {
				return err
			}
			l := lister{
				out: c.App.Writer, long: c.Bool("l") || c.Bool("n"), numbers: c.Bool("n"), all: c.Bool("a"),
				quote: term.IsTerminal(int(os.Stdout.Fd())), names: map[*image.Version]names{},
			}
			var json []listedJSON
			for i, arg := range c.Args().Slice() {
				found, inside, err := s.list(arg, c.Bool("d"), l.long)
				if err != nil {
					return err
				}
				found = l.shown(found, inside)
				if c.Bool("json") {
					json = append(json, listedOf(found)...)
					continue
				}
				if inside && c.NArg() > 1 {
					l.head(arg, i > 0)
				}
				if err := l.list(found, inside); err != nil {
					return err
				}
			}
			if c.Bool("json") {
				return writeJSON(c.App.Writer, append([]listedJSON{}, json...))
			}
			return nil
		},
	}
}

// list returns what an argument of ls names: what is in a directory, or else the
// object itself. As with ls(1) a symlink is followed unless the listing is long.
func (s *openedStore) list(arg string, itself, long bool) (found []*inVersion, inside bool, err error) {
	f, err := s.find(arg, !long && !itself)
	if err != nil {
		return nil, false, err
	}
	if itself || f.object.Kind != fs.Directory {
		return []*inVersion{f}, false, nil
	}
	found, err = f.contents()
	return found, true, err
}

// listedJSON is an object in the output of ls --json.
type listedJSON struct {
	Version string `json:"version"`
	pathJSON
	*objectJSON
}

func listedOf(found []*inVersion) []listedJSON {
	var all []listedJSON
	for _, f := range found {
		all = append(all, listedJSON{f.Info().Name, pathOf(f.path), objectOf(f.object)})
	}
	return all
}

// lister writes lists of objects.
type lister struct {
	out     io.Writer
	long    bool
	numbers bool
	all     bool
	quote   bool // what a terminal should not get
	names   map[*image.Version]names
}

// shown leaves out the names that begin with a dot, if these are names in a
// directory and nobody asked for them.
func (l *lister) shown(found []*inVersion, inside bool) []*inVersion {
	if !inside || l.all {
		return found
	}
	var shown []*inVersion
	for _, f := range found {
		if !strings.HasPrefix(path.Base(f.path), ".") {
			shown = append(shown, f)
		}
	}
	return shown
}

// head says which of several directories is listed.
func (l *lister) head(arg string, more bool) {
	if more {
		fmt.Fprintln(l.out)
	}
	fmt.Fprintf(l.out, "%s:\n", arg)
}

func (l *lister) list(found []*inVersion, inside bool) error {
	rows := make([][]string, len(found))
	var widths []int
	for i, f := range found {
		if l.long {
			rows[i] = l.columns(f)
			widths = widen(widths, rows[i])
		}
	}
	for i, f := range found {
		name := f.path
		if inside {
			name = path.Base(name)
		}
		if l.quote {
			name = printable(name)
		}
		for k, cell := range rows[i] {
			if k == ownerColumn || k == groupColumn {
				fmt.Fprintf(l.out, "%-*s ", widths[k], cell)
			} else {
				fmt.Fprintf(l.out, "%*s ", widths[k], cell)
			}
		}
		if l.long {
			name += l.target(f.object)
		}
		if _, err := fmt.Fprintln(l.out, name); err != nil {
			return err
		}
	}
	return nil
}

// widen makes columns wide enough for a row.
func widen(widths []int, row []string) []int {
	if widths == nil {
		widths = make([]int, len(row))
	}
	for i, cell := range row {
		widths[i] = max(widths[i], utf8.RuneCountInString(cell))
	}
	return widths
}

// The columns of names, which begin at the left. The others are numbers, or all
// of one length.
const ownerColumn, groupColumn = 2, 3

// columns are what ls -l has in front of a name.
func (l *lister) columns(f *inVersion) []string {
	o := f.object
	user, group := strconv.FormatUint(uint64(o.UID), 10), strconv.FormatUint(uint64(o.GID), 10)
	if !l.numbers {
		n, ok := l.names[f.Version]
		if !ok {
			n = readNames(f.files)
			l.names[f.Version] = n
		}
		user, group = nameOf(n.users, o.UID), nameOf(n.groups, o.GID)
	}
	length := strconv.FormatUint(o.Size, 10)
	if o.Kind == fs.CharDevice || o.Kind == fs.BlockDevice {
		length = fmt.Sprintf("%d, %d", o.Major, o.Minor)
	}
	return []string{modeString(o), strconv.FormatUint(uint64(o.Nlink), 10), user, group, length, listTime(o.Mtime)}
}

func (l *lister) target(o *image.Object) string {
	switch {
	case o.Kind != fs.Symlink:
		return ""
	case l.quote:
		return " -> " + printable(o.Target)
	}
	return " -> " + o.Target
}

// listTime writes a time as ls -l does: the hour of what is recent, the year of
// the rest.
func listTime(t fs.Time) string {
	const halfYear = 365 * 24 * time.Hour / 2
	at := time.Unix(t.Sec, int64(t.Nsec))
	if ago := time.Since(at); ago < 0 || ago > halfYear {
		return at.Format("Jan _2  2006")
	}
	return at.Format("Jan _2 15:04")
}

// modeString is the type and the mode of an object as ls -l has them.
func modeString(o *image.Object) string {
	const kinds, bits = "?-dbclsp", "rwxrwxrwx" // kinds in the order of fs.Kind
	s := []byte("?" + bits)
	if int(o.Kind) < len(kinds) {
		s[0] = kinds[o.Kind]
	}
	for i := range len(bits) {
		if o.Mode&(1<<(len(bits)-1-i)) == 0 {
			s[1+i] = '-'
		}
	}
	for _, special := range []struct {
		bit        uint32
		at         int
		with, none byte // with the right to execute, and without
	}{{0o4000, 3, 's', 'S'}, {0o2000, 6, 's', 'S'}, {0o1000, 9, 't', 'T'}} {
		switch {
		case o.Mode&special.bit == 0:
		case s[special.at] == 'x':
			s[special.at] = special.with
		default:
			s[special.at] = special.none
		}
	}
	return string(s)
}
