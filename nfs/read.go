package nfs

import (
	"errors"
	"math"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

// copyLimit is the largest READ whose bytes are copied into the reply, where it
// goes out with others in one write. Above it they are sent from the file: that
// takes two system calls more, and saves touching each byte twice. With 4
// connections x 16 in flight a READ of 16 KiB takes 6.9 us of CPU copied and 13.1
// sent, one of 32 KiB 11.5 and 13.1; with 64 x 1 the latter are equal. Writing
// from a mapping is between the two at all sizes: 28 us against 21 of sendfile and
// 42 of a copy at 128 KiB, 141, 63 and 267 at 1 MiB (one connection, no NFS).
const copyLimit = 32 << 10

// maxSpans is how many runs of bytes a READ may be sent from. A file in a pack
// is one run but for its holes.
const maxSpans = 32

// readArgs is a READ that has been decoded.
type readArgs struct {
	off   uint64
	count uint32
}

// readFile is READ (RFC 1813, section 3.3.6).
func (c *call) readFile() wire.AcceptStat {
	handle := c.fileHandle()
	c.read.off, c.read.count = c.args.Uint64(), min(c.args.Uint32(), maxIO)
	if !c.args.Done() {
		return wire.GarbageArgs
	}
	if err := c.resolveLive(handle, &c.obj); err != nil {
		return c.failUnresolved(err)
	}
	c.clampRead()
	c.obj.NoteRead(c.read.off, c.read.count)
	if c.read.count <= copyLimit {
		return c.readCopying(true)
	}
	if tree, ok := c.obj.Tree.(fs.Spanner); ok {
		return c.readSpans(tree)
	}
	return c.wait() // for a buffer that it fits in
}

// clampRead makes the READ end where the file does, so that what is reserved
// for it, and how it is sent, follow from what there is.
func (c *call) clampRead() {
	if c.attr.Kind != fs.Regular {
		c.read.count = 0 // the tree will say what is wrong with it
		return
	}
	left := c.attr.Size - min(c.attr.Size, c.read.off)
	c.read.count = uint32(min(uint64(c.read.count), left))
}

// wait leaves a call to another goroutine.
func (c *call) wait() wire.AcceptStat {
	c.slow = true
	return wire.Success
}

// Positions in the results of a READ, from the status on.
const (
	readCount  = 4 + 4 + attrSize
	readEOF    = readCount + 4
	readLength = readEOF + 4
	readData   = readLength + 4
)

// putRead appends results up to the data. The count is set when it is known.
func (c *call) putRead() {
	c.status(nil)
	c.out.Bool(true)
	c.putAttr(&c.attr)
	c.out.Extend(readData - readCount)
}

// setRead sets what putRead left open, in results that start at pos.
func (c *call) setRead(pos, n int, eof bool) {
	c.out.SetUint32(pos+readCount, uint32(n))
	c.out.SetUint32(pos+readEOF, 0)
	if eof {
		c.out.SetUint32(pos+readEOF, 1)
	}
	c.out.SetUint32(pos+readLength, uint32(n))
}

// readCopying answers with a copy of the bytes.
func (c *call) readCopying(nowait bool) wire.AcceptStat {
	pos := c.out.Len()
	c.putRead()
	p := c.out.Extend(int(c.read.count))
	if c.out.Overflow() {
		return wire.SystemErr
	}
	n, eof, err := c.obj.Tree.Read(&c.cred, c.obj.ID, c.read.off, p, nowait)
	switch {
	case err == nil:
		c.out.Truncate(pos + readData + n)
		c.out.Padding(n)
		c.setRead(pos, n, eof)
		return wire.Success
	case nowait && errors.Is(err, fs.ErrWouldBlock):
		return c.wait()
	}
	c.out.Truncate(pos)
	return c.fail(err)
}

// errBadSpans is a fault of a tree.
var errBadSpans = errors.New("the tree gave spans that are not what was asked for")

// readSpans answers with where the bytes are.
func (c *call) readSpans(tree fs.Spanner) wire.AcceptStat {
	n, eof, err := tree.Spans(&c.cred, c.obj.ID, c.read.off, c.read.count, c.spans[:], true)
	if err != nil {
		if errors.Is(err, fs.ErrWouldBlock) || errors.Is(err, fs.ErrNotSupported) {
			return c.wait() // for the disk, or for a buffer as above
		}
		return c.fail(err)
	}
	c.nspans = n
	if c.payload, err = sumSpans(c.spans[:n], c.read.count); err != nil {
		c.dropSpans()
		return c.fail(err)
	}
	pos := c.out.Len()
	c.putRead()
	if c.out.Overflow() {
		c.dropSpans()
		return wire.SystemErr
	}
	c.setRead(pos, c.payload, eof)
	return wire.Success
}

// sumSpans adds up the lengths of spans, which are at most limit.
func sumSpans(spans []fs.Span, limit uint32) (int, error) {
	var sum int64
	for _, s := range spans {
		if s.Len < 0 || s.Off < 0 || s.Off > math.MaxInt64-s.Len || sum+s.Len > int64(limit) {
			return 0, errBadSpans
		}
		sum += s.Len
	}
	return int(sum), nil
}
