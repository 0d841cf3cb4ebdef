package nfs

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/exports"
	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

// errStopping ends a connection because the server is stopping.
var errStopping = errors.New("the server is stopping")

// conn is a connection. One goroutine at a time leads it (lead.go): it reads calls and
// answers them; others answer the calls that had to wait (slow.go). What is below "of
// the leader" only that one touches.
type conn struct {
	srv    *Server
	group  *group
	tcp    *net.TCPConn
	raw    syscall.RawConn
	peer   *exports.Peer
	remote netip.AddrPort
	local  netip.AddrPort

	// idleSince is when the connection went idle, in nanoseconds since 1970, or
	// 0 while it is not.
	idleSince atomic.Int64

	// dead is set when nothing more comes from the client: what it has asked of a
	// home and was not begun, it asks again over another connection.
	dead atomic.Bool

	sending sync.Mutex // held while a reply, or several, are sent: guards out
	out     output

	pending *budget        // bytes of replies that are answered by other goroutines
	homes   *budget        // bytes of calls of the node about homes, and their replies
	slow    sync.WaitGroup // those goroutines

	stats *statShard

	turn      atomic.Uint64 // odd while the leader is in a call that may wait
	isWatched atomic.Bool   // by the server's watch
	ended     func()        // called when the connection has ended

	// Of the leader.
	in           input
	batch        batch         // calls that are answered and whose replies were not sent
	arrived      time.Duration // when something was last read (stats.clock)
	small        *smallBuffer  // where in reads to, one of the two or none
	large        *largeBuffer
	data         *pipe // where the data of the record in hand goes, or nil
	wokenFor     int   // how many bytes that can be read wake it
	pipeless     int   // how many WRITEs are not to go through pipes
	call         *call // nil while there is nothing to answer
	readDeadline deadline
	partialSince time.Time // when a read first waited for the rest of a record
	homesStuck   bool      // the last call about a home found no room
	usesHome     bool      // there were calls about a home
	waited       bool      // the read in hand has blocked
	readErr      error
	onReadable   func(fd uintptr) bool
}

func newConn(s *Server, tcp *net.TCPConn, g *group) (*conn, error) {
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil, err
	}
	c := &conn{
		srv:      s,
		group:    g,
		tcp:      tcp,
		raw:      raw,
		remote:   addrPort(tcp.RemoteAddr()),
		local:    addrPort(tcp.LocalAddr()),
		pending:  newBudget(s.limits.PendingConn),
		stats:    s.stats.shard(),
		wokenFor: 1,
	}
	c.peer = s.exports.Peer(c.remote)
	c.readDeadline.set = tcp.SetReadDeadline
	c.onReadable = c.read
	c.out.init(tcp, raw, s.limits.Write, &c.stats.sent)
	// A node that lost power never says goodbye.
	_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 15 * time.Second, Count: 4})
	return c, nil
}

// lead answers calls until the connection ends, and closes it, or until another
// goroutine leads it.
func (c *conn) lead() {
	err := c.answerAll()
	if errors.Is(err, errLed) {
		return
	}
	defer c.ended()
	c.dead.Store(!errors.Is(err, errStopping))
	if !errors.Is(err, io.EOF) && !errors.Is(err, errStopping) {
		c.tcp.Close() // so that nothing waits for this client any more
	}
	c.slow.Wait()
	if errors.Is(err, errStopping) && c.usesHome {
		c.leave()
	}
	c.tcp.Close()
	c.logEnd(err)
}

// What a client gets when the server stops, before the connection ends.
const (
	timeToTake  = 100 * time.Millisecond // the last reply
	timeToClose = time.Second            // its end, when it has seen that of ours
)

// leave lets the client take what was answered last. A Linux client throws away a
// reply that it has not taken yet when the connection ends right behind it, or is
// reset, as it is when a socket is closed that has something left to read. Then it
// asks the next server for what is done already, and a rename fails.
func (c *conn) leave() {
	time.Sleep(timeToTake)
	if c.tcp.CloseWrite() != nil {
		return
	}
	_ = c.raw.Control(func(fd uintptr) { c.wakeFor(int(fd), 1) })
	for end := time.Now().Add(timeToClose); time.Now().Before(end); {
		_ = c.tcp.SetReadDeadline(end)
		// drain may have set another deadline meanwhile.
		if _, err := io.Copy(io.Discard, c.tcp); !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
	}
}

