// Package lzma2 decodes LZMA2, the chunks of LZMA that are in the blocks of an xz file.
package lzma2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Source is what chunks are read from, and nothing behind the last one.
type Source interface {
	io.Reader
	io.ByteReader
}

// ErrCorrupt is the error for what no encoder writes.
var ErrCorrupt = errors.New("not valid LZMA2")

const (
	minDictionary = 4 << 10
	firstWindow   = 256 << 10
	maxCompressed = 64 << 10 // of a chunk
)

// DictionarySize is the size of the dictionary that the properties byte of the filter
// tells.
func DictionarySize(props byte) (int64, error) {
	switch {
	case props > 40:
		return 0, fmt.Errorf("a dictionary of the unknown size %d: %w", props, ErrCorrupt)
	case props == 40:
		return 1<<32 - 1, nil
	}
	return int64(2|props&1) << (props/2 + 11), nil
}

// Reader reads what is in a sequence of chunks, to the one that says that it is the last.
type Reader struct {
	r    Source
	err  error
	left int  // what is still to come of a chunk
	raw  bool // the chunk is not compressed

	needDictionary, needProps bool

	// The window is a ring when it is as large as the dictionary, and grows until then:
	// a stream takes no more memory than its content, whatever it claims.
	buf  []byte
	dict int
	pos  int
	full bool // there is content behind pos, too

	decoder
}

// NewReader returns a reader of the chunks that r begins with, which may look back by
// dictionary bytes. It does not read behind the last one.
func NewReader(r Source, dictionary int) *Reader {
	// The position in the ring tells how content is aligned, to 16 at most.
	dict := (max(dictionary, minDictionary) + 15) &^ 15
	return &Reader{r: r, dict: dict, buf: make([]byte, min(dict, firstWindow)), needDictionary: true, needProps: true}
}

// Read implements io.Reader.
func (z *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for z.err == nil && z.left == 0 {
		z.err = z.next()
	}
	if z.err != nil {
		return 0, z.err
	}
	if z.pos == len(z.buf) {
		z.turn()
	}
	start := z.pos
	limit := start + min(len(p), z.left, len(z.buf)-start)
	if z.raw {
		_, z.err = io.ReadFull(z.r, z.buf[start:limit])
		z.err = noEOF(z.err)
		z.pos = limit
	} else {
		z.err = z.decode(limit)
	}
	if z.err != nil {
		return 0, z.err
	}
	z.left -= limit - start
	if z.left < z.pending || z.left == 0 && !z.raw && !z.isFinished() {
		z.err = ErrCorrupt
		return 0, z.err
	}
	return copy(p, z.buf[start:limit]), nil
}

// turn makes room in a window that is full.
func (z *Reader) turn() {
	if len(z.buf) == z.dict {
		z.pos, z.full = 0, true
		return
	}
	buf := make([]byte, min(2*len(z.buf), z.dict))
	copy(buf, z.buf)
	z.buf = buf
}

// next reads the header of a chunk, and what is compressed in it. It is io.EOF where
// there is none.
func (z *Reader) next() error {
	control, err := z.r.ReadByte()
	if err != nil {
		return noEOF(err)
	}
	if control == 0 {
		return io.EOF
	}
	if control == 1 || control >= 0xe0 {
		z.needDictionary, z.needProps = false, true
		z.pos, z.full = 0, false
	}
	z.raw = control < 0x80
	if z.needDictionary || z.raw && control > 2 || !z.raw && control < 0xc0 && z.needProps {
		return ErrCorrupt
	}
	var b [5]byte
	head := b[:2]
	if !z.raw {
		head = b[:4]
	}
	if control >= 0xc0 {
		head = b[:5]
	}
	if _, err := io.ReadFull(z.r, head); err != nil {
		return noEOF(err)
	}
	left := int(binary.BigEndian.Uint16(b[:])) + 1
	if z.raw {
		z.left = left
		return nil
	}
	if control >= 0xc0 {
		if err := z.setProps(b[4]); err != nil {
			return err
		}
		z.needProps = false
	}
	if control >= 0xa0 {
		z.reset()
	}
	in := z.in[:int(binary.BigEndian.Uint16(b[2:]))+1]
	if _, err := io.ReadFull(z.r, in); err != nil {
		return noEOF(err)
	}
	z.left = int(control&0x1f)<<16 + left
	return z.begin(len(in))
}

// noEOF turns an end where there should be none into an error.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
