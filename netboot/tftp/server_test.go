package tftp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// TestRefusals sends what no transfer can come of. The answer comes at once, and
// not from the server's own port, as those of transfers do not.
func TestRefusals(t *testing.T) {
	h := start(t, func(h *harness) {
		h.Open = func(_ context.Context, r Request) (File, error) {
			switch r.Name {
			case "missing":
				return nil, &Error{CodeNotFound, "no such file"}
			case "wrapped":
				return nil, fmt.Errorf("opening: %w", &Error{777, "as it is"})
			case "broken":
				return nil, errTest
			case "none":
				return nil, nil
			}
			return nil, ErrIgnore
		}
	})
	const hidden = "\x00\x05\x00\x00the file cannot be read: the server's log says why\x00"
	for _, c := range []struct{ name, packet, want string }{
		{"not found", string(rrq("missing", "octet")), "\x00\x05\x00\x01no such file\x00"},
		{"another code", string(rrq("wrapped", "octet")), "\x00\x05\x03\x09as it is\x00"},
		{"an error of the server's", string(rrq("broken", "octet")), hidden},
		{"neither file nor error", string(rrq("none", "octet")), hidden},
		{"write", "\x00\x02f\x00octet\x00", "\x00\x05\x00\x02this server is read-only\x00"},
		{"mode", string(rrq("f", "mail")), "\x00\x05\x00\x04unknown mode: ask for octet\x00"},
		{"long", string(rrq(strings.Repeat("n", 3000), "octet")), "\x00\x05\x00\x04the request is longer than 512 bytes\x00"},
	} {
		client := h.client(t)
		client.send(h.addr, []byte(c.packet))
		if p := client.receive(); string(p) != c.want {
			t.Errorf("%s: %q; want %q", c.name, p, c.want)
		}
		if client.tid == h.addr {
			t.Errorf("%s: the answer comes from the server's port", c.name)
		}
		client.wantNothing()
	}
	eventually(t, "the log has both errors", func() bool { return h.logs.FilterMessage("cannot open a file").Len() == 2 })
	for _, silent := range []string{"", "\x00", "junk", "\x00\x04\x00\x00", "\x00\x05\x00\x00\x00", "\x00\x03\x00\x01x"} {
		client := h.client(t)
		client.send(h.addr, []byte(silent))
		client.wantNothing()
	}
	before := h.Stats().Refused
	client := h.client(t)
	client.ask("ignored")
	eventually(t, "the request is ignored", func() bool { return h.Stats().Refused == before+1 })
	client.wantNothing()
}

