package rpc

import (
	"encoding/binary"

	gonfs "github.com/willscott/go-nfs"
)

// Stability is how safe what is written must be before the reply (stable_how in
// RFC 1813, section 3.3.7).
type Stability uint32

// The least and the most; DATA_SYNC is between them.
const (
	Unstable Stability = 0
	FileSync Stability = 2
)

// AppendWrite appends WRITE (RFC 1813, section 3.3.7).
func (c *Caller) AppendWrite(b []byte, xid uint32, handle []byte, off uint64, data []byte, how Stability) []byte {
	start := len(b)
	b = c.begin(b, xid, ProgNFS, nfsVersion, uint32(gonfs.NFSProcedureWrite))
	b = appendOpaque(b, handle)
	b = binary.BigEndian.AppendUint64(b, off)
	b = appendWords(b, uint32(len(data)), uint32(how))
	return end(appendOpaque(b, data), start)
}

// AppendCommit appends COMMIT (RFC 1813, section 3.3.21) of a whole file.
func (c *Caller) AppendCommit(b []byte, xid uint32, handle []byte) []byte {
	return c.handleCall(b, xid, gonfs.NFSProcedureCommit, handle, 0, 0, 0)
}

// AppendCreateExclusive appends a CREATE (RFC 1813, section 3.3.8) that fails
// where the name is taken, unless a CREATE with the same verifier took it.
func (c *Caller) AppendCreateExclusive(b []byte, xid uint32, dir, name []byte, verifier uint64) []byte {
	const exclusive = 2
	start := len(b)
	b = c.begin(b, xid, ProgNFS, nfsVersion, uint32(gonfs.NFSProcedureCreate))
	b = appendOpaque(b, dir)
	b = appendOpaque(b, name)
	b = appendWords(b, exclusive)
	return end(binary.BigEndian.AppendUint64(b, verifier), start)
}

// wcc skips a wcc_data.
func (r *Reply) wcc() {
	d := &r.results
	if d.Bool() {
		d.FixedOpaque(24) // size, mtime and ctime
	}
	var a Attr
	postOp(d, &a)
}

// Written reads the results of WRITE: how many bytes were written, how safe they
// are, and the verifier of what is not safe yet.
func (r *Reply) Written() (count int, how Stability, verifier uint64, ok bool) {
	r.wcc()
	count, how, verifier = int(r.results.Uint32()), Stability(r.results.Uint32()), r.results.Uint64()
	return count, how, verifier, r.results.Done()
}

// Committed reads the results of COMMIT: everything that was written under this
// verifier is safe.
func (r *Reply) Committed() (verifier uint64, ok bool) {
	r.wcc()
	verifier = r.results.Uint64()
	return verifier, r.results.Done()
}

// Made reads the results of CREATE: a handle, which is the stream's memory, and
// is empty if the server left it out.
func (r *Reply) Made() (handle []byte, ok bool) {
	if r.results.Bool() {
		handle = r.results.Opaque(maxHandle)
	}
	var a Attr
	postOp(&r.results, &a)
	r.wcc()
	return handle, r.results.Done()
}
