package exports

import "sync/atomic"

// tally counts what a node does with a version. Each connection counts in one of a few
// parts, so that those of one node, which may be a thousand behind one address, do not
// take a cache line from each other with each call.
type tally struct {
	parts [tallyParts]tallyPart
}

const tallyParts = 4 // a power of two

type tallyPart struct {
	calls   atomic.Uint64
	reads   atomic.Uint64
	bytes   atomic.Uint64 // of the content that was read
	largest atomic.Uint64 // READ, in bytes
	_       [32]byte      // to a cache line
}

// read counts a READ of so many bytes.
func (t *tallyPart) read(count uint32) {
	t.reads.Add(1)
	t.bytes.Add(uint64(count))
	if n := uint64(count); n > t.largest.Load() {
		t.largest.Store(n) // another one may be lost to a race, and comes again
	}
}

// Tally is what a node did with a version, since it booted it as far as that was seen.
type Tally struct {
	Calls     uint64 `json:"calls,omitempty"`
	Reads     uint64 `json:"reads,omitempty"`
	ReadBytes uint64 `json:"read_bytes,omitempty"`
	// LargestRead is the most bytes that came of one READ.
	LargestRead uint64 `json:"largest_read,omitempty"`
}

func (t *tally) sum() Tally {
	var s Tally
	for i := range t.parts {
		p := &t.parts[i]
		s.Calls += p.calls.Load()
		s.Reads += p.reads.Load()
		s.ReadBytes += p.bytes.Load()
		s.LargestRead = max(s.LargestRead, p.largest.Load())
	}
	return s
}

// set makes the sum another one.
func (t *tally) set(to Tally) {
	for i := range t.parts {
		p := &t.parts[i]
		p.calls.Store(to.Calls)
		p.reads.Store(to.Reads)
		p.bytes.Store(to.ReadBytes)
		p.largest.Store(to.LargestRead)
		to = Tally{}
	}
}

// A kernel that mounts its root without rsize= reads in pieces of 4 KiB (NFS_DEF_OPTIONS in
// fs/nfs/nfsroot.c). It takes a boot's worth of READs to tell that from small files.
const (
	smallPiece = 4096
	fewReads   = 512
)

// SmallReads reports whether the node reads in pieces of 4 KiB, for want of rsize= among
// its mount options.
func (s Tally) SmallReads() bool { return s.Reads >= fewReads && s.LargestRead <= smallPiece }
