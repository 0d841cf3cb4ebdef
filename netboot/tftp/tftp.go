package tftp

import (
	"context"
	"errors"
	"net/netip"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// Request is what a client asks for. No IPv4 address in it is in an IPv6 one.
type Request struct {
	Name  string         // as asked for: any bytes but NUL, at least one
	From  netip.AddrPort // the client
	Local netip.Addr     // the server's address as the client sees it
}

// File is what is sent. The server uses it from one goroutine at a time (but for
// a Confirmer), and calls Size before anything else. Size and Close, and ReadAt with nowait, must
// return at once: all transfers wait for them.
type File interface {
	// Size is the length in bytes. It does not change.
	Size() int64
	// ReadAt is io.ReaderAt's. With nowait it answers fs.ErrWouldBlock, having
	// read nothing of use, where it would have to wait for a disk.
	ReadAt(p []byte, off int64, nowait bool) (int, error)
	// Close is called once, when the transfer is over.
	Close()
}

// Confirmer is a File that wants to know when the client has answered for the first time, by an acknowledgement or an error: it is where
// it says, which a request alone does not show. Confirmed may wait, is called before Close, may be called while the file is read, and is not
// called at all where too many such calls wait already.
type Confirmer interface {
	File
	Confirmed()
}

// Result is how a transfer ended.
type Result struct {
	Request
	Size int64         // of the file; of its translation if it was asked for in netascii
	Sent int64         // how much of that the client acknowledged
	Took time.Duration // since the request
	Err  error         // nil when all was acknowledged, and ErrAborted if the client wanted no more
}

// Error is what a client is told in place of a file (RFC 1350, section 5).
type Error struct {
	Code    uint16 // see the constants; others are sent as they are
	Message string // for people, in ASCII; cut after some 500 bytes
}

// Codes of errors (RFC 1350, appendix).
const (
	CodeUndefined uint16 = 0 // see the message
	CodeNotFound  uint16 = 1
	CodeAccess    uint16 = 2
	CodeIllegal   uint16 = 4 // not an operation of TFTP
)

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// ErrIgnore is returned by Open for a request that gets no answer, so that the
// client asks again soon.
var ErrIgnore = errors.New("tftp: the request gets no answer")

// ErrAborted is in the Result of a transfer that the client ended by an ERROR.
// A Raspberry Pi does so when it only wants to know how large a file is.
var ErrAborted = errors.New("tftp: ended by the client")

// Server answers requests by files. Its fields are set before it serves and left
// alone then; its methods may be called by many goroutines at once.
type Server struct {
	// Open finds what a client asks for. It may wait, and is called by many
	// goroutines at once, a bounded number of them. An *Error is sent to the
	// client; ErrIgnore is not answered; of any other error the log has the
	// details, and the client learns that there was one. ctx ends with Serve.
	Open func(ctx context.Context, r Request) (File, error)
	// Done is told of each transfer that ends, that is of each File; for each call
	// of Serve of one after the other. It may be nil. It may wait, but if it waits
	// for long, it is not told of some.
	Done func(Result)
	Log  *zap.Logger

	limits limits // for tests
	stats  stats
}

// limits bound what clients can make one call of Serve hold. A zero field means
// its default.
type limits struct {
	transfers  int           // at once, half-open ones included
	halfOpen   int           // of these, transfers of which nothing is acknowledged yet
	perAddress int           // of these, transfers with clients at one address
	opens      int           // goroutines in Open
	reads      int           // goroutines that wait for a disk
	aside      int           // lines of the log and calls of Confirmed and Done that wait
	timeout    time.Duration // until a packet is sent again the first time, if the client does not say
	silence    time.Duration // until a transfer ends, whatever the client says
}

// Stats are counts of a server since it was made.
type Stats struct {
	Running int64  // transfers now, those included of which nothing is acknowledged yet
	Done    uint64 // transfers of which the client has everything
	Aborted uint64 // transfers that the client ended by an ERROR
	Failed  uint64 // transfers that ended in any other way
	Refused uint64 // requests that no transfer came of: errors, ErrIgnore, and too many at once
	Bytes   uint64 // of files that were sent, those sent again included
}

type stats struct {
	running                               atomic.Int64
	done, aborted, failed, refused, bytes atomic.Uint64
}

// Stats returns the counts. It costs a few loads from memory.
func (s *Server) Stats() Stats {
	return Stats{
		Running: s.stats.running.Load(),
		Done:    s.stats.done.Load(),
		Aborted: s.stats.aborted.Load(),
		Failed:  s.stats.failed.Load(),
		Refused: s.stats.refused.Load(),
		Bytes:   s.stats.bytes.Load(),
	}
}
