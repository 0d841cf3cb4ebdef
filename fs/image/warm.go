package image

import (
	"cmp"
	"context"
	"runtime/debug"
	"slices"

	"github.com/rootnfsd/rootnfsd/fs"
)

var _ fs.Warmer = (*Version)(nil)

// stored is a chunk where it lies.
type stored struct {
	place int // of its pack in the version
	chunk uint32
	off   uint64
	len   uint64
}

// warmAhead is how many chunks the disk is asked for ahead of the one that is
// being read: 8 MiB, enough for any disk to work at its best.
const warmAhead = 128

// Warm implements fs.Warmer: it brings the chunks of the ranges into the page
// cache and compares those with their digests that never were, so that whoever
// reads them first pays for neither. It reads in the order of the packs, which a
// disk likes best, and no more than half of the memory that can be had.
func (v *Version) Warm(ctx context.Context, ranges []fs.Range, progress func(done, total uint64)) (uint64, error) {
	chunks, total := fitting(v.chunksOf(ranges), spareMemory())
	var done uint64
	buf := make([]byte, chunkSize)
	for i := range chunks {
		if ctx.Err() != nil {
			return done, ctx.Err()
		}
		if i == 0 {
			v.expect(chunks[:min(warmAhead, len(chunks))])
		} else if next := i - 1 + warmAhead; next < len(chunks) {
			v.expect(chunks[next:][:1])
		}
		if v.warm(&chunks[i], buf) == nil {
			done += chunks[i].len
		}
		if progress != nil {
			progress(done, total)
		}
	}
	return done, nil
}

// chunksOf returns the chunks that hold the ranges, each once, in the order in
// which they lie.
func (v *Version) chunksOf(ranges []fs.Range) []stored {
	var chunks []stored
	for _, r := range ranges {
		chunks, _ = v.appendChunks(chunks, r) // what leads nowhere is left out
	}
	slices.SortFunc(chunks, func(a, b stored) int {
		return cmp.Or(cmp.Compare(a.place, b.place), cmp.Compare(a.chunk, b.chunk))
	})
	return slices.Compact(chunks)
}

// appendChunks appends the chunks that hold a range, holes left out.
func (v *Version) appendChunks(chunks []stored, r fs.Range) (_ []stored, err error) {
	defer v.guard(debug.SetPanicOnFault(true), &err)
	f, err := v.readable(rootCred, r.ID)
	if err == nil {
		err = v.eachChunk(&f, r.Off, r.Len, func(c stored) { chunks = append(chunks, c) })
	}
	return chunks, err
}

// eachChunk calls do for the chunks that hold n bytes at off of a file, holes
// left out, until one cannot be found.
func (v *Version) eachChunk(f *file, off, n uint64, do func(stored)) error {
	if off >= f.size || n == 0 {
		return nil
	}
	number, last := off/chunkSize, (off+min(n, f.size-off)-1)/chunkSize
	for i := f.seek(number); i < f.numExtents() && number <= last; i++ {
		e := f.extent(i)
		number = max(number, e.chunk())
		for ; number <= last && number-e.chunk() < uint64(e.count()); number++ {
			c, err := v.stored(uint64(e.pack()), uint64(e.first())+number-e.chunk())
			if err != nil {
				return err
			}
			do(c)
		}
	}
	return nil
}

// stored returns where a chunk lies.
func (v *Version) stored(place, chunk uint64) (stored, error) {
	if place >= uint64(len(v.packs)) {
		return stored{}, fs.ErrIO
	}
	p := &v.packs[place]
	if p.err != nil {
		return stored{}, p.err
	}
	off, length, err := p.place(chunk)
	return stored{int(place), uint32(chunk), off, length}, err
}

// fitting returns as many of the chunks as fit into so much memory, and what
// they add up to.
func fitting(chunks []stored, memory uint64) ([]stored, uint64) {
	var total uint64
	for i := range chunks {
		if total+chunks[i].len > memory {
			return chunks[:i], total
		}
		total += chunks[i].len
	}
	return chunks, total
}

// expect asks the kernel to begin to read chunks.
func (v *Version) expect(chunks []stored) {
	for i := range chunks {
		c := &chunks[i]
		v.packs[c.place].expect(c.off, c.len)
	}
}

// warm reads a chunk, and verifies it if that was not done yet.
func (v *Version) warm(c *stored, buf []byte) (err error) {
	defer v.guard(debug.SetPanicOnFault(true), &err)
	p := v.packs[c.place].pack
	if p.isVerified(c.chunk) {
		return readFull(p.fd, buf[:c.len], int64(c.off))
	}
	_, err = p.verify(c.chunk)
	return err
}
