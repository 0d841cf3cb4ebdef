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
	"runtime/debug"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs"
)

var errWouldBlock = fs.ErrWouldBlock

// TestFetch fetches files whose size is near a multiple of the block's.
func TestFetch(t *testing.T) {
	h := start(t, nil)
	for _, options := range [][]string{
		nil,
		{"tsize", "0"},
		{"blksize", "8"},
		{"blksize", "1024", "tsize", "0"},
		{"blksize", "1428", "windowsize", "4"},
		{"blksize", "8", "windowsize", "64"},
		{"blksize", "65464"},
		{"blksize", "65464", "windowsize", "2"},
		{"windowsize", "7"},
	} {
		block := defaultBlock
		if i := slices.Index(options, "blksize"); i >= 0 {
			block, _ = strconv.Atoi(options[i+1])
		}
		for _, size := range []int{0, 1, block - 1, block, block + 1, 3*block - 1, 3 * block, 64*block + 1, bufferSize / block * block, 2*bufferSize + 3} {
			name := strconv.Itoa(size)
			want := pattern(size)
			h.add(name, want)
			got, err := h.client(t).fetch(name, nil, options...)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes, options %v: %d bytes, %v", size, options, len(got), err)
			}
			if r := h.result(t); r.Err != nil || r.Size != int64(size) || r.Sent != int64(size) {
				t.Errorf("%d bytes, options %v: %+v", size, options, r)
			}
		}
	}
	if s := h.Stats(); s.Failed+s.Aborted+s.Refused != 0 || s.Running != 0 || s.Done == 0 {
		t.Errorf("%+v", s)
	}
}

// TestLastBlock ends a file of whole blocks by an empty one.
func TestLastBlock(t *testing.T) {
	h := start(t, nil)
	h.add("f", pattern(1024))
	c := h.client(t)
	c.ask("f")
	for block, size := range []int{512, 512, 0} {
		if p := c.wantBlock(block + 1); len(p) != size {
			t.Errorf("block %d has %d bytes; want %d", block+1, len(p), size)
		}
		c.ack(block + 1)
	}
	if r := h.result(t); r.Err != nil {
		t.Error(r.Err)
	}
}

// TestBlockNumbersWrap sends a file of more blocks than there are numbers for:
// after 65535 comes 0.
func TestBlockNumbersWrap(t *testing.T) {
	h := start(t, nil)
	want := pattern(65540 * 8)
	h.add("f", want)
	c := h.client(t)
	c.ask("f", "blksize", "8")
	c.wantPacket("\x00\x06blksize\x008\x00")
	c.ack(0)
	for block := 1; block <= 65541; block++ {
		if p := c.wantBlock(block & 0xffff); !bytes.Equal(p, want[(block-1)*8:min(block*8, len(want))]) {
			t.Fatalf("block %d is wrong", block)
		}
		c.ack(block & 0xffff)
	}
	if r := h.result(t); r.Err != nil {
		t.Error(r.Err)
	}
	got, err := h.client(t).fetch("f", nil, "blksize", "8", "windowsize", "60")
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("in windows: %d bytes, %v", len(got), err)
	}
}

// TestDuplicateAck repeats each ACK. No block is sent twice for that (the
// Sorcerer's Apprentice, RFC 1123, section 4.2.3.1).
func TestDuplicateAck(t *testing.T) {
	h := start(t, nil)
	c := h.client(t)
	c.ask("f", "tsize", "0")
	c.receive()
	c.ack(0)
	c.ack(0)
	for block := 1; block <= 20; block++ {
		c.wantBlock(block)
		c.ack(block)
		c.ack(block)
		c.ack(block - 1) // of long ago
	}
	if s := h.result(t); s.Err != nil {
		t.Error(s.Err)
	}
	if n := h.Stats().Bytes; n != 10_000 {
		t.Errorf("%d bytes were sent of a file of 10,000", n)
	}
}

