package tftp

import (
	"bytes"
	"strings"
	"testing"
)

func TestParseRequest(t *testing.T) {
	for _, c := range []struct {
		name    string
		packet  string
		oack    string // for a file of 1000 bytes
		refusal string
		code    uint16
	}{
		{"no options", "\x00\x01f\x00octet\x00", "", "", 0},
		{"mode in any case", "\x00\x01f\x00OcTeT\x00", "", "", 0},
		{"netascii", "\x00\x01f\x00netascii\x00", "", "", 0},
		{"a Pi's options", "\x00\x01f\x00octet\x00tsize\x000\x00blksize\x001024\x00", "tsize 1000 blksize 1024", "", 0},
		{"all, in another order", "\x00\x01f\x00octet\x00windowsize\x004\x00timeout\x002\x00blksize\x00512\x00tsize\x000\x00",
			"windowsize 4 timeout 2 blksize 512 tsize 1000", "", 0},
		{"names in any case", "\x00\x01f\x00octet\x00TSize\x000\x00BLKSIZE\x0016\x00", "TSize 1000 BLKSIZE 16", "", 0},
		{"unknown option", "\x00\x01f\x00octet\x00multicast\x00\x00tsize\x000\x00", "tsize 1000", "", 0},
		{"option twice", "\x00\x01f\x00octet\x00blksize\x0016\x00blksize\x0032\x00", "blksize 16", "", 0},
		{"block too small", "\x00\x01f\x00octet\x00blksize\x007\x00", "", "", 0},
		{"block of the least", "\x00\x01f\x00octet\x00blksize\x008\x00", "blksize 8", "", 0},
		{"block of the most", "\x00\x01f\x00octet\x00blksize\x0065464\x00", "blksize 65464", "", 0},
		{"block too large", "\x00\x01f\x00octet\x00blksize\x0065465\x00", "blksize 65464", "", 0},
		{"block of a number without end", "\x00\x01f\x00octet\x00blksize\x00" + strings.Repeat("9", 100) + "\x00", "blksize 65464", "", 0},
		{"negative", "\x00\x01f\x00octet\x00blksize\x00-1\x00windowsize\x00+4\x00", "", "", 0},
		{"no number", "\x00\x01f\x00octet\x00tsize\x00\x00blksize\x001e3\x00timeout\x00 1\x00", "", "", 0},
		{"timeout too short", "\x00\x01f\x00octet\x00timeout\x000\x00", "", "", 0},
		{"timeout of the most", "\x00\x01f\x00octet\x00timeout\x00255\x00", "timeout 255", "", 0},
		{"timeout too long", "\x00\x01f\x00octet\x00timeout\x00256\x00", "", "", 0},
		{"no window", "\x00\x01f\x00octet\x00windowsize\x000\x00", "", "", 0},
		{"window of one", "\x00\x01f\x00octet\x00windowsize\x001\x00", "windowsize 1", "", 0},
		{"window too large", "\x00\x01f\x00octet\x00windowsize\x0065535\x00", "windowsize 64", "", 0},
		{"option without a value", "\x00\x01f\x00octet\x00tsize\x000\x00blksize\x00", "tsize 1000", "", 0},
		{"option without an end", "\x00\x01f\x00octet\x00tsize\x000\x00blksize\x0010", "tsize 1000", "", 0},
		{"zeros behind", "\x00\x01f\x00octet\x00tsize\x000\x00" + strings.Repeat("\x00", 100), "tsize 1000", "", 0},
		{"any bytes in a name", "\x00\x01\xff\n/..\x00octet\x00", "", "", 0},
		{"as long as can be", "\x00\x01" + strings.Repeat("n", 503) + "\x00octet\x00", "", "", 0},
		{"too long", "\x00\x01" + strings.Repeat("n", 504) + "\x00octet\x00", "", "longer than 512", CodeIllegal},
		{"no name", "\x00\x01\x00octet\x00", "", "names no file", CodeIllegal},
		{"name without an end", "\x00\x01f", "", "no end of the file's name", CodeIllegal},
		{"nothing", "\x00\x01", "", "no end of the file's name", CodeIllegal},
		{"no mode", "\x00\x01f\x00", "", "no mode", CodeIllegal},
		{"mode without an end", "\x00\x01f\x00octet", "", "no mode", CodeIllegal},
		{"mail", "\x00\x01f\x00mail\x00", "", "unknown mode", CodeIllegal},
		{"write", "\x00\x02f\x00octet\x00", "", "read-only", CodeAccess},
	} {
		t.Run(c.name, func(t *testing.T) {
			q, refusal := parseRequest([]byte(c.packet))
			if c.refusal != "" {
				if refusal == nil || !strings.Contains(refusal.Message, c.refusal) || refusal.Code != c.code {
					t.Fatalf("refused by %+v; want %d, %q", refusal, c.code, c.refusal)
				}
				return
			}
			if refusal != nil {
				t.Fatalf("refused: %v", refusal)
			}
			if want, _, _ := strings.Cut(c.packet[2:], "\x00"); q.name != want {
				t.Errorf("name %q; want %q", q.name, want)
			}
			if want := strings.Contains(c.packet, "netascii"); q.netascii != want {
				t.Errorf("netascii is %v", q.netascii)
			}
			oack := q.appendOack(nil, 1000, int64(q.block))
			got := strings.TrimSpace(strings.ReplaceAll(strings.TrimPrefix(string(oack), "\x00\x06"), "\x00", " "))
			if got != c.oack {
				t.Errorf("options %q; want %q", got, c.oack)
			}
		})
	}
	for name, packet := range map[string]string{
		"empty": "", "one byte": "\x00", "data": "\x00\x03\x00\x01x", "ack": "\x00\x04\x00\x01", "error": "\x00\x05\x00\x01x\x00",
		"oack": "\x00\x06tsize\x001\x00", "operation 0": "\x00\x00f\x00octet\x00", "operation 257": "\x01\x01f\x00octet\x00", "text": "GET / HTTP/1.1",
	} {
		if q, refusal := parseRequest([]byte(packet)); q != nil || refusal != nil {
			t.Errorf("%s: %v, %v; want silence", name, q, refusal)
		}
	}
}

