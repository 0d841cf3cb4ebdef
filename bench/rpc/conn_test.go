package rpc

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

// serve answers the first connection with what f does, and returns the address.
func serve(t *testing.T, f func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if c, err := ln.Accept(); err == nil {
			defer c.Close()
			f(c)
		}
	}()
	t.Cleanup(func() {
		ln.Close()
		<-done
	})
	return ln.Addr().String()
}

// nextCall reads a call and returns its transaction.
func nextCall(c net.Conn) (xid uint32, err error) {
	var mark [wire.MarkSize]byte
	if _, err := io.ReadFull(c, mark[:]); err != nil {
		return 0, err
	}
	n, _ := wire.ParseMark(mark[:])
	b := make([]byte, n)
	if _, err := io.ReadFull(c, b); err != nil {
		return 0, err
	}
	d := wire.NewDecoder(b)
	return d.Uint32(), nil
}

func dial(t *testing.T, addr string, o Options) *Conn {
	t.Helper()
	c, err := Dial(addr, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestConnPipeline makes calls of which large ones are answered between small
// ones, and none in order.
func TestConnPipeline(t *testing.T) {
	const calls = 64
	size := func(xid uint32) int { return int(xid) * int(xid) * 512 }
	addr := serve(t, func(c net.Conn) {
		var order []uint32
		for range calls {
			xid, err := nextCall(c)
			if err != nil {
				t.Error(err)
				return
			}
			order = append(order, xid)
		}
		for i := range order {
			xid := order[(i*37)%calls]
			if _, err := c.Write(cut(record(xid, readResults(size(xid))), 1<<30)); err != nil {
				t.Error(err)
			}
		}
	})
	c := dial(t, addr, Options{Local: netip.MustParseAddr("127.0.1.7")})
	if a := c.tcp.LocalAddr().String(); a[:10] != "127.0.1.7:" {
		t.Errorf("it calls from %s", a)
	}
	var out []byte
	for xid := range uint32(calls) {
		out = c.AppendRead(out, xid, []byte("handle"), 0, 1<<20)
	}
	if err := c.Send(out); err != nil {
		t.Fatal(err)
	}
	seen := map[uint32]bool{}
	for range calls {
		r, err := c.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if n, _, ok := r.Read(); !ok || n != size(r.XID) || seen[r.XID] {
			t.Errorf("reply %d: %d bytes, well-formed %v, seen %v", r.XID, n, ok, seen[r.XID])
		}
		seen[r.XID] = true
	}
	if _, err := c.Receive(); err != io.EOF {
		t.Errorf("after the last reply: %v; want the end", err)
	}
}

func TestConnTimeout(t *testing.T) {
	hold := make(chan struct{})
	addr := serve(t, func(net.Conn) { <-hold })
	defer close(hold)
	c := dial(t, addr, Options{Timeout: 50 * time.Millisecond})
	if _, err := c.Do(1, c.AppendNull(nil, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a server that says nothing: %v", err)
	}
}

func TestMount(t *testing.T) {
	for _, c := range []struct {
		name    string
		results []byte
		fails   bool
	}{
		{"granted", append(appendOpaque(appendWords(nil, 0), []byte("root")), 0, 0, 0, 0), false},
		{"refused", appendWords(nil, 13), true},
		{"no handle", appendWords(nil, 0, 0, 0), true},
		{"a handle that is not there", appendWords(nil, 0, 64), true},
	} {
		addr := serve(t, func(nc net.Conn) {
			if xid, err := nextCall(nc); err == nil {
				nc.Write(cut(record(xid, c.results), 100))
			}
		})
		h, err := Mount(addr, "/images", Options{})
		if (err != nil) != c.fails || !c.fails && string(h) != "root" {
			t.Errorf("%s: %q, %v", c.name, h, err)
		}
	}
}