// logEnd logs the ends that somebody should know of.
func (c *conn) logEnd(err error) {
	switch {
	case errors.Is(err, errRecordTooLarge), errors.Is(err, errRecordEmpty), errors.Is(err, errFragments), errors.Is(err, errNotACall):
		c.srv.log.Warn("closing a connection that does not speak RPC", zap.Stringer("client", c.remote), zap.Error(err))
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.srv.log.Debug("closing a connection that is idle or stuck", zap.Stringer("client", c.remote), zap.Error(err))
	default:
		c.srv.log.Debug("connection closed", zap.Stringer("client", c.remote), zap.Error(err))
	}
}

// answerAll answers calls until something ends the connection, and says what.
// A panic ends it too: whatever state a call left behind is its own and the
// connection's, so nobody else needs to suffer.
func (c *conn) answerAll() (err error) {
	// Names and texts that trees hand out may lie in mapped files.
	debug.SetPanicOnFault(true)
	defer func() {
		if r := recover(); r != nil {
			err = c.srv.panicked(r, c.call)
			c.call = nil // not to be used again
		}
		if errors.Is(err, errLed) {
			return // they are the other's
		}
		c.releaseCall()
		c.releaseInput()
	}()
	for {
		record, err := c.in.next()
		switch {
		case err != nil:
			return errors.Join(err, c.flush())
		case record != nil:
			err = c.answer(record)
		default:
			err = c.fill()
		}
		if err != nil {
			return err
		}
	}
}

// panicked logs a panic with the call that it happened in, and returns it as an
// error.
func (s *Server) panicked(reason any, in *call) error {
	fields := []zap.Field{zap.Any("panic", reason), zap.ByteString("stack", debug.Stack())}
	if in != nil {
		fields = append(fields, in.fields()...)
	}
	s.log.Error("a call failed in a way that it must not", fields...)
	s.stats.panics.Add(1)
	return errPanic
}

var errPanic = errors.New("panic")

// answer answers one call, into the buffer of the call or by another goroutine.
func (c *conn) answer(record []byte) error {
	c.partialSince = time.Time{}
	if c.call == nil {
		c.call = c.srv.newCall(c.peer, c.local, c.remote)
	}
	if c.call.out.Room() < maxSmallReply {
		if err := c.flush(); err != nil {
			return err
		}
	}
	result := c.call.answerRecord(record)
	if result == deferred && c.call.inHome {
		return c.answerInHome(record)
	}
	c.dropData()
	switch result {
	case hangup:
		return errors.Join(errNotACall, c.flush())
	case deferred:
		return c.answerSlowly()
	}
	c.batch.add(c.call.kind)
	if c.call.nspans > 0 {
		return c.flushWithSpans()
	}
	return nil
}

// flush sends the replies that are ready.
func (c *conn) flush() error {
	if c.call == nil || c.call.out.Len() == 0 {
		return nil
	}
	c.sending.Lock()
	defer c.sending.Unlock()
	c.out.waited = false
	err := c.out.send(c.call.out.Bytes(), false)
	c.call.out.Truncate(0)
	if err == nil {
		c.countBatch()
	}
	return err
}

// countBatch counts the calls whose replies have just been sent.
func (c *conn) countBatch() { c.batch.drain(c.stats, c.srv.stats.clock()-c.arrived) }

// countOne counts a call whose reply another goroutine than the leader has just sent.
func (c *conn) countOne(call *call) {
	c.stats.count(call.kind, 1, c.srv.stats.clock()-call.arrived)
}

// flushWithSpans sends the replies that are ready, the last of which carries
// file content, straight from the files. An error leaves the client with a part
// of a reply, so the connection must end.
func (c *conn) flushWithSpans() error {
	c.sending.Lock()
	defer c.sending.Unlock()
	call, spans := c.call, c.call.spans[:c.call.nspans]
	defer call.dropSpans()
	c.out.waited = false
	if err := c.out.send(call.out.Bytes(), true); err != nil {
		return err
	}
	call.out.Truncate(0)
	padding := wire.Pad(call.payload)
	for i := range spans {
		if err := c.out.sendSpan(&spans[i], i < len(spans)-1 || padding > 0); err != nil {
			return err
		}
	}
	if padding > 0 { // now, or a reply that had to wait gets in before it
		if err := c.out.send(zeros[:padding], false); err != nil {
			return err
		}
	}
	c.countBatch()
	return nil
}

