package tftp

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// TestTransfer answers what comes in order and what does not.
func TestTransfer(t *testing.T) {
	const size = 8
	content := random(10*size + 3)
	type step struct {
		comes  int // a block, or 0 for an OACK
		answer int // the block that is acknowledged, or -1 for nothing
	}
	for name, c := range map[string]struct {
		window int
		steps  []step
	}{
		"in order":               {1, []step{{0, 0}, {1, 1}, {2, 2}}},
		"an ACK was lost":        {1, []step{{0, 0}, {1, 1}, {1, 1}, {2, 2}}},
		"the first was lost":     {1, []step{{0, 0}, {0, 0}, {1, 1}, {0, -1}, {2, 2}}},
		"much too late":          {1, []step{{0, 0}, {1, 1}, {2, 2}, {1, -1}, {3, 3}}},
		"too early":              {1, []step{{0, 0}, {2, -1}, {1, 1}, {2, 2}}},
		"windows":                {3, []step{{0, 0}, {1, -1}, {2, -1}, {3, 3}, {4, -1}, {5, -1}, {6, 6}}},
		"a gap is told once":     {4, []step{{0, 0}, {1, -1}, {3, 1}, {4, -1}, {2, -1}, {3, -1}, {4, -1}, {5, 5}}},
		"two gaps":               {4, []step{{0, 0}, {2, 0}, {3, -1}, {1, -1}, {3, 1}, {4, -1}, {2, -1}}},
		"a window came again":    {2, []step{{0, 0}, {1, -1}, {2, 2}, {1, 2}, {2, -1}, {3, -1}, {4, 4}}},
		"the end ends a window":  {16, []step{{0, 0}, {1, -1}, {2, -1}, {3, -1}, {4, -1}, {5, -1}, {6, -1}, {7, -1}, {8, -1}, {9, -1}, {10, -1}, {11, 11}}},
		"a gap before the end":   {16, []step{{0, 0}, {11, 0}}},
		"windows begin anew":     {2, []step{{0, 0}, {1, -1}, {3, 1}, {2, -1}, {3, 3}}},
		"a request came through": {2, []step{{0, 0}, {0, 0}, {1, -1}, {2, 2}}},
	} {
		x := &transfer{asked: Options{size, c.window}, content: content}
		for i, s := range c.steps {
			p := fmt.Appendf(nil, "\x00\x06blksize\x00%d\x00tsize\x00%d\x00", size, len(content))
			if s.comes == 0 && c.window > 1 {
				p = fmt.Appendf(p, "windowsize\x00%d\x00", c.window)
			}
			if s.comes > 0 {
				p = append([]byte{0, opData, 0, byte(s.comes)}, content[(s.comes-1)*size:min(s.comes*size, len(content))]...)
			}
			answer, _, err := x.take(p, nil)
			if err != nil {
				t.Errorf("%s: step %d: %v", name, i, err)
			}
			got := -1
			if len(answer) > 0 {
				got = int(binary.BigEndian.Uint16(answer[2:]))
			}
			if got != s.answer {
				t.Errorf("%s: step %d: acknowledged is %d; want %d", name, i, got, s.answer)
			}
		}
	}
}

func TestParseOptions(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want granted
		ok   bool
	}{
		"all":         {"\x00\x06blksize\x001468\x00tsize\x0012345\x00windowsize\x0016\x00", granted{1468, 16, 12345, true}, true},
		"capitals":    {"\x00\x06BlkSize\x0065464\x00", granted{blockSize: 65464}, true},
		"none":        {"\x00\x06", granted{}, true},
		"too large":   {"\x00\x06blksize\x0065465\x00", granted{}, false},
		"too small":   {"\x00\x06blksize\x007\x00", granted{}, false},
		"no window":   {"\x00\x06windowsize\x000\x00", granted{}, false},
		"below zero":  {"\x00\x06tsize\x00-1\x00", granted{}, false},
		"no value":    {"\x00\x06tsize\x00", granted{}, false},
		"no end":      {"\x00\x06tsize\x001", granted{}, false},
		"much":        {"\x00\x06" + strings.Repeat("tsize\x001\x00", 64), granted{}, false},
		"others":      {"\x00\x06multicast\x001\x00", granted{}, false},
		"not an OACK": {"\x00\x05tsize\x001\x00", granted{}, false},
		"nothing":     {"", granted{}, false},
	} {
		if got, err := parseOptions([]byte(c.text)); (err == nil) != c.ok || c.ok && got != c.want {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, c.want)
		}
	}
}

