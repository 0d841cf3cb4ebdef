package nfs

import (
	"errors"
	"net/netip"
	"time"

	gonfs "github.com/willscott/go-nfs"
	"go.uber.org/zap"

	"github.com/rootnfsd/rootnfsd/exports"
	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

// errNotACall ends a connection on which something else arrived than a call.
var errNotACall = errors.New("not an RPC call")

// maxSmallReply bounds every reply but those of large READs.
const maxSmallReply = maxListing + maxHeader

// call is a call while it is being answered, with all that answering needs, so
// that nothing is allocated. It is used by one goroutine at a time, for one call
// after another.
type call struct {
	srv      *Server
	peer     *exports.Peer
	local    netip.AddrPort // where the call came to, and from
	remote   netip.AddrPort
	datagram bool
	kind     kind          // what it is counted as
	arrived  time.Duration // when (stats.clock), if another goroutine than the leader of its connection answers it

	header wire.Call
	args   wire.Decoder
	cred   fs.Cred // aliases header
	out    wire.Encoder
	buf    *replyBuffer // where out writes

	obj    exports.Object
	obj2   exports.Object     // of the calls that have two
	home   exports.HomeObject // what obj is to images, this is to homes
	home2  exports.HomeObject
	attr   fs.Attr
	handle [exports.MaxHandle]byte

	// A READ leaves these behind if the reply in out is to be followed by file
	// content, or if it has to wait.
	read    readArgs
	spans   [maxSpans]fs.Span
	nspans  int
	payload int   // bytes in spans, or in pipe
	pipe    *pipe // of a READ or WRITE in a home, or nil
	slow    bool

	inHome  bool                  // the call is about an object in a home, where every call may wait
	hurried bool                  // it should rather not, and wait elsewhere:
	waits   bool                  // then that is set, and there is no reply
	entries [maxBatch]fs.DirEntry // scratch of listings
}

// newCall returns a call for whoever is at remote.
func (s *Server) newCall(peer *exports.Peer, local, remote netip.AddrPort) *call {
	c := get[call](&s.pools.calls)
	c.srv, c.peer, c.local, c.remote = s, peer, local, remote
	c.buf = get[replyBuffer](&s.pools.reply)
	c.out.Reset(c.buf[:])
	return c
}

// freeCall takes a call back. Trees that it has used can be dropped from now on.
func (s *Server) freeCall(c *call) {
	if c.buf != nil {
		s.pools.reply.Put(c.buf)
	}
	c.forget()
	c.srv, c.peer, c.buf = nil, nil, nil
	c.out.Reset(nil)
	s.pools.calls.Put(c)
}

// forget lets go of what the last call was about.
func (c *call) forget() {
	c.dropSpans()
	c.obj, c.obj2 = exports.Object{}, exports.Object{}
	c.home, c.home2 = exports.HomeObject{}, exports.HomeObject{}
	c.inHome, c.hurried, c.waits = false, false, false
	c.args = wire.Decoder{}
	c.datagram = false
}

func (c *call) dropSpans() {
	clear(c.spans[:c.nspans])
	c.nspans, c.payload = 0, 0
}

// outcome is what became of a message.
type outcome uint8

const (
	replied  outcome = iota // the reply is in out, but for its spans
	deferred                // the answer has to wait: inHome and read say for what
	hangup                  // it was no call
)

// answerRecord answers a message that came as a record.
func (c *call) answerRecord(msg []byte) outcome {
	mark := c.out.BeginRecord()
	result := c.answer(msg)
	if result == replied {
		c.out.EndRecord(mark, c.payload+wire.Pad(c.payload))
	} else {
		c.out.Truncate(mark)
	}
	return result
}

// answer answers a message.
func (c *call) answer(msg []byte) outcome {
	c.args = wire.NewDecoder(msg)
	switch verdict := c.header.Decode(&c.args); verdict {
	case wire.Accept:
	case wire.NotACall:
		return hangup
	default:
		c.kind = kindError
		c.out.Denied(c.header.XID, verdict)
		return replied
	}
	c.identify()
	c.inHome = false
	proc, stat := c.procedure()
	c.kind = c.kindOf(stat)
	if stat == wire.ProgMismatch {
		return replied // with the versions that there are
	}
	if stat != wire.Success {
		c.out.Accepted(c.header.XID, stat)
		return replied
	}
	if c.inHome {
		return deferred
	}
	if c.srv.recorder != nil {
		c.record()
	}
	c.run(proc)
	if c.slow {
		c.slow = false
		return deferred
	}
	return replied
}

// run appends the reply that proc gives.
func (c *call) run(proc procedure) {
	start := c.out.Len()
	c.out.Accepted(c.header.XID, wire.Success)
	stat := proc(c)
	if c.out.Overflow() {
		stat = wire.SystemErr
	}
	if stat != wire.Success {
		c.kind = c.kindOf(stat)
		c.out.Truncate(start)
		c.out.Accepted(c.header.XID, stat)
	}
}

// identify sets cred to whoever the call says it comes from.
func (c *call) identify() {
	h := &c.header.Cred
	if h.Flavor == wire.AuthSys {
		c.cred = fs.Cred{UID: h.UID, GID: h.GID, Groups: h.Groups()}
	} else {
		c.cred = fs.Cred{UID: fs.Nobody, GID: fs.Nobody}
	}
}

// The programs (RFC 1813, section 2.1 and appendix I; RFC 1833).
const (
	progPortmap = 100000
	progNFS     = 100003
	progMount   = 100005
)

// procedure answers one kind of call: it decodes the arguments, which must be
// all there and nothing more, and appends the results to out. Anything but
// wire.Success replaces what it appended.
type procedure func(c *call) wire.AcceptStat

// null is procedure 0 of every program. It takes whatever it is sent.
func null(*call) wire.AcceptStat { return wire.Success }

// procedure returns what answers the call, or why nothing does. For
// ProgMismatch it has written the reply.
func (c *call) procedure() (procedure, wire.AcceptStat) {
	h := &c.header
	switch h.Prog {
	case progNFS:
		return c.nfsProcedure()
	case progMount:
		return c.mountProcedure()
	case progPortmap:
		return c.portmapProcedure()
	case progACL:
		return c.aclProcedure()
	}
	return nil, wire.ProgUnavail
}

// pick returns procedure number n of procs.
func pick(procs []procedure, n uint32) (procedure, wire.AcceptStat) {
	if uint64(n) >= uint64(len(procs)) || procs[n] == nil {
		return nil, wire.ProcUnavail
	}
	return procs[n], wire.Success
}

func (c *call) mismatch(low, high uint32) (procedure, wire.AcceptStat) {
	c.out.Mismatched(c.header.XID, low, high)
	return nil, wire.ProgMismatch
}

// fields names the call in a log line.
func (c *call) fields() []zap.Field {
	h := &c.header
	fields := []zap.Field{
		zap.Stringer("client", c.remote),
		zap.Uint32("program", h.Prog),
		zap.Uint32("version", h.Vers),
		zap.Uint32("procedure", h.Proc),
	}
	if h.Prog == progNFS {
		fields = append(fields, zap.Stringer("call", gonfs.NFSProcedure(h.Proc)))
	}
	return fields
}