// TestRequest tells Open who asks, and where.
func TestRequest(t *testing.T) {
	for _, c := range []struct{ listen, server string }{
		{"127.0.0.1:0", "127.0.0.1"},
		{"0.0.0.0:0", "127.0.0.1"},
		{"0.0.0.0:0", "127.0.0.77"},
		{"[::]:0", "127.0.0.77"},
		{"[::]:0", "::1"},
		{"[::1]:0", "::1"},
	} {
		t.Run(c.listen+" as "+c.server, func(t *testing.T) {
			asked := make(chan Request, 1)
			h := startAt(t, c.listen, func(h *harness) {
				open := h.Open
				h.Open = func(ctx context.Context, r Request) (File, error) {
					asked <- r
					return open(ctx, r)
				}
			})
			server := netip.AddrPortFrom(netip.MustParseAddr(c.server), h.addr.Port())
			client := newClient(t, server)
			got, err := client.fetch("f", nil)
			if err != nil || !bytes.Equal(got, h.files["f"]) {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
			from := netip.MustParseAddrPort(client.conn.LocalAddr().String())
			if r, want := <-asked, (Request{"f", from, server.Addr()}); r != want {
				t.Errorf("%+v; want %+v", r, want)
			}
			if client.tid.Addr() != server.Addr() || client.tid.Port() == server.Port() {
				t.Errorf("the file came from %v; asked was %v", client.tid, server)
			}
			client = newClient(t, server)
			client.ask("missing")
			client.wantPacket("\x00\x05\x00\x01no such file\x00")
			if client.tid.Addr() != server.Addr() || client.tid.Port() == server.Port() {
				t.Errorf("the error came from %v; asked was %v", client.tid, server)
			}
			if r := h.result(t); r.Err != nil || r.Size != 10_000 || r.Sent != 10_000 || r.Name != "f" || r.From != from {
				t.Errorf("result %+v", r)
			}
		})
	}
}

// TestPath reads paths that loopback cannot make.
func TestPath(t *testing.T) {
	client := &unix.SockaddrInet4{Addr: [4]byte{192, 0, 2, 7}, Port: 1000}
	local := func(spec, sent [4]byte) []byte {
		control := unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: spec})
		copy(control[unix.CmsgLen(8):], sent[:])
		return control
	}
	server, broadcast := [4]byte{192, 0, 2, 1}, [4]byte{192, 0, 2, 255}
	linkLocal := [16]byte{0: 0xfe, 1: 0x80, 15: 1}
	for _, c := range []struct {
		name    string
		from    unix.Sockaddr
		control []byte
		want    string
	}{
		{"plain", client, local(server, server), "192.0.2.7:1000 192.0.2.1"},
		{"broadcast", client, local(server, broadcast), ""},
		{"before the server began", client, local([4]byte{}, server), "192.0.2.7:1000 192.0.2.1"},
		{"broadcast to all", client, local([4]byte{}, [4]byte{255, 255, 255, 255}), ""},
		{"no destination", client, nil, ""},
		{"from port 0", &unix.SockaddrInet4{Addr: client.Addr}, local(server, server), ""},
		{"from nobody", &unix.SockaddrInet4{Port: 1}, local(server, server), ""},
		{"from a group", &unix.SockaddrInet4{Addr: [4]byte{224, 0, 0, 1}, Port: 1}, local(server, server), ""},
		{"of two families", &unix.SockaddrInet6{Addr: linkLocal, Port: 1}, local(server, server), ""},
		{"link-local", &unix.SockaddrInet6{Addr: linkLocal, Port: 1, ZoneId: 3},
			unix.PktInfo6(&unix.Inet6Pktinfo{Addr: linkLocal, Ifindex: 3}), "[fe80::1%3]:1 fe80::1%3"},
		{"to a group", &unix.SockaddrInet6{Addr: linkLocal, Port: 1, ZoneId: 3},
			unix.PktInfo6(&unix.Inet6Pktinfo{Addr: [16]byte{0: 0xff, 1: 2, 15: 1}, Ifindex: 3}), ""},
	} {
		p, ok := parsePath(c.from, c.control)
		got := ""
		if ok {
			got = fmt.Sprintf("%v %v", p.from, p.local)
		}
		if got != c.want {
			t.Errorf("%s: %q; want %q", c.name, got, c.want)
		}
	}
}

// TestOnlyIPv6 refuses a client of IPv4 where sockets of IPv6 are for that alone
// unless they say otherwise.
func TestOnlyIPv6(t *testing.T) {
	inOwnNetwork(t, func() {
		setLoopback(t, 1500)
		if err := os.WriteFile("/proc/sys/net/ipv6/bindv6only", []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
		h := startAt(t, "[::]:0", nil)
		c := newClient(t, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), h.addr.Port()))
		c.ask("missing")
		c.wantPacket("\x00\x05\x00\x01no such file\x00")
	})
}

