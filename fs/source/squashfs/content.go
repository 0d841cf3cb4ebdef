package squashfs

import (
	"errors"
	"io"

	"github.com/rootnfsd/rootnfsd/fs/source/volume"
)

const (
	blockPlain = 1 << 24 // in the length of a block that is not compressed
	// maxBlocks bounds the list of a file's blocks, which is held in memory: 512 GiB of
	// blocks of the usual size.
	maxBlocks = 1 << 22
	// stride is how many blocks have the place of the first one noted.
	stride = 256
)

// content is that of a file: whole blocks, and an end that may be part of a fragment.
type content struct {
	v       *Volume
	size    int64
	lengths []uint32 // of the blocks as they lie on the disk; 0 is a hole
	starts  []uint64 // where every stride-th of them begins
	tail    tail
}

// tail is where the end of a file lies in a block that it shares with others.
type tail struct {
	start          uint64
	length, offset uint32
	size           int64
}

// Open implements volume.Volume.
func (v *Volume) Open(ino uint64) (volume.Content, error) {
	n, err := v.inode(ino)
	if err != nil {
		return nil, err
	}
	if n.kind != typeFile {
		return nil, errors.New("not a regular file")
	}
	c := &content{v: v, size: int64(n.size)}
	count := n.size / uint64(v.blockSize)
	if end := n.size % uint64(v.blockSize); n.fragment != none {
		var b [16]byte
		if err := v.record(v.fragments, uint64(n.fragment), b[:]); err != nil {
			return nil, err
		}
		c.tail = tail{le.Uint64(b[:]), le.Uint32(b[8:]), n.offset, int64(end)}
	} else if end > 0 {
		count++
	}
	if count > maxBlocks {
		return nil, errors.New("a file of too many blocks")
	}
	return c, c.readLengths(n.rest, int(count), n.start)
}

func (c *content) readLengths(list cursor, count int, start uint64) error {
	var b [4]byte
	for i := range count { // not allocated before it is there
		if i%stride == 0 {
			c.starts = append(c.starts, start)
		}
		if err := list.read(b[:]); err != nil {
			return err
		}
		length := le.Uint32(b[:])
		c.lengths = append(c.lengths, length)
		start += uint64(length &^ blockPlain)
	}
	return nil
}

// start returns where block i begins.
func (c *content) start(i int) uint64 {
	at := c.starts[i/stride]
	for _, length := range c.lengths[i/stride*stride : i] {
		at += uint64(length &^ blockPlain)
	}
	return at
}

// ReadAt implements io.ReaderAt.
func (c *content) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		if off >= c.size {
			return n, io.EOF
		}
		data, err := c.block(off)
		if err != nil {
			return n, err
		}
		k := copy(p[n:], data)
		n, off = n+k, off+int64(k)
	}
	return n, nil
}

// block returns the content from off, which is within the size, to the end of its block.
func (c *content) block(off int64) ([]byte, error) {
	i, skip := int(off/c.v.blockSize), off%c.v.blockSize
	if i >= len(c.lengths) {
		b, err := c.v.dataBlock(c.tail.start, c.tail.length, 0)
		if err != nil {
			return nil, err
		}
		if int64(c.tail.offset)+c.tail.size > int64(len(b)) {
			return nil, errDamaged
		}
		return b[c.tail.offset:][skip:c.tail.size], nil
	}
	want := min(c.v.blockSize, c.size-off+skip)
	if c.lengths[i] == 0 {
		return zeros[:want-skip], nil
	}
	b, err := c.v.dataBlock(c.start(i), c.lengths[i], int(want))
	if err != nil {
		return nil, err
	}
	return b[skip:], nil
}

var zeros [maxBlockSize]byte

// dataBlock returns a block of content, which has want bytes if that is not 0.
func (v *Volume) dataBlock(start uint64, length uint32, want int) ([]byte, error) {
	packed := length&blockPlain == 0
	length &^= blockPlain
	b, ok := v.blocks.Get(int64(start))
	if !ok {
		if length == 0 || int64(length) > v.blockSize {
			return nil, errDamaged
		}
		b = make([]byte, length)
		if err := v.readAt(b, start); err != nil {
			return nil, err
		}
		if packed {
			out := make([]byte, v.blockSize)
			n, err := v.unpack(out, b)
			if err != nil {
				return nil, errors.Join(errDamaged, err)
			}
			b = out[:n:n]
		}
		v.blocks.Add(int64(start), b)
	}
	if want > 0 && len(b) != want {
		return nil, errDamaged
	}
	return b, nil
}

// NextData implements source.DataFinder.
func (c *content) NextData(off int64) (from, to int64, err error) {
	size := c.v.blockSize
	i := int(off / size)
	for i < len(c.lengths) && c.lengths[i] == 0 {
		i++
	}
	if from = max(off, int64(i)*size); from >= c.size {
		return 0, 0, io.EOF
	}
	for i < len(c.lengths) && c.lengths[i] != 0 {
		i++
	}
	if i == len(c.lengths) {
		return from, c.size, nil // with the tail, which is no hole
	}
	return from, int64(i) * size, nil
}