func TestAppendError(t *testing.T) {
	for _, c := range []struct{ name, message, want string }{
		{"plain", "no", "\x00\x05\x01\x02no\x00"},
		{"empty", "", "\x00\x05\x01\x02\x00"},
		{"with NUL", "a\x00b", "\x00\x05\x01\x02a\x00"},
		{"too long", strings.Repeat("m", 1000), "\x00\x05\x01\x02" + strings.Repeat("m", 507) + "\x00"},
	} {
		if got := appendError(nil, &Error{0x102, c.message}); string(got) != c.want {
			t.Errorf("%s: %q; want %q", c.name, got, c.want)
		}
	}
}

func TestParseReply(t *testing.T) {
	for packet, want := range map[string]struct {
		op      int
		number  uint16
		message string
	}{
		"\x00\x04\x12\x34":               {opAck, 0x1234, ""},
		"\x00\x04\x12\x34more":           {opAck, 0x1234, ""},
		"\x00\x05\x00\x08refused\x00x":   {opError, 8, "refused"},
		"\x00\x05\x00\x00":               {opError, 0, ""},
		"\x00\x05\x00\x00without an end": {opError, 0, "without an end"},
		"\x00\x04\x12":                   {},
		"":                               {},
		"\x00\x03\x00\x01data":           {},
		"\x01\x04\x00\x01":               {},
	} {
		op, number, message := parseReply([]byte(packet))
		if op != want.op || op != 0 && number != want.number || string(message) != want.message {
			t.Errorf("%q: %d %d %q; want %+v", packet, op, number, message, want)
		}
	}
}

// FuzzParseRequest puts together again what was understood.
func FuzzParseRequest(f *testing.F) {
	f.Add([]byte("\x00\x01f\x00octet\x00"))
	f.Add([]byte("\x00\x01f\x00octet\x00tsize\x000\x00blksize\x001024\x00"))
	f.Add([]byte("\x00\x01f\x00netascii\x00windowsize\x0016\x00timeout\x003\x00"))
	f.Add([]byte("\x00\x02f\x00octet\x00"))
	f.Add([]byte("\x00\x05\x00\x00x\x00"))
	f.Fuzz(func(t *testing.T, packet []byte) {
		q, refusal := parseRequest(packet)
		if q == nil {
			return
		}
		if refusal != nil || q.name == "" || strings.Contains(q.name, "\x00") || len(packet) > maxRequest {
			t.Fatalf("%q: %+v, %v", packet, q, refusal)
		}
		if q.block < minBlock || q.block > maxBlock || q.window < 1 || q.window > maxWindow || q.timeout < 0 || q.timeout > maxTimeout {
			t.Fatalf("%q: %+v", packet, q)
		}
		mode := "octet"
		if q.netascii {
			mode = "netascii"
		}
		oack := q.appendOack(nil, 0, int64(q.block))
		again, refusal := parseRequest(append(rrq(q.name, mode), oack[2:]...))
		if refusal != nil || again == nil || !again.equal(q) {
			if len(q.name)+len(mode)+len(oack)+2 <= maxRequest {
				t.Fatalf("%q: %+v, then %+v, %v", packet, q, again, refusal)
			}
		}
	})
}

// FuzzParseReply takes anything.
func FuzzParseReply(f *testing.F) {
	f.Add([]byte("\x00\x04\x00\x01"))
	f.Add([]byte("\x00\x05\x00\x00Early terminate\x00"))
	f.Fuzz(func(t *testing.T, packet []byte) {
		op, _, message := parseReply(packet)
		if op != 0 && op != opAck && op != opError || bytes.IndexByte(message, 0) >= 0 || len(message) > len(packet) {
			t.Fatalf("%q: %d, %q", packet, op, message)
		}
	})
}