// TestWindow says what was lost of a window, and sees what comes.
func TestWindow(t *testing.T) {
	h := start(t, nil)
	c := h.client(t)
	window := func(from int) {
		t.Helper()
		for i := range 4 {
			if got, off := c.wantBlock(from+i), (from+i-1)*500; !bytes.Equal(got, h.files["f"][off:off+500]) {
				t.Errorf("block %d is wrong", from+i)
			}
		}
	}
	c.ask("f", "windowsize", "4", "blksize", "500")
	c.wantPacket("\x00\x06windowsize\x004\x00blksize\x00500\x00")
	c.ack(0)
	window(1)
	c.ack(5) // never sent
	c.ack(0) // the first was lost
	window(1)
	c.ack(0) // as the client says once more for the third and the fourth
	c.ack(0)
	c.wantNothing()
	c.ack(4)
	window(5)
	c.ack(4) // the echo of a window that was sent twice
	c.ack(3) // of long ago
	c.wantNothing()
	c.ack(6) // the third was lost
	window(7)
	c.ack(6) // as the client says once more for the fourth
	c.wantNothing()
	c.ack(10)
	window(11)
	c.ack(14)
	window(15)
	c.ack(14) // the first was lost, again
	window(15)
	c.ack(18)
	for block := 19; block <= 21; block++ {
		c.wantBlock(block)
	}
	c.ack(21)
	if r := h.result(t); r.Err != nil {
		t.Error(r.Err)
	}
}

