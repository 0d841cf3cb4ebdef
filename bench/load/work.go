package load

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"

	gonfs "github.com/willscott/go-nfs"
)

// Work is something to be done, over and over or to its end.
type Work struct {
	Name string
	// Among is how many objects, all in the same corner of the tree, single calls are
	// about; 0 is all.
	Among int
	// Whole work runs to its end: it visits every object of the tree once.
	Whole bool

	proc  procedure
	count uint32 // bytes of each READ
}

// wholeRead is the size of READs of the whole tree: what a Linux client reads
// ahead, if nobody has told it better.
const wholeRead = 128 << 10

// Works returns all that can be done.
func Works() []Work {
	works := []Work{
		{Name: "GETATTR", proc: getattr},
		{Name: "LOOKUP", proc: lookup},
		{Name: "ACCESS", proc: access},
	}
	for _, kib := range []uint32{4, 64, 128} {
		works = append(works, Work{Name: fmt.Sprintf("READ %d KiB", kib), proc: read, count: kib << 10})
	}
	return append(works,
		Work{Name: "READ 1 MiB", proc: read, count: 1 << 20},
		Work{Name: "READDIRPLUS walk", Whole: true, proc: list},
		Work{Name: "whole tree", Whole: true, proc: read, count: wholeRead},
	)
}

// source gives a client the requests of a work. It is for one goroutine, though
// several may share what it draws from.
type source interface {
	// next fills in a request, or reports that there are no more.
	next(q *request) bool
}

// prepare returns what makes the sources of a work, one for each client, from the
// tree and a seed.
func (w Work) prepare(t *tree) func(seed uint64) func(client int) source {
	if w.Whole {
		all := w.whole(t)
		return func(uint64) func(int) source {
			s := &sweep{all: all}
			return func(int) source { return s }
		}
	}
	choices := w.choices(t)
	return func(seed uint64) func(int) source {
		return func(client int) source {
			return &lottery{w, choices, rand.New(rand.NewPCG(seed, uint64(client)))}
		}
	}
}

// choice is a piece of a file, or an object.
type choice struct {
	object int32
	piece  uint32 // of the size of a READ
}

// choices are all that a work may do. READs are of full size wherever the tree
// has files so large.
func (w Work) choices(t *tree) []choice {
	var full, short []choice
	for i := range t.objects {
		o := &t.objects[i]
		c := choice{object: int32(i)}
		switch {
		case w.proc == lookup && i == 0:
			// nothing has the root in it
		case w.proc != read:
			full = append(full, c)
		case o.kind == gonfs.FileTypeRegular:
			for ; uint64(c.piece+1)*uint64(w.count) <= o.size; c.piece++ {
				full = append(full, c)
			}
			short = append(short, choice{object: int32(i)})
		}
	}
	if len(full) == 0 {
		full = short
	}
	if w.Among > 0 { // what is listed last is in the same few directories
		full = full[max(0, len(full)-w.Among):]
	}
	return full
}

// lottery draws requests at random.
type lottery struct {
	work    Work
	choices []choice
	rand    *rand.Rand
}

func (l *lottery) next(q *request) bool {
	if len(l.choices) == 0 {
		return false
	}
	c := l.choices[l.rand.IntN(len(l.choices))]
	*q = request{proc: l.work.proc, object: c.object, off: uint64(c.piece) * uint64(l.work.count), count: l.work.count}
	return true
}

// sweep gives all requests of a whole work, to whoever asks first.
type sweep struct {
	all  []request
	done atomic.Int64
}

func (s *sweep) next(q *request) bool {
	i := s.done.Add(1) - 1
	if i >= int64(len(s.all)) {
		return false
	}
	*q = s.all[i]
	return true
}

// whole lists every directory, and reads every file behind the directory that it is in.
func (w Work) whole(t *tree) []request {
	var all []request
	for i := range t.objects {
		dir := &t.objects[i]
		if dir.kind != gonfs.FileTypeDirectory {
			continue
		}
		all = append(all, request{proc: list, object: int32(i)})
		if w.proc != read {
			continue
		}
		for f := dir.first; f < dir.end; f++ {
			if t.objects[f].kind != gonfs.FileTypeRegular {
				continue
			}
			for off := uint64(0); off < t.objects[f].size; off += uint64(w.count) {
				all = append(all, request{proc: read, object: f, off: off, count: w.count})
			}
		}
	}
	return all
}
