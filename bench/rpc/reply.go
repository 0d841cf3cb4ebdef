package rpc

import (
	"fmt"

	gonfs "github.com/willscott/go-nfs"

	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

// Sizes of what NFS version 3 has (RFC 1813, section 2.4).
const (
	maxHandle = 64
	maxName   = 255
	maxPath   = 8 << 10
)

// Reply is a reply. Its memory is the stream's: it is valid until the next one is
// taken from there. The methods for the results of a procedure are for replies to that
// procedure, and each is to be called at most once.
type Reply struct {
	XID uint32
	// Size is the length of the record, without its mark.
	Size int
	// Status is the first word of the results, which is the nfsstat3 in all
	// of NFS but NULL, and the mountstat3 of MNT.
	Status uint32

	accepted bool
	accept   wire.AcceptStat
	results  wire.Decoder // behind the status; of a large reply only the head
}

// decode reads the header of a reply of size bytes of which those in body are
// there.
func (r *Reply) decode(body []byte, size int) error {
	d := wire.NewDecoder(body)
	*r = Reply{Size: size}
	r.XID, r.accept, r.accepted = d.ReplyHeader()
	if !r.accepted && (!d.OK() || d.Len() == 0) {
		return errNotReply
	}
	if d.Len() >= 4 && r.accepted {
		r.Status = d.Uint32()
	}
	r.results = d
	return nil
}

// Err says why the call failed, if it did: an RPCError, or a StatusError.
func (r *Reply) Err() error {
	switch {
	case !r.accepted:
		return RPCError("the call was denied")
	case r.accept != wire.Success:
		return RPCError(fmt.Sprintf("the call was not executed: accept_stat %d", r.accept))
	case r.Status != 0:
		return StatusError(r.Status)
	}
	return nil
}

// OK reports whether the call was executed and succeeded.
func (r *Reply) OK() bool { return r.accepted && r.accept == wire.Success && r.Status == 0 }

// RPCError is why a call was not executed.
type RPCError string

func (e RPCError) Error() string { return string(e) }

// StatusError is an nfsstat3 or mountstat3, which agree where both have a number.
type StatusError uint32

func (e StatusError) Error() string { return gonfs.NFSStatus(e).String() }

// Attr are attributes (fattr3 in RFC 1813, section 2.5).
type Attr struct {
	Type         gonfs.FileType
	Mode, Nlink  uint32
	UID, GID     uint32
	Size, Used   uint64
	Major, Minor uint32
	FSID, FileID uint64

	Atime, Mtime, Ctime Time
}

// Time is an nfstime3.
type Time struct{ Sec, Nsec uint32 }

func (a *Attr) decode(d *wire.Decoder) {
	a.Type = gonfs.FileType(d.Uint32())
	a.Mode, a.Nlink, a.UID, a.GID = d.Uint32(), d.Uint32(), d.Uint32(), d.Uint32()
	a.Size, a.Used = d.Uint64(), d.Uint64()
	a.Major, a.Minor = d.Uint32(), d.Uint32()
	a.FSID, a.FileID = d.Uint64(), d.Uint64()
	for _, t := range [...]*Time{&a.Atime, &a.Mtime, &a.Ctime} {
		t.Sec, t.Nsec = d.Uint32(), d.Uint32()
	}
}

// postOp reads attributes that may be left out, and reports whether they are
// there.
func postOp(d *wire.Decoder, a *Attr) bool {
	if !d.Bool() {
		return false
	}
	a.decode(d)
	return d.OK()
}

// Getattr reads the results of GETATTR.
func (r *Reply) Getattr(a *Attr) bool {
	a.decode(&r.results)
	return r.results.Done()
}

// Lookup reads the results of LOOKUP: a handle, which is the stream's memory, and
// attributes, of type 0 if the server left them out.
func (r *Reply) Lookup(a *Attr) (handle []byte, ok bool) {
	handle = r.results.Opaque(maxHandle)
	*a = Attr{}
	postOp(&r.results, a)
	return handle, r.results.OK()
}

// Access reads the results of ACCESS: the rights that were granted.
func (r *Reply) Access() (rights uint32, ok bool) {
	var a Attr
	postOp(&r.results, &a)
	rights = r.results.Uint32()
	return rights, r.results.Done()
}

// Readlink reads the results of READLINK.
func (r *Reply) Readlink() (text []byte, ok bool) {
	var a Attr
	postOp(&r.results, &a)
	text = r.results.Opaque(maxPath)
	return text, r.results.Done()
}

// Read reads the results of READ up to the data: how many bytes came, and whether
// the file ends with them.
func (r *Reply) Read() (count int, eof, ok bool) {
	d := &r.results
	if d.Bool() {
		d.FixedOpaque(attrSize)
	}
	n := d.Uint32()
	eof = d.Bool()
	if length := d.Uint32(); length != n || int64(n) > int64(r.Size) {
		d.Fail()
	}
	return int(n), eof, d.OK()
}

// attrSize is the size of a fattr3.
const attrSize = 84

// Data returns the data of a READ after Read, if the reply is small enough to
// have been kept whole: 60 KiB are.
func (r *Reply) Data(count int) (data []byte, ok bool) {
	data = r.results.FixedOpaque(count)
	return data, r.results.Done()
}

// Made reads the results of CREATE, MKDIR and SYMLINK: the handle of what was made,
// which is the stream's memory. A server may leave it out.
func (r *Reply) Made() (handle []byte, ok bool) {
	d := &r.results
	if d.Bool() {
		handle = d.Opaque(maxHandle)
	}
	var a Attr
	postOp(d, &a)
	change(d)
	return handle, d.Done()
}

// Changed reads the results of SETATTR and REMOVE.
func (r *Reply) Changed() (ok bool) {
	change(&r.results)
	return r.results.Done()
}

// Written reads the results of WRITE: how many bytes were written, how safe they are,
// and the verifier, which changes when the server may have lost what is not safe.
func (r *Reply) Written() (count int, how Stability, verifier uint64, ok bool) {
	d := &r.results
	change(d)
	count, how, verifier = int(d.Uint32()), Stability(d.Uint32()), d.Uint64()
	return count, how, verifier, d.Done()
}

// Committed reads the results of COMMIT: the verifier.
func (r *Reply) Committed() (verifier uint64, ok bool) {
	change(&r.results)
	verifier = r.results.Uint64()
	return verifier, r.results.Done()
}

// change reads what an object was like before and after a change (wcc_data).
func change(d *wire.Decoder) {
	const before = 8 + 8 + 8 // wcc_attr: size, mtime, ctime
	if d.Bool() {
		d.FixedOpaque(before)
	}
	if d.Bool() {
		d.FixedOpaque(attrSize)
	}
}

// Mount reads the results of MNT: the handle, which is the stream's memory.
func (r *Reply) Mount() (handle []byte, ok bool) {
	handle = r.results.Opaque(maxHandle)
	return handle, r.results.OK()
}

// Fsinfo reads what FSINFO says of sizes: the most and the best for a READ, and
// the best for a listing.
func (r *Reply) Fsinfo() (rtmax, rtpref, dtpref uint32, ok bool) {
	d := &r.results
	var a Attr
	postOp(d, &a)
	rtmax, rtpref = d.Uint32(), d.Uint32()
	d.FixedOpaque(4 * 4) // rtmult and what is for writing
	dtpref = d.Uint32()
	return rtmax, rtpref, dtpref, d.OK()
}

// Entry is an entry of a directory. Name and Handle are the stream's memory.
type Entry struct {
	FileID uint64
	Name   []byte
	Cookie uint64

	// Of READDIRPLUS only, and nil or of type 0 if the server left them out.
	Handle []byte
	Attr   Attr
}

// Listing reads the results of READDIR and READDIRPLUS.
type Listing struct {
	d    *wire.Decoder
	plus bool

	// Verifier is to be sent with the next call for the same directory.
	Verifier uint64
	// EOF says, after the last entry, that the directory has no more.
	EOF bool
}

// Readdir reads the results of READDIR.
func (r *Reply) Readdir() Listing { return r.listing(false) }

// Readdirplus reads the results of READDIRPLUS.
func (r *Reply) Readdirplus() Listing { return r.listing(true) }

func (r *Reply) listing(plus bool) Listing {
	var a Attr
	postOp(&r.results, &a)
	return Listing{d: &r.results, plus: plus, Verifier: r.results.Uint64()}
}

// Next reads the next entry and reports whether there is one.
func (l *Listing) Next(e *Entry) bool {
	if !l.d.Bool() {
		l.EOF = l.d.Bool()
		return false
	}
	*e = Entry{FileID: l.d.Uint64(), Name: l.d.Opaque(maxName), Cookie: l.d.Uint64()}
	if l.plus {
		postOp(l.d, &e.Attr)
		if l.d.Bool() {
			e.Handle = l.d.Opaque(maxHandle)
		}
	}
	return l.d.OK()
}

// OK reports, after the last entry, whether the listing was well-formed.
func (l *Listing) OK() bool { return l.d.Done() }
