package wire

import (
	"encoding/binary"
	"slices"
	"testing"
)

// words makes a message of integers.
func words(w ...uint32) []byte {
	var b []byte
	for _, v := range w {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return b
}

// header makes a call's header, with AUTH_NONE for a verifier.
func header(cred []byte) []byte {
	return slices.Concat(words(99, 0, 2, 100003, 3, 1), cred, words(0, 0))
}

// sys makes AUTH_SYS credentials.
func sys(name string, groups ...uint32) []byte {
	var e Encoder
	e.Reset(make([]byte, 1000))
	e.Uint32(AuthSys)
	e.Uint32(uint32(4 + 4 + len(name) + Pad(len(name)) + 12 + 4*len(groups)))
	e.Uint32(0xdead)
	e.String(name)
	e.Uint32(1000)
	e.Uint32(100)
	e.Uint32(uint32(len(groups)))
	for _, g := range groups {
		e.Uint32(g)
	}
	return e.Bytes()
}

func TestDecodeCall(t *testing.T) {
	sixteen := make([]uint32, 16)
	for i := range sixteen {
		sixteen[i] = uint32(i + 5)
	}
	longName := string(make([]byte, 255))
	for name, c := range map[string]struct {
		in   []byte
		want Verdict
	}{
		"AUTH_NONE":              {header(words(0, 0)), Accept},
		"AUTH_NONE with a body":  {header(words(0, 4, 1)), Accept},
		"AUTH_SYS":               {header(sys("n")), Accept},
		"AUTH_SYS, 16 groups":    {header(sys("n", sixteen...)), Accept},
		"AUTH_SYS, 255 bytes":    {header(sys(longName)), Accept},
		"AUTH_SYS, 17 groups":    {header(sys("n", append(sixteen, 1)...)), BadCred},
		"AUTH_SYS, 256 bytes":    {header(sys(longName + "x")), BadCred},
		"AUTH_SYS, empty":        {header(words(1, 0)), BadCred},
		"AUTH_SYS, trailing":     {header(words(1, 24, 0, 0, 0, 0, 0, 0)), BadCred},
		"AUTH_SYS, 4G groups":    {header(words(1, 20, 0, 0, 0, 0, 0xffffffff)), BadCred},
		"AUTH_SHORT":             {header(words(2, 0)), BadCred},
		"RPCSEC_GSS":             {header(words(6, 4, 0)), BadCred},
		"AUTH_TLS":               {header(words(7, 0)), BadCred},
		"cred of 404 bytes":      {header(append(words(0, 404), make([]byte, 404)...)), BadCred},
		"cred of 400 bytes":      {header(append(words(0, 400), make([]byte, 400)...)), Accept},
		"cred of 4 GiB":          {header(words(0, 0xffffffff)), BadCred},
		"no cred":                {words(99, 0, 2, 100003, 3, 1), BadCred},
		"no verifier":            {words(99, 0, 2, 100003, 3, 1, 0, 0), BadVerf},
		"verifier of AUTH_SYS":   {words(99, 0, 2, 100003, 3, 1, 0, 0, 1, 0), BadVerf},
		"verifier with a body":   {words(99, 0, 2, 100003, 3, 1, 0, 0, 0, 4, 0), BadVerf},
		"verifier of 4 GiB":      {words(99, 0, 2, 100003, 3, 1, 0, 0, 0, 0xffffffff), BadVerf},
		"RPC version 3":          {words(99, 0, 3, 100003, 3, 1, 0, 0, 0, 0), RPCMismatch},
		"RPC version 3, no more": {words(99, 0, 3), RPCMismatch},
		"a reply":                {words(99, 1, 0, 0, 0, 0), NotACall},
		"a type of 2":            {words(99, 2, 2, 100003, 3, 1, 0, 0, 0, 0), NotACall},
		"nothing":                {nil, NotACall},
		"half a header":          {words(99, 0, 2, 100003, 3), NotACall},
		"HTTP":                   {[]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), NotACall},
	} {
		var call Call
		d := NewDecoder(c.in)
		if got := call.Decode(&d); got != c.want {
			t.Errorf("%s: verdict %d, want %d", name, got, c.want)
		}
		if c.want != NotACall && call.XID != 99 {
			t.Errorf("%s: xid %d", name, call.XID)
		}
	}
}

