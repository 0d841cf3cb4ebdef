package tftp

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sys/unix"
)

// long is how long a test waits for what must come. Where silence is expected,
// something else is asked for behind it, whose answer comes first.
const long = 20 * time.Second

// content is a File in memory.
type content struct {
	bytes  []byte
	closed *atomic.Int64
}

func (c content) Size() int64 { return int64(len(c.bytes)) }
func (c content) Close()      { c.closed.Add(1) }

func (c content) ReadAt(p []byte, off int64, _ bool) (int, error) {
	return bytes.NewReader(c.bytes).ReadAt(p, off)
}

// pattern returns n bytes of which no two blocks are alike.
func pattern(n int) []byte {
	p := make([]byte, n)
	r := rand.New(rand.NewPCG(1, uint64(n)))
	for i := 0; i < n; i += 8 {
		var eight [8]byte
		binary.LittleEndian.PutUint64(eight[:], r.Uint64())
		copy(p[i:], eight[:])
	}
	return p
}

// harness is a server on loopback.
type harness struct {
	*Server
	addr    netip.AddrPort
	results chan Result
	logs    *observer.ObservedLogs
	opened  atomic.Int64
	closed  atomic.Int64
	stop    func() // waits for Serve to return

	mu    sync.Mutex
	files map[string][]byte
	other func(context.Context, Request) (File, error)
}

// start starts a server, which has the file "f" of some bytes and others that
// tests add. The function may change it before it serves.
func start(t *testing.T, change func(*harness)) *harness {
	t.Helper()
	return startAt(t, "127.0.0.1:0", change)
}

func startAt(t *testing.T, address string, change func(*harness)) *harness {
	t.Helper()
	network := "udp"
	if strings.HasPrefix(address, "0.0.0.0:") {
		network = "udp4" // or it is a socket of IPv6, as the one of [::] is
	}
	pc, err := net.ListenPacket(network, address)
	if err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zap.InfoLevel)
	h := &harness{
		addr: netip.MustParseAddrPort(pc.LocalAddr().String()), results: make(chan Result, 1<<15), logs: logs,
		files: map[string][]byte{"f": pattern(10_000)},
	}
	h.Server = &Server{Open: h.open, Done: func(r Result) { h.results <- r }, Log: zap.New(core)}
	h.limits.timeout = time.Hour // silence does nothing where a test is not about it
	h.limits.silence = time.Hour
	if change != nil {
		change(h)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- h.Serve(ctx, pc) }()
	h.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(func() {
		h.stop()
		if opened, closed := h.opened.Load(), h.closed.Load(); opened != closed {
			t.Errorf("%d files were opened and %d closed", opened, closed)
		}
		if n := h.Stats().Running; n != 0 {
			t.Errorf("%d transfers run after Serve", n)
		}
		for _, e := range logs.FilterLevelExact(zapcore.ErrorLevel).All() {
			t.Errorf("log: %v %v", e.Message, e.ContextMap())
		}
	})
	return h
}

func (h *harness) open(ctx context.Context, r Request) (File, error) {
	h.mu.Lock()
	other := h.other
	h.mu.Unlock()
	if other != nil {
		return other(ctx, r)
	}
	return h.stored(ctx, r)
}

// openBy makes Open another function while the server runs.
func (h *harness) openBy(other func(context.Context, Request) (File, error)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.other = other
}

// stored opens one of the files.
func (h *harness) stored(_ context.Context, r Request) (File, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	b, ok := h.files[r.Name]
	if !ok {
		return nil, &Error{CodeNotFound, "no such file"}
	}
	return h.file(b), nil
}

// file returns a File whose closing is counted.
func (h *harness) file(b []byte) content {
	h.opened.Add(1)
	return content{b, &h.closed}
}

func (h *harness) add(name string, b []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.files[name] = b
}

// result waits for the next transfer to end.
func (h *harness) result(t *testing.T) Result {
	t.Helper()
	select {
	case r := <-h.results:
		return r
	case <-time.After(long):
		t.Fatal("no transfer ends")
		panic("")
	}
}

// client is one port of a client.
type client struct {
	t      testing.TB
	conn   *net.UDPConn
	server netip.AddrPort
	tid    netip.AddrPort // where the last packet came from
	buf    []byte
}

func (h *harness) client(t testing.TB) *client {
	t.Helper()
	return newClient(t, h.addr)
}

