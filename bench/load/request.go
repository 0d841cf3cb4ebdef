package load

import (
	"github.com/rootnfsd/rootnfsd/bench/peer"
	"github.com/rootnfsd/rootnfsd/bench/rpc"
	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

type procedure uint8

const (
	getattr procedure = iota
	lookup
	access
	read
	list
)

// request is a call to be made.
type request struct {
	proc   procedure
	object int32 // of the tree; of LOOKUP the one that is looked up

	off   uint64 // of READ
	count uint32

	cookie, verifier uint64 // of READDIRPLUS
	part             int32  // which reply of the listing of a directory this is
}

// Sizes of results before their data, with the header of the reply.
const (
	attrSize    = 84
	headSize    = 24 + 4 // RPC header and status
	getattrHead = headSize + attrSize
	accessHead  = headSize + 4 + attrSize + 4
	readHead    = headSize + 4 + attrSize + 4 + 4 + 4
)

// lookupHead is the size of the reply to a LOOKUP that finds an object.
func lookupHead(handle int) int {
	return headSize + 4 + handle + wire.Pad(handle) + 2*(4+attrSize)
}

// allRights are those that ACCESS can ask for (RFC 1813, section 3.3.4).
const allRights = 0x3f

// encode appends a request as the call that the target understands.
func (t *Target) encode(b []byte, c *rpc.Caller, xid uint32, q *request) []byte {
	start := len(b)
	o := &t.tree.objects[q.object]
	switch q.proc {
	case getattr:
		b = c.AppendGetattr(b, xid, o.handle)
	case lookup:
		b = c.AppendLookup(b, xid, t.tree.objects[o.parent].handle, o.name)
	case access:
		b = c.AppendAccess(b, xid, o.handle, allRights)
	case read:
		b = c.AppendRead(b, xid, o.handle, q.off, q.count)
	case list:
		b = c.AppendReaddirplus(b, xid, o.handle, q.cookie, q.verifier, listingSize)
	}
	if t.pack != 0 {
		head, payload := t.replySize(q)
		place := (o.place + int64(q.off)) % max(1, t.pack-int64(payload))
		b = peer.AppendLimitCall(b[:start], len(b)-start, xid, head, payload, place)
	}
	return b
}

// replySize returns the sizes of the reply to a request: of what the server makes
// up, and of what comes from a file.
func (t *Target) replySize(q *request) (head, payload int) {
	o := &t.tree.objects[q.object]
	switch q.proc {
	case getattr:
		return getattrHead, 0
	case lookup:
		return lookupHead(len(o.handle)), 0
	case access:
		return accessHead, 0
	case read:
		n := q.want(o)
		return readHead, int(min(int64(n+wire.Pad(n)), t.pack))
	default:
		return int(o.listing[q.part]), 0
	}
}

// want is how many bytes a READ is to bring.
func (q *request) want(o *object) int {
	return int(min(uint64(q.count), o.size-min(o.size, q.off)))
}

// accept looks at the reply to a request and returns how many bytes of content it
// brought, and whether it is right. Of a listing that is not complete it makes the
// request into one for the rest, and reports that.
func (t *Target) accept(q *request, r *rpc.Reply) (n int, more, ok bool) {
	if !r.OK() {
		return 0, false, false
	}
	o := &t.tree.objects[q.object]
	switch {
	case t.pack != 0:
		head, payload := t.replySize(q)
		if q.proc == read {
			n = q.want(o)
		}
		return n, q.proc == list && q.nextPart(o), r.Size == max(head, headSize)+payload
	case q.proc == read:
		n, _, ok = r.Read()
		return n, false, ok && n == q.want(o)
	case q.proc == list:
		more, ok = q.follow(r)
		return 0, more, ok
	default:
		return 0, false, true
	}
}

// nextPart goes on to the next reply of a listing, if there is one.
func (q *request) nextPart(o *object) bool {
	q.part++
	return int(q.part) < len(o.listing)
}

// follow goes on behind the entries of a reply.
func (q *request) follow(r *rpc.Reply) (more, ok bool) {
	l := r.Readdirplus()
	var e rpc.Entry
	some := false
	for l.Next(&e) {
		q.cookie, some = e.Cookie, true
	}
	q.verifier = l.Verifier
	return !l.EOF, l.OK() && (l.EOF || some)
}

func (p procedure) String() string {
	return [...]string{"GETATTR", "LOOKUP", "ACCESS", "READ", "READDIRPLUS"}[p]
}
