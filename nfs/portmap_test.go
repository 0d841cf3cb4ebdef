package nfs

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

// anyPorts are what the port mapper is told in these tests.
var anyPorts = Ports{NFS: 2049, Mount: 2050, MountUDP: 2051, Portmap: 111, PortmapUDP: 112}

func getPort(c *client, prog, vers, proto uint32) uint32 {
	d := c.call(progPortmap, 2, 3, func(e *wire.Encoder) {
		for _, v := range []uint32{prog, vers, proto, 0} {
			e.Uint32(v)
		}
	})
	return d.Uint32()
}

func TestPorts(t *testing.T) {
	for _, test := range []struct {
		prog, vers, proto uint32
		want, exact       uint16
	}{
		{progNFS, 3, protoTCP, 2049, 2049},
		{progNFS, 4, protoTCP, 2049, 0}, // NFS itself says that it has only 3
		{progNFS, 3, protoUDP, 0, 0},
		{progMount, 3, protoTCP, 2050, 2050},
		{progMount, 1, protoTCP, 2050, 2050},
		{progMount, 2, protoTCP, 2050, 0},
		{progMount, 3, protoUDP, 2051, 2051},
		{progPortmap, 2, protoTCP, 111, 111},
		{progPortmap, 4, protoUDP, 112, 112},
		{100021, 4, protoTCP, 0, 0},
		{100024, 1, protoUDP, 0, 0},
		{100227, 3, protoTCP, 0, 0},
		{progNFS, 3, 132, 0, 0},
	} {
		if got := anyPorts.port(test.prog, test.vers, test.proto, false); got != test.want {
			t.Errorf("%+v: %d", test, got)
		}
		if got := anyPorts.port(test.prog, test.vers, test.proto, true); got != test.exact {
			t.Errorf("%+v exactly: %d", test, got)
		}
	}
	if got := (&Ports{NFS: 2049}).services(); len(got) != 1 {
		t.Errorf("services that are not offered are listed: %v", got)
	}
}

func TestPortmap(t *testing.T) {
	h := start(t, sample(), Limits{})
	c := h.dial(t)
	if got := getPort(c, progNFS, 3, protoTCP); got != 2049 {
		t.Errorf("GETPORT of NFS: %d", got)
	}
	if got := getPort(c, 100021, 4, protoTCP); got != 0 {
		t.Errorf("GETPORT of NLM: %d", got)
	}
	for _, proc := range []uint32{1, 2} { // SET, UNSET
		d := c.call(progPortmap, 2, proc, func(e *wire.Encoder) {
			for _, v := range []uint32{4711, 1, protoTCP, 99} {
				e.Uint32(v)
			}
		})
		if d.Bool() || !d.Done() {
			t.Errorf("procedure %d did something", proc)
		}
	}
	if got := getPort(c, 4711, 1, protoTCP); got != 0 {
		t.Errorf("something was registered: port %d", got)
	}
	d := c.call(progPortmap, 2, 4, nil)
	var lines []string
	for d.Bool() {
		lines = append(lines, fmt.Sprint(d.Uint32(), d.Uint32(), d.Uint32(), d.Uint32()))
	}
	if !d.Done() || len(lines) != 11 || !slices.Contains(lines, "100003 3 6 2049") || !slices.Contains(lines, "100005 1 17 2051") {
		t.Errorf("DUMP: %q", lines)
	}
}

func getAddr(c *client, proc, prog, vers uint32, netid string) string {
	d := c.call(progPortmap, 4, proc, func(e *wire.Encoder) {
		e.Uint32(prog)
		e.Uint32(vers)
		e.String(netid)
		e.String("")
		e.String("")
	})
	s := string(d.Opaque(100))
	if !d.Done() {
		c.t.Error("malformed address")
	}
	return s
}

