package image

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
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
	table []byte
	seen  map[Digest]uint32 // the number of each chunk written
	bytes uint64            // of chunks
}

func newPackWriter(s *Store) (*packWriter, error) {
	f, err := durable.CreateTemp(s.packsDir(), 0o400)
	if err != nil {
		return nil, err
	}
	w := &packWriter{f: f, w: bufio.NewWriterSize(frugal{s, f}, 1<<20), seen: make(map[Digest]uint32)}
	return w, w.write(append([]byte(packMagic), make([]byte, packHeader-len(packMagic))...))
}

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

// add writes a chunk and returns its number. Chunks that are not aligned lie
// packed tight.
func (w *packWriter) add(digest Digest, data []byte, aligned bool) (uint32, error) {
	number := len(w.seen)
	if uint64(number) == math.MaxUint32 {
		return 0, fmt.Errorf("more than %d chunks of new content", number)
	}
	if aligned {
		if err := w.pad(packAlign); err != nil {
			return 0, err
		}
	}
	w.table = le.AppendUint64(w.table, w.off)
	w.table = le.AppendUint32(w.table, uint32(len(data)))
	w.table = le.AppendUint32(w.table, 0)
	w.table = append(w.table, digest[:]...)
	w.seen[digest] = uint32(number)
	w.bytes += uint64(len(data))
	return uint32(number), w.write(data)
}

// finish writes what comes behind the chunks and returns the pack's digest.
func (w *packWriter) finish() (Digest, error) {
	if err := w.pad(8); err != nil {
		return Digest{}, err
	}
	tableOff := w.off
	digest := Digest(sha256.Sum256(w.table))
	if err := w.write(w.table); err != nil {
		return Digest{}, err
	}
	if err := w.write(w.sorted()); err != nil {
		return Digest{}, err
	}
	if err := w.pad(8); err != nil {
		return Digest{}, err
	}
	foot := append(make([]byte, 0, packFooter), packMagic...)
	foot = le.AppendUint64(foot, tableOff)
	foot = le.AppendUint64(foot, uint64(len(w.seen)))
	foot = append(foot, digest[:]...)
	if err := w.write(foot[:packFooter]); err != nil {
		return Digest{}, err
	}
	return digest, w.w.Flush()
}

// sorted returns the numbers of the chunks by digest.
func (w *packWriter) sorted() []byte {
	numbers := make([]uint32, len(w.seen))
	for i := range numbers {
		numbers[i] = uint32(i)
	}
	digest := func(i uint32) []byte { return w.table[uint64(i)*chunkRecord+16:][:digestSize] }
	slices.SortFunc(numbers, func(a, b uint32) int { return bytes.Compare(digest(a), digest(b)) })
	b := make([]byte, 0, len(numbers)*sortedRecord)
	for _, i := range numbers {
		b = le.AppendUint32(b, i)
	}
	return b
}
