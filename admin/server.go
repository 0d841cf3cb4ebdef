package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/rootnfsd/rootnfsd/exports"
	"github.com/rootnfsd/rootnfsd/nfs"
)

// Config is what New needs.
type Config struct {
	Exports *exports.Exports
	NFS     *nfs.Server
	// Status returns what rootnfsd status prints of an image. Like the functions below it is
	// called by several goroutines at once.
	Status func(ctx context.Context, image string) (any, error)
	// Rollout returns what is promoted of an image, and what was done with it.
	Rollout func(image string) (exports.Rollout, error)
	// Versions returns the versions of an image.
	Versions func(image string) ([]Version, error)
	// Boot tells of the boot files that nodes were sent; nil where none are.
	Boot func() BootFiles
	// Content tells of the content of versions, since the process began.
	Content func() Content
	// Allow is who may ask over TCP.
	Allow []netip.Prefix
	// Build is which rootnfsd this is.
	Build string
	Log   *zap.Logger
}

// Version is a version of an image.
type Version struct {
	Name    string
	Sealed  time.Time
	Damaged bool // it cannot be read
}

// Content is what became of content that was read for the first time.
type Content struct {
	Checked uint64 // bytes that were compared with their digest
	Damaged uint64 // chunks that did not have it
}

// BootFiles are the transfers of boot files since the process began.
type BootFiles struct {
	Running int64  // now
	Sent    uint64 // that nodes have all of
	Aborted uint64 // that nodes wanted no more of
	Failed  uint64 // that did not arrive
	Refused uint64 // requests that got no file
	Bytes   uint64 // that were sent
}

// What a client can make the server hold, for each listener.
const (
	maxConns     = 64
	maxOfClient  = 8 // of one address; the socket of a store has none
	maxStrangers = 4 // beside them, to be told that they may not ask
	maxHeader    = 8 << 10
	maxBody      = 1 << 10 // of which nothing is looked at

	headerTimeout = 5 * time.Second
	readTimeout   = 10 * time.Second
	writeTimeout  = 30 * time.Second
	idleTimeout   = time.Minute
	drainTimeout  = time.Second

	// maxAnswers is how many answers are made at once: one may have tens of thousands of
	// nodes in it, and the processors are there for NFS.
	maxAnswers = 2
	// maxUnsent is how many bytes of answers may wait for clients to take them. One answer is always let
	// through.
	maxUnsent = 32 << 20
	// turnTimeout is how long a request waits for its turn.
	turnTimeout = 5 * time.Second
)

// Server answers operators and what watches for them. Its methods may be called by many
// goroutines at once.
type Server struct {
	cfg     Config
	log     *zap.Logger
	metrics http.Handler

	patience time.Duration // for a turn
	room     int64         // for answers that are being sent to those who came by one listener
}

// New returns a server. It does nothing until it is given listeners.
func New(cfg Config) *Server {
	s := &Server{cfg: cfg, log: cfg.Log, patience: turnTimeout, room: maxUnsent}
	s.metrics = newMetrics(&s.cfg)
	return s
}

// ServeStore answers requests on the socket of a store until ctx ends, then closes it and
// returns nil. Where a request names no image, it is about the one of that store.
func (s *Server) ServeStore(ctx context.Context, ln net.Listener, image string) error {
	return s.serve(ctx, ln, &door{Server: s, image: image, local: true, answers: make(chan struct{}, maxAnswers)})
}

// ServeTCP answers requests of the addresses that are allowed until ctx ends, then closes
// ln and returns nil.
func (s *Server) ServeTCP(ctx context.Context, ln net.Listener) error {
	return s.serve(ctx, ln, &door{Server: s, answers: make(chan struct{}, maxAnswers)})
}

func (s *Server) serve(ctx context.Context, ln net.Listener, d *door) error {
	errorLog, err := zap.NewStdLogAt(s.log, zap.DebugLevel)
	if err != nil {
		return err
	}
	server := http.Server{
		Handler:           d,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          errorLog,
	}
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		patient, cancel := context.WithTimeout(context.Background(), drainTimeout)
		defer cancel()
		if server.Shutdown(patient) != nil {
			server.Close()
		}
	})
	err = server.Serve(newBounded(ln, d.admits))
	if !stop() {
		<-closed
		return nil
	}
	server.Close()
	return err
}

// door is one listener.
type door struct {
	*Server
	image string // asked about by default; none where it is empty
	local bool   // only those can come here who may open the socket

	answers chan struct{} // a token for each answer that is being made
	unsent  atomic.Int64  // bytes of answers that are being sent
}

// admits reports whether whoever is at an address may ask.
func (d *door) admits(remote net.Addr) bool {
	if d.local {
		return true
	}
	tcp, ok := remote.(*net.TCPAddr)
	return ok && d.allows(tcp.AddrPort().Addr())
}

func (d *door) allows(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	return slices.ContainsFunc(d.cfg.Allow, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// client is the address that a request came from; it is not valid for those of the socket.
func (d *door) client(r *http.Request) netip.Addr {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if d.local || err != nil {
		return netip.Addr{}
	}
	return from.Addr().Unmap().WithZone("")
}

// ServeHTTP answers a request. A panic is an answer of its own, and ends nothing else.
func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// What is asked may look at mapped files, which may be cut or damaged.
	debug.SetPanicOnFault(true)
	defer func() {
		if reason := recover(); reason != nil {
			d.log.Error("a request failed in a way that it must not", zap.String("path", r.URL.Path), zap.Any("panic", reason), zap.ByteString("stack", debug.Stack()))
			failure(&problem{http.StatusInternalServerError, "this is a fault of rootnfsd; its log has more"}).send(w)
		}
	}()
	a, err := d.answer(r)
	if err != nil {
		a = failure(err)
	}
	if !d.hold(a) {
		a = failure(errBusy)
		d.unsent.Add(int64(a.body.Len()))
	}
	defer d.unsent.Add(-int64(a.body.Len()))
	a.send(w)
}

// hold counts an answer among those that are being sent, if there is room for it.
func (d *door) hold(a *answer) bool {
	n := int64(a.body.Len())
	if all := d.unsent.Add(n); all > d.room && all > n {
		d.unsent.Add(-n)
		return false
	}
	return true
}

// errBusy is the answer to those that come when there is no room for them.
var errBusy = &problem{http.StatusServiceUnavailable, "too many ask at once: ask again later, and less often"}

// turn waits until an answer may be made, and returns what ends that.
func (d *door) turn(ctx context.Context) (done func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, d.patience)
	defer cancel()
	select {
	case d.answers <- struct{}{}:
		return func() { <-d.answers }, nil
	case <-ctx.Done():
		return nil, errBusy
	}
}

// problem is an error with the status that it is told by.
type problem struct {
	status  int
	message string
}

// Error is what is told.
func (p *problem) Error() string { return p.message }

func problemf(status int, format string, args ...any) error {
	return &problem{status, fmt.Sprintf(format, args...)}
}

// statusOf is the status that an error is told by.
func statusOf(err error) int {
	var p *problem
	if errors.As(err, &p) {
		return p.status
	}
	return http.StatusInternalServerError
}
