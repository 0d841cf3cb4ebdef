// Package report shows what the bench has measured: RESULTS.md with the goals
// and all figures in tables, and plots (SVG) beside it.
//
// It owns the goals, the words and the looks. It knows of measurements only
// what package bench tells: whatever has a name that it does not know is shown
// in a table all the same. The same measurements give the same bytes.
package report

import (
	"os"
	"path/filepath"

	"github.com/rootnfsd/rootnfsd/bench"
)

// A Document is what there is to be written, and how many of the goals that are
// judged by measurements were reached, were missed, and have no measurement (or
// too small a one) to judge them by.
type Document struct {
	// Files has the content of RESULTS.md and of plots/*.svg by their paths,
	// which are relative to where the document will be and have slashes.
	Files map[string][]byte

	Reached, Missed, NotMeasured int
}

// New makes the document of several reports. Where they measured the same, the
// newest counts. It keeps nothing of the reports.
func New(reports ...*bench.Report) *Document {
	m := merge(reports)
	d := &Document{Files: make(map[string][]byte)}
	goals := judge(m.results)
	n := tally(goals)
	d.Reached, d.Missed, d.NotMeasured = n[reached], n[missed], n[notMeasured]
	plots := draw(m.results)
	for _, p := range plots {
		d.Files[p.path()] = p.svg
	}
	d.Files["RESULTS.md"] = page{m, goals, plots}.markdown()
	return d
}

// Write writes the files below dir and makes the directories that they need.
// Other files there, such as plots of an earlier document, are left alone.
func (d *Document) Write(dir string) error {
	for path, content := range d.Files {
		path = filepath.Join(dir, filepath.FromSlash(path))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}
