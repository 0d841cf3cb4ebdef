package lint

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/go-git/go-billy/v5"
)

// Severity says how bad a finding is.
type Severity int

const (
	// Info is something to know.
	Info Severity = iota + 1
	// Warning is something that will hurt, though nodes boot.
	Warning
	// Error is something that keeps nodes from booting.
	Error
)

var severityNames = map[Severity]string{Info: "info", Warning: "warning", Error: "error"}

func (s Severity) String() string { return severityNames[s] }

// MarshalText writes the severity's name.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (s *Severity) UnmarshalText(text []byte) error {
	for severity, name := range severityNames {
		if name == string(text) {
			*s = severity
			return nil
		}
	}
	return fmt.Errorf("there is no severity %q", text)
}

// Rule is one thing that is looked for.
type Rule struct {
	ID       string   // in kebab-case; it stays what it is
	Severity Severity // of the worst that it finds
	Looks    string   // what it looks for
	Reason   string   // what happens on a node without a disk
	Fix      string   // what to do in general
	check    func(*checker) error
}

// Finding is something that a rule found. Commands in Fix are meant to be run
// as root in the directory that the tree is in.
type Finding struct {
	Rule     string   `json:"rule"`
	Severity Severity `json:"severity"`
	File     string   `json:"file"`
	Files    []string `json:"files,omitempty"` // all of them, where there are several
	Reason   string   `json:"reason"`
	Fix      string   `json:"fix"`
}

// Rules returns all rules, in the order in which they are described.
func Rules() []Rule {
	return slices.Concat(systemRules(), bootRules(), diskRules(), identityRules(), networkRules(), serviceRules(), overlayRules())
}

// checker is one look at a tree.
type checker struct {
	tree
	rule     *Rule
	findings []Finding
	units    map[string]string // what each enabled unit is enabled by
	kernels  []*kernel
	looked   bool // for kernels
}

// Check returns what is wrong with a tree, the worst first. An error means that
// the tree could not be read.
func Check(ctx context.Context, root billy.Filesystem) ([]Finding, error) {
	c := newChecker(ctx, root)
	for _, r := range Rules() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		c.rule = &r
		if err := r.check(c); err != nil {
			return nil, fmt.Errorf("%s: %w", r.ID, err)
		}
	}
	slices.SortStableFunc(c.findings, func(a, b Finding) int { return int(b.Severity - a.Severity) })
	return c.findings, nil
}

func newChecker(ctx context.Context, root billy.Filesystem) *checker {
	return &checker{tree: tree{fs: root, ctx: ctx, dirs: map[string]string{}}}
}

// found reports a finding of the rule that is being checked.
func (c *checker) found(s Severity, file, reason, fix string) {
	c.add(Finding{Severity: s, File: file, Reason: reason, Fix: fix})
}

// foundAll reports one finding about several files.
func (c *checker) foundAll(s Severity, files []string, reason, fix string) {
	switch len(files) {
	case 0:
	case 1:
		c.found(s, files[0], reason, fix)
	default:
		c.add(Finding{Severity: s, File: files[0], Files: files, Reason: reason, Fix: fix})
	}
}

// maxFindings is how many findings of a rule and a severity are told: a file may
// have any number of lines that a rule minds.
const maxFindings = 100

func (c *checker) add(f Finding) {
	f.Rule = c.rule.ID
	same := 0
	for _, other := range c.findings {
		if other.Rule == f.Rule && other.Severity == f.Severity {
			same++
		}
	}
	switch {
	case same < maxFindings:
		c.findings = append(c.findings, f)
	case same == maxFindings:
		f.Reason = "there is more like this than is told"
		c.findings = append(c.findings, f)
	}
}

// each calls f for each of some names until there is an error.
func each(names []string, f func(string) error) error {
	for _, name := range names {
		if err := f(name); err != nil {
			return err
		}
	}
	return nil
}

// quoted writes text of the tree so that it is one line and has an end.
func quoted(s string) string {
	const most = 120
	if len(s) > most {
		s = s[:most] + "…"
	}
	return fmt.Sprintf("%q", s)
}

// some lists names of the tree for people, the first few of many.
func some(names []string) string {
	const few = 5
	var shown []string
	for _, name := range names[:min(few, len(names))] {
		shown = append(shown, printable(name))
	}
	if len(names) <= few {
		return strings.Join(shown, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(shown, ", "), len(names)-few)
}
