package wire

// Version is the one version of RPC that there is (RFC 5531, section 8.1).
const Version = 2

// Message types (RFC 5531, section 9).
const (
	msgCall  = 0
	msgReply = 1
)

// Whether a call was executed at all (reply_stat).
const (
	msgAccepted = 0
	msgDenied   = 1
)

// Why a call was denied (reject_stat).
const (
	rpcMismatch = 0
	authError   = 1
)

// AcceptStat is the outcome of a call that was accepted (RFC 5531, section 9).
type AcceptStat uint32

// The outcomes of accepted calls.
const (
	Success      AcceptStat = 0
	ProgUnavail  AcceptStat = 1
	ProgMismatch AcceptStat = 2
	ProcUnavail  AcceptStat = 3
	GarbageArgs  AcceptStat = 4
	SystemErr    AcceptStat = 5
)

// Call is the header of an RPC call. It is filled anew by every Decode and holds
// no reference to the input.
type Call struct {
	XID  uint32
	Prog uint32
	Vers uint32
	Proc uint32
	Cred Cred
}

// Verdict says what to do with a message.
type Verdict uint8

// The verdicts on a message's header.
const (
	Accept      Verdict = iota // go on with the program
	NotACall                   // there is nobody to answer
	RPCMismatch                // deny: another version of RPC
	BadCred                    // deny: credentials that are malformed or of a flavor unknown here
	BadVerf                    // deny: a verifier that the credentials do not go with
)

// Decode reads the header of a call, leaving d at the arguments. XID is valid
// unless the verdict is NotACall.
func (c *Call) Decode(d *Decoder) Verdict {
	c.XID = d.Uint32()
	if d.Uint32() != msgCall || !d.OK() {
		return NotACall
	}
	if vers := d.Uint32(); vers != Version && d.OK() {
		return RPCMismatch // what follows may have another form
	}
	c.Prog, c.Vers, c.Proc = d.Uint32(), d.Uint32(), d.Uint32()
	if !d.OK() {
		return NotACall
	}
	if !c.Cred.decode(d) {
		return BadCred
	}
	// Neither flavor has a verifier. The kernel's server refuses one too
	// (svcauth_unix_accept in net/sunrpc/svcauth_unix.c).
	if flavor := d.Uint32(); len(d.Opaque(maxAuthBody)) != 0 || flavor != AuthNone || !d.OK() {
		return BadVerf
	}
	return Accept
}

// Accepted appends the header of a reply to an accepted call. For Success the
// results follow; for ProgMismatch use Mismatched.
func (e *Encoder) Accepted(xid uint32, stat AcceptStat) {
	p := e.Extend(24)
	if p == nil {
		return
	}
	clear(p) // MSG_ACCEPTED and an empty AUTH_NONE verifier are zeros
	e.SetUint32(e.Len()-24, xid)
	e.SetUint32(e.Len()-20, msgReply)
	e.SetUint32(e.Len()-4, uint32(stat))
}

// Mismatched appends a whole reply saying that the program has only the
// versions low to high.
func (e *Encoder) Mismatched(xid, low, high uint32) {
	e.Accepted(xid, ProgMismatch)
	e.Uint32(low)
	e.Uint32(high)
}

// Denied appends a whole reply to a call that Decode gave the verdict v, which
// is one of those that deny.
func (e *Encoder) Denied(xid uint32, v Verdict) {
	e.Uint32(xid)
	e.Uint32(msgReply)
	e.Uint32(msgDenied)
	switch v {
	case RPCMismatch:
		e.Uint32(rpcMismatch)
		e.Uint32(Version)
		e.Uint32(Version)
	case BadVerf:
		e.Uint32(authError)
		e.Uint32(authBadVerf)
	default:
		e.Uint32(authError)
		e.Uint32(authBadCred)
	}
}

// CallHeader appends the header of a call with AUTH_NONE credentials. The
// arguments follow.
func (e *Encoder) CallHeader(xid, prog, vers, proc uint32) {
	for _, v := range [...]uint32{xid, msgCall, Version, prog, vers, proc, AuthNone, 0, AuthNone, 0} {
		e.Uint32(v)
	}
}

// ReplyHeader reads the header of a reply, leaving d at the results. It returns
// whose reply it is, and whether the call was accepted and with what outcome.
func (d *Decoder) ReplyHeader() (xid uint32, stat AcceptStat, accepted bool) {
	xid = d.Uint32()
	if d.Uint32() != msgReply {
		d.Fail()
	}
	if d.Uint32() != msgAccepted || !d.OK() {
		return xid, 0, false
	}
	d.Uint32() // the verifier's flavor
	d.Opaque(maxAuthBody)
	stat = AcceptStat(d.Uint32())
	return xid, stat, d.OK()
}
