package squashfs

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"github.com/rootnfsd/rootnfsd/fs/source/compressed"
)

// unpacker unpacks src into dst, which it does not exceed, and returns how much it is.
type unpacker func(dst, src []byte) (int, error)

func unpackerOf(kind uint16) (unpacker, error) {
	switch kind {
	case 1:
		return unpackZlib, nil
	case 4:
		return unpackXZ, nil
	case 5:
		return func(dst, src []byte) (int, error) { return lz4.UncompressBlock(src, dst) }, nil
	case 6:
		return newUnpackZstd()
	}
	name := map[uint16]string{2: "lzma", 3: "lzo"}[kind]
	if name == "" {
		name = fmt.Sprintf("method %d", kind)
	}
	return nil, fmt.Errorf("the image is compressed by %s, which cannot be read: unsquashfs it and import the directory", name)
}

// readInto is for decoders that are readers.
func readInto(dst []byte, r io.Reader) (int, error) {
	n, err := io.ReadFull(r, dst)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return n, nil
	}
	var more [1]byte
	if k, _ := io.ReadFull(r, more[:]); err == nil && k > 0 {
		err = errDamaged
	}
	return n, err
}

func unpackZlib(dst, src []byte) (int, error) {
	r, err := zlib.NewReader(bytes.NewReader(src))
	if err != nil {
		return 0, err
	}
	return readInto(dst, r)
}

func unpackXZ(dst, src []byte) (int, error) {
	// mksquashfs makes no dictionary that is larger than a block.
	return readInto(dst, compressed.XZ(bufio.NewReader(bytes.NewReader(src)), maxBlockSize))
}

func newUnpackZstd() (unpacker, error) {
	d, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxBlockSize), zstd.WithDecoderMaxWindow(8*maxBlockSize))
	if err != nil {
		return nil, err
	}
	return func(dst, src []byte) (int, error) {
		out, err := d.DecodeAll(src, dst[:0])
		if err == nil && len(out) > len(dst) {
			err = errDamaged
		}
		if err != nil {
			return 0, err
		}
		return copy(dst, out), nil
	}, nil
}

// Metadata lie in blocks of metaSize bytes, each compressed for itself behind a header
// that says how long it is.
const (
	metaSize   = 8 << 10
	metaHeader = 2
	metaPlain  = 1 << 15 // in the header of a block that is not compressed
)

type metaBlock struct {
	data []byte
	next int64 // where the block behind it begins
}

// metaHeaderAt returns how long a block of metadata is, and whether it is compressed.
func (v *Volume) metaHeaderAt(off int64) (length int, packed bool, err error) {
	var header [metaHeader]byte
	if err := v.readAt(header[:], uint64(off)); err != nil {
		return 0, false, err
	}
	h := le.Uint16(header[:])
	length = int(h &^ metaPlain)
	if length == 0 || length > metaSize {
		return 0, false, errDamaged
	}
	return length, h&metaPlain == 0, nil
}

func (v *Volume) metaBlock(off int64) (metaBlock, error) {
	if b, ok := v.metadata.Get(off); ok {
		return b, nil
	}
	length, packed, err := v.metaHeaderAt(off)
	if err != nil {
		return metaBlock{}, err
	}
	b := metaBlock{make([]byte, length), off + metaHeader + int64(length)}
	if err := v.readAt(b.data, uint64(off+metaHeader)); err != nil {
		return metaBlock{}, err
	}
	if packed {
		out := make([]byte, metaSize)
		n, err := v.unpack(out, b.data)
		if err != nil || n == 0 {
			return metaBlock{}, errors.Join(errDamaged, err)
		}
		b.data = out[:n:n]
	}
	v.metadata.Add(off, b)
	return b, nil
}

// cursor reads metadata, from one block into the next.
type cursor struct {
	v   *Volume
	off int64 // of the block
	at  int   // in it
}

// at returns a cursor at a reference into a table: the block's place in the table
// and, in the lowest 16 bits, that in the block.
func (v *Volume) at(table int64, ref uint64) (cursor, error) {
	if ref>>16 > uint64(v.size-table) {
		return cursor{}, errDamaged
	}
	return cursor{v, table + int64(ref>>16), int(ref & 0xFFFF)}, nil
}

// read fills b.
func (c *cursor) read(b []byte) error {
	for len(b) > 0 {
		block, err := c.v.metaBlock(c.off)
		if err != nil {
			return err
		}
		if c.at > len(block.data) {
			return errDamaged
		}
		n := copy(b, block.data[c.at:])
		b, c.at = b[n:], c.at+n
		if c.at == len(block.data) {
			c.off, c.at = block.next, 0
		}
	}
	return nil
}

// table is one of records in metadata, whose blocks are named by an index.
type table struct {
	index       uint64
	count, size uint64 // of records, and of one of them
}

func (v *Volume) openTable(index, count, size uint64) (table, error) {
	perBlock := metaSize / size
	blocks := (count + perBlock - 1) / perBlock
	if index > uint64(v.size) || blocks > (uint64(v.size)-index)/8 {
		return table{}, errDamaged
	}
	return table{index, count, size}, nil
}

// record reads record i of a table into b.
func (v *Volume) record(t table, i uint64, b []byte) error {
	if i >= t.count {
		return errDamaged
	}
	perBlock := metaSize / t.size
	var at [8]byte
	if err := v.readAt(at[:], t.index+i/perBlock*8); err != nil {
		return err
	}
	off := le.Uint64(at[:])
	if off > uint64(v.size) {
		return errDamaged
	}
	c := cursor{v, int64(off), int(i % perBlock * t.size)}
	return c.read(b)
}
