package homes

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/rootnfsd/rootnfsd/bench/rpc"
)

// Work is something to be done.
type Work struct {
	Name string
	// Names says that it changes names or attributes, which not every server brings
	// to the disk before it answers.
	Names bool
	// Whole work runs to its end.
	Whole bool

	make func(r *run) deed
}

// deed is a Work in one run.
type deed interface {
	phases() []phase
	// check looks into the server's directory whether it was done.
	check() error
	// last are phases that remove what is large: a server that has it open would free its
	// space some time later, while something else is measured.
	last() []phase
}

// Works returns all that can be done.
func Works() []Work {
	return []Work{
		{Name: "write 1 MiB", Whole: true, make: func(r *run) deed { return newWriting(r) }},
		{Name: "read 1 MiB", make: func(r *run) deed { return newReading(r, mebi) }},
		{Name: "read 4 KiB", make: func(r *run) deed { return newReading(r, 4<<10) }},
		{Name: "write 4 KiB", make: func(r *run) deed { return newRewriting(r) }},
		{Name: "small files", Names: true, make: func(r *run) deed { return newSmallFiles(r) }},
		{Name: "untar", Names: true, Whole: true, make: func(r *run) deed { return newUntar(r) }},
	}
}

// run is a work on a target, once.
type run struct {
	target *Target
	lines  int
	seed   uint64
	size   int // of what is written and read, on all lines together
	tree   int // how many files are unpacked
	name   string
	dir    *node // a directory of its own
}

// path is where something in the directory of the run is on this machine.
func (r *run) path(name string) string { return filepath.Join(r.target.Dir, r.name, name) }

// perLine is how much of the size a line has.
func (r *run) perLine() int { return max(1, r.size/mebi/r.lines) * mebi }

// jobs gives each line jobs that are there already, a call each.
type jobs [][]call

func (j jobs) next(line int, job []call) []call {
	if len(j[line]) == 0 {
		return job
	}
	q := j[line][0]
	j[line] = j[line][1:]
	return append(job, q)
}

// single is a job of one line.
type single []call

func (s *single) next(line int, job []call) []call {
	if line > 0 {
		return job
	}
	job = append(job, *s...)
	*s = nil
	return job
}

// begin makes the directory of a run.
func (r *run) begin() phase {
	mode := uint32(0o755)
	return phase{whole: true, source: &single{{
		proc: mkdir, dir: &node{handle: r.target.root}, name: r.name, node: r.dir, attr: rpc.SetAttr{Mode: &mode},
	}}}
}

// files are one for each line.
type files struct {
	*run
	nodes []node
}

func newFiles(r *run) *files { return &files{r, make([]node, r.lines)} }

func (f *files) name(line int) string { return fmt.Sprintf("file-%d", line) }

// each is a call for each of the files.
func (f *files) each(q call) jobs {
	all := make(jobs, f.lines)
	for i := range all {
		q.node, q.dir, q.name = &f.nodes[i], f.dir, f.name(i)
		all[i] = []call{q}
	}
	return all
}

func (f *files) created() phase {
	mode := uint32(0o644)
	return phase{whole: true, source: f.each(call{proc: create, attr: rpc.SetAttr{Mode: &mode}})}
}

func (f *files) committed(timed bool) phase {
	return phase{whole: true, timed: timed, source: f.each(call{proc: commit})}
}

func (f *files) last() []phase {
	return []phase{{whole: true, source: f.each(call{proc: remove})}}
}

// filled writes the files from their beginning to their end.
func (f *files) filled(timed bool) phase {
	all := make(jobs, f.lines)
	for i := range all {
		for off := 0; off < f.perLine(); off += mebi {
			all[i] = append(all[i], call{
				proc: write, node: &f.nodes[i], off: uint64(off), data: contentAt(i, 0, uint64(off), mebi), stable: rpc.Unstable,
			})
		}
	}
	return phase{whole: true, timed: timed, source: all}
}

// writing writes a new file on each line, and commits it.
type writing struct{ *files }

func newWriting(r *run) *writing { return &writing{newFiles(r)} }

func (w *writing) phases() []phase {
	return []phase{w.begin(), w.created(), w.filled(true), w.committed(true)}
}

func (w *writing) check() error {
	for i := range w.lines {
		if err := checkFile(w.path(w.name(i)), i, w.perLine(), mebi, func(int) int { return 0 }); err != nil {
			return err
		}
	}
	return nil
}

// reading reads a file on each line, in memory: large pieces one after the other, small
// ones at random.
type reading struct {
	*files
	piece int
	lines []readLine
}

type readLine struct {
	at   int
	rand *rand.Rand
}

func newReading(r *run, piece int) *reading {
	d := &reading{files: newFiles(r), piece: piece, lines: make([]readLine, r.lines)}
	for i := range d.lines {
		d.lines[i].rand = rand.New(rand.NewPCG(r.seed, uint64(i)))
	}
	return d
}

