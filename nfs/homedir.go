package nfs

import (
	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

func (c *call) homeReaddir() wire.AcceptStat {
	handle, l := c.readdirArgs()
	return c.listHome(handle, &l)
}

func (c *call) homeReaddirplus() wire.AcceptStat {
	handle, l := c.readdirplusArgs()
	return c.listHome(handle, &l)
}

// homeEntries is scratch of listings.
type homeEntries [maxBatch]fs.HostEntry

// listHome is list. A directory of a home changes while it is read, but its
// cookies stay good, so its verifier stays the same, too: a client that is told of
// a bad one while it lists has to begin anew, and some never come to an end.
func (c *call) listHome(handle []byte, l *listing) wire.AcceptStat {
	if !c.args.Done() {
		return wire.GarbageArgs
	}
	if err := c.resolveHome(handle); err != nil {
		return c.failUnresolved(err)
	}
	l.all = min(l.all, maxListing)
	pos := c.out.Len()
	c.status(nil)
	body := c.out.Len()
	c.putHomePostOp(&c.home)
	c.out.Uint64(c.home.Tree.FSID())
	eof, err := c.putHomeEntries(l, body)
	if err != nil {
		c.out.Truncate(pos)
		c.listingStatus(err)
		c.putHomePostOp(&c.home)
		return wire.Success
	}
	c.out.Bool(false) // no more entries
	c.out.Bool(eof)
	return wire.Success
}

// putHomeEntries is putEntries.
func (c *call) putHomeEntries(l *listing, body int) (eof bool, err error) {
	l.end = body + int(l.all) - trailerSize
	if c.out.Len() > l.end {
		return false, errTooSmall
	}
	scratch := get[homeEntries](&c.srv.pools.entries)
	defer c.srv.pools.entries.Put(scratch)
	for !l.full && !eof {
		batch := scratch[:l.batch(c.out.Len())]
		var n int
		n, eof, err = c.home.Tree.ReadDir(&c.cred, c.home.Handle, l.cookie, l.plus, batch)
		if err != nil && l.some {
			return false, nil // what there is; the client comes back for the error
		}
		if err != nil || n == 0 {
			return eof, err
		}
		for i := range batch[:n] {
			e := &batch[i]
			pos := c.out.Len()
			c.putHomeEntry(e, l.plus)
			if !c.keepEntry(l, pos, e.Name, e.Cookie) {
				break
			}
		}
	}
	if l.full && !l.some {
		return false, errTooSmall
	}
	return eof && !l.full, nil
}

// putHomeEntry appends an entry3 or entryplus3. Attributes and handle that could
// not be had the client asks for by name.
func (c *call) putHomeEntry(e *fs.HostEntry, plus bool) {
	c.out.Bool(true)
	c.out.Uint64(e.FileID)
	c.out.Opaque(e.Name)
	c.out.Uint64(e.Cookie)
	if !plus {
		return
	}
	known := e.Handle.Len > 0
	c.out.Bool(known)
	if known {
		c.putAttr(&e.Attr)
	}
	c.out.Bool(known)
	if known {
		c.putHomeHandle(e.Handle)
	}
}