func TestDecodeCallFields(t *testing.T) {
	in := append(header(sys("node", 4, 24, 27)), "args"...)
	var call Call
	d := NewDecoder(in)
	if call.Decode(&d) != Accept {
		t.Fatal("refused")
	}
	clear(in) // nothing may point into it
	c := call.Cred
	if call.Prog != 100003 || call.Vers != 3 || call.Proc != 1 || c.UID != 1000 || c.GID != 100 || !slices.Equal(c.Groups(), []uint32{4, 24, 27}) {
		t.Errorf("%+v", call)
	}
	if d.Len() != len("args") {
		t.Errorf("%d bytes left for the arguments", d.Len())
	}
}

// A call without groups after one with many has none.
func TestDecodeCallForgets(t *testing.T) {
	var call Call
	for _, groups := range [][]uint32{{1, 2, 3}, nil} {
		d := NewDecoder(header(sys("node", groups...)))
		if call.Decode(&d) != Accept || len(call.Cred.Groups()) != len(groups) {
			t.Errorf("%d groups, want %d", len(call.Cred.Groups()), len(groups))
		}
	}
}

// A call without credentials after one with some has none of those.
func TestDecodeCallForgetsCred(t *testing.T) {
	var call Call
	d := NewDecoder(header(sys("node", 1, 2)))
	call.Decode(&d)
	call.Cred.UID = 7
	d = NewDecoder(header(words(AuthNone, 0)))
	if call.Decode(&d) != Accept || call.Cred.UID != 0 || call.Cred.GID != 0 || len(call.Cred.Groups()) != 0 {
		t.Errorf("%+v", call.Cred)
	}
}

func TestReplies(t *testing.T) {
	for name, c := range map[string]struct {
		write func(e *Encoder)
		want  []byte
	}{
		"success":         {func(e *Encoder) { e.Accepted(9, Success) }, words(9, 1, 0, 0, 0, 0)},
		"garbage":         {func(e *Encoder) { e.Accepted(9, GarbageArgs) }, words(9, 1, 0, 0, 0, 4)},
		"prog mismatch":   {func(e *Encoder) { e.Mismatched(9, 2, 4) }, words(9, 1, 0, 0, 0, 2, 2, 4)},
		"RPC mismatch":    {func(e *Encoder) { e.Denied(9, RPCMismatch) }, words(9, 1, 1, 0, 2, 2)},
		"bad cred":        {func(e *Encoder) { e.Denied(9, BadCred) }, words(9, 1, 1, 1, 1)},
		"bad verifier":    {func(e *Encoder) { e.Denied(9, BadVerf) }, words(9, 1, 1, 1, 3)},
		"a call's header": {func(e *Encoder) { e.CallHeader(9, 100000, 2, 3) }, words(9, 0, 2, 100000, 2, 3, 0, 0, 0, 0)},
	} {
		var e Encoder
		buf := make([]byte, 64)
		for i := range buf {
			buf[i] = 0xee
		}
		e.Reset(buf)
		c.write(&e)
		if !slices.Equal(e.Bytes(), c.want) {
			t.Errorf("%s: % x, want % x", name, e.Bytes(), c.want)
		}
	}
}

func TestReplyHeader(t *testing.T) {
	d := NewDecoder(words(9, 1, 0, 0, 0, 0, 77))
	if xid, stat, ok := d.ReplyHeader(); xid != 9 || stat != Success || !ok || d.Uint32() != 77 || !d.Done() {
		t.Error("a good reply is not understood")
	}
	for _, bad := range [][]byte{words(9, 1, 1, 1, 1), words(9, 0, 0, 0, 0, 0), words(9, 1, 0, 0), nil} {
		d := NewDecoder(bad)
		if _, _, ok := d.ReplyHeader(); ok {
			t.Errorf("% x is taken for an accepted reply", bad)
		}
	}
}

// FuzzDecodeCall holds a header against what encoding it again gives.
func FuzzDecodeCall(f *testing.F) {
	f.Add(header(words(0, 0)))
	f.Add(header(sys("node", 1, 2, 3)))
	f.Add(words(99, 0, 3))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		var call Call
		d := NewDecoder(in)
		if call.Decode(&d) != Accept {
			return
		}
		if d.Len() > len(in)-40 {
			t.Errorf("a header of %d bytes", len(in)-d.Len())
		}
		var e Encoder
		e.Reset(make([]byte, 24))
		for _, v := range []uint32{call.XID, 0, 2, call.Prog, call.Vers, call.Proc} {
			e.Uint32(v)
		}
		if !slices.Equal(e.Bytes(), in[:24]) {
			t.Errorf("% x was read as %+v", in[:24], call)
		}
	})
}
