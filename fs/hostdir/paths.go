package hostdir

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs"
)

// paths finds objects again where they cannot be opened by handle: it remembers
// the directory and name that each was last seen with. Where that led is
// compared with the handle, so a name that is another object's by now is a
// miss, never the wrong object.
type paths struct {
	all    *atomic.Int64 // places of all trees of the Host
	mu     sync.Mutex    // guards places
	places map[fs.Handle]place

	walking sync.Mutex        // held during a walk; guards again and missed
	again   time.Time         // when the next walk may begin
	missed  map[fs.Handle]int // how many walks in a row did not see what may be there for all that
}

// place is where an object was seen.
type place struct {
	dir  fs.Handle
	name string
}

const (
	// maxPlaces bounds what is remembered of all trees together, at about 150
	// bytes each, but for fairPlaces that each tree has whatever the others do.
	maxPlaces  = 1 << 18
	fairPlaces = 256
	// walkPause is the least time between two walks.
	walkPause = time.Second
	// maxMissed is how many walks must miss what could have moved meanwhile, before it
	// is taken for gone: a tree that always changes never lets one be sure.
	maxMissed = 3
	// maxWalkDepth bounds the descriptors that a walk has open.
	maxWalkDepth = 128
)

func newPaths(all *atomic.Int64) *paths {
	return &paths{all: all, places: make(map[fs.Handle]place), missed: make(map[fs.Handle]int)}
}

// forget gives back what p takes, which nobody uses any more.
func (p *paths) forget() { p.all.Add(-int64(len(p.places))) }

// learn remembers where an object was seen.
func (t *Tree) learn(h, dir fs.Handle, name fs.Name) {
	if p := t.paths; p != nil && h != (fs.Handle{}) && h != t.root {
		p.learn(h, dir, string(name))
	}
}

func (p *paths) learn(h, dir fs.Handle, name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, known := p.places[h]; !known {
		p.makeRoom()
		p.all.Add(1)
	}
	p.places[h] = place{dir, name}
}

// makeRoom forgets a place if there are too many. The caller holds mu.
func (p *paths) makeRoom() {
	if len(p.places) < fairPlaces || p.all.Load() < maxPlaces {
		return
	}
	for old := range p.places { // any one: it is found again by a walk
		delete(p.places, old)
		p.all.Add(-1)
		return
	}
}

// open opens what h names as O_PATH, after a walk through the tree if it is not
// where it was.
func (p *paths) open(t *Tree, h *fs.Handle) (int, error) {
	if h.Len < 2 || int(h.Len) > len(h.Bytes) {
		return -1, fs.ErrBadHandle
	}
	if fd, ok := p.find(t, h); ok {
		return fd, nil
	}
	gone := p.refresh(t, h)
	if fd, ok := p.find(t, h); ok {
		return fd, nil
	}
	if !gone {
		return -1, fs.ErrWouldBlock // it may be where the next walk finds it
	}
	return -1, fs.ErrStale
}

// refresh walks through the tree, unless that was done just now: a client with
// many old handles must not keep the host busy. It reports whether h is nowhere.
func (p *paths) refresh(t *Tree, h *fs.Handle) (gone bool) {
	p.walking.Lock()
	defer p.walking.Unlock()
	start := time.Now()
	if start.Before(p.again) {
		return false
	}
	w := walk{t: t, want: *h}
	unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &w.start) // which directories have their times from
	w.through(t.fd, t.root, 0)
	p.again = time.Now().Add(walkPause + 10*time.Since(start))
	switch misses := p.missed[*h] + 1; {
	case w.seen:
		delete(p.missed, *h)
	case !w.unsure || misses == maxMissed:
		delete(p.missed, *h)
		return true
	case misses > 1 || len(p.missed) < fairPlaces:
		p.missed[*h] = misses
	}
	return false
}

// find opens what h names if it is where it was seen.
func (p *paths) find(t *Tree, h *fs.Handle) (int, bool) {
	path, ok := p.path(t, h)
	if !ok {
		return -1, false
	}
	fd, err := unix.Openat2(t.fd, path, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return -1, false
	}
	if is, err := handleOf(fd); err != nil || is != *h {
		unix.Close(fd)
		return -1, false
	}
	return fd, true
}

// path returns the path from the root to where h was seen.
func (p *paths) path(t *Tree, h *fs.Handle) (string, bool) {
	if *h == t.root {
		return ".", true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var names []string
	for at := *h; at != t.root; {
		seen, ok := p.places[at]
		if !ok || len(names) == maxDepth {
			return "", false
		}
		names = append(names, seen.name)
		at = seen.dir
	}
	var b strings.Builder
	for i := len(names) - 1; i >= 0; i-- {
		b.WriteString(names[i])
		if i > 0 {
			b.WriteByte('/')
		}
	}
	return b.String(), true
}

// A walk learns where everything in a tree is.
type walk struct {
	t      *Tree
	want   fs.Handle
	start  unix.Timespec
	seen   bool // it came across what is wanted
	unsure bool // there was something that it could not see, or that changed meanwhile
}

// through learns where everything below a directory is. What was moved out of a
// directory before the walk came there, into one where it had been, left a new time on
// the first.
func (w *walk) through(dir int, h fs.Handle, depth int) {
	w.unsure = !w.list(dir, h, depth) || w.unsure
}

// list reports whether it saw all names of a directory, none of which came or went
// since the walk began.
func (w *walk) list(dir int, h fs.Handle, depth int) bool {
	if depth > maxWalkDepth {
		return false
	}
	fd, err := unix.Openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	entries := make([]fs.HostEntry, 256)
	for eof := false; !eof; {
		var n int
		if n, eof, err = list(fd, entries); err != nil {
			return false
		}
		for i := range entries[:n] {
			w.visit(fd, h, entries[i].Name, depth)
		}
	}
	var st unix.Statx_t
	return statx(fd, &st) == nil && (st.Ctime.Sec < int64(w.start.Sec) ||
		st.Ctime.Sec == int64(w.start.Sec) && int64(st.Ctime.Nsec) < int64(w.start.Nsec))
}

func (w *walk) visit(dir int, h fs.Handle, name fs.Name, depth int) {
	if name.IsDot() || name.IsDotDot() {
		return
	}
	fd, err := openChild(dir, name)
	if err != nil {
		w.unsure = true
		return
	}
	defer unix.Close(fd)
	is, err := handleOf(fd)
	if err != nil {
		w.unsure = true
		return
	}
	w.seen = w.seen || is == w.want
	w.t.paths.learn(is, h, string(name))
	var st unix.Statx_t
	switch {
	case statx(fd, &st) != nil:
		w.unsure = true
	case kindOf(st.Mode) == fs.Directory:
		w.through(fd, is, depth+1)
	}
}
