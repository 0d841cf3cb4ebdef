package nfs

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/exports"
)

// Config is what New needs.
type Config struct {
	Exports *exports.Exports
	Log     *zap.Logger
	Ports   Ports
	Limits  Limits
	// Recorder is shown the calls about versions. It is nil unless somebody wants to know.
	Recorder Recorder
}

// Ports are the ports that the port mapper tells callers, 0 for a service that
// is not offered. They say where the listeners are; New opens none.
type Ports struct {
	NFS        uint16 // NFS over TCP
	Mount      uint16 // MOUNT over TCP
	MountUDP   uint16
	Portmap    uint16 // the port mapper itself, over TCP
	PortmapUDP uint16
}

// Limits bound what clients can make the server hold. A zero field means its
// default.
type Limits struct {
	// Conns is how many connections there may be. When there are as many, the
	// one that has been idle longest makes room: its client reconnects when it
	// has something to ask. The default is 4096, or what RLIMIT_NOFILE leaves.
	Conns int
	// Idle is how long a connection may be silent between calls, 15 minutes by
	// default. It is closed after no more than this and no less than half.
	Idle time.Duration
	// Record is how long a call may take from its first byte to its last, 30
	// seconds by default.
	Record time.Duration
	// Write is how long a reply may wait for the client to read, 30 seconds by
	// default, as in the kernel (sk_sndtimeo in net/sunrpc/svcsock.c). A reply that did not block at first may have half of that.
	Write time.Duration
	// Drain is how long calls in hand may take when the server stops, 5 seconds
	// by default.
	Drain time.Duration
	// Pending bounds the bytes of replies that wait for a disk or for a client
	// to read them, in the whole server and for one connection: 64 MiB and
	// 4 MiB by default. At least one of the largest reply is always let
	// through.
	Pending     int
	PendingConn int
	// Homes bounds the bytes of calls about homes and of their replies, in the
	// whole server and for all connections of one node: 64 MiB and 16 MiB by
	// default, so that no node can keep others from their homes. They have
	// a bound of their own, so that a disk of homes that hangs does not keep
	// nodes from their roots. At least one of the largest is always let through.
	Homes     int
	HomesNode int
	// Duplicates bounds the bytes of replies that are kept for calls that come
	// again (dupreq.go), those to WRITE and those to others each: 16 MiB by default.
	Duplicates int
	// Incoming bounds the bytes of calls larger than usual that are being
	// received, 64 MiB by default.
	Incoming int
	// Disk is how many reads of a disk go on at once, 64 by default.
	Disk int
}

func (l *Limits) setDefaults() {
	l.Conns = cmp.Or(l.Conns, maxConns())
	l.Idle = cmp.Or(l.Idle, 15*time.Minute)
	l.Record = cmp.Or(l.Record, 30*time.Second)
	l.Write = cmp.Or(l.Write, 30*time.Second)
	l.Drain = cmp.Or(l.Drain, 5*time.Second)
	l.Pending = cmp.Or(l.Pending, 64<<20)
	l.PendingConn = cmp.Or(l.PendingConn, 4<<20)
	l.Homes = cmp.Or(l.Homes, 64<<20)
	l.HomesNode = cmp.Or(l.HomesNode, 16<<20)
	l.Duplicates = cmp.Or(l.Duplicates, 16<<20)
	l.Incoming = cmp.Or(l.Incoming, 64<<20)
	l.Disk = cmp.Or(l.Disk, 64)
}

// maxConns leaves descriptors for listeners, packs and whatever else is open.
func maxConns() int {
	const most, others, least = 4096, 256, 64
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil || r.Cur >= most+others {
		return most
	}
	return max(least, int(r.Cur)-others)
}

// Server answers NFS, MOUNT and port mapper calls on any number of listeners,
// the same on all of them. Its methods may be called by many goroutines at once.
type Server struct {
	exports  *exports.Exports
	log      *zap.Logger
	ports    Ports
	limits   Limits
	recorder Recorder // may be nil

	pools    pools
	pending  *budget
	homes    *budget
	nodes    shares // of homes
	incoming *budget
	dups     *dupCache
	writes   *dupCache     // of WRITE alone
	disk     chan struct{} // a token for each read of a disk that goes on
	lists    listRate
	watch    watch
	pipes    pipes
	stats    stats

	mu        sync.Mutex // guards what follows
	conns     map[*conn]struct{}
	strangers int // connections of addresses that may not mount anything
}

