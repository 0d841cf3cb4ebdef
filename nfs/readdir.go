package nfs

import (
	"errors"

	gonfs "github.com/willscott/go-nfs"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

// maxListing bounds the results of READDIR and READDIRPLUS; it is the dtpref of
// FSINFO.
const maxListing = 64 << 10

// Sizes in a listing.
const (
	verifierSize = 8
	// trailerSize is the end of the list and eof, for which room is kept.
	trailerSize = 8
	// An entry is at least this large: with the name of one byte, and with
	// attributes and the shortest handle that is used.
	minEntry     = 4 + 8 + 8 + 8
	minEntryPlus = minEntry + 4 + attrSize + 4 + 4 + 32

	// maxBatch is how many entries a tree is asked for at a time.
	maxBatch = 128
)

// errTooSmall says that the client left no room for even one entry.
var errTooSmall = errors.New("no room for an entry")

// listing is a READDIR or READDIRPLUS that has been decoded.
type listing struct {
	cookie uint64
	plus   bool
	// names bounds the bytes of ids, names and cookies, all the bytes of
	// results after the status.
	names, all uint32

	end  int   // the position in the reply that entries must not go beyond
	used int64 // of names
	some bool  // an entry fitted
	full bool  // one did not
}

// readdir is READDIR (RFC 1813, section 3.3.16).
func (c *call) readdir() wire.AcceptStat {
	handle, l := c.readdirArgs()
	return c.list(handle, &l)
}

func (c *call) readdirArgs() ([]byte, listing) {
	handle := c.fileHandle()
	l := listing{cookie: c.args.Uint64()}
	c.args.FixedOpaque(verifierSize)
	l.all = c.args.Uint32()
	l.names = l.all
	return handle, l
}

// readdirplus is READDIRPLUS (RFC 1813, section 3.3.17).
func (c *call) readdirplus() wire.AcceptStat {
	handle, l := c.readdirplusArgs()
	return c.list(handle, &l)
}

func (c *call) readdirplusArgs() ([]byte, listing) {
	handle := c.fileHandle()
	l := listing{cookie: c.args.Uint64(), plus: true}
	c.args.FixedOpaque(verifierSize)
	l.names = c.args.Uint32()
	l.all = c.args.Uint32()
	return handle, l
}

// list answers with as much of a directory as the client has room for.
//
// The cookie verifier is the identity of the tree, and what the client sends
// back is not looked at: the handle names the tree, a tree does not change, and
// so every cookie stays good. To check it would only hurt clients that garble
// it, of which there are some.
func (c *call) list(handle []byte, l *listing) wire.AcceptStat {
	if !c.args.Done() {
		return wire.GarbageArgs
	}
	if err := c.resolve(handle); err != nil {
		return c.failUnresolved(err)
	}
	l.all = min(l.all, maxListing)
	pos := c.out.Len()
	c.status(nil)
	body := c.out.Len()
	c.putPostOp(c.obj.ID)
	c.out.Uint64(c.obj.Tree.FSID())
	eof, err := c.putEntries(l, body)
	if err != nil {
		c.out.Truncate(pos)
		return c.failListing(err)
	}
	c.out.Bool(false) // no more entries
	c.out.Bool(eof)
	return wire.Success
}

func (c *call) failListing(err error) wire.AcceptStat {
	c.listingStatus(err)
	c.putPostOp(c.obj.ID)
	return wire.Success
}

// listingStatus appends the status of a listing that failed.
func (c *call) listingStatus(err error) {
	switch {
	case errors.Is(err, errTooSmall):
		c.out.Uint32(uint32(gonfs.NFSStatusTooSmall))
	case errors.Is(err, fs.ErrInvalid):
		c.out.Uint32(uint32(gonfs.NFSStatusBadCookie))
	default:
		c.status(err)
	}
}

// putEntries appends entries until the directory ends, which it reports, or the
// room does. The results start at position body.
func (c *call) putEntries(l *listing, body int) (eof bool, err error) {
	l.end = body + int(l.all) - trailerSize
	if c.out.Len() > l.end {
		return false, errTooSmall
	}
	for !l.full && !eof {
		batch := c.entries[:l.batch(c.out.Len())]
		var n int
		n, eof, err = c.obj.Tree.ReadDir(&c.cred, c.obj.ID, l.cookie, batch)
		if err != nil && l.some {
			return false, nil // what there is; the client comes back for the error
		}
		if err != nil || n == 0 {
			return eof, err
		}
		c.putBatch(l, batch[:n])
		clear(batch[:n]) // the names are the tree's memory
	}
	if l.full && !l.some {
		return false, errTooSmall
	}
	return eof && !l.full, nil
}

// putBatch appends entries until the room ends.
func (c *call) putBatch(l *listing, batch []fs.DirEntry) {
	for i := range batch {
		e := &batch[i]
		pos := c.out.Len()
		c.putEntry(e, l.plus)
		if !c.keepEntry(l, pos, e.Name, e.Cookie) {
			return
		}
	}
}

// keepEntry counts the entry that was appended at pos, or takes it back because
// the room has ended. The first of a reply may exceed dircount, which is advice:
// a client that gets nothing cannot go on.
func (c *call) keepEntry(l *listing, pos int, name []byte, cookie uint64) bool {
	l.used += entrySize(name)
	if c.out.Len() > l.end || c.out.Overflow() || (l.some && l.used > int64(l.names)) {
		c.out.Truncate(pos)
		l.full = true
		return false
	}
	l.cookie, l.some = cookie, true
	return true
}

// batch returns how many entries to ask for when the reply has reached pos: no
// more than fit, to do nothing in vain, and one beyond, to learn that it does not.
func (l *listing) batch(pos int) int {
	size := minEntry
	if l.plus {
		size = minEntryPlus
	}
	return min(1+(l.end-pos)/size, maxBatch)
}

// entrySize is what an entry counts for dircount: all but attributes and handle.
func entrySize(name []byte) int64 {
	return int64(4 + 8 + 4 + len(name) + wire.Pad(len(name)) + 8)
}

// putEntry appends an entry3 or entryplus3.
func (c *call) putEntry(e *fs.DirEntry, plus bool) {
	c.out.Bool(true)
	c.out.Uint64(e.FileID)
	c.out.Opaque(e.Name)
	c.out.Uint64(e.Cookie)
	if plus {
		c.putPostOp(e.ID)
		c.out.Bool(true)
		c.putHandle(e.ID)
	}
}
