package nfs

import (
	"errors"

	gonfs "github.com/willscott/go-nfs"

	"github.com/rootnfsd/rootnfsd/exports"
	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

// homeProcedures answers NFS version 3 about objects in homes, as nfsProcedures
// does about those in images. All may wait for a disk.
var homeProcedures = [...]procedure{
	gonfs.NFSProcedureNull:        null,
	gonfs.NFSProcedureGetAttr:     (*call).homeGetattr,
	gonfs.NFSProcedureSetAttr:     (*call).change,
	gonfs.NFSProcedureLookup:      (*call).homeLookup,
	gonfs.NFSProcedureAccess:      (*call).homeAccess,
	gonfs.NFSProcedureReadlink:    (*call).homeReadlink,
	gonfs.NFSProcedureRead:        (*call).homeRead,
	gonfs.NFSProcedureWrite:       (*call).change,
	gonfs.NFSProcedureCreate:      (*call).change,
	gonfs.NFSProcedureMkDir:       (*call).change,
	gonfs.NFSProcedureSymlink:     (*call).change,
	gonfs.NFSProcedureMkNod:       (*call).change,
	gonfs.NFSProcedureRemove:      (*call).change,
	gonfs.NFSProcedureRmDir:       (*call).change,
	gonfs.NFSProcedureRename:      (*call).change,
	gonfs.NFSProcedureLink:        (*call).change,
	gonfs.NFSProcedureReadDir:     (*call).homeReaddir,
	gonfs.NFSProcedureReadDirPlus: (*call).homeReaddirplus,
	gonfs.NFSProcedureFSStat:      (*call).homeFSStat,
	gonfs.NFSProcedureFSInfo:      (*call).homeFSInfo,
	gonfs.NFSProcedurePathConf:    (*call).homePathConf,
	gonfs.NFSProcedureCommit:      (*call).change,
}

// homeACLProcedures answers NFSACL version 3 about objects in homes.
var homeACLProcedures = [...]procedure{
	0: null,
	1: (*call).homeGetACL,
	2: (*call).homeSetACL,
}

// aboutHome reports whether the first argument of the call is the handle of a
// home. If it is good for something, the call is for answerInHome; what is wrong
// with any other one is told at once.
func (c *call) aboutHome() bool {
	args := c.args // a copy: the procedure decodes it again
	handle := args.Opaque(exports.MaxHandle)
	if !exports.IsHome(handle) {
		return false
	}
	c.inHome = c.header.Proc != uint32(gonfs.NFSProcedureNull) && c.srv.exports.CheckHome(c.peer, handle) == nil
	return true
}

// resolveHome makes home what handle names, and cred whoever the caller is there.
func (c *call) resolveHome(handle []byte) error {
	if err := c.srv.exports.ResolveHome(c.peer, handle, &c.home); err != nil {
		return err
	}
	c.home.Squash(&c.cred, c.header.Cred.Flavor != wire.AuthSys)
	return nil
}

// resolveHomeLive is resolveHome, and makes attr the object's attributes.
func (c *call) resolveHomeLive(handle []byte) error {
	if err := c.resolveHome(handle); err != nil {
		return err
	}
	return c.home.Tree.Getattr(c.home.Handle, &c.attr)
}

// putHomeLive is putLive.
func (c *call) putHomeLive(handle []byte) bool {
	found := c.status(c.resolveHomeLive(handle))
	c.out.Bool(found)
	if found {
		c.putAttr(&c.attr)
	}
	return found
}

// putHomePostOp appends a post_op_attr: the attributes of an object as they are now.
func (c *call) putHomePostOp(o *exports.HomeObject) {
	if o.Tree == nil || o.Tree.Getattr(o.Handle, &c.attr) != nil {
		c.out.Bool(false)
		return
	}
	c.out.Bool(true)
	c.putAttr(&c.attr)
}

// putHomeHandle appends the handle of an object in the same home.
func (c *call) putHomeHandle(h fs.Handle) {
	c.out.Opaque(c.home.AppendHandle(c.handle[:0], h))
}

// failInHome appends the results of a call on home that failed.
func (c *call) failInHome(err error) wire.AcceptStat {
	c.status(err)
	c.putHomePostOp(&c.home)
	return wire.Success
}

func (c *call) homeGetattr() wire.AcceptStat {
	handle := c.fileHandle()
	if !c.args.Done() {
		return wire.GarbageArgs
	}
	if c.status(c.resolveHomeLive(handle)) {
		c.putAttr(&c.attr)
	}
	return wire.Success
}

func (c *call) homeLookup() wire.AcceptStat {
	handle, b := c.fileHandle(), c.name()
	if !c.args.Done() {
		return wire.GarbageArgs
	}
	if err := c.resolveHome(handle); err != nil {
		return c.failUnresolved(err)
	}
	name, err := fs.ParseName(b)
	var found fs.Handle
	if err == nil {
		found, err = c.home.Tree.Lookup(&c.cred, c.home.Handle, name, &c.attr)
	}
	if c.status(err) {
		c.putHomeHandle(found)
		c.out.Bool(true)
		c.putAttr(&c.attr)
	}
	c.putHomePostOp(&c.home)
	return wire.Success
}

// The bits of ACCESS that only something that can be changed has (RFC 1813,
// section 3.3.4).
const (
	accessModify = 0x04
	accessExtend = 0x08
	accessDelete = 0x10
)

func (c *call) homeAccess() wire.AcceptStat {
	handle, asked := c.fileHandle(), c.args.Uint32()
	if !c.args.Done() {
		return wire.GarbageArgs
	}
	if err := c.resolveHomeLive(handle); err != nil {
		return c.failUnresolved(err)
	}
	granted, err := c.home.Tree.Access(&c.cred, c.home.Handle, fs.MayRead|fs.MayWrite|fs.MayExec)
	if err != nil {
		return c.failInHome(err)
	}
	c.status(nil)
	c.out.Bool(true)
	c.putAttr(&c.attr)
	c.out.Uint32(asked & homeAccessBits(c.attr.Kind, granted))
	return wire.Success
}

// homeAccessBits says in the bits of ACCESS what the rights mean for an object of
// that kind, as nfsd_access does (fs/nfsd/vfs.c).
func homeAccessBits(kind fs.Kind, granted fs.Perm) uint32 {
	var bits uint32
	if granted&fs.MayRead != 0 {
		bits |= accessRead
	}
	if kind != fs.Directory {
		if granted&fs.MayExec != 0 {
			bits |= accessExecute
		}
		if granted&fs.MayWrite != 0 {
			bits |= accessModify | accessExtend
		}
		return bits
	}
	if granted&fs.MayExec != 0 {
		bits |= accessLookup
		if granted&fs.MayWrite != 0 { // names are changed by who can look them up
			bits |= accessModify | accessExtend | accessDelete
		}
	}
	return bits
}

// maxLink is the longest text of a symlink on Linux (PATH_MAX).
const maxLink = 4096

func (c *call) homeReadlink() wire.AcceptStat {
	handle := c.fileHandle()
	if !c.args.Done() {
		return wire.GarbageArgs
	}
	if err := c.resolveHome(handle); err != nil {
		return c.failUnresolved(err)
	}
	text, err := c.home.Tree.Readlink(&c.cred, c.home.Handle, make([]byte, 0, maxLink))
	if err != nil {
		return c.failInHome(err)
	}
	c.status(nil)
	c.putHomePostOp(&c.home)
	c.out.Opaque(text)
	return wire.Success
}

// homeRead is READ. The attributes are from before it: were they from after it, a
// client could take content from before a change for that from after it.
func (c *call) homeRead() wire.AcceptStat {
	handle := c.fileHandle()
	c.read.off, c.read.count = c.args.Uint64(), min(c.args.Uint32(), maxIO)
	if !c.args.Done() {
		return wire.GarbageArgs
	}
	if err := c.resolveHome(handle); err != nil {
		return c.failUnresolved(err)
	}
	if c.pipe != nil {
		if stat, ok := c.homeReadPiped(); ok {
			return stat
		}
		c.read.count = min(c.read.count, uint32(c.out.Room()-readData)) // what else there is room for
	}
	pos := c.out.Len()
	c.putRead() // with attributes that are not known yet
	p := c.out.Extend(int(c.read.count))
	if c.out.Overflow() {
		return wire.SystemErr
	}
	n, eof, err := c.readHome(p)
	if c.waits {
		return wire.Success
	}
	if err != nil {
		c.out.Truncate(pos)
		return c.failInHome(err)
	}
	c.home.NoteRead(c.read.count)
	c.out.Truncate(pos + readData + n)
	c.out.Padding(n)
	c.setRead(pos, n, eof)
	putAttr(c.out.Bytes()[pos+4+4:], &c.attr)
	return wire.Success
}

// homeReadPiped answers a READ with what it moves to the pipe. It reports false if the
// host cannot do that.
func (c *call) homeReadPiped() (stat wire.AcceptStat, ok bool) {
	n, eof, err := c.home.Tree.Splice(&c.cred, c.home.Handle, c.read.off, int(c.read.count), c.pipe.in, &c.attr)
	switch {
	case errors.Is(err, fs.ErrInvalid), errors.Is(err, fs.ErrNotSupported):
		return 0, false
	case err != nil:
		return c.failInHome(err), true
	}
	c.home.NoteRead(c.read.count)
	c.payload, c.pipe.held = n, n
	pos := c.out.Len()
	c.putRead()
	c.setRead(pos, n, eof)
	return wire.Success, true
}

// readHome reads, and makes attr the attributes from before that. A call that should
// not wait says so if it had to.
func (c *call) readHome(p []byte) (n int, eof bool, err error) {
	o := &c.home
	if c.hurried {
		n, eof, err = o.Tree.ReadNow(&c.cred, o.Handle, c.read.off, p, &c.attr)
		c.waits = errors.Is(err, fs.ErrWouldBlock)
		return n, eof, err
	}
	if err := o.Tree.Getattr(o.Handle, &c.attr); err != nil {
		return 0, false, err
	}
	return o.Tree.Read(&c.cred, o.Handle, c.read.off, p)
}

func (c *call) homeFSStat() wire.AcceptStat {
	handle := c.fileHandle()
	if !c.args.Done() {
		return wire.GarbageArgs
	}
	if err := c.resolveHome(handle); err != nil {
		return c.failUnresolved(err)
	}
	s, err := c.home.Tree.Statfs(&c.cred)
	if err != nil {
		return c.failInHome(err)
	}
	c.status(nil)
	c.putHomePostOp(&c.home)
	c.putStatfs(s)
	return wire.Success
}

func (c *call) homeFSInfo() wire.AcceptStat   { return c.aboutHomeTree((*call).putFSInfo) }
func (c *call) homePathConf() wire.AcceptStat { return c.aboutHomeTree((*call).putPathConf) }

// aboutHomeTree is aboutTree.
func (c *call) aboutHomeTree(results func(*call)) wire.AcceptStat {
	handle := c.fileHandle()
	if !c.args.Done() {
		return wire.GarbageArgs
	}
	if c.putHomeLive(handle) {
		results(c)
	}
	return wire.Success
}

func (c *call) homeGetACL() wire.AcceptStat {
	handle, mask := c.fileHandle(), c.args.Uint32()
	if !c.args.Done() {
		return wire.GarbageArgs
	}
	if c.putHomeLive(handle) {
		c.putNoACL(mask)
	}
	return wire.Success
}

// homeSetACL is SETACL. What the host keeps of ACLs is not for the wire.
func (c *call) homeSetACL() wire.AcceptStat {
	handle := c.fileHandle()
	c.args.FixedOpaque(c.args.Len())
	if !c.args.Done() {
		return wire.GarbageArgs
	}
	if err := c.resolveHome(handle); err != nil {
		return c.failUnresolved(err)
	}
	return c.failInHome(fs.ErrNotSupported)
}
