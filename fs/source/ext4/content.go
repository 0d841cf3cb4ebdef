package ext4

import (
	"errors"
	"fmt"
	"io"

	"github.com/rootnfsd/rootnfsd/fs/source/volume"
)

// run is a part of a file: count blocks from the one asked for, which lie at
// physical, or are a hole if that is 0.
type run struct {
	physical uint64
	count    uint64
}

// blockMap tells where a file's blocks lie. It is asked for each run anew, and
// so needs no memory, however large or strange the file is.
type blockMap func(logical uint64) (run, error)

// Open implements volume.Volume.
func (v *Volume) Open(ino uint64) (volume.Content, error) {
	n, err := v.inode(ino)
	if err != nil {
		return nil, err
	}
	if n.format() != 0x8000 {
		return nil, errors.New("not a regular file")
	}
	return v.content(n)
}

// content returns the content of a file, directory or link.
func (v *Volume) content(n inode) (volume.Content, error) {
	if n.size() > 1<<62 {
		return nil, fmt.Errorf("damaged: %d bytes long", n.size())
	}
	if n.flags()&flagInline != 0 {
		data, err := v.inline(n)
		if err != nil {
			return nil, err
		}
		return inlineContent(data), nil
	}
	return &content{v, int64(n.size()), v.blockMap(n)}, nil
}

func (v *Volume) blockMap(n inode) blockMap {
	if n.flags()&flagExtents != 0 {
		return func(logical uint64) (run, error) { return v.mapExtent(n.block(), logical) }
	}
	return func(logical uint64) (run, error) { return v.mapBlock(n.block(), logical) }
}

// The records of a tree of extents: a header and entries, of 12 bytes each.
const (
	extentMagic = 0xF30A
	extentSize  = 12
	maxDepth    = 5
	maxExtent   = 32768 // above it the blocks are allocated, but were not written
	maxBlocks   = 1 << 32
)

// mapExtent looks a block up in the tree of extents whose root is node.
func (v *Volume) mapExtent(node []byte, logical uint64) (run, error) {
	if logical >= maxBlocks {
		return run{}, errors.New("damaged: too long for extents")
	}
	end := uint64(maxBlocks) // where the next node begins
	for level := -1; ; {
		entries, depth := int(le.Uint16(node[2:])), int(le.Uint16(node[6:]))
		if le.Uint16(node) != extentMagic || depth > maxDepth || level >= 0 && depth != level-1 || (entries+1)*extentSize > len(node) {
			return run{}, errors.New("damaged: a node of the tree of extents")
		}
		level = depth
		at := -1
		for i := range entries { // the last that begins at or before logical
			first := uint64(le.Uint32(node[(i+1)*extentSize:]))
			if first > logical {
				end = min(end, first)
				break
			}
			at = i
		}
		if at < 0 {
			return run{count: end - logical}, nil
		}
		e := node[(at+1)*extentSize:][:extentSize]
		if depth == 0 {
			return v.inExtent(e, logical, end)
		}
		node = make([]byte, v.blockSize)
		if err := v.readBlocks(node, uint64(le.Uint32(e[4:]))|uint64(le.Uint16(e[8:]))<<32, 0); err != nil {
			return run{}, err
		}
	}
}

// inExtent returns where a block lies whose extent, if any, is e.
func (v *Volume) inExtent(e []byte, logical, end uint64) (run, error) {
	length, written := uint64(le.Uint16(e[4:])), true
	if length > maxExtent {
		length, written = length-maxExtent, false
	}
	skip := logical - uint64(le.Uint32(e))
	if skip >= length {
		return run{count: end - logical}, nil
	}
	r := run{count: min(length-skip, end-logical)}
	if !written {
		return r, nil
	}
	r.physical = (uint64(le.Uint32(e[8:])) | uint64(le.Uint16(e[6:]))<<32) + skip
	if r.physical == 0 || r.physical >= v.blocks || r.count > v.blocks-r.physical {
		return run{}, fmt.Errorf("damaged: an extent at block %d of %d", r.physical, v.blocks)
	}
	return r, nil
}

