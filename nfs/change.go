package nfs

import (
	"errors"

	"github.com/rootnfsd/rootnfsd/exports"
	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

// change answers a call that changes something in a home.
func (c *call) change() wire.AcceptStat {
	m := &mutations[c.header.Proc]
	var args mutationArgs
	if !m.decode(c, &args) {
		return wire.GarbageArgs
	}
	err := c.resolveChange(&args)
	if err == nil {
		err = args.check(m)
	}
	if err == nil {
		err = m.apply(c, &args)
	}
	done := c.status(err)
	if done && m.makes {
		c.putMade(&args)
	}
	objects := [...]*exports.HomeObject{&c.home, &c.home2}
	for i, o := range objects[:args.nhandles] {
		if m.plainFirst && i == 0 {
			c.putHomePostOp(o)
		} else {
			c.putChange(o, &args.changes[i])
		}
	}
	if done && m.results != nil {
		m.results(c, &args)
	}
	return wire.Success
}

// resolveChange makes home and home2 what the handles name. Both are then of one
// tree: a handle of one tree must not be taken for one of another.
func (c *call) resolveChange(args *mutationArgs) error {
	if err := c.resolveHome(args.handles[0]); err != nil {
		return err
	}
	second := args.handles[1]
	switch {
	case args.nhandles < 2:
		return nil
	case exports.IsHome(second):
		if err := c.srv.exports.ResolveHome(c.peer, second, &c.home2); err != nil {
			return err
		}
		if !c.home.SameTree(&c.home2) {
			return fs.ErrXDev
		}
		return nil
	}
	if err := c.resolveLive(second, &c.obj2); err != nil {
		return err
	}
	return fs.ErrXDev // it is in an image
}

// check finds what is wrong with the arguments whatever they are about.
func (m *mutationArgs) check(what *mutation) error {
	if m.nameErr != nil {
		return m.nameErr
	}
	if m.valueErr != nil {
		return m.valueErr
	}
	for _, name := range m.names[:m.nnames] {
		switch {
		case name.IsDot():
			return what.dots[0]
		case name.IsDotDot():
			return what.dots[1]
		}
	}
	return nil
}

// putMade appends a post_op_fh3 and a post_op_attr of the object that was made.
// Its attributes are in attr.
func (c *call) putMade(m *mutationArgs) {
	c.out.Bool(true)
	c.putHomeHandle(m.made)
	c.out.Bool(true)
	c.putAttr(&c.attr)
}

// putChange appends a wcc_data.
func (c *call) putChange(o *exports.HomeObject, change *fs.Change) {
	before := change.Before
	c.out.Bool(before != nil)
	if before != nil {
		c.out.Uint64(before.Size)
		c.putTime(before.Mtime)
		c.putTime(before.Ctime)
	}
	if !change.HasAfter {
		c.putHomePostOp(o)
		return
	}
	c.out.Bool(true)
	c.putAttr(&change.After)
}

// setattr is SETATTR (RFC 1813, section 3.3.2).
func (c *call) setattr(m *mutationArgs) (err error) {
	m.changes[0], err = c.home.Tree.Setattr(&c.cred, c.home.Handle, &m.attr, m.guard)
	return err
}

// write is WRITE (RFC 1813, section 3.3.7).
func (c *call) write(m *mutationArgs) (err error) {
	tree, h, data := c.home.Tree, c.home.Handle, m.data
	if p := c.pipe; p != nil {
		m.changes[0], m.verifier, err = tree.WriteSpliced(&c.cred, h, m.off, p.held, p.out)
		if err == nil {
			p.held = 0
		}
		if !errors.Is(err, fs.ErrInvalid) && !errors.Is(err, fs.ErrNotSupported) {
			return err
		}
		buf, recycle := c.srv.pools.buffer(largeSize) // the host cannot take it from there
		defer recycle()
		data = buf[:p.held]
		if err := p.readAll(data); err != nil {
			return err
		}
	}
	m.changes[0], m.verifier, err = tree.Write(&c.cred, h, m.off, data, m.stable)
	return err
}

// putWritten appends what WRITE says after wcc_data. All was written, and is as
// safe as was asked.
func (c *call) putWritten(m *mutationArgs) {
	c.out.Uint32(m.count)
	c.out.Uint32(uint32(m.stable))
	c.putCommitted(m)
}

// commit is COMMIT (RFC 1813, section 3.3.21).
func (c *call) commit(m *mutationArgs) (err error) {
	m.changes[0], m.verifier, err = c.home.Tree.Commit(&c.cred, c.home.Handle)
	return err
}

// putCommitted appends the verifier.
func (c *call) putCommitted(m *mutationArgs) { copy(c.out.Extend(verifierSize), m.verifier[:]) }

// create is CREATE (RFC 1813, section 3.3.8).
func (c *call) create(m *mutationArgs) (err error) {
	m.made, m.changes[0], err = c.home.Tree.Create(&c.cred, c.home.Handle, m.names[0], m.create, &m.attr, m.verifier, &c.attr)
	return err
}

// mkdir is MKDIR (RFC 1813, section 3.3.9).
func (c *call) mkdir(m *mutationArgs) (err error) {
	m.made, m.changes[0], err = c.home.Tree.Mkdir(&c.cred, c.home.Handle, m.names[0], &m.attr, &c.attr)
	return err
}

// symlink is SYMLINK (RFC 1813, section 3.3.10). A text with a NUL in it, or
// without a byte, no client could read back as it was.
func (c *call) symlink(m *mutationArgs) (err error) {
	if err := checkLink(m.data); err != nil {
		return err
	}
	m.made, m.changes[0], err = c.home.Tree.Symlink(&c.cred, c.home.Handle, m.names[0], m.data, &m.attr, &c.attr)
	return err
}

// mknod is MKNOD (RFC 1813, section 3.3.11).
func (c *call) mknod(m *mutationArgs) (err error) {
	m.made, m.changes[0], err = c.home.Tree.Mknod(&c.cred, c.home.Handle, m.names[0], m.kind, m.major, m.minor, &m.attr, &c.attr)
	return err
}

// remove is REMOVE (RFC 1813, section 3.3.12).
func (c *call) remove(m *mutationArgs) (err error) {
	m.changes[0], err = c.home.Tree.Remove(&c.cred, c.home.Handle, m.names[0])
	return err
}

// rmdir is RMDIR (RFC 1813, section 3.3.13).
func (c *call) rmdir(m *mutationArgs) (err error) {
	m.changes[0], err = c.home.Tree.Rmdir(&c.cred, c.home.Handle, m.names[0])
	return err
}

// rename is RENAME (RFC 1813, section 3.3.14).
func (c *call) rename(m *mutationArgs) (err error) {
	m.changes[0], m.changes[1], err = c.home.Tree.Rename(&c.cred, c.home.Handle, m.names[0], c.home2.Handle, m.names[1])
	return err
}

// link is LINK (RFC 1813, section 3.3.15): home is the object, home2 the directory
// of its new name.
func (c *call) link(m *mutationArgs) (err error) {
	m.changes[1], err = c.home.Tree.Link(&c.cred, c.home.Handle, c.home2.Handle, m.names[0], &c.attr)
	return err
}
