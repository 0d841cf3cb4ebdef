package rpc

import (
	"encoding/binary"

	gonfs "github.com/willscott/go-nfs"

	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

// Programs and the versions that are called.
const (
	ProgPortmap = 100000
	ProgNFS     = 100003
	ProgMount   = 100005

	nfsVersion     = 3
	mountVersion   = 3
	portmapVersion = 2
)

// Caller appends calls, each as a record that is ready to be sent, to a buffer
// of the user's. The zero Caller has no credentials (AUTH_NONE). It is not
// changed by its methods and may be shared.
type Caller struct {
	auth []byte // credentials and verifier
}

// NewCaller returns a Caller with AUTH_SYS credentials and no further groups.
func NewCaller(uid, gid uint32) Caller {
	const machine = "bench"
	body := appendWords(nil, 0) // a stamp
	body = appendOpaque(body, []byte(machine))
	body = appendWords(body, uid, gid, 0)
	auth := appendWords(nil, wire.AuthSys)
	auth = appendOpaque(auth, body)
	return Caller{auth: appendWords(auth, wire.AuthNone, 0)}
}

// begin appends the header of a call; end completes the record that starts where
// b ended before.
func (c *Caller) begin(b []byte, xid, prog, vers, proc uint32) []byte {
	const msgCall = 0
	b = appendWords(b, 0, xid, msgCall, wire.Version, prog, vers, proc)
	if c.auth == nil {
		return appendWords(b, wire.AuthNone, 0, wire.AuthNone, 0)
	}
	return append(b, c.auth...)
}

func end(b []byte, start int) []byte {
	const lastFragment = 1 << 31
	binary.BigEndian.PutUint32(b[start:], lastFragment|uint32(len(b)-start-wire.MarkSize))
	return b
}

// AppendCall appends a call with arguments that are XDR already.
func (c *Caller) AppendCall(b []byte, xid, prog, vers, proc uint32, args []byte) []byte {
	start := len(b)
	b = c.begin(b, xid, prog, vers, proc)
	return end(append(b, args...), start)
}

// handleCall appends a call of NFS whose arguments begin with a handle and go on
// with words.
func (c *Caller) handleCall(b []byte, xid uint32, proc gonfs.NFSProcedure, handle []byte, words ...uint32) []byte {
	start := len(b)
	b = c.begin(b, xid, ProgNFS, nfsVersion, uint32(proc))
	b = appendOpaque(b, handle)
	return end(appendWords(b, words...), start)
}

// AppendNull appends NULL (RFC 1813, section 3.3.0).
func (c *Caller) AppendNull(b []byte, xid uint32) []byte {
	return c.AppendCall(b, xid, ProgNFS, nfsVersion, uint32(gonfs.NFSProcedureNull), nil)
}

// AppendGetattr appends GETATTR (RFC 1813, section 3.3.1).
func (c *Caller) AppendGetattr(b []byte, xid uint32, handle []byte) []byte {
	return c.handleCall(b, xid, gonfs.NFSProcedureGetAttr, handle)
}

// AppendLookup appends LOOKUP (RFC 1813, section 3.3.3).
func (c *Caller) AppendLookup(b []byte, xid uint32, dir, name []byte) []byte {
	start := len(b)
	b = c.begin(b, xid, ProgNFS, nfsVersion, uint32(gonfs.NFSProcedureLookup))
	b = appendOpaque(b, dir)
	return end(appendOpaque(b, name), start)
}

// AppendAccess appends ACCESS (RFC 1813, section 3.3.4).
func (c *Caller) AppendAccess(b []byte, xid uint32, handle []byte, rights uint32) []byte {
	return c.handleCall(b, xid, gonfs.NFSProcedureAccess, handle, rights)
}

// AppendReadlink appends READLINK (RFC 1813, section 3.3.5).
func (c *Caller) AppendReadlink(b []byte, xid uint32, handle []byte) []byte {
	return c.handleCall(b, xid, gonfs.NFSProcedureReadlink, handle)
}

// AppendRead appends READ (RFC 1813, section 3.3.6).
func (c *Caller) AppendRead(b []byte, xid uint32, handle []byte, off uint64, count uint32) []byte {
	return c.handleCall(b, xid, gonfs.NFSProcedureRead, handle, uint32(off>>32), uint32(off), count)
}

// Stability is how safe a WRITE is to be before it is answered (stable_how in RFC
// 1813, section 3.3.7).
type Stability uint32

// The two that Linux asks for.
const (
	Unstable Stability = 0
	FileSync Stability = 2
)

// AppendWrite appends WRITE (RFC 1813, section 3.3.7).
func (c *Caller) AppendWrite(b []byte, xid uint32, handle []byte, off uint64, data []byte, how Stability) []byte {
	start := len(b)
	b = c.begin(b, xid, ProgNFS, nfsVersion, uint32(gonfs.NFSProcedureWrite))
	b = appendOpaque(b, handle)
	b = appendWords(b, uint32(off>>32), uint32(off), uint32(len(data)), uint32(how))
	return end(appendOpaque(b, data), start)
}

// AppendCommit appends COMMIT (RFC 1813, section 3.3.21) of a whole file.
func (c *Caller) AppendCommit(b []byte, xid uint32, handle []byte) []byte {
	return c.handleCall(b, xid, gonfs.NFSProcedureCommit, handle, 0, 0, 0)
}

// SetAttr is what SETATTR and the calls that make something set (sattr3 in RFC
// 1813, section 2.5.3): what is nil is left alone.
type SetAttr struct {
	Mode  *uint32
	Mtime *Time
}

func (s SetAttr) append(b []byte) []byte {
	const leave, toClientTime = 0, 2
	if s.Mode != nil {
		b = appendWords(b, 1, *s.Mode)
	} else {
		b = appendWords(b, 0)
	}
	b = appendWords(b, 0, 0, 0, leave) // user, group, size, atime
	if s.Mtime != nil {
		return appendWords(b, toClientTime, s.Mtime.Sec, s.Mtime.Nsec)
	}
	return appendWords(b, leave)
}

// AppendSetattr appends SETATTR (RFC 1813, section 3.3.2) without a guard.
func (c *Caller) AppendSetattr(b []byte, xid uint32, handle []byte, s SetAttr) []byte {
	start := len(b)
	b = c.begin(b, xid, ProgNFS, nfsVersion, uint32(gonfs.NFSProcedureSetAttr))
	b = s.append(appendOpaque(b, handle))
	return end(appendWords(b, 0), start)
}

// nameCall appends a call of NFS whose arguments begin with a directory and a name;
// finish appends the others, if there are any.
func (c *Caller) nameCall(b []byte, xid uint32, proc gonfs.NFSProcedure, dir, name []byte, finish func([]byte) []byte) []byte {
	start := len(b)
	b = c.begin(b, xid, ProgNFS, nfsVersion, uint32(proc))
	b = appendOpaque(appendOpaque(b, dir), name)
	if finish != nil {
		b = finish(b)
	}
	return end(b, start)
}

// AppendCreate appends CREATE (RFC 1813, section 3.3.8) of a file that is not there
// yet (GUARDED).
func (c *Caller) AppendCreate(b []byte, xid uint32, dir, name []byte, s SetAttr) []byte {
	const guarded = 1
	return c.nameCall(b, xid, gonfs.NFSProcedureCreate, dir, name, func(b []byte) []byte {
		return s.append(appendWords(b, guarded))
	})
}

// AppendCreateExclusive appends CREATE of a file that a verifier tells from one that
// somebody else has made (EXCLUSIVE), as open(2) with O_EXCL leads to.
func (c *Caller) AppendCreateExclusive(b []byte, xid uint32, dir, name []byte, verifier uint64) []byte {
	const exclusive = 2
	return c.nameCall(b, xid, gonfs.NFSProcedureCreate, dir, name, func(b []byte) []byte {
		return appendWords(b, exclusive, uint32(verifier>>32), uint32(verifier))
	})
}

// AppendMkdir appends MKDIR (RFC 1813, section 3.3.9).
func (c *Caller) AppendMkdir(b []byte, xid uint32, dir, name []byte, s SetAttr) []byte {
	return c.nameCall(b, xid, gonfs.NFSProcedureMkDir, dir, name, s.append)
}

// AppendSymlink appends SYMLINK (RFC 1813, section 3.3.10).
func (c *Caller) AppendSymlink(b []byte, xid uint32, dir, name, text []byte, s SetAttr) []byte {
	return c.nameCall(b, xid, gonfs.NFSProcedureSymlink, dir, name, func(b []byte) []byte {
		return appendOpaque(s.append(b), text)
	})
}

// AppendRemove appends REMOVE (RFC 1813, section 3.3.12).
func (c *Caller) AppendRemove(b []byte, xid uint32, dir, name []byte) []byte {
	return c.nameCall(b, xid, gonfs.NFSProcedureRemove, dir, name, nil)
}

// AppendReaddir appends READDIR (RFC 1813, section 3.3.16) from a cookie on, of
// a listing with that verifier; both are 0 at first.
func (c *Caller) AppendReaddir(b []byte, xid uint32, dir []byte, cookie, verifier uint64, count uint32) []byte {
	return c.handleCall(b, xid, gonfs.NFSProcedureReadDir, dir,
		uint32(cookie>>32), uint32(cookie), uint32(verifier>>32), uint32(verifier), count)
}

// AppendReaddirplus appends READDIRPLUS (RFC 1813, section 3.3.17), whose results
// may have count bytes, names or not.
func (c *Caller) AppendReaddirplus(b []byte, xid uint32, dir []byte, cookie, verifier uint64, count uint32) []byte {
	return c.handleCall(b, xid, gonfs.NFSProcedureReadDirPlus, dir,
		uint32(cookie>>32), uint32(cookie), uint32(verifier>>32), uint32(verifier), count, count)
}

// AppendFsstat appends FSSTAT (RFC 1813, section 3.3.18).
func (c *Caller) AppendFsstat(b []byte, xid uint32, handle []byte) []byte {
	return c.handleCall(b, xid, gonfs.NFSProcedureFSStat, handle)
}

// AppendFsinfo appends FSINFO (RFC 1813, section 3.3.19).
func (c *Caller) AppendFsinfo(b []byte, xid uint32, handle []byte) []byte {
	return c.handleCall(b, xid, gonfs.NFSProcedureFSInfo, handle)
}

// AppendPathconf appends PATHCONF (RFC 1813, section 3.3.20).
func (c *Caller) AppendPathconf(b []byte, xid uint32, handle []byte) []byte {
	return c.handleCall(b, xid, gonfs.NFSProcedurePathConf, handle)
}

// AppendMount appends MNT of MOUNT version 3 (RFC 1813, section 5.2.1).
func (c *Caller) AppendMount(b []byte, xid uint32, path string) []byte {
	return c.AppendCall(b, xid, ProgMount, mountVersion, uint32(gonfs.MountProcMount), appendOpaque(nil, []byte(path)))
}

// AppendUnmount appends UMNT of MOUNT version 3 (RFC 1813, section 5.2.3).
func (c *Caller) AppendUnmount(b []byte, xid uint32, path string) []byte {
	return c.AppendCall(b, xid, ProgMount, mountVersion, uint32(gonfs.MountProcUmnt), appendOpaque(nil, []byte(path)))
}

// AppendGetport appends GETPORT of port mapper version 2 (RFC 1833, section 3.2)
// for a program over TCP.
func (c *Caller) AppendGetport(b []byte, xid, prog, vers uint32) []byte {
	const getPort, tcp = 3, 6
	return c.AppendCall(b, xid, ProgPortmap, portmapVersion, getPort, appendWords(nil, prog, vers, tcp, 0))
}

func appendWords(b []byte, words ...uint32) []byte {
	for _, w := range words {
		b = binary.BigEndian.AppendUint32(b, w)
	}
	return b
}

func appendOpaque(b, p []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(p)))
	b = append(b, p...)
	return append(b, make([]byte, wire.Pad(len(p)))...)
}
