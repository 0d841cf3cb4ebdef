package rpc

import (
	"io"
	"net"
	"testing"
	"time"
)

// counter counts replies, by line, and makes a new call for each until it has
// made enough.
type counter struct {
	t      *testing.T
	limit  int
	made   map[int]int
	seen   map[int]int
	broken map[int]error
}

func (c *counter) call(l *Line) {
	if c.made[l.Number] < c.limit {
		c.made[l.Number]++
		l.Queue(l.AppendRead(l.Buffer(), uint32(c.made[l.Number]), []byte("handle"), 0, 4096))
	}
}

func (c *counter) Reply(l *Line, r *Reply, at time.Time) {
	if n, _, ok := r.Read(); !ok || n != 100_000 {
		c.t.Errorf("line %d: %d bytes, well-formed %v", l.Number, n, ok)
	}
	c.seen[l.Number]++
	c.call(l)
}

func (c *counter) Broken(l *Line, err error) { c.broken[l.Number] = err }

// TestLoop has several lines with calls in flight, to servers that answer each,
// and hang up after the last.
func TestLoop(t *testing.T) {
	const lines, inFlight, calls = 5, 4, 50
	p, err := NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	c := &counter{t, calls, map[int]int{}, map[int]int{}, map[int]error{}}
	for range lines {
		addr := serve(t, func(nc net.Conn) {
			for range calls {
				xid, err := nextCall(nc)
				if err != nil {
					t.Error(err)
					return
				}
				nc.Write(cut(record(xid, readResults(100_000)), 1<<30))
			}
		})
		l, err := p.Dial(addr, Options{})
		if err != nil {
			t.Fatal(err)
		}
		for range inFlight {
			c.call(l)
		}
		if err := l.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	for len(c.broken) < lines {
		if err := p.Turn(10*time.Second, c); err != nil {
			t.Fatal(err)
		}
	}
	for n := range lines {
		if c.seen[n] != calls || c.broken[n] != io.EOF {
			t.Errorf("line %d: %d of %d replies, then %v", n, c.seen[n], calls, c.broken[n])
		}
	}
}

// TestLoopSlowServer queues more calls than the sockets hold.
func TestLoopSlowServer(t *testing.T) {
	const calls = 100_000
	begin := make(chan struct{})
	addr := serve(t, func(nc net.Conn) {
		<-begin
		for range calls {
			if _, err := nextCall(nc); err != nil {
				t.Error(err)
				return
			}
		}
	})
	p, err := NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	l, err := p.Dial(addr, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for xid := range uint32(calls) {
		l.Queue(l.AppendGetattr(l.Buffer(), xid, []byte("handle")))
	}
	if err := l.Flush(); err != nil {
		t.Fatal(err)
	}
	if len(l.Buffer()) == 0 {
		t.Fatal("the sockets hold it all: make it more")
	}
	close(begin)
	c := &counter{t: t, broken: map[int]error{}}
	for len(c.broken) == 0 {
		if err := p.Turn(10*time.Second, c); err != nil {
			t.Fatal(err)
		}
	}
	if c.broken[0] != io.EOF || len(l.Buffer()) != 0 {
		t.Errorf("%v with %d bytes not sent", c.broken[0], len(l.Buffer()))
	}
}