// TestStranger has somebody else answer first.
func TestStranger(t *testing.T) {
	server := netip.MustParseAddrPort("127.0.0.1:1")
	c, err := newClient(netip.MustParseAddr("127.0.0.1"), server, random(1), Options{1024, 1}, func(time.Duration) {})
	if err != nil {
		t.Fatal(err)
	}
	defer c.socket.Close()
	at, err := c.socket.Local()
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 9)}, net.UDPAddrFromAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	if _, err := stranger.Write([]byte("\x00\x05\x00\x01no\x00")); err != nil {
		t.Fatal(err)
	}
	if err := c.serve(make([]byte, 100), time.Now()); err != nil || c.connected {
		t.Errorf("connected with a stranger: %v, %v", c.connected, err)
	}
}

func FuzzParseOptions(f *testing.F) {
	for _, seed := range []string{
		"\x00\x06", "\x00\x06blksize\x001024\x00tsize\x005\x00", "\x00\x06BLKSIZE\x001024\x00windowsize\x0016\x00",
		"\x00\x06blksize\x00", "\x00\x06blksize\x00-1\x00", "\x00\x06\x00\x00", "\x00\x06tsize\x0099999999999999999999\x00", "\x00\x06timeout\x001\x00",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		g, err := parseOptions(p)
		if err != nil {
			return
		}
		if g.blockSize < 0 || g.blockSize > maxBlockSize || g.window < 0 || g.window > maxWindowSize || g.size < 0 {
			t.Errorf("%q grants %+v", p, g)
		}
	})
}

// FuzzTransfer has a server send anything: datagrams of which each is as long as two
// bytes before it say.
func FuzzTransfer(f *testing.F) {
	content := random(3000)
	datagram := func(b []byte, p ...byte) []byte {
		return append(binary.BigEndian.AppendUint16(b, uint16(len(p))), p...)
	}
	oack := []byte("\x00\x06blksize\x001024\x00tsize\x003000\x00")
	good := datagram(nil, oack...)
	for n := range 3 {
		good = datagram(good, append([]byte{0, opData, 0, byte(n + 1)}, content[n*1024:min(len(content), n*1024+1024)]...)...)
	}
	f.Add(false, good)
	f.Add(true, datagram(nil, []byte("\x00\x06blksize\x001024\x00windowsize\x004\x00")...))
	f.Add(false, datagram(datagram(datagram(nil, oack...), oack...), 0, opData, 0, 2))
	f.Add(false, datagram(nil, 0, opError, 0, 1))
	f.Add(false, datagram(nil, 0))
	f.Fuzz(func(t *testing.T, windows bool, datagrams []byte) {
		x := &transfer{asked: Options{1024, 1}, content: content}
		if windows {
			x.asked.Window = 4
		}
		for len(datagrams) >= 2 && !x.done {
			n := min(int(binary.BigEndian.Uint16(datagrams)), len(datagrams)-2)
			answer, _, err := x.take(datagrams[2:2+n], nil)
			datagrams = datagrams[2+n:]
			if err != nil {
				return
			}
			if len(answer) != 0 && (len(answer) != headSize || answer[1] != opAck) {
				t.Fatalf("the answer is %q", answer)
			}
		}
		if x.done != (x.begun && x.came == len(content)) {
			t.Errorf("it has %d of %d bytes, and is done: %v", x.came, len(content), x.done)
		}
	})
}