// TestCannotSend asks from where no answer can be sent to, and while there are no
// descriptors. That fills no log.
func TestCannotSend(t *testing.T) {
	const message, requests = "cannot send a file", 50
	inOwnNetwork(t, func() {
		setLoopback(t, 1500)
		h := start(t, nil)
		nowhere, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(nowhere)
		to := &unix.SockaddrInet4{Port: int(h.addr.Port()), Addr: h.addr.Addr().As4()}
		if err := errors.Join(
			unix.SetsockoptInt(nowhere, unix.IPPROTO_IP, unix.IP_TRANSPARENT, 1),
			unix.Bind(nowhere, &unix.SockaddrInet4{Addr: [4]byte{192, 0, 2, 7}}),
			unix.Sendto(nowhere, rrq("f", "octet"), 0, to),
		); err != nil {
			t.Fatal(err)
		}
		if r := h.result(t); !errors.Is(r.Err, unix.ENETUNREACH) {
			t.Errorf("%+v", r)
		}

		c := h.client(t)
		var limit unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
		free, err := unix.Dup(nowhere) // the lowest that is free
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(free)
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(free), Max: limit.Max}); err != nil {
			t.Fatal(err)
		}
		for range requests {
			c.ask("f")
			if r := h.result(t); r.Err != unix.EMFILE {
				t.Errorf("%+v", r)
			}
		}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
		if got, err := c.fetch("f", nil); err != nil || len(got) != 10_000 {
			t.Errorf("afterwards: %d bytes, %v", len(got), err)
		}
		h.stop()
		warned := h.logs.FilterMessage(message)
		if n := warned.Len(); n == 0 || n > 2*warningsAMinute {
			t.Errorf("the log has it %d times; want %d a minute", n, warningsAMinute)
		}
		if n := warned.FilterField(zap.Error(unix.ENETUNREACH)).Len(); n != 0 {
			t.Errorf("the log warns %d times of an address that was made up", n)
		}
	})
}

// TestDuplicateRequest asks again and again from the same port.
func TestDuplicateRequest(t *testing.T) {
	h := start(t, nil)
	h.add("g", []byte("the other one"))
	c := h.client(t)
	c.ask("f", "tsize", "0")
	c.ask("f", "tsize", "0")
	c.wantPacket("\x00\x06tsize\x0010000\x00")
	c.ask("f", "tsize", "0")
	c.wantNothing()
	c.ack(0)
	c.wantBlock(1)
	c.ask("f", "tsize", "0") // late
	c.wantNothing()
	c.ack(1)
	c.wantBlock(2)
	if n := h.opened.Load(); n != 1 {
		t.Errorf("the file was opened %d times", n)
	}

	c.ask("g") // has lost interest in the first
	if got := string(c.wantBlock(1)); got != "the other one" {
		t.Errorf("%q", got)
	}
	if r := h.result(t); !errors.Is(r.Err, ErrAborted) || r.Sent != 512 {
		t.Errorf("%+v", r)
	}
	c.ack(1)
	if r := h.result(t); r.Err != nil || r.Name != "g" {
		t.Errorf("%+v", r)
	}
}

// TestRequestAfterAbort aborts and asks again, as a Pi does when it knows how
// large a file is. The request must not be taken for the old one again.
func TestRequestAfterAbort(t *testing.T) {
	h := start(t, nil)
	c := h.client(t)
	for range 100 {
		c.ask("f", "tsize", "0", "blksize", "1024")
		c.wantPacket("\x00\x06tsize\x0010000\x00blksize\x001024\x00")
		c.send(c.tid, []byte("\x00\x05\x00\x00Early terminate\x00"))
	}
	for range 100 {
		if r := h.result(t); !errors.Is(r.Err, ErrAborted) || !strings.Contains(r.Err.Error(), "Early terminate") {
			t.Fatalf("%+v", r)
		}
	}
	c.wantNothing()
	if s := h.Stats(); s.Aborted != 100 || s.Failed != 0 || s.Done != 0 {
		t.Errorf("%+v", s)
	}
	if h.logs.Len() != 0 {
		t.Errorf("the log has %v", h.logs.All())
	}
}