// direct is how many blocks an inode without extents names itself. One number more
// is that of a block of numbers, one of a block of such, and one of a block of those.
const direct = 12

// mapBlock looks a block up in the numbers of an inode without extents.
func (v *Volume) mapBlock(numbers []byte, logical uint64) (run, error) {
	if logical < direct {
		return v.inNumbers(numbers[logical*4 : direct*4])
	}
	logical -= direct
	perBlock := uint64(v.blockSize / 4)
	span, level := uint64(1), 0
	for level = 0; level < 3; level++ { // span becomes what one number of the tree's root stands for
		if logical < span*perBlock {
			break
		}
		span *= perBlock
		logical -= span
	}
	if level == 3 {
		return run{}, errors.New("damaged: too long for block numbers")
	}
	numbers = numbers[(direct+level)*4:][:4]
	span *= perBlock
	for {
		block := uint64(le.Uint32(numbers))
		if block == 0 {
			return run{count: span - logical}, nil
		}
		numbers = make([]byte, v.blockSize)
		if err := v.readBlocks(numbers, block, 0); err != nil {
			return run{}, err
		}
		span /= perBlock
		numbers = numbers[logical/span*4:]
		if logical %= span; span == 1 {
			return v.inNumbers(numbers)
		}
	}
}

// inNumbers returns the run that a list of block numbers begins with.
func (v *Volume) inNumbers(numbers []byte) (run, error) {
	r := run{uint64(le.Uint32(numbers)), 1}
	for i := 4; i+4 <= len(numbers); i += 4 {
		next := uint64(le.Uint32(numbers[i:]))
		if r.physical == 0 && next != 0 || r.physical != 0 && next != r.physical+r.count {
			break
		}
		r.count++
	}
	if r.physical >= v.blocks || r.count > v.blocks-r.physical {
		return run{}, fmt.Errorf("damaged: refers to block %d of %d", r.physical, v.blocks)
	}
	return r, nil
}

// content is what lies in blocks.
type content struct {
	v     *Volume
	size  int64
	where blockMap
}

func (c *content) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, errors.New("negative offset")
	}
	if off >= c.size {
		return 0, io.EOF
	}
	if int64(len(p)) > c.size-off {
		p, err = p[:c.size-off], io.EOF
	}
	for n < len(p) {
		r, mapErr := c.where(uint64(off / c.v.blockSize))
		if mapErr != nil {
			return n, mapErr
		}
		skip := off % c.v.blockSize
		part := p[n:]
		// Compared in blocks, which cannot overflow.
		if need := uint64((int64(len(part)) + skip + c.v.blockSize - 1) / c.v.blockSize); need > r.count {
			part = part[:int64(r.count)*c.v.blockSize-skip]
		}
		if r.physical == 0 {
			clear(part)
		} else if err := c.v.readBlocks(part, r.physical, skip); err != nil {
			return n, err
		}
		n += len(part)
		off += int64(len(part))
	}
	return n, err
}

// NextData implements source.DataFinder.
func (c *content) NextData(off int64) (from, to int64, err error) {
	for off < c.size {
		r, err := c.where(uint64(off / c.v.blockSize))
		if err != nil {
			return 0, 0, err
		}
		end := c.size
		if start := off / c.v.blockSize; r.count < uint64((c.size-start*c.v.blockSize+c.v.blockSize-1)/c.v.blockSize) {
			end = (start + int64(r.count)) * c.v.blockSize
		}
		if r.physical != 0 {
			return off, end, nil
		}
		off = end
	}
	return 0, 0, io.EOF
}

// inlineContent is what lies in the inode itself.
type inlineContent []byte

func (c inlineContent) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= int64(len(c)) {
		return 0, io.EOF
	}
	n := copy(p, c[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (c inlineContent) NextData(off int64) (from, to int64, err error) {
	if off >= int64(len(c)) {
		return 0, 0, io.EOF
	}
	return off, int64(len(c)), nil
}
