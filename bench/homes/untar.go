package homes

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path"
	"time"

	"github.com/rootnfsd/rootnfsd/bench/rpc"
)

// untar unpacks a source tree on each line, with the calls that Linux makes for tar:
// directories first; then of each file LOOKUP, CREATE, SETATTR of its mode, WRITE, and
// SETATTR of its time. Each tree is as large as its share of all files.
type untar struct {
	*run
	trees []tree
}

// tree is a made-up source tree, the same for the same seed.
type tree struct {
	dirs  []entry // parents before their children
	files []entry
	nodes []node // of dirs
}

// entry is an object of a tree.
type entry struct {
	dir  int // in which of the dirs it is, -1 being the top
	name string
	path string
	size int
	mode uint32
	link string // the text of a symlink
	node *node
}

// What trees are like: that of Linux 6.12 has a directory for each 15 files, sizes
// whose logarithms are spread about evenly around 5 KiB, and few symlinks.
const (
	filesInDir  = 15
	medianSize  = 5 << 10
	sizeSpread  = 1.3 // standard deviation of the logarithm of sizes
	largestFile = 512 << 10
	linkEach    = 100 // files
	scriptEach  = 50  // files, which can be executed
	emptyEach   = 60
)

// treeTime is when all files of a tree were changed.
var treeTime = rpc.Time{Sec: uint32(time.Date(2024, 11, 17, 22, 15, 8, 0, time.UTC).Unix())}

// newTree makes up a tree of n files.
func newTree(seed uint64, n int) tree {
	r := rand.New(rand.NewPCG(seed, 0))
	var t tree
	at := func(dir int, name string) string {
		if dir < 0 {
			return name
		}
		return path.Join(t.dirs[dir].path, name)
	}
	for i := range max(1, n/filesInDir) {
		e := entry{dir: r.IntN(i+1) - 1, name: fmt.Sprintf("dir-%d", i), mode: 0o755}
		e.path = at(e.dir, e.name)
		t.dirs = append(t.dirs, e)
	}
	t.nodes = make([]node, len(t.dirs))
	for i := range t.dirs {
		t.dirs[i].node = &t.nodes[i]
	}
	for i := range n {
		e := entry{dir: i % len(t.dirs), name: fmt.Sprintf("file-%d.c", i), mode: 0o644, node: new(node)}
		switch {
		case i%linkEach == linkEach-1:
			e.link = fmt.Sprintf("file-%d.c", i-1)
		case i%emptyEach == emptyEach-1:
		default:
			e.size = min(largestFile, int(medianSize*math.Exp(r.NormFloat64()*sizeSpread)))
		}
		if i%scriptEach == 0 {
			e.mode = 0o755
		}
		e.path = at(e.dir, e.name)
		t.files = append(t.files, e)
	}
	return t
}

func newUntar(r *run) *untar {
	u := &untar{run: r}
	for i := range r.lines {
		u.trees = append(u.trees, newTree(uint64(i), max(1, r.tree/r.lines)))
	}
	return u
}

func (u *untar) top(line int) string { return fmt.Sprintf("tree-%d", line) }

func (u *untar) phases() []phase {
	tops := make([]node, u.lines)
	first, dirs, files := make(jobs, u.lines), &unpacking{u, tops, make([]int, u.lines), false}, &unpacking{u, tops, make([]int, u.lines), true}
	for i := range tops {
		mode := uint32(0o755)
		first[i] = []call{{proc: mkdir, dir: u.dir, name: u.top(i), node: &tops[i], attr: rpc.SetAttr{Mode: &mode}}}
	}
	return []phase{
		u.begin(), {whole: true, source: first},
		{whole: true, timed: true, source: dirs}, {whole: true, timed: true, source: files},
	}
}

// unpacking gives the jobs that unpack all directories, a job for each line, or all files.
type unpacking struct {
	*untar
	tops  []node
	at    []int // on each line
	files bool
}

func (u *unpacking) next(line int, job []call) []call {
	t := &u.trees[line]
	at := u.at[line]
	u.at[line]++
	switch {
	case u.files && at < len(t.files):
		return u.file(job, line, at, &t.files[at])
	case !u.files && at == 0: // a child needs its parent
		for i := range t.dirs {
			e := &t.dirs[i]
			job = append(job, call{proc: mkdir, dir: u.parent(line, e), name: e.name, node: e.node, attr: rpc.SetAttr{Mode: &e.mode}})
		}
	}
	return job
}

func (u *unpacking) parent(line int, e *entry) *node {
	if e.dir < 0 {
		return &u.tops[line]
	}
	return u.trees[line].dirs[e.dir].node
}

func (u *unpacking) file(job []call, line, i int, e *entry) []call {
	dir := u.parent(line, e)
	job = append(job, call{proc: lookup, dir: dir, name: e.name})
	if e.link != "" {
		mode := uint32(0o777)
		return append(job, call{proc: symlink, dir: dir, name: e.name, data: []byte(e.link), attr: rpc.SetAttr{Mode: &mode}})
	}
	job = append(job, call{proc: createExclusive, dir: dir, name: e.name, node: e.node})
	job = u.set(job, e, rpc.SetAttr{Mode: &e.mode})
	if e.size > 0 {
		job = append(job, call{proc: write, name: e.name, node: e.node, data: contentAt(line, i, 0, e.size), stable: rpc.FileSync})
	}
	return u.set(job, e, rpc.SetAttr{Mtime: &treeTime})
}

// set appends SETATTR, and what makes it as safe as it must be.
func (u *unpacking) set(job []call, e *entry, s rpc.SetAttr) []call {
	job = append(job, call{proc: setattr, name: e.name, node: e.node, attr: s})
	if u.target.Durable {
		job = append(job, call{proc: commit, name: e.name, node: e.node, extra: true})
	}
	return job
}

func (u *untar) last() []phase { return nil }

func (u *untar) check() error {
	for line := range u.trees {
		for i, e := range u.trees[line].files {
			at := path.Join(u.path(u.top(line)), e.path)
			if e.link != "" {
				if text, err := os.Readlink(at); err != nil || text != e.link {
					return fmt.Errorf("%s: a symlink to %q, and must be one to %q (%v)", at, text, e.link, err)
				}
				continue
			}
			if err := checkFile(at, line, e.size, max(1, e.size), func(int) int { return i }); err != nil {
				return err
			}
			info, err := os.Stat(at)
			if err != nil {
				return err
			}
			if mode, when := uint32(info.Mode().Perm()), info.ModTime().Unix(); mode != e.mode || when != int64(treeTime.Sec) {
				return fmt.Errorf("%s: mode %o and time %d, and must have %o and %d", at, mode, when, e.mode, treeTime.Sec)
			}
		}
	}
	return nil
}