// fill waits for more bytes, having sent what there is to send.
func (c *conn) fill() error {
	if err := c.flush(); err != nil {
		return err
	}
	if c.group.stopping.Load() {
		return errStopping
	}
	c.in.pack()
	if c.in.buf != nil && len(c.in.space()) == 0 && !c.pipeRest() {
		c.enlarge()
	}
	err := c.waitAndRead()
	c.idleSince.Store(0)
	return err
}

func (c *conn) waitAndRead() error {
	c.waited = false
	err := c.raw.Read(c.onReadable)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return errors.Join(err, c.readErr)
	}
	if c.group.stopping.Load() {
		return errStopping
	}
	if c.waited {
		return err
	}
	// An old deadline, for this read has not blocked.
	c.readDeadline.clear()
	return errors.Join(c.raw.Read(c.onReadable), c.readErr)
}

// read is the callback of fill. It reads what there is, or prepares for waiting.
func (c *conn) read(fd uintptr) bool {
	if c.data != nil {
		return c.readToPipe(fd)
	}
	if c.in.buf == nil {
		c.small = get[smallBuffer](&c.srv.pools.small)
		c.in.buf = c.small[:]
	}
	space := c.in.space()
	if c.large != nil && c.in.missing > 0 {
		// No more than that, so that the buffer is the record's and can be given away.
		space = space[:min(len(space), c.in.missing)]
	}
	for {
		n, err := receive(int(fd), space)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return c.block()
		case err == nil && n == 0:
			err = io.EOF
		}
		c.in.filled(max(n, 0))
		c.received(max(n, 0))
		c.readErr = err
		return true
	}
}

// received notes that so many bytes have arrived.
func (c *conn) received(n int) {
	c.arrived = c.srv.stats.clock()
	c.stats.received.Add(uint64(n))
}

// block prepares for waiting until there is something to read: it gives back
// the buffers that are not needed and sees to the deadline. It reports true if
// the connection should not wait at all.
func (c *conn) block() bool {
	c.waited = true
	now := time.Now()
	c.releaseCall()
	if c.in.pending() {
		if c.partialSince.IsZero() {
			c.partialSince = now
		}
		c.readDeadline.until(c.partialSince.Add(c.srv.limits.Record))
	} else {
		c.releaseInput()
		c.readDeadline.within(now, c.srv.limits.Idle)
		c.idleSince.Store(now.UnixNano())
	}
	if !c.group.stopping.Load() { // only now, after the deadline was set: see group.drain
		return false
	}
	c.readErr = errStopping
	return true
}

// enlarge goes on in a buffer that any record fits into.
func (c *conn) enlarge() {
	c.srv.incoming.take(largeSize)
	large := get[largeBuffer](&c.srv.pools.large)
	c.in.move(large[:])
	c.srv.pools.small.Put(c.small)
	c.small, c.large = nil, large
}

// releaseInput gives back the input buffer.
func (c *conn) releaseInput() {
	c.in.reset()
	c.dropData()
	if c.small != nil {
		c.srv.pools.small.Put(c.small)
		c.small = nil
	}
	if c.large != nil {
		c.srv.pools.large.Put(c.large)
		c.srv.incoming.give(largeSize)
		c.large = nil
	}
}

// releaseCall gives back the call and its buffer, and lets go of the tree that
// it was about.
func (c *conn) releaseCall() {
	if c.call != nil {
		c.srv.freeCall(c.call)
		c.call = nil
	}
}

// group is the connections of one listener.
type group struct {
	srv      *Server
	stopping atomic.Bool
	wg       sync.WaitGroup
}

// drain makes all connections end when they have answered what they have read,
// those that wait at once, and those that take longer than patience then. A
// connection that is about to wait sets its deadline first and looks at stopping
// second; here it is the other way round, so it cannot miss both.
func (g *group) drain(patience time.Duration) {
	g.stopping.Store(true)
	g.each(func(c *conn) { _ = c.tcp.SetReadDeadline(time.Unix(1, 0)) })
	stuck := time.AfterFunc(patience, func() {
		g.each(func(c *conn) { c.tcp.Close() })
	})
	defer stuck.Stop()
	g.wg.Wait()
}

func (g *group) each(f func(*conn)) {
	g.srv.mu.Lock()
	defer g.srv.mu.Unlock()
	for c := range g.srv.conns {
		if c.group == g {
			f(c)
		}
	}
}
