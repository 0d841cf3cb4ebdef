package nfs

import (
	"bytes"
	"encoding/binary"
	"io"
	"strings"
	"testing"

	gonfs "github.com/willscott/go-nfs"

	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

func words(w ...uint32) []byte {
	var b []byte
	for _, v := range w {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return b
}

// TestRPC sends messages whole and wants replies of exactly these bytes, after
// which the connection must still work.
func TestRPC(t *testing.T) {
	h := start(t, sample(), Limits{})
	cat := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	none := words(0, 0, 0, 0)
	call := func(prog, vers, proc uint32) []byte { return cat(words(99, 0, 2, prog, vers, proc), none) }
	for name, c := range map[string]struct{ msg, want []byte }{
		"NULL":                      {call(progNFS, 3, 0), words(99, 1, 0, 0, 0, 0)},
		"NULL with a body":          {cat(call(progNFS, 3, 0), make([]byte, 1001)), words(99, 1, 0, 0, 0, 0)},
		"NULL of MOUNT":             {cat(call(progMount, 3, 0), words(1)), words(99, 1, 0, 0, 0, 0)},
		"NULL of MOUNT 1":           {call(progMount, 1, 0), words(99, 1, 0, 0, 0, 0)},
		"NULL of portmap 2":         {call(progPortmap, 2, 0), words(99, 1, 0, 0, 0, 0)},
		"NULL of rpcbind 3":         {call(progPortmap, 3, 0), words(99, 1, 0, 0, 0, 0)},
		"NULL of rpcbind 4":         {call(progPortmap, 4, 0), words(99, 1, 0, 0, 0, 0)},
		"RPC version 1":             {words(99, 0, 1, progNFS, 3, 0, 0, 0, 0, 0), words(99, 1, 1, 0, 2, 2)},
		"RPC version 3":             {words(99, 0, 3, progNFS, 3, 0, 0, 0, 0, 0), words(99, 1, 1, 0, 2, 2)},
		"unknown program":           {call(4711, 3, 0), words(99, 1, 0, 0, 0, 1)},
		"NULL of NFSACL":            {call(progACL, 3, 0), words(99, 1, 0, 0, 0, 0)},
		"NFSACL 2":                  {call(progACL, 2, 0), words(99, 1, 0, 0, 0, 2, 3, 3)},
		"NFSACL procedure 3":        {call(progACL, 3, 3), words(99, 1, 0, 0, 0, 3)},
		"NLM":                       {call(100021, 4, 0), words(99, 1, 0, 0, 0, 1)},
		"NFS 2":                     {call(progNFS, 2, 0), words(99, 1, 0, 0, 0, 2, 3, 3)},
		"NFS 4":                     {call(progNFS, 4, 0), words(99, 1, 0, 0, 0, 2, 3, 3)},
		"NFS 4 COMPOUND":            {cat(call(progNFS, 4, 1), make([]byte, 200)), words(99, 1, 0, 0, 0, 2, 3, 3)},
		"MOUNT 2":                   {call(progMount, 2, 0), words(99, 1, 0, 0, 0, 2, 3, 3)},
		"MOUNT 1 MNT":               {cat(call(progMount, 1, 1), words(1), []byte("/\x00\x00\x00")), words(99, 1, 0, 0, 0, 2, 3, 3)},
		"MOUNT 4":                   {call(progMount, 4, 0), words(99, 1, 0, 0, 0, 2, 3, 3)},
		"portmap 1":                 {call(progPortmap, 1, 0), words(99, 1, 0, 0, 0, 2, 2, 4)},
		"portmap 5":                 {call(progPortmap, 5, 0), words(99, 1, 0, 0, 0, 2, 2, 4)},
		"NFS procedure 22":          {call(progNFS, 3, 22), words(99, 1, 0, 0, 0, 3)},
		"NFS procedure 2^32-1":      {call(progNFS, 3, 0xffffffff), words(99, 1, 0, 0, 0, 3)},
		"MOUNT procedure 6":         {call(progMount, 3, 6), words(99, 1, 0, 0, 0, 3)},
		"CALLIT":                    {cat(call(progPortmap, 2, 5), words(progNFS, 3, 0, 0)), words(99, 1, 0, 0, 0, 3)},
		"rpcbind 3 CALLIT":          {call(progPortmap, 3, 5), words(99, 1, 0, 0, 0, 3)},
		"rpcbind 3 GETVERSADDR":     {call(progPortmap, 3, 9), words(99, 1, 0, 0, 0, 3)},
		"rpcbind 4 INDIRECT":        {call(progPortmap, 4, 10), words(99, 1, 0, 0, 0, 3)},
		"AUTH_SHORT":                {words(99, 0, 2, progNFS, 3, 0, 2, 0, 0, 0), words(99, 1, 1, 1, 1)},
		"RPCSEC_GSS":                {words(99, 0, 2, progNFS, 3, 0, 6, 0, 0, 0), words(99, 1, 1, 1, 1)},
		"AUTH_TLS":                  {words(99, 0, 2, progNFS, 3, 0, 7, 0, 0, 0), words(99, 1, 1, 1, 1)},
		"AUTH_SYS of 17 groups":     {cat(words(99, 0, 2, progNFS, 3, 0, 1, 88, 0, 0, 0, 0, 17), make([]byte, 17*4), words(0, 0)), words(99, 1, 1, 1, 1)},
		"credentials of 404 bytes":  {cat(words(99, 0, 2, progNFS, 3, 0, 0, 404), make([]byte, 404), words(0, 0)), words(99, 1, 1, 1, 1)},
		"credentials cut off":       {words(99, 0, 2, progNFS, 3, 0, 1, 20, 0), words(99, 1, 1, 1, 1)},
		"a verifier":                {words(99, 0, 2, progNFS, 3, 0, 0, 0, 1, 0), words(99, 1, 1, 1, 3)},
		"GETATTR of nothing":        {call(progNFS, 3, 1), words(99, 1, 0, 0, 0, 4)},
		"handle of no bytes":        {cat(call(progNFS, 3, 1), words(0)), words(99, 1, 0, 0, 0, 4)},
		"handle of 68 bytes":        {cat(call(progNFS, 3, 1), words(68), make([]byte, 68)), words(99, 1, 0, 0, 0, 4)},
		"handle of 4 GiB":           {cat(call(progNFS, 3, 1), words(0xffffffff)), words(99, 1, 0, 0, 0, 4)},
		"handle of other bytes":     {cat(call(progNFS, 3, 1), words(32), make([]byte, 32)), words(99, 1, 0, 0, 0, 0, 10001)},
		"trailing garbage":          {cat(call(progNFS, 3, 1), words(32), make([]byte, 33)), words(99, 1, 0, 0, 0, 4)},
		"DUMP with arguments":       {cat(call(progMount, 3, 2), words(1)), words(99, 1, 0, 0, 0, 4)},
		"UMNTALL with arguments":    {cat(call(progMount, 3, 4), words(1)), words(99, 1, 0, 0, 0, 4)},
		"path longer than the call": {cat(call(progMount, 3, 1), words(1000), []byte("/abc")), words(99, 1, 0, 0, 0, 4)},
		"GETPORT cut off":           {cat(call(progPortmap, 2, 3), words(progNFS, 3, 6)), words(99, 1, 0, 0, 0, 4)},
		"GETADDR cut off":           {cat(call(progPortmap, 4, 3), words(progNFS, 3, 3)), words(99, 1, 0, 0, 0, 4)},
	} {
		t.Run(name, func(t *testing.T) {
			client := h.dial(t)
			for _, size := range []int{1 << 20, 7, 1} {
				if _, err := client.conn.Write(fragments(c.msg, size)); err != nil {
					t.Fatal(err)
				}
				got, err := client.receive()
				if err != nil || !bytes.Equal(got, c.want) {
					t.Errorf("in fragments of %d: got % x, %v, want % x", size, got, err, c.want)
				}
			}
			client.wantAlive()
		})
	}
}

// TestNotRPC sends what must end a connection.
func TestNotRPC(t *testing.T) {
	h := start(t, sample(), Limits{})
	for name, bytes := range map[string][]byte{
		"a reply":         fragments(words(99, 1, 0, 0, 0, 0), 100),
		"a type of 2":     fragments(words(99, 2, 2, progNFS, 3, 0, 0, 0, 0, 0), 100),
		"half a header":   fragments(words(99, 0, 2, progNFS), 100),
		"one byte":        fragments([]byte{1}, 100),
		"an empty record": mark(0, true),
		"2 GiB":           mark(0x7fffffff, true),
		"HTTP":            []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
		"TLS":             []byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
		"SSH":             []byte("SSH-2.0-OpenSSH_9.2p1\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			c := h.dial(t)
			if _, err := c.conn.Write(bytes); err != nil {
				t.Fatal(err)
			}
			c.wantClosed()
		})
	}
	h.dial(t).wantAlive()
	if h.logs.FilterMessage("closing a connection that does not speak RPC").Len() == 0 {
		t.Error("nothing is logged")
	}
}

// What was asked before a stream went bad is answered.
func TestAnswersBeforeGarbage(t *testing.T) {
	h := start(t, sample(), Limits{})
	c := h.dial(t)
	c.push(progNFS, 3, 0, nil)
	c.out.Uint32(0x7fffffff)
	c.flush()
	c.reply()
	c.wantClosed()
}

// Every call cut at any byte, or with a byte too many, gets GARBAGE_ARGS.
func TestGarbageArgs(t *testing.T) {
	h := start(t, sample(), Limits{})
	c := h.dial(t)
	c.in = make([]byte, 64<<10)
	for _, call := range everyCall(c) {
		c.out.Truncate(0)
		call.args(&c.out)
		args := bytes.Clone(c.out.Bytes())
		c.out.Truncate(0)
		send := func(args []byte) (wire.AcceptStat, *wire.Decoder) {
			c.push(call.prog, call.vers, call.proc, func(e *wire.Encoder) { copy(e.Extend(len(args)), args) })
			c.flush()
			_, stat, d := c.outcome()
			return stat, d
		}
		if stat, _ := send(args); stat != wire.Success {
			t.Errorf("%s: accept_stat %d for a good call", call.name, stat)
		}
		for n := range args {
			if stat, _ := send(args[:n]); stat != wire.GarbageArgs {
				t.Errorf("%s: accept_stat %d when cut to %d of %d bytes", call.name, stat, n, len(args))
			}
		}
		for _, extra := range []int{1, 4, 400} {
			if stat, _ := send(append(bytes.Clone(args), make([]byte, extra)...)); stat != wire.GarbageArgs {
				t.Errorf("%s: accept_stat %d with %d bytes too many", call.name, stat, extra)
			}
		}
	}
	c.wantAlive()
}

// anyCall is a good call.
type anyCall struct {
	name             string
	prog, vers, proc uint32
	args             func(*wire.Encoder)
}

// everyCall returns every call that takes arguments, with good ones.
func everyCall(c *client) []anyCall {
	root, file := c.mount("/"), c.handle("/etc/passwd")
	join := func(parts ...func(*wire.Encoder)) func(*wire.Encoder) {
		return func(e *wire.Encoder) {
			for _, p := range parts {
				p(e)
			}
		}
	}
	fh := func(h []byte) func(*wire.Encoder) { return func(e *wire.Encoder) { e.Opaque(h) } }
	num := func(v ...uint32) func(*wire.Encoder) {
		return func(e *wire.Encoder) {
			for _, v := range v {
				e.Uint32(v)
			}
		}
	}
	str := func(s string) func(*wire.Encoder) { return func(e *wire.Encoder) { e.String(s) } }
	name := join(fh(root), str("name"))
	attributes := num(1, 0o644, 1, 0, 1, 0, 1, 0, 4096, 2, 1, 2, 2, 1, 3)
	nfs := func(proc gonfs.NFSProcedure, args ...func(*wire.Encoder)) anyCall {
		return anyCall{proc.String(), progNFS, 3, uint32(proc), join(args...)}
	}
	return []anyCall{
		nfs(gonfs.NFSProcedureGetAttr, fh(file)),
		nfs(gonfs.NFSProcedureSetAttr, fh(file), attributes, num(1, 2, 3)),
		nfs(gonfs.NFSProcedureSetAttr, fh(file), num(0, 0, 0, 0, 0, 1), num(0)),
		nfs(gonfs.NFSProcedureLookup, fh(root), str("etc")),
		nfs(gonfs.NFSProcedureAccess, fh(file), num(0x3f)),
		nfs(gonfs.NFSProcedureReadlink, fh(file)),
		nfs(gonfs.NFSProcedureRead, fh(file), num(0, 0, 4096)),
		nfs(gonfs.NFSProcedureWrite, fh(file), num(0, 0, 5, 2), str("bytes")),
		nfs(gonfs.NFSProcedureCreate, name, num(0), attributes),
		nfs(gonfs.NFSProcedureCreate, name, num(2, 1, 2)),
		nfs(gonfs.NFSProcedureMkDir, name, attributes),
		nfs(gonfs.NFSProcedureSymlink, name, attributes, str("target")),
		nfs(gonfs.NFSProcedureMkNod, name, num(4), attributes, num(1, 3)),
		nfs(gonfs.NFSProcedureMkNod, name, num(7), attributes),
		nfs(gonfs.NFSProcedureMkNod, name, num(1)),
		nfs(gonfs.NFSProcedureRemove, name),
		nfs(gonfs.NFSProcedureRmDir, name),
		nfs(gonfs.NFSProcedureRename, name, name),
		nfs(gonfs.NFSProcedureLink, fh(file), name),
		nfs(gonfs.NFSProcedureReadDir, fh(root), num(0, 0, 0, 0, 4096)),
		nfs(gonfs.NFSProcedureReadDirPlus, fh(root), num(0, 0, 0, 0, 512, 4096)),
		nfs(gonfs.NFSProcedureFSStat, fh(root)),
		nfs(gonfs.NFSProcedureFSInfo, fh(root)),
		nfs(gonfs.NFSProcedurePathConf, fh(root)),
		nfs(gonfs.NFSProcedureCommit, fh(file), num(0, 0, 0)),
		{"Mnt", progMount, 3, 1, str("/images")},
		{"Umnt", progMount, 3, 3, str("/images")},
		{"pmap Set", progPortmap, 2, 1, num(progNFS, 3, 6, 2049)},
		{"pmap Unset", progPortmap, 2, 2, num(progNFS, 3, 6, 2049)},
		{"pmap GetPort", progPortmap, 2, 3, num(progNFS, 3, 6, 0)},
		{"rpcb Set", progPortmap, 3, 1, join(num(progNFS, 3), str("tcp"), str("0.0.0.0.8.1"), str("me"))},
		{"rpcb GetAddr", progPortmap, 4, 3, join(num(progNFS, 3), str("tcp"), str(""), str(""))},
		{"rpcb GetVersAddr", progPortmap, 4, 9, join(num(progNFS, 3), str("tcp"), str(""), str(""))},
	}
}

// Enumerations and discriminants have the values that RFC 1813 gives them.
func TestBadEnums(t *testing.T) {
	h := start(t, sample(), Limits{})
	c := h.dial(t)
	root := c.mount("/")
	for name, call := range map[string]struct {
		proc gonfs.NFSProcedure
		name bool
		args []uint32
	}{
		"stable_how 3":     {gonfs.NFSProcedureWrite, false, []uint32{0, 0, 0, 3, 0}},
		"createmode 3":     {gonfs.NFSProcedureCreate, true, []uint32{3, 0, 0, 0, 0, 0, 0}},
		"ftype 0":          {gonfs.NFSProcedureMkNod, true, []uint32{0}},
		"ftype 8":          {gonfs.NFSProcedureMkNod, true, []uint32{8}},
		"set_mode 2":       {gonfs.NFSProcedureMkDir, true, []uint32{2, 0, 0, 0, 0, 0, 0}},
		"time_how 3":       {gonfs.NFSProcedureMkDir, true, []uint32{0, 0, 0, 0, 3, 0}},
		"guard 2":          {gonfs.NFSProcedureSetAttr, false, []uint32{0, 0, 0, 0, 0, 0, 2}},
		"set_mode 2^32-1":  {gonfs.NFSProcedureSetAttr, false, []uint32{0xffffffff, 0, 0, 0, 0, 0, 0}},
		"a mtime cut off":  {gonfs.NFSProcedureSetAttr, false, []uint32{0, 0, 0, 0, 0, 2, 0}},
		"a length of 4GiB": {gonfs.NFSProcedureWrite, false, []uint32{0, 0, 0, 0, 0xffffffff}},
	} {
		c.push(progNFS, 3, uint32(call.proc), func(e *wire.Encoder) {
			e.Opaque(root)
			if call.name {
				e.String("name")
			}
			for _, v := range call.args {
				e.Uint32(v)
			}
		})
		c.flush()
		if _, stat, _ := c.outcome(); stat != wire.GarbageArgs {
			t.Errorf("%s: accept_stat %d", name, stat)
		}
	}
}

// A xid that is used again, in whatever way, is answered again.
func TestRepeatedXid(t *testing.T) {
	h := start(t, sample(), Limits{})
	c := h.dial(t)
	root := c.mount("/")
	for range 3 {
		c.xid = 1000
		c.push(progNFS, 3, uint32(gonfs.NFSProcedureGetAttr), func(e *wire.Encoder) { e.Opaque(root) })
		c.xid = 1000
		c.push(progNFS, 3, 0, nil)
	}
	c.flush()
	for i := range 6 {
		xid, d := c.reply()
		if want := 88 * (1 - i%2); xid != 1001 || d.Len() != want {
			t.Errorf("reply %d: xid %d, %d bytes of results, want %d", i, xid, d.Len(), want)
		}
	}
}

// A client that stops sending after its calls gets all replies.
func TestHalfClose(t *testing.T) {
	h := start(t, sample(), Limits{})
	c := h.dial(t)
	for range 1000 {
		c.push(progNFS, 3, 0, nil)
	}
	c.flush()
	c.conn.(interface{ CloseWrite() error }).CloseWrite()
	for range 1000 {
		c.reply()
	}
	if _, err := c.receive(); err != io.EOF {
		t.Errorf("%v, want EOF", err)
	}
}

func TestOtherVersionsAreHinted(t *testing.T) {
	h := start(t, sample(), Limits{})
	c := h.dial(t)
	for range 50 {
		c.push(progNFS, 4, 1, nil)
	}
	c.flush()
	for range 50 {
		c.receive()
	}
	h.stop()
	var hints int
	for _, e := range h.logs.All() {
		if strings.Contains(e.Message, "vers=3") {
			hints++
			if e.ContextMap()["client"] != "127.0.0.1" {
				t.Errorf("%v", e.ContextMap())
			}
		}
	}
	if hints == 0 || hints > 10 {
		t.Errorf("%d hints of 50", hints)
	}
}
