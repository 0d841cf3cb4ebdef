package peer

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/bench/rpc"
)

// BenchmarkClient is what the two kinds of clients cost, with the limit for a server:
// a Loop for all connections, and a goroutine with a Conn for each.
func BenchmarkClient(b *testing.B) {
	s, _ := limitFor(b)
	for _, c := range []struct{ connections, inFlight, payload int }{{4, 16, 0}, {64, 1, 0}, {64, 16, 0}, {1024, 1, 0}, {4, 16, 1 << 20}} {
		call := func(buf []byte, xid uint32) []byte { return AppendLimitCall(buf, 150, xid, 128, c.payload, 0) }
		name := fmt.Sprintf("%dx%d-%d", c.connections, c.inFlight, c.payload)
		b.Run("loop/"+name, func(b *testing.B) { loopClient(b, s.Addr, c.connections, c.inFlight, call) })
		b.Run("goroutines/"+name, func(b *testing.B) { goroutineClients(b, s.Addr, c.connections, c.inFlight, call) })
	}
}

// metered reports the processor time of this process, which is the client alone.
func metered(b *testing.B, work func()) {
	used := func() int64 {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return u.Utime.Nano() + u.Stime.Nano()
	}
	b.ResetTimer()
	before := used()
	work()
	b.ReportMetric(float64(used()-before)/float64(b.N), "cpu-ns/op")
}

type benchHandler struct {
	b          *testing.B
	call       func([]byte, uint32) []byte
	todo, left int
}

func (h *benchHandler) issue(l *rpc.Line) {
	if h.todo > 0 {
		h.todo--
		l.Queue(h.call(l.Buffer(), 1))
	}
}

func (h *benchHandler) Reply(l *rpc.Line, _ *rpc.Reply, _ time.Time) {
	h.left--
	h.issue(l)
}

func (h *benchHandler) Broken(_ *rpc.Line, err error) { h.b.Fatal(err) }

func loopClient(b *testing.B, addr string, connections, inFlight int, call func([]byte, uint32) []byte) {
	p, err := rpc.NewLoop()
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	var lines []*rpc.Line
	for range connections {
		l, err := p.Dial(addr, rpc.Options{})
		if err != nil {
			b.Fatal(err)
		}
		lines = append(lines, l)
	}
	h := &benchHandler{b, call, b.N, b.N}
	metered(b, func() {
		for _, l := range lines {
			for range inFlight {
				h.issue(l)
			}
			if err := l.Flush(); err != nil {
				b.Fatal(err)
			}
		}
		for h.left > 0 {
			if err := p.Turn(time.Second, h); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func goroutineClients(b *testing.B, addr string, connections, inFlight int, call func([]byte, uint32) []byte) {
	var conns []*rpc.Conn
	for range connections {
		c, err := rpc.Dial(addr, rpc.Options{})
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
	}
	metered(b, func() {
		var running sync.WaitGroup
		for i, c := range conns {
			n := (i+1)*b.N/connections - i*b.N/connections
			running.Go(func() {
				if err := pump(c, n, inFlight, call); err != nil {
					b.Error(err)
				}
			})
		}
		running.Wait()
	})
}

// pump makes n calls over a connection, and sends one for each reply that came.
func pump(c *rpc.Conn, n, inFlight int, call func([]byte, uint32) []byte) error {
	var out []byte
	for sent, ready := 0, inFlight; n > 0; {
		for ; ready > 0 && sent < n; ready-- {
			out = call(out, 1)
			sent++
		}
		n -= sent
		sent = 0
		if err := c.Send(out); err != nil {
			return err
		}
		out = out[:0]
		if n == 0 {
			return nil
		}
		r, err := c.Receive()
		for r != nil && err == nil {
			ready++
			r, err = c.Pending()
		}
		if err != nil {
			return err
		}
	}
	return nil
}
