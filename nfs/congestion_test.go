package nfs

import (
	"context"
	"net"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestAvoidPacing looks at accepted connections, for these are what counts.
func TestAvoidPacing(t *testing.T) {
	for _, set := range []string{"", "reno", "bbr"} { // "" is the system's default
		listen := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
			return raw.Control(func(fd uintptr) {
				if set == "" {
					return
				}
				err := unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, set)
				if err != nil {
					t.Logf("this kernel has no %s: %v", set, err)
				}
			})
		}}
		ln, err := listen.Listen(context.Background(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		before := congestion(t, ln.(*net.TCPListener))
		from, to := avoidPacing(ln)
		after := congestion(t, accept(t, ln))
		if changed := before != after; changed && (from != before || to != after) || !changed && to != "" {
			t.Errorf("it says that it changed %q to %q; it was %q and is %q", from, to, before, after)
		}
		if paces(after) || !paces(before) && after != before {
			t.Errorf("with %q on the listener a connection has %q", before, after)
		}
		ln.Close()
	}
}

func accept(t *testing.T, ln net.Listener) syscall.Conn {
	t.Helper()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// congestion is the algorithm that a socket uses.
func congestion(t *testing.T, s syscall.Conn) (name string) {
	t.Helper()
	raw, err := s.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		name, err = unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION)
	})
	if err != nil {
		t.Fatal(err)
	}
	return name
}
