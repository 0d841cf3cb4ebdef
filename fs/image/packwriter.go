package image

import (
	"bufio"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"os"
	"slices"

	"github.com/rootnfsd/rootnfsd/fs/durable"
)

// packAlign is where the chunks of a file of several chunks begin, so that they
// can be sent page by page.
const packAlign = 4096

// packWriter writes the pack of one seal to a temporary file.
type packWriter struct {
	f     *os.File
	w     *bufio.Writer
	off   uint64
	table *spool
	seen  chunkSet
	bytes uint64 // of chunks
}

func newPackWriter(s *Store) (*packWriter, error) {
	table, err := newSpool(s)
	if err != nil {
		return nil, err
	}
	f, err := durable.CreateTemp(s.packsDir(), 0o400)
	if err != nil {
		table.close()
		return nil, err
	}
	w := &packWriter{f: f, w: bufio.NewWriterSize(frugal{s, f}, 1<<20), table: table}
	return w, w.write(append([]byte(packMagic), make([]byte, packHeader-len(packMagic))...))
}

// close lets go of what is not the pack itself.
func (w *packWriter) close() { w.table.close() }

func (w *packWriter) write(b []byte) error {
	w.off += uint64(len(b))
	_, err := w.w.Write(b)
	return err
}

// pad writes zeros up to a multiple of align.
func (w *packWriter) pad(align uint64) error {
	if rest := w.off % align; rest != 0 {
		return w.write(make([]byte, align-rest))
	}
	return nil
}

// find returns the number of the chunk with this digest, if it was written.
func (w *packWriter) find(digest *Digest) (number uint32, ok bool, err error) {
	number, ok = w.seen.find(digest, func(i uint32) bool {
		have, e := w.digest(i)
		if e != nil {
			err = e
		}
		return have == *digest
	})
	return number, ok, err
}

// digest returns the digest of a chunk that was written.
func (w *packWriter) digest(i uint32) (d Digest, err error) {
	return d, w.table.readAt(d[:], int64(i)*chunkRecord+16)
}

// add writes a chunk that was not written before, and returns its number. Chunks
// that are not aligned lie packed tight.
func (w *packWriter) add(digest *Digest, data []byte, aligned bool) (uint32, error) {
	number := w.seen.len()
	if uint64(number) == math.MaxUint32 {
		return 0, fmt.Errorf("more than %d chunks of new content", number)
	}
	if aligned {
		if err := w.pad(packAlign); err != nil {
			return 0, err
		}
	}
	r := le.AppendUint64(make([]byte, 0, chunkRecord), w.off)
	r = le.AppendUint32(r, uint32(len(data)))
	r = le.AppendUint32(r, 0)
	w.table.write(append(r, digest[:]...))
	w.seen.add(digest)
	w.bytes += uint64(len(data))
	return uint32(number), w.write(data)
}

// finish writes what comes behind the chunks and returns the pack's digest.
func (w *packWriter) finish() (digest Digest, err error) {
	if err := w.pad(8); err != nil {
		return digest, err
	}
	tableOff := w.off
	if digest, err = w.writeTable(); err != nil {
		return digest, err
	}
	if err := w.writeSorted(); err != nil {
		return digest, err
	}
	if err := w.pad(8); err != nil {
		return digest, err
	}
	foot := append(make([]byte, 0, packFooter), packMagic...)
	foot = le.AppendUint64(foot, tableOff)
	foot = le.AppendUint64(foot, uint64(w.seen.len()))
	foot = append(foot, digest[:]...)
	if err := w.write(foot[:packFooter]); err != nil {
		return digest, err
	}
	w.seen = chunkSet{} // it is large, and what follows needs memory, too
	return digest, w.w.Flush()
}

// writeTable writes the table and returns its digest.
func (w *packWriter) writeTable() (digest Digest, err error) {
	if err := w.table.finish(); err != nil {
		return digest, err
	}
	hash := sha256.New()
	w.off += w.table.n
	if err := w.table.copyTo(io.MultiWriter(w.w, hash)); err != nil { // records need no padding
		return digest, err
	}
	return Digest(hash.Sum(nil)), nil
}

// writeSorted writes the numbers of the chunks by digest.
func (w *packWriter) writeSorted() error {
	numbers := make([]uint32, w.seen.len())
	for i := range numbers {
		numbers[i] = uint32(i)
	}
	var failed error
	digest := func(i uint32) []byte {
		d, err := w.digest(i)
		if err != nil {
			failed = err
		}
		return d[:]
	}
	slices.SortFunc(numbers, func(a, b uint32) int {
		if c := cmp.Compare(w.seen.keys[a], w.seen.keys[b]); c != 0 || a == b {
			return c
		}
		return slices.Compare(digest(a), digest(b))
	})
	w.off += uint64(len(numbers)) * sortedRecord
	if failed != nil {
		return failed
	}
	return writeUint32s(w.w, numbers)
}

// chunkSet finds the chunks of a pack in the making by their digests, of which
// it holds the first eight bytes only: 16 to 24 bytes for a chunk.
type chunkSet struct {
	keys  []uint64 // by number
	slots []uint32 // a hash table: 0, or the number of a chunk plus one
}

func (s *chunkSet) len() int { return len(s.keys) }

// keyOf is in the order of the digests.
func keyOf(d *Digest) uint64 { return binary.BigEndian.Uint64(d[:]) }

// find returns the number of a chunk whose digest begins like d and which is the
// one, as same tells.
func (s *chunkSet) find(d *Digest, same func(uint32) bool) (number uint32, ok bool) {
	if len(s.slots) == 0 {
		return 0, false
	}
	for slot := s.slot(keyOf(d)); s.slots[slot] != 0; slot = s.next(slot) {
		if n := s.slots[slot] - 1; s.keys[n] == keyOf(d) && same(n) {
			return n, true
		}
	}
	return 0, false
}

// add gives the next number to a chunk.
func (s *chunkSet) add(d *Digest) {
	if 3*len(s.slots) <= 4*len(s.keys) { // three quarters are taken
		s.slots = make([]uint32, max(1024, 2*len(s.slots)))
		for n, key := range s.keys {
			s.put(key, uint32(n))
		}
	}
	s.keys = append(s.keys, keyOf(d))
	s.put(keyOf(d), uint32(len(s.keys)-1))
}

func (s *chunkSet) put(key uint64, number uint32) {
	slot := s.slot(key)
	for s.slots[slot] != 0 {
		slot = s.next(slot)
	}
	s.slots[slot] = number + 1
}

// slot is the first slot for a key. The number of slots is a power of two.
func (s *chunkSet) slot(key uint64) uint32 { return uint32(key) & uint32(len(s.slots)-1) }

func (s *chunkSet) next(slot uint32) uint32 { return (slot + 1) & uint32(len(s.slots)-1) }