// TestRequestOvertakesAbort aborts and asks again while the server is about to
// look at requests, and at nothing else before.
func TestRequestOvertakesAbort(t *testing.T) {
	gate, closed := make(chan struct{}), make(chan struct{}, 10)
	h := start(t, func(h *harness) {
		h.Open = func(context.Context, Request) (File, error) {
			return closing{h.file(pattern(10_000)), func() {
				closed <- struct{}{}
				<-gate // nothing goes on meanwhile
			}}, nil
		}
	})
	const abort, oack = "\x00\x05\x00\x00\x00", "\x00\x06tsize\x0010000\x00"
	clients := make([]*client, 4)
	for i := range clients {
		clients[i] = h.client(t)
		if i < 3 {
			clients[i].ask("f", "tsize", "0")
			clients[i].wantPacket(oack)
		}
	}
	clients[0].send(clients[0].tid, []byte(abort))
	<-closed
	clients[1].send(clients[1].tid, []byte(abort))
	clients[3].ask("f", "tsize", "0")
	gate <- struct{}{}
	<-closed // by now it is known that there is a request, which comes after this
	clients[2].send(clients[2].tid, []byte(abort))
	clients[2].ask("f", "tsize", "0")
	gate <- struct{}{}
	<-closed
	close(gate)
	clients[2].wantPacket(oack)
	clients[3].wantPacket(oack)
}

// TestRequestAfterReboot asks again from the port of a transfer that has been
// silent.
func TestRequestAfterReboot(t *testing.T) {
	h := start(t, func(h *harness) { h.limits.timeout = time.Hour })
	c := h.client(t)
	c.ask("f", "tsize", "0", "timeout", "255")
	c.wantPacket("\x00\x06tsize\x0010000\x00timeout\x00255\x00")
	c.ack(0)
	c.wantBlock(1)
	c.ask("f", "tsize", "0", "timeout", "255")
	c.wantNothing()

	h = start(t, func(h *harness) { h.limits.timeout = time.Nanosecond })
	c = h.client(t)
	c.ask("f", "tsize", "0", "timeout", "255")
	c.wantPacket("\x00\x06tsize\x0010000\x00timeout\x00255\x00")
	c.ack(0)
	c.wantBlock(1)
	c.ask("f", "tsize", "0", "timeout", "255")
	c.wantPacket("\x00\x06tsize\x0010000\x00timeout\x00255\x00")
}

// TestHalfOpen lets 10,000 clients ask and say no more, while one goes on.
func TestHalfOpen(t *testing.T) {
	const flood, most = 10_000, 100
	h := start(t, func(h *harness) {
		h.limits.halfOpen = most
		h.limits.transfers = 2 * most
	})
	before := descriptors(t)
	honest := h.client(t)
	honest.ask("f", "blksize", "8", "tsize", "0")
	honest.wantPacket("\x00\x06blksize\x008\x00tsize\x0010000\x00")
	honest.ack(0)

	// One socket speaks for all: loopback has more addresses than ports.
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	highest := 0
	for i := range flood {
		from := unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: [4]byte{127, 1, byte(i >> 8), byte(i)}})
		request := rrq("f", "octet", "tsize", "0")
		if i%2 == 1 {
			request = rrq("f", "octet")
		}
		if _, _, err := conn.WriteMsgUDPAddrPort(request, from, h.addr); err != nil {
			t.Fatal(err)
		}
		if i%50 == 0 {
			honest.wantBlock(i/50 + 1)
			honest.ack(i/50 + 1)
			highest = max(highest, descriptors(t)-before)
		}
	}
	for block := flood/50 + 1; block <= 10_000/8+1; block++ {
		honest.wantBlock(block)
		honest.ack(block)
	}
	for {
		if r := h.result(t); r.Err == nil {
			break
		} else if r.Err != errPushedOut {
			t.Fatalf("%+v", r)
		}
	}
	if limit := most + 20; highest > limit {
		t.Errorf("%d descriptors are open; want no more than %d", highest, limit)
	}
	// Some requests may be lost where they wait for the server.
	eventually(t, "the last are half-open", func() bool { return h.Stats().Running == most })
	if s := h.Stats(); s.Failed+s.Refused < flood/2 {
		t.Errorf("%+v: most requests are lost", s)
	}
}

