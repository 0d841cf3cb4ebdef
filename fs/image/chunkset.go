package image

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"runtime/debug"
	"slices"
)

// chunkSet finds the chunks of a pack in the making by their digests, of which it
// holds the first four bytes only.
type chunkSet struct{ table hashTable }

// chunkEntry is the record of a chunk.
//
//	0   its number plus one
//	4   start of its digest: keyOf
type chunkEntry [8]byte

// keyOf is in the order of the digests.
func keyOf(d *Digest) uint32 { return binary.BigEndian.Uint32(d[:]) }

func newChunkSet(s *Store) chunkSet {
	key := func(r []byte) uint32 { return le.Uint32(r[4:]) }
	return chunkSet{hashTable{store: s, size: len(chunkEntry{}), hash: key}}
}

// digestTeller tells the digest of a chunk that was added.
type digestTeller func(number uint32) (Digest, error)

// find returns the number of the chunk with this digest, if it was added.
func (s *chunkSet) find(digest *Digest, of digestTeller) (number uint32, ok bool, err error) {
	defer guard(debug.SetPanicOnFault(true), &err)
	key := keyOf(digest)
	var failed error
	r, err := s.table.find(key, func(r []byte) bool {
		if le.Uint32(r[4:]) != key {
			return false
		}
		have, err := of(le.Uint32(r) - 1)
		if err != nil {
			failed = err
		}
		return have == *digest
	})
	if err := cmp.Or(err, failed); err != nil || isFree(r) {
		return 0, false, err
	}
	return le.Uint32(r) - 1, true, nil
}

// add adds a chunk that find did not find.
func (s *chunkSet) add(digest *Digest, number uint32) (err error) {
	defer guard(debug.SetPanicOnFault(true), &err)
	free, err := s.table.find(keyOf(digest), func([]byte) bool { return false })
	if err != nil {
		return err
	}
	var e chunkEntry
	le.PutUint32(e[0:], number+1)
	le.PutUint32(e[4:], keyOf(digest))
	s.table.put(free, e[:])
	return nil
}

// sorted calls do for the numbers of all chunks in the order of their digests. That
// of the table is so near to it that there is little left to do.
func (s *chunkSet) sorted(of digestTeller, do func(number uint32) error) (err error) {
	defer guard(debug.SetPanicOnFault(true), &err)
	return s.table.runs(func(run [][]byte) error {
		var failed error
		slices.SortFunc(run, func(a, b []byte) int {
			if c := cmp.Compare(le.Uint32(a[4:]), le.Uint32(b[4:])); c != 0 {
				return c
			}
			x, err := of(le.Uint32(a) - 1)
			y, err2 := of(le.Uint32(b) - 1)
			failed = cmp.Or(failed, err, err2)
			return bytes.Compare(x[:], y[:])
		})
		for _, r := range run {
			if failed == nil {
				failed = do(le.Uint32(r) - 1)
			}
		}
		return failed
	})
}