func TestRPCBind(t *testing.T) {
	ln6, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	h4, h6 := start(t, sample(), Limits{}), startOn(t, ln6, sample(), Limits{})
	c4, c6 := h4.dial(t), h6.dial(t)
	const getaddr, getversaddr = 3, 9
	for _, test := range []struct {
		c          *client
		proc       uint32
		prog, vers uint32
		netid      string
		want       string
	}{
		{c4, getaddr, progNFS, 3, "tcp", "127.0.0.1.8.1"},
		{c4, getaddr, progNFS, 3, "", "127.0.0.1.8.1"},
		{c4, getaddr, progNFS, 4, "tcp", "127.0.0.1.8.1"},
		{c4, getversaddr, progNFS, 4, "tcp", ""},
		{c4, getversaddr, progNFS, 3, "tcp", "127.0.0.1.8.1"},
		{c4, getaddr, progNFS, 3, "udp", ""},
		{c4, getaddr, progNFS, 3, "tcp6", ""},
		{c4, getaddr, progMount, 3, "udp", "127.0.0.1.8.3"},
		{c4, getaddr, 100021, 4, "tcp", ""},
		{c4, getaddr, progNFS, 3, "nonsense", ""},
		{c6, getaddr, progNFS, 3, "tcp6", "::1.8.1"},
		{c6, getaddr, progMount, 3, "udp6", "::1.8.3"},
		{c6, getaddr, progNFS, 3, "tcp", ""},
	} {
		if got := getAddr(test.c, test.proc, test.prog, test.vers, test.netid); got != test.want {
			t.Errorf("procedure %d of program %d, %q: %q, want %q", test.proc, test.prog, test.netid, got, test.want)
		}
	}
	if d := c4.call(progPortmap, 3, 6, nil); time.Since(time.Unix(int64(d.Uint32()), 0)).Abs() > time.Minute {
		t.Error("GETTIME is wrong")
	}
	d := c6.call(progPortmap, 4, 4, nil)
	var lines []string
	for d.Bool() {
		prog, vers := d.Uint32(), d.Uint32()
		lines = append(lines, fmt.Sprint(prog, " ", vers, " ", string(d.Opaque(9)), " ", string(d.Opaque(99))))
		d.Opaque(99)
	}
	if !d.Done() || len(lines) != 11 || !slices.Contains(lines, "100003 3 tcp6 ::1.8.1") {
		t.Errorf("DUMP: %q", lines)
	}
}

// datagrams is a server on UDP, and who calls it.
type datagrams struct {
	*harness
	t    *testing.T
	conn *net.UDPConn
}

func startDatagrams(t *testing.T, listen, dial string) *datagrams {
	t.Helper()
	pc, err := net.ListenPacket("udp", listen)
	if err != nil {
		t.Fatal(err)
	}
	h := start(t, sample(), Limits{})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.ServePacket(ctx, pc) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("ServePacket: %v", err)
		}
	})
	to := netip.AddrPortFrom(netip.MustParseAddr(dial), uint16(pc.LocalAddr().(*net.UDPAddr).Port))
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return &datagrams{h, t, conn}
}

// send sends a datagram, and receive returns the next reply.
func (d *datagrams) send(msg []byte) {
	d.t.Helper()
	if _, err := d.conn.Write(msg); err != nil {
		d.t.Fatal(err)
	}
}

func (d *datagrams) receive() []byte {
	d.t.Helper()
	buf := make([]byte, 65536)
	n, err := d.conn.Read(buf)
	if err != nil {
		d.t.Fatal(err)
	}
	return buf[:n]
}

func datagram(prog, vers, proc uint32, args ...uint32) []byte {
	return append(words(7, 0, 2, prog, vers, proc, 0, 0, 0, 0), words(args...)...)
}