// TestTooMany fills the server with transfers that do go on.
func TestTooMany(t *testing.T) {
	h := start(t, func(h *harness) { h.limits.transfers = 3 })
	clients := make([]*client, 3)
	for i := range clients {
		clients[i] = h.client(t)
		clients[i].ask("f", "tsize", "0")
		clients[i].receive()
		clients[i].ack(0)
		clients[i].wantBlock(1)
	}
	late := h.client(t)
	late.ask("f")
	eventually(t, "the request is refused", func() bool { return h.Stats().Refused == 1 })
	late.wantNothing()
	eventually(t, "the log says so", func() bool { return h.logs.FilterMessage("too many transfers").Len() == 1 })
	clients[1].send(clients[1].tid, []byte("\x00\x05\x00\x00\x00"))
	h.result(t)
	late.ask("f")
	late.wantBlock(1)
}

// TestTooManySilent fills the server with transfers that go silent after the
// first acknowledgement. They end for others, the one that is silent longest first.
func TestTooManySilent(t *testing.T) {
	for _, c := range []struct {
		name string
		set  func(*limits)
	}{
		{"in all", func(l *limits) { l.transfers = 3 }},
		{"at one address", func(l *limits) { l.perAddress = 3 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := start(t, func(h *harness) {
				c.set(&h.limits)
				h.limits.timeout = time.Millisecond
			})
			begin := func() *client {
				c := h.client(t)
				c.ask("f", "timeout", "255")
				c.wantPacket("\x00\x06timeout\x00255\x00")
				c.ack(0)
				c.wantBlock(1)
				return c
			}
			first, second, third := begin(), begin(), begin()
			first.ack(1)
			first.wantBlock(2)
			time.Sleep(2 * time.Millisecond) // after which all are silent
			late := h.client(t)
			late.ask("f")
			late.wantBlock(1)
			from := second.conn.LocalAddr().String()
			if r := h.result(t); r.Err != errPushedOut || r.From.String() != from {
				t.Errorf("%+v; want the one of %s to end", r, from)
			}
			first.ack(2)
			first.wantBlock(3)
			third.ack(1)
			third.wantBlock(2)
		})
	}
}

// TestTooManyAtOneAddress fills what one address may have. Others get theirs.
func TestTooManyAtOneAddress(t *testing.T) {
	h := start(t, func(h *harness) { h.limits.perAddress = 2 })
	for range 2 {
		c := h.client(t)
		c.ask("f")
		c.wantBlock(1)
	}
	late := h.client(t)
	late.ask("f")
	eventually(t, "the request is refused", func() bool { return h.Stats().Refused == 1 })
	late.wantNothing()
	other, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 2)})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	elsewhere := &client{t: t, conn: other, server: h.addr, buf: make([]byte, 1000)}
	elsewhere.ask("f")
	elsewhere.wantBlock(1)
}

// TestWarningsAreFew asks for what makes the log warn.
func TestWarningsAreFew(t *testing.T) {
	h := start(t, nil)
	h.openBy(func(context.Context, Request) (File, error) { return nil, errTest })
	c := h.client(t)
	for range 3 * warningsAMinute {
		if _, err := c.fetch("f", nil); err == nil {
			t.Fatal("no error")
		}
	}
	h.stop()
	if n := h.logs.FilterMessage("cannot open a file").Len(); n < warningsAMinute || n > 2*warningsAMinute {
		t.Errorf("the log has it %d times; want %d a minute", n, warningsAMinute)
	}
}

// TestOpenIsBounded lets Open hang for more clients than it is called for at once.
func TestOpenIsBounded(t *testing.T) {
	const most, clients = 3, 20
	var inside, highest atomic.Int64
	entered, release := make(chan struct{}, clients), make(chan struct{})
	h := start(t, func(h *harness) {
		h.limits.opens = most
		open := h.Open
		h.Open = func(ctx context.Context, r Request) (File, error) {
			highest.Store(max(highest.Load(), inside.Add(1)))
			defer inside.Add(-1)
			entered <- struct{}{}
			<-release
			return open(ctx, r)
		}
	})
	all := make([]*client, clients)
	for i := range all {
		all[i] = h.client(t)
		all[i].ask("f")
	}
	for range most {
		<-entered
	}
	all[0].wantNothing()
	close(release)
	for _, c := range all {
		c.wantBlock(1)
	}
	if n := highest.Load(); n > most {
		t.Errorf("%d goroutines were in Open; want no more than %d", n, most)
	}
}

