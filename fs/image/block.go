package image

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"

	"github.com/go-git/go-billy/v5"

	"github.com/rootnfsd/rootnfsd/fs/source"
)

// blockSize is how much of a file is read and hashed at a time. It is a
// multiple of chunkSize. With four chunks at a time a seal of a Debian root took a
// fifth more memory, and no less time.
const blockSize = chunkSize

// block is a run of a file's content on its way into a pack. It begins at a
// border of chunks.
type block struct {
	off    uint64
	len    uint64
	chunks []chunk // those that are not all zeros
}

// chunk is a chunk of a file with its digest.
type chunk struct {
	number uint64 // in the file
	digest Digest
	data   []byte
}

func (c *chunk) sum() { c.digest = sha256.Sum256(c.data) }

// pool is values to be used again. A sync.Pool gives its own up at each collection of
// garbage, and what is allocated instead is zeroed, all of it, so that a seal of small
// files had as much memory as one of large files.
type pool[T any] chan *T

func (p pool[T]) get() *T {
	select {
	case v := <-p:
		return v
	default:
		return new(T)
	}
}

func (p pool[T]) put(v *T) {
	select {
	case p <- v:
	default:
	}
}

// buffers are memory for blocks.
type buffers = pool[[blockSize]byte]

// read reads the block from f into data, which has its length, and hashes its
// chunks. The file being shorter than expected is errChanged.
func (b *block) read(f io.ReaderAt, data []byte) error {
	if b.len == 0 {
		return nil
	}
	// An io.ReaderAt may say EOF along with the last byte.
	if n, err := f.ReadAt(data, int64(b.off)); n < len(data) {
		if err == nil || errors.Is(err, io.EOF) {
			err = errChanged
		}
		return err
	}
	for number := b.off / chunkSize; len(data) > 0; number++ {
		c := data[:min(chunkSize, len(data))]
		data = data[len(c):]
		if !isZero(c) {
			b.chunks = append(b.chunks, chunk{number: number, data: c})
			b.chunks[len(b.chunks)-1].sum()
		}
	}
	return nil
}

// ownBlock is a block with memory of its own.
type ownBlock struct {
	block
	buf *[blockSize]byte
}

func (b *ownBlock) read(f io.ReaderAt, from buffers) error {
	b.buf = from.get()
	return b.block.read(f, b.buf[:b.len])
}

// release gives the memory of the block back.
func (b *ownBlock) release(to buffers) {
	if b.buf != nil {
		to.put(b.buf)
		b.buf, b.chunks = nil, nil
	}
}

var zeros [4096]byte

func isZero(b []byte) bool {
	for len(b) > len(zeros) {
		if !bytes.Equal(b[:len(zeros)], zeros[:]) {
			return false
		}
		b = b[len(zeros):]
	}
	return bytes.Equal(b, zeros[:len(b)])
}

// eachBlock calls do for the blocks of a file of size bytes in which there may
// be data.
func eachBlock(f billy.File, size uint64, do func(*ownBlock) error) error {
	for off := uint64(0); off < size; {
		from, to, err := nextData(f, off, size)
		if err != nil || from == to {
			return err
		}
		for off = from / chunkSize * chunkSize; off < to; {
			b := &ownBlock{block: block{off: off, len: min(blockSize, size-off, roundUp(to-off, chunkSize))}}
			off += b.len
			if err := do(b); err != nil {
				return err
			}
		}
	}
	return nil
}

// nextData returns the next run of data at or behind off, empty if there is none.
func nextData(f billy.File, off, size uint64) (from, to uint64, err error) {
	finder, ok := f.(source.DataFinder)
	if !ok {
		return off, size, nil
	}
	start, end, err := finder.NextData(int64(off))
	if errors.Is(err, io.EOF) {
		return size, size, nil
	}
	if err != nil {
		return 0, 0, err
	}
	// A file that grows meanwhile is noticed when it was read.
	return max(off, uint64(start)), min(uint64(end), size), nil
}