func (d *reading) phases() []phase {
	return []phase{d.begin(), d.created(), d.filled(false), d.committed(false), {timed: true, source: d}}
}

func (d *reading) next(line int, job []call) []call {
	l := &d.lines[line]
	pieces := d.perLine() / d.piece
	q := call{proc: read, node: &d.nodes[line], count: uint32(d.piece)}
	if d.piece < mebi {
		q.off = uint64(l.rand.IntN(pieces) * d.piece)
		q.data = contentAt(line, 0, q.off, d.piece)
	} else {
		q.off = uint64(l.at % pieces * d.piece)
		l.at++
	}
	return append(job, q)
}

func (d *reading) check() error { return nil } // it was compared as far as replies are kept

// rewriting overwrites pieces of a file on each line at random, and commits it.
type rewriting struct {
	*files
	lines []rewriteLine
}

type rewriteLine struct {
	rand    *rand.Rand
	written []bool // pieces
}

const rewritten = 4 << 10

func newRewriting(r *run) *rewriting {
	w := &rewriting{files: newFiles(r), lines: make([]rewriteLine, r.lines)}
	for i := range w.lines {
		w.lines[i] = rewriteLine{rand.New(rand.NewPCG(r.seed, uint64(i))), make([]bool, r.perLine()/rewritten)}
	}
	return w
}

func (w *rewriting) phases() []phase {
	return []phase{w.begin(), w.created(), w.filled(false), w.committed(false), {timed: true, source: w}, w.committed(true)}
}

func (w *rewriting) next(line int, job []call) []call {
	l := &w.lines[line]
	i := l.rand.IntN(len(l.written))
	l.written[i] = true
	off := uint64(i * rewritten)
	return append(job, call{
		proc: write, node: &w.nodes[line], off: off, data: contentAt(line, 1, off, rewritten), stable: rpc.Unstable,
	})
}

func (w *rewriting) check() error {
	for i := range w.lines {
		generation := func(piece int) int {
			if w.lines[i].written[piece] {
				return 1
			}
			return 0
		}
		if err := checkFile(w.path(w.name(i)), i, w.perLine(), rewritten, generation); err != nil {
			return err
		}
	}
	return nil
}

// smallFiles makes small files on each line, in a directory of its own, and removes
// them: with the calls that Linux makes of open, write, close and unlink. Some stay, so
// that there is something to check.
type smallFiles struct {
	*run
	dirs []node
	made []int // on each line
	size []map[string]int
	rand []*rand.Rand
}

const (
	smallest, largest = 1 << 10, 4 << 10
	stays             = 16 // of so many files one
)

func newSmallFiles(r *run) *smallFiles {
	s := &smallFiles{run: r, dirs: make([]node, r.lines), made: make([]int, r.lines)}
	for i := range r.lines {
		s.size = append(s.size, map[string]int{})
		s.rand = append(s.rand, rand.New(rand.NewPCG(r.seed, uint64(i))))
	}
	return s
}

func (s *smallFiles) dir(line int) string { return fmt.Sprintf("dir-%d", line) }

func (s *smallFiles) phases() []phase {
	mode := uint32(0o755)
	all := make(jobs, s.lines)
	for i := range all {
		all[i] = []call{{proc: mkdir, dir: s.run.dir, name: s.dir(i), node: &s.dirs[i], attr: rpc.SetAttr{Mode: &mode}}}
	}
	return []phase{s.begin(), {whole: true, source: all}, {timed: true, source: s}}
}

func (s *smallFiles) next(line int, job []call) []call {
	i := s.made[line]
	s.made[line]++
	mode := uint32(0o644)
	name := fmt.Sprintf("file-%d", i)
	size := smallest + s.rand[line].IntN(largest-smallest)
	dir, file := &s.dirs[line], new(node)
	job = append(job,
		call{proc: lookup, dir: dir, name: name},
		call{proc: create, dir: dir, name: name, node: file, attr: rpc.SetAttr{Mode: &mode}},
		call{proc: write, name: name, node: file, data: contentAt(line, i, 0, size), stable: rpc.FileSync},
	)
	if i%stays == 0 {
		s.size[line][name] = size
		return job
	}
	return append(job, call{proc: remove, dir: dir, name: name})
}

func (s *smallFiles) last() []phase { return nil }

func (s *smallFiles) check() error {
	for line, sizes := range s.size {
		entries, err := os.ReadDir(s.path(s.dir(line)))
		if err != nil {
			return err
		}
		if len(entries) != len(sizes) {
			return fmt.Errorf("%s: it has %d files, and must have %d", s.path(s.dir(line)), len(entries), len(sizes))
		}
		for name, size := range sizes {
			i := 0
			fmt.Sscanf(name, "file-%d", &i)
			if err := checkFile(filepath.Join(s.path(s.dir(line)), name), line, size, size, func(int) int { return i }); err != nil {
				return err
			}
		}
	}
	return nil
}
