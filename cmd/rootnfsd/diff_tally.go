package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/dpkg"
	"github.com/rootnfsd/rootnfsd/fs/image"
)

// diffJSON is the summary of a diff, and what --json prints of it.
type diffJSON struct {
	Before versionJSON `json:"before"`
	After  versionJSON `json:"after"`
	counts
	TimesOnly   uint64          `json:"times_only"`
	Directories []directoryJSON `json:"directories"`
	Packages    []packageJSON   `json:"packages"`
}

// counts are numbers of changes, those of times only left out.
type counts struct {
	Added   uint64 `json:"added"`
	Removed uint64 `json:"removed"`
	Changed uint64 `json:"changed"`
}

func (n *counts) add(c *image.Change) {
	switch {
	case c.Before == nil:
		n.Added++
	case c.After == nil:
		n.Removed++
	default:
		n.Changed++
	}
}

func (n counts) String() string {
	var all []string
	for _, k := range []struct {
		n    uint64
		what string
	}{{n.Added, "added"}, {n.Removed, "removed"}, {n.Changed, "changed"}} {
		if k.n > 0 {
			all = append(all, fmt.Sprintf("%d %s", k.n, k.what))
		}
	}
	return strings.Join(all, ", ")
}

// directoryJSON counts what changed below a directory.
type directoryJSON struct {
	pathJSON
	counts
}

// packageJSON counts the files of a package that changed, directories left out.
type packageJSON struct {
	Name   string `json:"package"` // empty for what is of no package
	Arch   string `json:"arch,omitempty"`
	Before string `json:"before,omitempty"` // its version; empty if it was not installed
	After  string `json:"after,omitempty"`
	counts
}

func (p packageJSON) String() string {
	switch {
	case p.Name == "":
		return "of no package"
	case p.Before == "":
		return fmt.Sprintf("+ %s %s", p.Name, p.After)
	case p.After == "":
		return fmt.Sprintf("- %s %s", p.Name, p.Before)
	case p.Before == p.After:
		return fmt.Sprintf("~ %s %s", p.Name, p.After)
	}
	return fmt.Sprintf("~ %s %s -> %s", p.Name, p.Before, p.After)
}

// tally counts changes.
type tally struct {
	before, after *image.Version
	differ        bool
	all           counts
	timesOnly     uint64
	byDirectory   map[string]*counts
	byPath        map[string]counts // of what is no directory, for the packages
}

func newTally(before, after *image.Version) *tally {
	return &tally{before: before, after: after, byDirectory: map[string]*counts{}, byPath: map[string]counts{}}
}

func (t *tally) add(c *image.Change) {
	t.differ = true
	if c.What == image.ChangedTimes {
		t.timesOnly++
		return
	}
	t.all.add(c)
	dir := summaryDir(c.Path)
	if t.byDirectory[dir] == nil {
		t.byDirectory[dir] = new(counts)
	}
	t.byDirectory[dir].add(c)
	if isDirectory(c.Before) || isDirectory(c.After) {
		return
	}
	var n counts
	n.add(c)
	t.byPath[c.Path] = n
}

func isDirectory(o *image.Object) bool { return o != nil && o.Kind == fs.Directory }

// summaryDir is the directory that a path is counted under: the one that it is
// in, or that above it which has at most two names, such as /usr/lib.
func summaryDir(path string) string {
	end := 0
	for range 2 {
		next := strings.IndexByte(path[end+1:], '/')
		if next < 0 {
			break
		}
		end += 1 + next
	}
	if end == 0 {
		return "/"
	}
	return path[:end]
}

// summary adds up what was counted, but for the packages.
func (t *tally) summary() *diffJSON {
	s := &diffJSON{
		Before: versionOf(t.before.Info()), After: versionOf(t.after.Info()),
		counts: t.all, TimesOnly: t.timesOnly, Directories: []directoryJSON{},
	}
	for dir, n := range t.byDirectory {
		s.Directories = append(s.Directories, directoryJSON{pathOf(dir), *n})
	}
	slices.SortFunc(s.Directories, func(a, b directoryJSON) int { return cmp.Compare(a.Path, b.Path) })
	return s
}

// packages tells which packages changed, in their version or in their files.
func (t *tally) packages() ([]packageJSON, error) {
	before, err := readPackages(t.before)
	if err != nil {
		return nil, err
	}
	after, err := readPackages(t.after)
	if err != nil {
		return nil, err
	}
	changed := map[dpkg.Key]*packageJSON{}
	of := func(k dpkg.Key) *packageJSON {
		if changed[k] == nil {
			changed[k] = &packageJSON{Name: k.Name, Arch: k.Arch}
		}
		return changed[k]
	}
	for _, p := range before.Packages() {
		of(p.Key()).Before = p.Version
	}
	for _, p := range after.Packages() {
		of(p.Key()).After = p.Version
	}
	list := []packageJSON{}
	if len(changed) == 0 {
		return list, nil // no tree of Debian's
	}
	if err := t.countOwners(before, after, of); err != nil {
		return nil, err
	}
	for _, p := range changed {
		if p.Before != p.After || p.counts != (counts{}) {
			list = append(list, *p)
		}
	}
	slices.SortFunc(list, func(a, b packageJSON) int {
		// What is of no package comes last.
		return cmp.Or(-cmp.Compare(min(1, len(a.Name)), min(1, len(b.Name))), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Arch, b.Arch))
	})
	return list, nil
}

func readPackages(v *image.Version) (*dpkg.Database, error) {
	db, err := dpkg.Open(v.Filesystem())
	if err != nil {
		return nil, fmt.Errorf("the packages of %s cannot be told: %w", v.Info().Name, err)
	}
	return db, nil
}

// countOwners adds the changes to the packages that they are of: as it is now,
// or as it was for what is gone.
func (t *tally) countOwners(before, after *dpkg.Database, of func(dpkg.Key) *packageJSON) error {
	paths := make(map[string]bool, len(t.byPath))
	for path := range t.byPath {
		paths[path] = true
	}
	now, err := after.Owners(paths)
	if err != nil {
		return fmt.Errorf("the packages of %s cannot be told: %w", t.after.Info().Name, err)
	}
	for path := range now {
		delete(paths, path)
	}
	was, err := before.Owners(paths)
	if err != nil {
		return fmt.Errorf("the packages of %s cannot be told: %w", t.before.Info().Name, err)
	}
	for path, n := range t.byPath {
		owner, ok := now[path]
		if !ok {
			owner = was[path] // or of none
		}
		p := of(owner)
		p.Added += n.Added
		p.Removed += n.Removed
		p.Changed += n.Changed
	}
	return nil
}

// member writes JSON behind a separator, in one line.
func (p *diffPrinter) member(separator string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if _, err := p.out.WriteString(separator); err != nil {
		return err
	}
	_, err = p.out.Write(b)
	return err
}
