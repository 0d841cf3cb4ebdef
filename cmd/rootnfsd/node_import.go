package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/rootnfsd/rootnfsd/exports"
)

// nodeColumns are what a file of nodes can say of each.
var nodeColumns = []string{"name", "address", "mac", "serial", "labels", "hostname", "cmdline", "pin"}

func nodeImportCommand() *cli.Command {
	return &cli.Command{
		Name:      "import",
		Usage:     "name many nodes, from a CSV file",
		ArgsUsage: "FILE",
		Description: `The first line names the columns, in any order: name, which must be there, and any
of address, mac, serial, labels, hostname, cmdline, pin. Several addresses or labels in a field are
separated by spaces. What is in the file replaces what was known; columns that it
lacks, and nodes, stay as they were. All of it is taken, or nothing. FILE may be -, standard input.

Examples:
   rootnfsd node import nodes.csv
   rootnfsd node import nodes.csv --dry-run
   printf 'name,address,labels\npi-07,192.168.1.57,canary rack1\n' | rootnfsd node import -`,
		Flags: []cli.Flag{
			exportFlag(), configFlag(), jsonFlag(),
			&cli.BoolFlag{Name: "dry-run", Usage: "only say what would be done"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return usageError(c, "want a file, got %d arguments", c.NArg())
			}
			s, err := openOneStore(c)
			if err != nil {
				return err
			}
			rows, err := readNodes(c.Args().First())
			if err != nil {
				return err
			}
			return s.importNodes(c, rows)
		},
	}
}

// nodeRow is what one line of a file says.
type nodeRow struct {
	file   string
	line   int
	fields map[string]string
}

// fail is an error about the line.
func (r *nodeRow) fail(err error) error { return fmt.Errorf("%s, line %d: %w", r.file, r.line, err) }

// mostCSV bounds a file of nodes, in bytes.
const mostCSV = 64 << 20

// readNodes reads a file of nodes.
func readNodes(name string) ([]nodeRow, error) {
	var from io.Reader = os.Stdin
	if name == "-" {
		name = "standard input"
	} else {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		from = f
	}
	return parseNodes(name, io.LimitReader(from, mostCSV))
}

func parseNodes(name string, from io.Reader) ([]nodeRow, error) {
	r := csv.NewReader(from)
	r.TrimLeadingSpace = true
	r.Comment = '#'
	header, err := r.Read()
	if errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s is empty: its first line names the columns, such as name,address,labels", name)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err) // which names the line
	}
	header[0] = strings.TrimPrefix(header[0], "\ufeff") // as spreadsheets write it
	for i, column := range header {
		header[i] = strings.ToLower(strings.TrimSpace(column))
		switch {
		case !slices.Contains(nodeColumns, header[i]):
			return nil, fmt.Errorf("%s, line 1: there is no column %q; the first line names the columns, of which there are %s", name, column, strings.Join(nodeColumns, ", "))
		case slices.Contains(header[:i], header[i]):
			return nil, fmt.Errorf("%s, line 1: the column %s is there twice", name, header[i])
		}
	}
	if !slices.Contains(header, "name") {
		return nil, fmt.Errorf("%s, line 1: there is no column name", name)
	}
	var rows []nodeRow
	lines := map[string]int{}
	for {
		record, err := r.Read()
		if errors.Is(err, io.EOF) {
			return rows, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		row := nodeRow{file: name, fields: map[string]string{}}
		row.line, _ = r.FieldPos(0)
		for i, field := range record {
			row.fields[header[i]] = strings.TrimSpace(field)
		}
		key := row.fields["name"]
		if before := lines[key]; before != 0 {
			return nil, row.fail(fmt.Errorf("the node %s is in line %d already", key, before))
		}
		lines[key] = row.line
		rows = append(rows, row)
	}
}

// apply changes an entry to what the line says.
func (r *nodeRow) apply(e *exports.Entry, version func(string) (*exports.Ref, error)) (err error) {
	for column, value := range r.fields {
		switch column {
		case "mac":
			e.MAC = value
		case "serial":
			e.Serial = value
		case "hostname":
			e.Hostname = value
		case "cmdline":
			e.Cmdline = value
		case "labels":
			e.Labels = strings.Fields(value)
		case "address":
			e.Addresses = nil
			for text := range strings.FieldsSeq(value) {
				a, err := netip.ParseAddr(text)
				if err != nil {
					return fmt.Errorf("%q is no address", text)
				}
				e.Addresses = append(e.Addresses, a)
			}
		case "pin":
			if e.Pin, err = version(value); err != nil {
				return err
			}
		}
	}
	return nil
}

// importNodes takes all lines over, or none.
func (s *openedStore) importNodes(c *cli.Context, rows []nodeRow) error {
	version := func(name string) (*exports.Ref, error) {
		if name == "" {
			return nil, nil
		}
		info, err := s.info(name)
		if err != nil {
			return nil, err
		}
		ref := refOf(info)
		return &ref, nil
	}
	added, changed := 0, 0
	errOnlyLook := errors.New("dry run")
	err := s.state.UpdateInventory(operator(), s.holds, func(inv *exports.Inventory) error {
		for _, row := range rows {
			e := exports.Entry{Name: row.fields["name"]}
			known := inv.Named(e.Name)
			if known != nil {
				e = *known
				changed++
			} else {
				added++
			}
			if err := row.apply(&e, version); err != nil {
				return row.fail(err)
			}
			if err := e.Check(); err != nil {
				return row.fail(err)
			}
			inv.Set(e)
		}
		if err := inv.Check(); err != nil {
			return lineOf(rows, err)
		}
		if c.Bool("dry-run") {
			return errOnlyLook
		}
		return nil
	})
	if err != nil && !errors.Is(err, errOnlyLook) {
		return err
	}
	if c.Bool("json") {
		return writeJSON(c.App.Writer, map[string]any{"added": added, "changed": changed, "dry_run": c.Bool("dry-run")})
	}
	fmt.Fprintf(c.App.Writer, "%s%s added, %d changed\n", map[bool]string{true: "would be done: "}[c.Bool("dry-run")], plural(added, "node"), changed)
	return nil
}

// lineOf adds to an error about a node the line that it is in, and that of the node which it is at
// odds with, if the file has that, too.
func lineOf(rows []nodeRow, err error) error {
	var wrong *exports.EntryError
	if !errors.As(err, &wrong) {
		return err
	}
	of := func(name string) int {
		return slices.IndexFunc(rows, func(r nodeRow) bool { return r.fields["name"] == name })
	}
	if i := of(wrong.Other); i >= 0 {
		err = fmt.Errorf("%w, in line %d", err, rows[i].line)
	}
	if i := of(wrong.Name); i >= 0 {
		return rows[i].fail(err)
	}
	return err
}
