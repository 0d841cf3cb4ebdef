package relay

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

// start returns the address of a relay to a server that does f with each connection.
func start(t *testing.T, rtt time.Duration, f func(*net.TCPConn)) string {
	t.Helper()
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer c.Close()
				f(c.(*net.TCPConn))
			})
		}
	})
	r, err := New(server.Addr().String(), rtt)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	running.Go(func() {
		if err := r.Serve(ctx, ln); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		server.Close()
		running.Wait()
	})
	return ln.Addr().String()
}

func dial(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1, 2, 3)}}
	c, err := d.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute)) // a test that goes wrong should say so
	return c.(*net.TCPConn)
}

func echo(c *net.TCPConn) { io.Copy(c, c) }

// TestDelay makes round trips, none of which may be shorter than asked for.
func TestDelay(t *testing.T) {
	const rtt = 3 * time.Millisecond
	c := dial(t, start(t, rtt, echo))
	b := make([]byte, 1)
	for range 20 {
		begun := time.Now()
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, b); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took < rtt {
			t.Errorf("a round trip took %v", took)
		}
	}
}

// TestLosesNothing sends streams both ways at once over many connections, one way
// ending before the other.
func TestLosesNothing(t *testing.T) {
	const size = 6 << 20
	sum := func(r io.Reader) [32]byte {
		h := sha256.New()
		io.Copy(h, r)
		return [32]byte(h.Sum(nil))
	}
	data := make([]byte, size)
	rand.NewChaCha8([32]byte{}).Read(data)
	back := bytes.Clone(data[size/3:])
	addr := start(t, time.Millisecond, func(c *net.TCPConn) {
		var sending sync.WaitGroup
		sending.Go(func() { c.Write(back) })
		got := sum(c) // to the end of what the client sends
		sending.Wait()
		c.Write(got[:])
	})
	var clients sync.WaitGroup
	for range 8 {
		c := dial(t, addr)
		clients.Go(func() { c.Write(data); c.CloseWrite() })
		clients.Go(func() {
			if got, want := sum(io.LimitReader(c, int64(len(back)))), sha256.Sum256(back); got != want {
				t.Error("what the server sent has changed")
			}
			got, err := io.ReadAll(c)
			if want := sha256.Sum256(data); err != nil || !bytes.Equal(got, want[:]) {
				t.Errorf("what the client sent has changed: %v", err)
			}
		})
	}
	clients.Wait()
}

// TestSlowReceiver sends to one that does not read, until nothing more goes, while
// another connection goes on.
func TestSlowReceiver(t *testing.T) {
	hold := make(chan struct{})
	addr := start(t, 100*time.Microsecond, func(c *net.TCPConn) {
		b := make([]byte, 1)
		io.ReadFull(c, b)
		if b[0] == 's' {
			<-hold
		}
		c.Write(b)
		io.Copy(c, c)
	})
	defer close(hold)
	slow, fast := dial(t, addr), dial(t, addr)
	slow.Write([]byte{'s'})
	fast.Write([]byte{'f'})
	go slow.Write(make([]byte, 4*window))
	b := make([]byte, 1)
	for range 50 {
		if _, err := io.ReadFull(fast, b); err != nil {
			t.Fatal(err)
		}
		fast.Write(b)
	}
}

// TestAddress sees the client's address at the server.
func TestAddress(t *testing.T) {
	c := dial(t, start(t, 0, func(c *net.TCPConn) { io.WriteString(c, c.RemoteAddr().(*net.TCPAddr).IP.String()) }))
	if got, err := io.ReadAll(c); err != nil || string(got) != "127.1.2.3" {
		t.Errorf("the server sees %q, %v", got, err)
	}
}

// TestNoServer hangs up.
func TestNoServer(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nowhere := ln.Addr().String()
	ln.Close()
	r, err := New(nowhere, time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if ln, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Serve(ctx, ln) }()
	c := dial(t, ln.Addr().String())
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
