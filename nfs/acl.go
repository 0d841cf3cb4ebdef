package nfs

import (
	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

// NFSACL is the side protocol of Solaris by which Linux asks for POSIX ACLs. No
// tree has any, but the program must be there. Where it is not, the client
// answers EOPNOTSUPP to whoever asks for the ACL of an object (nfs3_get_acl in
// fs/nfs/nfs3acl.c), and overlayfs hands that on to every user who does not own
// the object (ovl_get_acl in fs/overlayfs/inode.c, seen with Linux 6.1): on a
// root of an overlay over NFS no ordinary user could then run any program.
const (
	progACL    = 100227
	aclVersion = 3
)

// aclProcedures answers NFSACL version 3 (fs/nfsd/nfs3acl.c; there is no RFC).
var aclProcedures = [...]procedure{
	0: null,
	1: (*call).getacl,
	2: (*call).setacl,
}

func (c *call) aclProcedure() (procedure, wire.AcceptStat) {
	switch {
	case c.datagram:
		return nil, wire.ProgUnavail
	case c.header.Vers != aclVersion:
		return c.mismatch(aclVersion, aclVersion)
	case c.aboutHome():
		return pick(homeACLProcedures[:], c.header.Proc)
	}
	return pick(aclProcedures[:], c.header.Proc)
}

// aclMask are the bits of a GETACL call: the ACL, its length, and both for the
// default ACL of a directory (include/uapi/linux/nfsacl.h).
const aclMask = 0xf

// getacl is GETACL: an access ACL and a default ACL, both empty, so that the mode
// alone counts. Each is a length and an array that repeats it (nfsacl_encode in
// fs/nfs_common/nfsacl.c).
func (c *call) getacl() wire.AcceptStat {
	handle, mask := c.fileHandle(), c.args.Uint32()
	if !c.args.Done() {
		return wire.GarbageArgs
	}
	if c.putLive(handle) {
		c.putNoACL(mask)
	}
	return wire.Success
}

func (c *call) putNoACL(mask uint32) {
	c.out.Uint32(mask & aclMask)
	for range 4 {
		c.out.Uint32(0)
	}
}

// setacl is SETACL. Whatever the ACL is, the tree cannot be changed.
func (c *call) setacl() wire.AcceptStat {
	handle := c.fileHandle()
	c.args.FixedOpaque(c.args.Len())
	if !c.args.Done() {
		return wire.GarbageArgs
	}
	if err := c.resolveLive(handle, &c.obj); err != nil {
		return c.failUnresolved(err)
	}
	return c.fail(fs.ErrReadOnly)
}
