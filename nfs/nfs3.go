package nfs

import (
	gonfs "github.com/willscott/go-nfs"
	"go.uber.org/zap"

	"github.com/rootnfsd/rootnfsd/exports"
	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

const nfsVersion = 3

// nfsProcedures answers NFS version 3 (RFC 1813, section 3.3).
var nfsProcedures = [...]procedure{
	gonfs.NFSProcedureNull:        null,
	gonfs.NFSProcedureGetAttr:     (*call).getattr,
	gonfs.NFSProcedureSetAttr:     (*call).mutate,
	gonfs.NFSProcedureLookup:      (*call).lookup,
	gonfs.NFSProcedureAccess:      (*call).access,
	gonfs.NFSProcedureReadlink:    (*call).readlink,
	gonfs.NFSProcedureRead:        (*call).readFile,
	gonfs.NFSProcedureWrite:       (*call).mutate,
	gonfs.NFSProcedureCreate:      (*call).mutate,
	gonfs.NFSProcedureMkDir:       (*call).mutate,
	gonfs.NFSProcedureSymlink:     (*call).mutate,
	gonfs.NFSProcedureMkNod:       (*call).mutate,
	gonfs.NFSProcedureRemove:      (*call).mutate,
	gonfs.NFSProcedureRmDir:       (*call).mutate,
	gonfs.NFSProcedureRename:      (*call).mutate,
	gonfs.NFSProcedureLink:        (*call).mutate,
	gonfs.NFSProcedureReadDir:     (*call).readdir,
	gonfs.NFSProcedureReadDirPlus: (*call).readdirplus,
	gonfs.NFSProcedureFSStat:      (*call).fsstat,
	gonfs.NFSProcedureFSInfo:      (*call).fsinfo,
	gonfs.NFSProcedurePathConf:    (*call).pathconf,
	gonfs.NFSProcedureCommit:      (*call).mutate,
}

// nfsProcedure finds what answers a call of NFS. It is offered on streams only:
// a datagram cannot carry what FSINFO promises.
func (c *call) nfsProcedure() (procedure, wire.AcceptStat) {
	h := &c.header
	switch {
	case c.datagram:
		return nil, wire.ProgUnavail
	case h.Vers == nfsVersion && c.aboutHome():
		return pick(homeProcedures[:], h.Proc)
	case h.Vers == nfsVersion:
		return pick(nfsProcedures[:], h.Proc)
	}
	c.srv.stats.countWrongVersion(h.Vers)
	c.peer.NoteWrongVersion(h.Vers)
	// mount(8) without options tries version 4 first and goes down when it is
	// told so.
	c.srv.log.Info("a client asked for a version of NFS other than 3; it will fall back, and saves the attempt when it mounts with vers=3",
		zap.Stringer("client", c.remote.Addr()), zap.Uint32("version", h.Vers))
	return c.mismatch(nfsVersion, nfsVersion)
}

// fileHandle decodes a handle. One of no bytes or too many is no nfs_fh3, as in
// the kernel (svcxdr_decode_nfs_fh3 in fs/nfsd/nfs3xdr.c).
func (c *call) fileHandle() []byte {
	h := c.args.Opaque(exports.MaxHandle)
	if len(h) == 0 {
		c.args.Fail()
	}
	return h
}

// name decodes a filename3. Any bytes will do here: a name that cannot be one
// is an error of the call, NFS3ERR_INVAL or NFS3ERR_NAMETOOLONG from
// fs.ParseName, which a user understands better than the EIO that garbled
// arguments end in.
func (c *call) name() []byte { return c.args.Opaque(c.args.Len()) }

// resolve makes obj what handle names.
func (c *call) resolve(handle []byte) error {
	return c.srv.exports.Resolve(c.peer, handle, &c.obj)
}

// resolveLive makes o what handle names, and attr its attributes. A handle may
// be good and its object not there.
func (c *call) resolveLive(handle []byte, o *exports.Object) error {
	if err := c.srv.exports.Resolve(c.peer, handle, o); err != nil {
		return err
	}
	return o.Tree.Getattr(o.ID, &c.attr)
}

// putLive makes obj what handle names, appends the status and a post_op_attr, and
// reports whether there is such an object.
func (c *call) putLive(handle []byte) bool {
	found := c.status(c.resolveLive(handle, &c.obj))
	c.out.Bool(found)
	if found {
		c.putAttr(&c.attr)
	}
	return found
}

// status appends the status for err and reports whether it is NFS3_OK.
func (c *call) status(err error) bool {
	status := nfsStatus(err)
	if status == gonfs.NFSStatusIO {
		c.srv.log.Error("input/output error", append(c.fields(), zap.Uint64("object", uint64(c.obj.ID)), zap.Error(err))...)
	}
	c.out.Uint32(uint32(status))
	return status == gonfs.NFSStatusOk
}

// getattr is GETATTR (RFC 1813, section 3.3.1).
func (c *call) getattr() wire.AcceptStat {
	handle := c.fileHandle()
	if !c.args.Done() {
		return wire.GarbageArgs
	}
	if c.status(c.resolveLive(handle, &c.obj)) {
		c.putAttr(&c.attr)
	}
	return wire.Success
}

// lookup is LOOKUP (RFC 1813, section 3.3.3).
func (c *call) lookup() wire.AcceptStat {
	handle, name := c.fileHandle(), c.name()
	if !c.args.Done() {
		return wire.GarbageArgs
	}
	if err := c.resolve(handle); err != nil {
		return c.failUnresolved(err)
	}
	id, err := c.find(name)
	if c.status(err) {
		c.putHandle(id)
		c.putPostOp(id)
	}
	c.putPostOp(c.obj.ID)
	return wire.Success
}

// find looks a name up in obj.
func (c *call) find(b []byte) (fs.NodeID, error) {
	name, err := fs.ParseName(b)
	if err != nil {
		return 0, err
	}
	return c.obj.Tree.Lookup(&c.cred, c.obj.ID, name)
}

// failUnresolved appends the results of a call that names no object: there are
// no attributes to give.
func (c *call) failUnresolved(err error) wire.AcceptStat {
	c.status(err)
	c.out.Bool(false)
	return wire.Success
}

// fail appends the results of a call on obj that failed.
func (c *call) fail(err error) wire.AcceptStat {
	c.status(err)
	c.putPostOp(c.obj.ID)
	return wire.Success
}

// The bits of ACCESS that a tree which cannot be changed may grant (RFC 1813,
// section 3.3.4).
const (
	accessRead    = 0x01
	accessLookup  = 0x02
	accessExecute = 0x20
)

// access is ACCESS (RFC 1813, section 3.3.4).
func (c *call) access() wire.AcceptStat {
	handle, asked := c.fileHandle(), c.args.Uint32()
	if !c.args.Done() {
		return wire.GarbageArgs
	}
	if c.putLive(handle) {
		c.out.Uint32(asked & accessBits(&c.attr, &c.cred))
	}
	return wire.Success
}

func accessBits(a *fs.Attr, c *fs.Cred) uint32 {
	var bits uint32
	granted := fs.Granted(a, c)
	if granted&fs.MayRead != 0 {
		bits |= accessRead
	}
	switch {
	case granted&fs.MayExec == 0:
	case a.Kind == fs.Directory:
		bits |= accessLookup
	default:
		bits |= accessExecute
	}
	return bits
}

// readlink is READLINK (RFC 1813, section 3.3.5).
func (c *call) readlink() wire.AcceptStat {
	handle := c.fileHandle()
	if !c.args.Done() {
		return wire.GarbageArgs
	}
	if err := c.resolve(handle); err != nil {
		return c.failUnresolved(err)
	}
	text, err := c.obj.Tree.Readlink(c.obj.ID)
	if err != nil {
		return c.fail(err)
	}
	c.status(nil)
	c.putPostOp(c.obj.ID)
	c.out.Opaque(text)
	return wire.Success
}

// fsstat is FSSTAT (RFC 1813, section 3.3.18).
func (c *call) fsstat() wire.AcceptStat {
	return c.aboutTree(func(c *call) { c.putStatfs(c.obj.Tree.Statfs()) })
}

func (c *call) putStatfs(s fs.Statfs) {
	c.out.Uint64(s.Bytes + s.FreeBytes)
	c.out.Uint64(s.FreeBytes)
	c.out.Uint64(s.FreeBytes)
	c.out.Uint64(s.Files + s.FreeFiles)
	c.out.Uint64(s.FreeFiles)
	c.out.Uint64(s.FreeFiles)
	c.out.Uint32(0) // invarsec: nothing is promised
}

// What FSINFO says (RFC 1813, section 3.3.19).
const (
	ioMultiple  = 4096
	maxFileSize = 1<<63 - 1
	timeDelta   = 1 // nanoseconds

	// FSF3_LINK, FSF3_SYMLINK, FSF3_HOMOGENEOUS and FSF3_CANSETTIME, as the
	// kernel's server says of a file system that can be written to.
	properties = 0x01 | 0x02 | 0x08 | 0x10
)

// fsinfo is FSINFO (RFC 1813, section 3.3.19).
func (c *call) fsinfo() wire.AcceptStat { return c.aboutTree((*call).putFSInfo) }

func (c *call) putFSInfo() {
	for range 2 { // rtmax, rtpref, rtmult; the same for writes
		c.out.Uint32(maxIO)
		c.out.Uint32(maxIO)
		c.out.Uint32(ioMultiple)
	}
	c.out.Uint32(maxListing)
	c.out.Uint64(maxFileSize)
	c.out.Uint32(0)
	c.out.Uint32(timeDelta)
	c.out.Uint32(properties)
}

// maxLinks is what PATHCONF says, and what ext4 allows is near enough.
const maxLinks = 65000

// pathconf is PATHCONF (RFC 1813, section 3.3.20).
func (c *call) pathconf() wire.AcceptStat { return c.aboutTree((*call).putPathConf) }

func (c *call) putPathConf() {
	c.out.Uint32(maxLinks)
	c.out.Uint32(fs.MaxName)
	c.out.Bool(true)  // no_trunc: a name too long is an error
	c.out.Bool(true)  // chown_restricted
	c.out.Bool(false) // case_insensitive
	c.out.Bool(true)  // case_preserving
}

// aboutTree answers a call that takes a handle of anything in a tree.
func (c *call) aboutTree(results func(*call)) wire.AcceptStat {
	handle := c.fileHandle()
	if !c.args.Done() {
		return wire.GarbageArgs
	}
	if c.putLive(handle) {
		results(c)
	}
	return wire.Success
}