// TestPushedOutOfOpen pushes requests out while Open has them and while they wait for it.
func TestPushedOutOfOpen(t *testing.T) {
	entered, release := make(chan struct{}, 10), make(chan struct{})
	h := start(t, func(h *harness) {
		h.limits.opens, h.limits.halfOpen = 1, 2
		open := h.Open
		h.Open = func(ctx context.Context, r Request) (File, error) {
			entered <- struct{}{}
			<-release
			return open(ctx, r)
		}
	})
	clients := make([]*client, 5)
	for i := range clients {
		clients[i] = h.client(t)
		clients[i].ask("f")
	}
	<-entered
	eventually(t, "three are pushed out", func() bool { return h.Stats().Refused == 3 })
	close(release)
	clients[3].wantBlock(1)
	clients[4].wantBlock(1)
	for _, c := range clients[:3] {
		c.wantNothing()
	}
	if n := h.opened.Load(); n != 3 { // the first of them was asked for when it was pushed out
		t.Errorf("%d files were opened; want 3", n)
	}
}

// TestPanic lets what is called panic. Only that transfer ends.
func TestPanic(t *testing.T) {
	h := start(t, nil)
	open := h.stored
	h.openBy(func(ctx context.Context, r Request) (File, error) {
		switch r.Name {
		case "open":
			panic("in Open")
		case "read":
			return hooked{h.file(make([]byte, 10)), func([]byte, int64, bool) (int, error) { panic("in ReadAt") }}, nil
		}
		return open(ctx, r)
	})
	for _, request := range [][]byte{rrq("open", "octet"), rrq("read", "octet"), rrq("read", "netascii")} {
		c := h.client(t)
		c.send(h.addr, request)
		c.wantPacket("\x00\x05\x00\x00the file cannot be read: the server's log says why\x00")
	}
	eventually(t, "the log has all panics", func() bool { return h.logs.FilterMessage("panic in a transfer").Len() == 3 })
	h.logs.TakeAll()
	if got, err := h.client(t).fetch("f", nil); err != nil || !bytes.Equal(got, h.files["f"]) {
		t.Errorf("afterwards: %d bytes, %v", len(got), err)
	}
}

// TestStop ends Serve while transfers are in all states. It waits for what
// others still do, and leaves nothing open.
func TestStop(t *testing.T) {
	before := descriptors(t)
	entered := make(chan struct{}, 2)
	h := start(t, nil)
	h.add("opening", nil)
	open := h.stored
	h.openBy(func(ctx context.Context, r Request) (File, error) {
		switch r.Name {
		case "opening":
			entered <- struct{}{}
			<-ctx.Done()
			time.Sleep(20 * time.Millisecond) // Serve must not return before
		case "reading":
			return hooked{h.file(make([]byte, 10)), func(_ []byte, _ int64, nowait bool) (int, error) {
				if nowait {
					return 0, errWouldBlock
				}
				entered <- struct{}{}
				<-ctx.Done()
				return 0, errTest
			}}, nil
		}
		return open(ctx, r)
	})
	var clients []*client
	for _, name := range []string{"f", "f", "opening", "reading"} {
		c := h.client(t)
		c.ask(name)
		clients = append(clients, c)
	}
	<-entered
	<-entered
	clients[0].wantBlock(1)
	clients[0].ack(1)
	clients[1].wantBlock(1)
	h.stop()
	for _, c := range clients {
		c.conn.Close()
	}
	if n := h.opened.Load(); n != 4 || h.closed.Load() != n {
		t.Errorf("%d files were opened and %d closed; want 4", n, h.closed.Load())
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors are open; there were %d", after, before)
	}
}

// TestNotUDP serves what cannot be served.
func TestNotUDP(t *testing.T) {
	pc, err := net.ListenPacket("unixgram", t.TempDir()+"/socket")
	if err != nil {
		t.Fatal(err)
	}
	if err := (&Server{}).Serve(context.Background(), pc); err == nil {
		t.Error("no error")
	}
}