func TestDatagrams(t *testing.T) {
	d := startDatagrams(t, "127.0.0.1:0", "127.0.0.1")
	for name, test := range map[string]struct{ msg, want []byte }{
		"NULL":          {datagram(progMount, 3, 0), words(7, 1, 0, 0, 0, 0)},
		"GETPORT":       {datagram(progPortmap, 2, 3, progNFS, 3, protoTCP, 0), words(7, 1, 0, 0, 0, 0, 2049)},
		"NFS":           {datagram(progNFS, 3, 0), words(7, 1, 0, 0, 0, 1)},
		"CALLIT":        {datagram(progPortmap, 2, 5, progNFS, 3, 0, 0), words(7, 1, 0, 0, 0, 3)},
		"SET":           {datagram(progPortmap, 2, 1, progNFS, 3, 6, 1), words(7, 1, 0, 0, 0, 0, 0)},
		"garbage":       {datagram(progPortmap, 2, 3, progNFS), words(7, 1, 0, 0, 0, 4)},
		"a bad cred":    {words(7, 0, 2, progMount, 3, 0, 5, 0, 0, 0), words(7, 1, 1, 1, 1)},
		"mount of \"\"": {datagram(progMount, 3, 1, 0), words(7, 1, 0, 0, 0, 0, 22)},
		"DUMP":          {datagram(progMount, 3, 2), words(7, 1, 0, 0, 0, 0, 0)},
		"UMNT":          {datagram(progMount, 3, 3, 1, uint32('/')<<24), words(7, 1, 0, 0, 0, 0)},
		"UMNTALL":       {datagram(progMount, 3, 4), words(7, 1, 0, 0, 0, 0)},
	} {
		d.send(test.msg)
		if got := d.receive(); !bytes.Equal(got, test.want) {
			t.Errorf("%s: % x, want % x", name, got, test.want)
		}
	}
	// What is no call gets no reply: the next one is that of the next call.
	for _, msg := range [][]byte{{}, {1}, words(7, 1, 0, 0, 0, 0), []byte("GET / HTTP/1.1\r\n\r\n"), make([]byte, 60_000)} {
		d.send(msg)
	}
	d.send(datagram(progMount, 3, 1, 1, uint32('/')<<24))
	if got := d.receive(); !bytes.HasPrefix(got, words(7, 1, 0, 0, 0, 0, 0, 32)) {
		t.Errorf("MNT of /: % x", got)
	}
	d.send(datagram(progMount, 3, 5))
	if got := d.receive(); !bytes.HasPrefix(got, words(7, 1, 0, 0, 0, 0, 1, 1, uint32('/')<<24)) {
		t.Errorf("EXPORT: % x", got)
	}
}

// A reply comes from the address that was called, however many there are.
func TestDatagramsFromWildcard(t *testing.T) {
	for _, test := range []struct{ listen, dial, want string }{
		{"0.0.0.0:0", "127.0.0.2", "127.0.0.2.8.3"},
		{"[::]:0", "127.0.0.3", "127.0.0.3.8.3"},
		{"[::]:0", "::1", "::1.8.3"},
	} {
		d := startDatagrams(t, test.listen, test.dial)
		d.send(datagram(progPortmap, 4, 3, progMount, 3, 0, 0, 0))
		// A connected socket drops what comes from another address.
		dec := wire.NewDecoder(d.receive())
		dec.ReplyHeader()
		if got := string(dec.Opaque(99)); got != test.want {
			t.Errorf("listening on %s, called at %s: %q, want %q", test.listen, test.dial, got, test.want)
		}
	}
}

// Lists are sent no more often than people ask.
func TestDatagramsDoNotFlood(t *testing.T) {
	d := startDatagrams(t, "127.0.0.1:0", "127.0.0.1")
	const asked = 20 * maxListsPerSecond
	begin := time.Now()
	lists := 0
	for range asked {
		d.send(datagram(progPortmap, 2, 4))
		d.send(datagram(progMount, 3, 0))
		for reply := d.receive(); len(reply) != 24; reply = d.receive() { // 24 is that of NULL
			if len(reply) != 24+11*20+4 {
				t.Errorf("a list of %d bytes", len(reply))
			}
			lists++
		}
	}
	if most := maxListsPerSecond * (2 + int(time.Since(begin)/time.Second)); lists == 0 || lists > most {
		t.Errorf("%d of %d lists sent, at most %d wanted", lists, asked, most)
	}
}

func TestListRate(t *testing.T) {
	var r listRate
	for second := range 3 {
		allowed := 0
		for range 10 * maxListsPerSecond {
			if r.allow(time.Unix(int64(second+1), 0)) {
				allowed++
			}
		}
		if allowed != maxListsPerSecond {
			t.Errorf("%d in second %d", allowed, second)
		}
	}
}

func TestServeWantsTheRightSockets(t *testing.T) {
	h := start(t, sample(), Limits{})
	pc, err := net.ListenPacket("unixgram", t.TempDir()+"/socket")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.ServePacket(t.Context(), pc); err == nil || !strings.Contains(err.Error(), "UDP") {
		t.Errorf("%v", err)
	}
}