func newClient(t testing.TB, server netip.AddrPort) *client {
	t.Helper()
	own := netip.IPv6Loopback()
	if server.Addr().Is4() {
		own = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(own, 0)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetReadBuffer(1 << 20)
	return &client{t: t, conn: conn, server: server, buf: make([]byte, 70_000)}
}

// rrq puts a request together: options are names and values in turn.
func rrq(name, mode string, options ...string) []byte {
	p := []byte{0, opRead}
	for _, s := range append([]string{name, mode}, options...) {
		p = append(append(p, s...), 0)
	}
	return p
}

func (c *client) send(to netip.AddrPort, p []byte) {
	c.t.Helper()
	if _, err := c.conn.WriteToUDPAddrPort(p, to); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) ask(name string, options ...string) {
	c.t.Helper()
	c.send(c.server, rrq(name, "octet", options...))
}

func (c *client) ack(block int) {
	c.t.Helper()
	c.send(c.tid, []byte{0, opAck, byte(block >> 8), byte(block)})
}

// receive returns the next packet, which is good until the next call.
func (c *client) receive() []byte {
	c.t.Helper()
	_ = c.conn.SetReadDeadline(time.Now().Add(long))
	n, from, err := c.conn.ReadFromUDPAddrPort(c.buf)
	if err != nil {
		c.t.Fatal(err)
	}
	c.tid = from
	return c.buf[:n]
}

// wantBlock receives a block with a number, and returns its content.
func (c *client) wantBlock(number int) []byte {
	c.t.Helper()
	p := c.receive()
	if want := []byte{0, opData, byte(number >> 8), byte(number)}; len(p) < headerSize || !bytes.Equal(p[:headerSize], want) {
		c.t.Fatalf("received % x...; want block %d", p[:min(len(p), 32)], number)
	}
	return p[headerSize:]
}

// wantPacket receives just these bytes.
func (c *client) wantPacket(want string) {
	c.t.Helper()
	if p := c.receive(); string(p) != want {
		c.t.Fatalf("received %q; want %q", p[:min(len(p), 100)], want)
	}
}

// wantNothing makes sure that nothing has been sent that was not received: the
// answer to a request that comes later is next.
func (c *client) wantNothing() {
	c.t.Helper()
	tid := c.tid
	c.send(c.server, []byte("\x00\x02f\x00octet\x00"))
	c.wantPacket("\x00\x05\x00\x02this server is read-only\x00")
	c.tid = tid
}

// fetch fetches a file as RFC 7440 has it. Packets for which lose is true are not seen.
func (c *client) fetch(name string, lose func() bool, options ...string) ([]byte, error) {
	c.t.Helper()
	return c.fetchMode(name, "octet", lose, options...)
}

func (c *client) fetchMode(name, mode string, lose func() bool, options ...string) ([]byte, error) {
	c.t.Helper()
	c.send(c.server, rrq(name, mode, options...))
	block, window := defaultBlock, 1
	var got []byte
	for have, inWindow, reported := 0, 0, false; ; {
		p := c.receive()
		switch {
		case len(p) < headerSize:
			return nil, fmt.Errorf("%d bytes", len(p))
		case p[1] == opError:
			return nil, fmt.Errorf("error %d: %s", p[3], p[headerSize:])
		case lose != nil && lose():
			continue
		case p[1] == opOack:
			fields := bytes.Split(p[2:], []byte{0})
			for i := 0; i+1 < len(fields); i += 2 {
				var n int
				if _, err := fmt.Sscan(string(fields[i+1]), &n); err != nil {
					return nil, err
				}
				switch string(fields[i]) {
				case "blksize":
					block = n
				case "windowsize":
					window = n
				}
			}
			c.ack(0)
			continue
		}
		number := binary.BigEndian.Uint16(p[2:])
		if number != uint16(have+1) {
			if number > uint16(have) && !reported { // a gap, which is reported once
				inWindow, reported = 0, true
				c.ack(have)
			}
			continue
		}
		have++
		reported = false
		got = append(got, p[headerSize:]...)
		last := len(p) < headerSize+block
		if inWindow++; inWindow == window || last {
			inWindow = 0
			c.ack(have)
		}
		if last {
			return got, nil
		}
	}
}

// descriptors counts what is open in this process.
func descriptors(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// eventually waits for what another goroutine brings about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(long); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("in vain: ", what)
		}
	}
}

var errTest = errors.New("of the test")

// hooked is a File whose reads are the test's.
type hooked struct {
	content
	read func(p []byte, off int64, nowait bool) (int, error)
}

func (f hooked) ReadAt(p []byte, off int64, nowait bool) (int, error) { return f.read(p, off, nowait) }

// closing is a File whose closing is the test's.
type closing struct {
	content
	close func()
}

func (f closing) Close() {
	f.close()
	f.content.Close()
}

var _ File = content{}

// ownNetwork is set in a process that a test has started for itself.
const ownNetwork = "TFTP_TEST_OWN_NETWORK"

// inOwnNetwork runs the rest of a test in a process with a network of its own,
// in which nothing is up yet.
func inOwnNetwork(t *testing.T, rest func()) {
	t.Helper()
	if os.Getenv(ownNetwork) == t.Name() {
		rest()
		return
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.count=1")
	cmd.Env = append(os.Environ(), ownNetwork+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if uid := os.Getuid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
	}
	if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Errorf("in a network of its own: %v\n%s", err, out)
	}
}

// setLoopback raises the loopback device, with a size of the largest packet.
func setLoopback(t *testing.T, mtu uint32) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	size, _ := unix.NewIfreq("lo")
	size.SetUint32(mtu)
	up, _ := unix.NewIfreq("lo")
	up.SetUint16(unix.IFF_UP | unix.IFF_LOOPBACK)
	if err := errors.Join(unix.IoctlIfreq(fd, unix.SIOCSIFMTU, size), unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, up)); err != nil {
		t.Fatal(err)
	}
}