// TestLosses loses one packet in ten, which the client tells or the server finds
// out by the timeout.
func TestLosses(t *testing.T) {
	for _, window := range []string{"1", "2", "16", "64"} {
		t.Run(window, func(t *testing.T) {
			t.Parallel()
			h := start(t, func(h *harness) { h.limits.timeout = 10 * time.Millisecond })
			want := pattern(300_000)
			h.add("f", want)
			r := rand.New(rand.NewPCG(1, 2))
			got, err := h.client(t).fetch("f", func() bool { return r.IntN(10) == 0 }, "windowsize", window)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
}

// TestReordered answers a window of which the order was changed underway.
func TestReordered(t *testing.T) {
	h := start(t, nil)
	c := h.client(t)
	c.ask("f", "windowsize", "8")
	c.receive()
	c.ack(0)
	for range 8 {
		c.receive()
	}
	// What a client says that sees 1, 3, 2, 4, 5, 6, 8, 7.
	c.ack(1)
	c.ack(6)
	for block := range 8 {
		c.wantBlock(2 + block)
	}
	for block := range 8 {
		c.wantBlock(7 + block)
	}
	c.ack(14)
	for block := range 6 {
		c.wantBlock(15 + block)
	}
	c.ack(20)
	if r := h.result(t); r.Err != nil {
		t.Error(r.Err)
	}
}

// TestSilence lets a client fall silent at each stage. Everything comes as often
// as it should, and then the transfer ends.
func TestSilence(t *testing.T) {
	type ack struct {
		after string
		block int
	}
	for _, c := range []struct {
		name    string
		options []string
		acks    []ack
		want    []string // each time
		sent    int64
	}{
		{"after the request", nil, nil, []string{"\x00\x03\x00\x01"}, 0},
		{"after the options", []string{"tsize", "0"}, nil, []string{"\x00\x06ts"}, 0},
		{"in the file", nil, []ack{{"\x00\x03\x00\x01", 1}, {"\x00\x03\x00\x02", 2}, {"\x00\x03\x00\x03", 3}}, []string{"\x00\x03\x00\x04"}, 1536},
		{"in a window", []string{"windowsize", "3"}, []ack{{"\x00\x06wi", 0}}, []string{"\x00\x03\x00\x01", "\x00\x03\x00\x02", "\x00\x03\x00\x03"}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := start(t, func(h *harness) { h.limits.timeout = 100 * time.Millisecond })
			client := h.client(t)
			client.ask("f", c.options...)
			// What was sent twice because this test was slow does not count.
			next := func(want string) {
				for {
					if p := client.receive(); string(p[:4]) == want {
						return
					} else if string(p[:4]) > want && p[1] == opData {
						t.Fatalf("received %q; want %q", p[:4], want)
					}
				}
			}
			for _, ack := range c.acks {
				next(ack.after)
				client.ack(ack.block)
			}
			for range 6 {
				for _, want := range c.want {
					next(want)
				}
			}
			if r := h.result(t); r.Err != errSilent || r.Sent != c.sent {
				t.Errorf("%+v", r)
			}
			client.wantNothing()
			if s := h.Stats(); s.Failed != 1 || s.Running != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// TestTimeoutOption repeats after the client's timeout, where the server's own is an hour.
func TestTimeoutOption(t *testing.T) {
	h := start(t, nil)
	c := h.client(t)
	c.ask("f", "timeout", "1")
	c.wantPacket("\x00\x06timeout\x001\x00")
	c.wantPacket("\x00\x06timeout\x001\x00")
	c.ack(0)
	c.wantBlock(1)
	c.wantBlock(1)
}

// TestStuck ends the transfer of a silent client while its socket takes nothing.
func TestStuck(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[1])
	for send(pair[0], []byte("full")) == 0 {
	}
	s := &Server{Log: zap.NewNop()}
	l := &loop{srv: s, limits: limits{timeout: time.Second, silence: time.Minute}, now: time.Now()}
	var closed atomic.Int64
	tr := &transfer{fd: pair[0], query: &query{}, file: content{nil, &closed}, block: 512, window: 1, blocks: 1, next: 1, buf: make([]byte, 512)}
	l.batch.init()
	l.slots = []*transfer{tr}
	l.heardFrom(tr)
	l.send(tr)
	if !tr.stuck {
		t.Fatal("the socket takes more")
	}
	for range 100 {
		l.expired(tr)
		if tr.over {
			break
		}
		l.now = l.now.Add(time.Second)
	}
	if s := s.Stats(); !tr.over || closed.Load() != 1 || s.Failed != 1 {
		t.Errorf("the transfer goes on: %+v", s)
	}
}

// TestSilenceIsBounded asks for a long timeout and says no more.
func TestSilenceIsBounded(t *testing.T) {
	h := start(t, func(h *harness) { h.limits.silence = 50 * time.Millisecond })
	c := h.client(t)
	c.ask("f", "timeout", "255")
	c.receive()
	if r := h.result(t); r.Err != errSilent {
		t.Errorf("%+v", r)
	}
}

// TestAbort ends transfers by a client's ERROR.
func TestAbort(t *testing.T) {
	h := start(t, nil)
	for _, acks := range []int{0, 1, 3} {
		c := h.client(t)
		c.ask("f", "tsize", "0")
		c.receive()
		for i := range acks {
			c.ack(i)
			c.receive()
		}
		c.send(c.tid, []byte("\x00\x05\x00\x03disk \xff full"))
		r := h.result(t)
		if !errors.Is(r.Err, ErrAborted) || r.Err.Error() != `tftp: ended by the client: error 3: "disk \xff full"` {
			t.Error(r.Err)
		}
		if want := int64(max(0, acks-1)) * 512; r.Sent != want {
			t.Errorf("%d bytes are acknowledged; want %d", r.Sent, want)
		}
	}
}

// TestGone closes the client's port, which the network tells when something is sent again.
func TestGone(t *testing.T) {
	h := start(t, func(h *harness) { h.limits.timeout = 20 * time.Millisecond })
	c := h.client(t)
	c.ask("f", "windowsize", "3")
	c.receive()
	c.ack(0)
	c.wantBlock(1)
	c.conn.Close()
	if r := h.result(t); r.Err != unix.ECONNREFUSED {
		t.Errorf("%+v", r)
	}
}

// TestSpoofed sends to a transfer from another port, and what makes no sense
// from the right one.
func TestSpoofed(t *testing.T) {
	h := start(t, nil)
	c, other := h.client(t), h.client(t)
	c.ask("f")
	c.wantBlock(1)
	other.tid = c.tid
	for _, p := range []string{"\x00\x05\x00\x00\x00", "\x00\x04\x00\x01"} {
		_, _ = other.conn.WriteToUDPAddrPort([]byte(p), c.tid)
	}
	other.wantNothing()
	for _, p := range []string{"", "\x00", "\x00\x04\x00", "\x00\x04\x00\x02", "\x00\x04\x00\x00", "\x00\x03\x00\x01x", string(rrq("f", "octet")), "\x00\x09\x00\x01"} {
		c.send(c.tid, []byte(p))
	}
	c.wantNothing()
	c.ack(1)
	c.wantBlock(2)
}

// TestWouldBlock lets a file be where only a disk has it, while others are sent.
func TestWouldBlock(t *testing.T) {
	h := start(t, nil)
	want := pattern(100_000)
	disk := make(chan struct{})
	open := h.stored
	h.openBy(func(ctx context.Context, r Request) (File, error) {
		if r.Name != "cold" {
			return open(ctx, r)
		}
		f := h.file(want)
		return hooked{f, func(p []byte, off int64, nowait bool) (int, error) {
			if nowait {
				clear(p)
				return 0, fmt.Errorf("cold: %w", errWouldBlock)
			}
			<-disk
			return f.ReadAt(p, off, nowait)
		}}, nil
	})
	cold := h.client(t)
	cold.ask("cold", "windowsize", "16")
	cold.receive()
	cold.ack(0)
	if got, err := h.client(t).fetch("f", nil); err != nil || !bytes.Equal(got, h.files["f"]) {
		t.Fatalf("meanwhile: %d bytes, %v", len(got), err)
	}
	cold.wantNothing()
	close(disk)
	for block := 1; block <= 16; block++ {
		cold.wantBlock(block)
	}
	for _, options := range [][]string{nil, {"windowsize", "16"}, {"blksize", "65464"}} {
		if got, err := h.client(t).fetch("cold", nil, options...); err != nil || !bytes.Equal(got, want) {
			t.Errorf("options %v: %d bytes, %v", options, len(got), err)
		}
	}
}

// TestEndWhileReading ends a transfer whose file is being read. The file is
// closed only when that is over, and until then it counts.
func TestEndWhileReading(t *testing.T) {
	reading, disk := make(chan struct{}, 1), make(chan struct{})
	h := start(t, func(h *harness) { h.limits.transfers = 1 })
	open := h.stored
	h.openBy(func(ctx context.Context, r Request) (File, error) {
		if r.Name != "cold" {
			return open(ctx, r)
		}
		return hooked{h.file(make([]byte, 10)), func(p []byte, _ int64, nowait bool) (int, error) {
			if nowait {
				return 0, errWouldBlock
			}
			reading <- struct{}{}
			<-disk
			return len(p), nil
		}}, nil
	})
	c := h.client(t)
	c.ask("cold", "tsize", "0")
	c.receive()
	c.ack(0)
	<-reading
	c.send(c.tid, []byte("\x00\x05\x00\x00\x00"))
	h.result(t)
	if n := h.closed.Load(); n != 0 {
		t.Error("a file is closed that is being read")
	}
	late := h.client(t)
	late.ask("f")
	eventually(t, "the request is refused", func() bool { return h.Stats().Refused == 1 })
	close(disk)
	eventually(t, "the file is closed", func() bool { return h.closed.Load() == 1 })
	if got, err := h.client(t).fetch("f", nil); err != nil || len(got) != 10_000 {
		t.Errorf("afterwards: %d bytes, %v", len(got), err)
	}
	late.wantNothing()
}

// TestReadFails has files that are not what they said.
func TestReadFails(t *testing.T) {
	h := start(t, nil)
	files := map[string]func(p []byte, off int64, nowait bool) (int, error){
		"damaged": func([]byte, int64, bool) (int, error) { return 0, errTest },
		"cut":     func([]byte, int64, bool) (int, error) { return 100, nil },
		"damaged on the disk": func(_ []byte, _ int64, nowait bool) (int, error) {
			if nowait {
				return 0, errWouldBlock
			}
			return 0, errTest
		},
	}
	h.openBy(func(_ context.Context, r Request) (File, error) {
		return hooked{h.file(make([]byte, 1000)), files[r.Name]}, nil
	})
	for name := range files {
		for _, options := range [][]string{nil, {"blksize", "8", "windowsize", "2"}} {
			if name == "cut" && options != nil {
				continue // 100 bytes are enough for these blocks
			}
			_, err := h.client(t).fetch(name, nil, options...)
			if err == nil || err.Error() != "error 0: the file cannot be read: the server's log says why\x00" {
				t.Errorf("%s, options %v: %v", name, options, err)
			}
			if r := h.result(t); r.Err == nil || r.Sent != 0 {
				t.Errorf("%s, options %v: %+v", name, options, r)
			}
		}
	}
	if s := h.Stats(); s.Failed != 5 {
		t.Errorf("%+v", s)
	}
}

// TestTransfersAllocateNothing counts what the whole process allocates for a block.
func TestTransfersAllocateNothing(t *testing.T) {
	h := start(t, nil)
	h.add("f", make([]byte, 10<<20))
	allowed := 0.0
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		allowed = 8
	}
	for _, window := range []int{1, 16} {
		c := h.client(t)
		c.ask("f", "blksize", "1428", "windowsize", strconv.Itoa(window))
		c.receive()
		c.ack(0)
		block := 0
		ack := []byte{0, opAck, 0, 0}
		n := testing.AllocsPerRun(200, func() {
			for range window {
				block++
				if n, _, err := c.conn.ReadFromUDPAddrPort(c.buf); err != nil || n < headerSize || int(binary.BigEndian.Uint16(c.buf[2:])) != block {
					t.Fatal(n, err)
				}
			}
			binary.BigEndian.PutUint16(ack[2:], uint16(block))
			if _, err := c.conn.WriteToUDPAddrPort(ack, c.tid); err != nil {
				t.Fatal(err)
			}
		})
		if n > allowed {
			t.Errorf("window %d: %v allocations", window, n)
		}
	}
}

// TestNetascii translates.
func TestNetascii(t *testing.T) {
	h := start(t, nil)
	long := bytes.Repeat([]byte("a line of some bytes \xff\n\n\r\r\n"), 1000)
	for i, c := range []struct{ text, want []byte }{
		{[]byte(""), []byte("")},
		{[]byte("a\nb\n"), []byte("a\r\nb\r\n")},
		{[]byte("\r"), []byte("\r\x00")},
		{[]byte("\r\n"), []byte("\r\x00\r\n")},
		{long, bytes.ReplaceAll(bytes.ReplaceAll(long, []byte("\r"), []byte("\r\x00")), []byte("\n"), []byte("\r\n"))},
		{bytes.Repeat([]byte("\n"), 2*netasciiPiece), bytes.Repeat([]byte("\r\n"), 2*netasciiPiece)},
	} {
		name := strconv.Itoa(i)
		h.add(name, c.text)
		for _, options := range [][]string{nil, {"blksize", "9"}, {"blksize", "1428", "windowsize", "8"}, {"blksize", "65464"}} {
			client := h.client(t)
			got, err := client.fetchMode(name, "netascii", nil, options...)
			if err != nil || !bytes.Equal(got, c.want) {
				t.Errorf("text %d, options %v: %q, %v", i, options, got[:min(len(got), 100)], err)
			}
			if r := h.result(t); r.Err != nil || r.Size != int64(len(c.want)) {
				t.Errorf("text %d: %+v", i, r)
			}
		}
	}
	h.add("kernel", make([]byte, maxNetascii+1))
	c := h.client(t)
	c.send(h.addr, rrq("kernel", "netascii"))
	c.wantPacket("\x00\x05\x00\x00too large for netascii: ask for octet, which some clients call binary\x00")
}

// TestPathMTU cuts blocks down to what goes through a device in one piece. That
// needs a network of its own.
func TestPathMTU(t *testing.T) {
	inOwnNetwork(t, func() {
		setLoopback(t, 1500)
		for server, want := range map[string]string{"127.0.0.1": "1468", "::1": "1448"} {
			h := startAt(t, netip.AddrPortFrom(netip.MustParseAddr(server), 0).String(), nil)
			c := h.client(t)
			c.ask("f", "blksize", "65464", "windowsize", "4")
			c.wantPacket("\x00\x06blksize\x00" + want + "\x00windowsize\x004\x00")
			c.ack(0)
			for i := range 4 {
				if p := c.wantBlock(i + 1); strconv.Itoa(len(p)) != want {
					t.Errorf("%s: block %d has %d bytes", server, i+1, len(p))
				}
			}
			// A path that gets narrower must not stop the transfer.
			setLoopback(t, 1400)
			c.ack(4)
			for i := range 3 {
				c.wantBlock(i + 5)
			}
			c.ack(7)
			if r := h.result(t); r.Err != nil {
				t.Errorf("%s: %+v", server, r)
			}
			setLoopback(t, 1500)
		}
	})
}

// TestSmallMTU sends through a device that takes less than a block. Who did not
// ask for smaller ones gets blocks of 512 bytes all the same.
func TestSmallMTU(t *testing.T) {
	inOwnNetwork(t, func() {
		setLoopback(t, 400)
		h := start(t, nil)
		for _, options := range [][]string{nil, {"tsize", "0"}, {"windowsize", "4"}, {"blksize", "512"}} {
			got, err := h.client(t).fetch("f", nil, options...)
			if err != nil || !bytes.Equal(got, h.files["f"]) {
				t.Errorf("options %v: %d bytes, %v", options, len(got), err)
			}
		}
	})
}

// TestNarrowPath has a router tell that packets are too large. What was in flight
// is sent again.
func TestNarrowPath(t *testing.T) {
	inOwnNetwork(t, func() {
		setLoopback(t, 1500)
		raw, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(raw)
		for _, window := range []int{1, 4} {
			h := start(t, nil)
			c := h.client(t)
			// The kernel remembers for each address how narrow its path is.
			if c.conn, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 1, byte(window))}); err != nil {
				t.Fatal(err)
			}
			defer c.conn.Close()
			c.ask("f", "blksize", "1428", "windowsize", strconv.Itoa(window))
			c.wantPacket("\x00\x06blksize\x001428\x00windowsize\x00" + strconv.Itoa(window) + "\x00")
			c.ack(0)
			for i := range window {
				c.wantBlock(i + 1)
			}
			own := netip.MustParseAddrPort(c.conn.LocalAddr().String())
			told := func() {
				if err := unix.Sendto(raw, tooLarge(c.tid, own, 1000), 0, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
					t.Fatal(err)
				}
			}
			told()
			last := 10_000/1428 + 1
			for begin := 1; begin <= last; begin += window {
				end := min(begin+window-1, last)
				for block := begin; block <= end; block++ {
					c.wantBlock(block)
				}
				told() // once is enough
				c.ack(end)
			}
			if r := h.result(t); r.Err != nil {
				t.Errorf("window %d: %+v", window, r)
			}
		}
	})
}

// tooLarge is what a router sends that would have to cut a packet (RFC 1191, section 4).
func tooLarge(from, to netip.AddrPort, mtu uint16) []byte {
	p := []byte{0: 3, 1: 4, 7: 0}
	binary.BigEndian.PutUint16(p[6:], mtu)
	src, dst := from.Addr().As4(), to.Addr().As4()
	p = append(p, 0x45, 0, 1460>>8, 1460&0xff, 0, 0, 0x40, 0, 64, unix.IPPROTO_UDP, 0, 0)
	p = append(append(p, src[:]...), dst[:]...)
	p = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(p, from.Port()), to.Port())
	p = append(p, 1440>>8, 1440&0xff, 0, 0)
	sum := uint32(0)
	for i := 0; i < len(p); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(p[2:], ^uint16(sum>>16+sum))
	return p
}