// New returns a server. It does nothing until it is given listeners.
func New(cfg Config) *Server {
	limits := cfg.Limits
	limits.setDefaults()
	return &Server{
		exports:  cfg.Exports,
		log:      throttled(cfg.Log),
		ports:    cfg.Ports,
		limits:   limits,
		recorder: cfg.Recorder,
		pending:  newBudget(limits.Pending),
		homes:    newBudget(limits.Homes),
		nodes:    shares{total: limits.HomesNode},
		incoming: newBudget(limits.Incoming),
		dups:     newDupCache(limits.Duplicates),
		writes:   newDupCache(limits.Duplicates),
		disk:     make(chan struct{}, limits.Disk),
		pipes:    pipes{spare: make(chan *pipe, sparePipes)},
		conns:    make(map[*conn]struct{}),
		stats:    stats{began: time.Now()},
	}
}

// Serve answers calls on connections that ln accepts, which must be TCP, until
// ctx ends; then it closes ln, finishes the calls in hand, closes the
// connections and returns nil. It returns early only if ln fails.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	g := &group{srv: s}
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	if before, now := avoidPacing(ln); now != "" {
		s.log.Info("TCP congestion control was changed, for the server's connections alone", zap.Stringer("listener", ln.Addr()), zap.String("from", before), zap.String("to", now))
	}
	err := s.accept(ctx, ln, g)
	g.drain(s.limits.Drain)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (s *Server) accept(ctx context.Context, ln net.Listener, g *group) error {
	defer ln.Close()
	var pause backoff
	for {
		c, err := ln.Accept()
		switch {
		case err == nil:
			pause.reset()
			s.admit(c, g)
		case errors.Is(err, net.ErrClosed):
			return err
		case errors.Is(err, unix.ECONNABORTED):
		default: // a fault of one connection, or of the machine: accept(2) says to go on
			s.log.Warn("cannot accept a connection", zap.Error(err))
			if outOfResources(err) {
				s.evict()
			}
			if !pause.wait(ctx) {
				return err
			}
		}
	}
}

// outOfResources reports whether an accept failed for want of something that
// other connections hold.
func outOfResources(err error) bool {
	for _, e := range []error{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// backoff is a pause that doubles.
type backoff struct{ last time.Duration }

func (b *backoff) reset() { b.last = 0 }

// wait pauses and reports whether ctx goes on.
func (b *backoff) wait(ctx context.Context) bool {
	b.last = min(max(2*b.last, 5*time.Millisecond), time.Second)
	select {
	case <-ctx.Done():
		return false
	case <-time.After(b.last):
		return true
	}
}

// admit begins to serve a connection if there is room for it.
func (s *Server) admit(nc net.Conn, g *group) {
	tcp, ok := nc.(*net.TCPConn)
	if !ok {
		s.log.Error("not a TCP connection", zap.Stringer("addr", nc.RemoteAddr()))
		nc.Close()
		return
	}
	c, err := newConn(s, tcp, g)
	if err != nil {
		tcp.Close()
		return
	}
	c.homes = s.nodes.join(c.remote.Addr())
	if !s.register(c) {
		s.nodes.leave(c.remote.Addr())
		s.log.Warn("too many connections, and none of them idle", zap.Int("connections", s.limits.Conns), zap.Stringer("client", c.remote))
		tcp.Close()
		return
	}
	g.wg.Add(1)
	c.ended = func() {
		s.forget(c)
		s.nodes.leave(c.remote.Addr())
		g.wg.Done()
	}
	go c.lead()
}

// strangersShare is the part of all connections that addresses may have which
// may not mount anything. They can still ask for ports and exports.
const strangersShare = 8

func (s *Server) register(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	stranger := !c.peer.Allowed()
	switch {
	case stranger && s.strangers >= max(1, s.limits.Conns/strangersShare):
		return false
	case len(s.conns) >= s.limits.Conns && !s.evictLocked():
		return false
	}
	s.conns[c] = struct{}{}
	s.stats.accepted.Add(1)
	if stranger {
		s.strangers++
	}
	return true
}

func (s *Server) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgetLocked(c)
}

func (s *Server) forgetLocked(c *conn) {
	if _, ok := s.conns[c]; !ok {
		return // evicted
	}
	delete(s.conns, c)
	if !c.peer.Allowed() {
		s.strangers--
	}
}

// evict closes the connection that has been idle longest.
func (s *Server) evict() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.evictLocked()
}

func (s *Server) evictLocked() bool {
	var oldest *conn
	var since int64
	for c := range s.conns {
		if t := c.idleSince.Load(); t != 0 && (oldest == nil || t < since) {
			oldest, since = c, t
		}
	}
	if oldest == nil {
		return false
	}
	s.log.Warn("closing the connection that has been idle longest", zap.Stringer("client", oldest.remote))
	oldest.tcp.Close()
	s.forgetLocked(oldest)
	s.stats.evicted.Add(1)
	return true
}

// addrPort returns the address of a socket's end. An IPv4 address that an IPv6
// socket shows as mapped is shown as what it is.
func addrPort(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch a := a.(type) {
	case *net.TCPAddr:
		ap = a.AddrPort()
	case *net.UDPAddr:
		ap = a.AddrPort()
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
