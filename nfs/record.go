package nfs

import (
	"net/netip"
	"time"

	gonfs "github.com/willscott/go-nfs"

	"github.com/rootnfsd/rootnfsd/exports"
	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

// Recorder is shown the calls that nodes make about versions, mounts included,
// but not those about what is in homes. Record is called by many goroutines at
// once, and the call that it is about waits for it.
type Recorder interface {
	Record(r Record)
}

// Record is a call that has arrived and is about to be answered.
type Record struct {
	Time   time.Time
	Client netip.Addr
	// Program and Procedure are those of NFS, of its side protocol NFSACL, or of
	// MOUNT, of which there is MNT alone.
	Program, Procedure uint32

	// Tree is nil for what names no object: MNT and the null procedure.
	Tree   fs.Tree
	Object fs.NodeID
	// Name is that of LOOKUP, or the path of MNT. It is valid during Record.
	Name []byte
	// Offset is that of READ, or the cookie of a listing.
	Offset uint64
	// Count is that of READ, the room for a listing (maxcount), or what ACCESS
	// and GETACL ask for.
	Count uint32
}

// record shows the call to the recorder, if it is one to show. It reads a copy
// of the arguments, before the procedure does.
func (c *call) record() {
	h, args := &c.header, c.args
	r := Record{Time: time.Now(), Client: c.remote.Addr(), Program: h.Prog, Procedure: h.Proc}
	null := h.Proc == uint32(gonfs.NFSProcedureNull)
	switch {
	case h.Prog == progMount && h.Proc == uint32(gonfs.MountProcMount):
		r.Name = args.Opaque(maxMountPath)
	case h.Prog != progNFS && h.Prog != progACL:
		return
	case !null && !c.recordObject(&r, &args):
		return
	}
	if null || args.OK() {
		c.srv.recorder.Record(r)
	}
}

// recordObject fills in what a call is about, and reports whether there is such
// a thing.
func (c *call) recordObject(r *Record, args *wire.Decoder) bool {
	var o exports.Object
	if c.srv.exports.Resolve(c.peer, args.Opaque(exports.MaxHandle), &o) != nil {
		return false
	}
	r.Tree, r.Object = o.Tree, o.ID
	if r.Program == progACL {
		r.Count = args.Uint32()
		return true
	}
	switch gonfs.NFSProcedure(r.Procedure) {
	case gonfs.NFSProcedureLookup:
		name, err := fs.ParseName(args.Opaque(args.Len()))
		r.Name = name
		return err == nil
	case gonfs.NFSProcedureAccess:
		r.Count = args.Uint32()
	case gonfs.NFSProcedureRead:
		r.Offset, r.Count = args.Uint64(), args.Uint32()
	case gonfs.NFSProcedureReadDir:
		r.Offset = args.Uint64()
		args.FixedOpaque(verifierSize)
		r.Count = args.Uint32()
	case gonfs.NFSProcedureReadDirPlus:
		r.Offset = args.Uint64()
		args.FixedOpaque(verifierSize)
		args.Uint32() // dircount
		r.Count = args.Uint32()
	}
	return true
}
