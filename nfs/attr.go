package nfs

import (
	"encoding/binary"
	"math"

	"github.com/rootnfsd/rootnfsd/fs"
)

// attrSize is the size of a fattr3 (RFC 1813, section 2.5).
const attrSize = 84

// putAttr appends a fattr3.
func (c *call) putAttr(a *fs.Attr) {
	if p := c.out.Extend(attrSize); p != nil {
		putAttr(p, a)
	}
}

// putAttr writes a fattr3.
func putAttr(p []byte, a *fs.Attr) {
	be := binary.BigEndian
	be.PutUint32(p[0:], uint32(a.Kind))
	be.PutUint32(p[4:], a.Mode)
	be.PutUint32(p[8:], a.Nlink)
	be.PutUint32(p[12:], a.UID)
	be.PutUint32(p[16:], a.GID)
	be.PutUint64(p[20:], a.Size)
	be.PutUint64(p[28:], a.Used)
	be.PutUint32(p[36:], a.Major)
	be.PutUint32(p[40:], a.Minor)
	be.PutUint64(p[44:], a.FSID)
	be.PutUint64(p[52:], a.FileID)
	putTime(p[60:], a.Atime)
	putTime(p[68:], a.Mtime)
	putTime(p[76:], a.Ctime)
}

// putTime writes an nfstime3, whose seconds have no sign: an earlier time is
// written as 1970, one after 2106 as the last there is.
func putTime(p []byte, t fs.Time) {
	sec, nsec := uint32(t.Sec), t.Nsec
	switch {
	case t.Sec < 0:
		sec, nsec = 0, 0
	case t.Sec > math.MaxUint32:
		sec, nsec = math.MaxUint32, 999_999_999
	}
	binary.BigEndian.PutUint32(p, sec)
	binary.BigEndian.PutUint32(p[4:], nsec)
}

// putTime appends an nfstime3.
func (c *call) putTime(t fs.Time) {
	if p := c.out.Extend(8); p != nil {
		putTime(p, t)
	}
}

// putPostOp appends a post_op_attr: the attributes of an object of obj's tree.
func (c *call) putPostOp(id fs.NodeID) {
	if c.obj.Tree.Getattr(id, &c.attr) != nil {
		c.out.Bool(false)
		return
	}
	c.out.Bool(true)
	c.putAttr(&c.attr)
}

// putHandle appends the handle of an object of obj's tree.
func (c *call) putHandle(id fs.NodeID) {
	c.out.Opaque(c.obj.AppendHandle(c.handle[:0], id))
}
