package load

import (
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/rootnfsd/rootnfsd/bench/rpc"
	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

// fakeServer answers calls with what answer makes of each, until that returns nil,
// when it hangs up, or an empty slice, for which it says nothing.
func fakeServer(t *testing.T, answer func(n int, xid uint32) []byte) *Target {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go answerCalls(c, answer)
		}
	}()
	return &Target{
		Name: "fake", Addr: ln.Addr().String(), MountAddr: ln.Addr().String(), Path: "/",
		tree: &tree{objects: []object{{handle: []byte("root"), kind: 2}, {handle: []byte("file"), kind: 1, size: 100}}},
	}
}

func answerCalls(c net.Conn, answer func(n int, xid uint32) []byte) {
	defer c.Close()
	for n := 0; ; n++ {
		var head [8]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return
		}
		size, _ := wire.ParseMark(head[:])
		if _, err := io.CopyN(io.Discard, c, int64(size)-4); err != nil {
			return
		}
		reply := answer(n, binary.BigEndian.Uint32(head[4:]))
		if reply == nil {
			return
		}
		c.Write(reply)
	}
}

// reply makes a reply of words of results.
func reply(xid uint32, results ...uint32) []byte {
	var e wire.Encoder
	e.Reset(make([]byte, 1024))
	pos := e.BeginRecord()
	e.Accepted(xid, wire.Success)
	for _, w := range results {
		e.Uint32(w)
	}
	e.EndRecord(pos, 0)
	return e.Bytes()
}

func newTestFleet(t *testing.T, target *Target, connections, inFlight int) *fleet {
	t.Helper()
	f, err := newFleet(target, connections, inFlight, 2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.close)
	return f
}

// TestBadServers holds a run to counting what goes wrong, and to ending.
func TestBadServers(t *testing.T) {
	ok := make([]uint32, 1+84/4)
	for name, c := range map[string]struct {
		answer func(n int, xid uint32) []byte
		want   string
	}{
		"another xid":    {func(_ int, xid uint32) []byte { return append(reply(xid+1000, ok...), reply(xid, ok...)...) }, "was not made"},
		"the same twice": {func(_ int, xid uint32) []byte { return append(reply(xid, ok...), reply(xid, ok...)...) }, "was not made"},
		"a status":       {func(_ int, xid uint32) []byte { return reply(xid, 70) }, "invalid file handle"},
		"hangs up":       {func(n int, xid uint32) []byte { return nil }, "connection broke"},
		"garbage":        {func(_ int, xid uint32) []byte { return []byte("GET / HTTP/1.1\r\n\r\n") }, "connection broke"},
	} {
		f := newTestFleet(t, fakeServer(t, c.answer), 3, 2)
		w := Works()[0]
		for range 2 { // broken connections are made again
			o, err := f.run(t.Context(), w, w.prepare(f.target.tree)(1), 10*time.Millisecond)
			if err != nil {
				t.Errorf("%s: %v", name, err)
			} else if o.Errors == 0 || o.failed == nil || !strings.Contains(strings.ToLower(o.failed.Error()), c.want) {
				t.Errorf("%s: %d errors, the first %v; want %s", name, o.Errors, o.failed, c.want)
			}
		}
	}
}

// TestSilence holds a run to its limit, and the next one to connections on which
// nothing is outstanding.
func TestSilence(t *testing.T) {
	ok := make([]uint32, 1+84/4)
	f := newTestFleet(t, fakeServer(t, func(n int, xid uint32) []byte {
		if n >= 5 {
			return []byte{}
		}
		return reply(xid, ok...)
	}), 3, 2)
	w := Work{Name: "whole", Whole: true, proc: getattr}
	for range 3 {
		o, err := f.run(t.Context(), w, Works()[0].prepare(f.target.tree)(1), 100*time.Millisecond)
		if err != nil || o.complete || o.Errors != 3*2 || o.Calls != 3*5 {
			t.Errorf("%v: complete %v, %d errors, %d calls; want 5 calls on each of 3 connections, and 2 without a reply", err, o.complete, o.Errors, o.Calls)
		}
		told := int64(0)
		for _, c := range f.clients {
			told += c.count.latency.TotalCount()
		}
		if told != 3*7 {
			t.Errorf("%d latencies; want those of the calls without a reply, too", told)
		}
	}
}

// TestSurveyHostile holds the survey to ending, whatever a server lists.
func TestSurveyHostile(t *testing.T) {
	const noAttr, verifier = 0, 0
	for name, c := range map[string]struct {
		listing []uint32
		want    string
	}{
		"no end":    {[]uint32{0, noAttr, verifier, verifier, 0, 0}, "does not go on"},
		"cut off":   {[]uint32{0, noAttr, verifier, verifier, 1, 0, 7}, "malformed"},
		"a status":  {[]uint32{10004}, "not supported"},
		"no status": {nil, "malformed"},
	} {
		target := fakeServer(t, func(_ int, xid uint32) []byte { return reply(xid, c.listing...) })
		conn, err := rpc.Dial(target.Addr, rpc.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		s := surveyor{conn: conn, tree: target.tree}
		if err := s.list(0); err == nil || !strings.Contains(strings.ToLower(err.Error()), c.want) {
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
	}
}