// confirming is a File that counts how often it is confirmed.
type confirming struct {
	content
	times *atomic.Int64
}

func (f confirming) Confirmed() { f.times.Add(1) }

// TestConfirmed: that a client has answered is told once, and not before.
func TestConfirmed(t *testing.T) {
	for name, answer := range map[string]func(c *client){
		"by acknowledging": func(c *client) { c.ack(1); c.wantBlock(2); c.ack(2); c.wantBlock(3); c.ack(3) },
		"by both":          func(c *client) { c.ack(1); c.wantBlock(2); c.send(c.tid, []byte("\x00\x05\x00\x00x\x00")) },
		"by an error":      func(c *client) { c.send(c.tid, []byte("\x00\x05\x00\x00x\x00")) },
	} {
		for _, mode := range []string{"octet", "netascii"} {
			h := start(t, nil)
			var times atomic.Int64
			h.openBy(func(context.Context, Request) (File, error) {
				return confirming{h.file(pattern(1100)), &times}, nil
			})
			c := h.client(t)
			c.send(h.addr, rrq("f", mode))
			c.wantBlock(1)
			if n := times.Load(); n != 0 {
				t.Errorf("%s: confirmed %d times by the request", mode, n)
			}
			answer(c)
			h.result(t)
			if n := times.Load(); n != 1 {
				t.Errorf("%s, %s: confirmed %d times; want once", mode, name, n)
			}
		}
	}
}
