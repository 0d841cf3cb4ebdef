package admin

import (
	"net"
	"sync"
)

// bounded is a listener that has so many connections and no more: what comes beyond is
// closed. Those that may not ask anything have a few places of their own, so that they cannot
// take those of others.
type bounded struct {
	net.Listener
	admits           func(net.Addr) bool
	conns, strangers chan struct{} // a token for each
}

func newBounded(ln net.Listener, admits func(net.Addr) bool) *bounded {
	return &bounded{ln, admits, make(chan struct{}, maxConns), make(chan struct{}, maxStrangers)}
}

// Accept implements net.Listener.
func (b *bounded) Accept() (net.Conn, error) {
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		places := b.strangers
		if b.admits(c.RemoteAddr()) {
			places = b.conns
		}
		select {
		case places <- struct{}{}:
			return &boundedConn{Conn: c, leave: sync.OnceFunc(func() { <-places })}, nil
		default:
			c.Close()
		}
	}
}

// boundedConn gives its place back when it is closed.
type boundedConn struct {
	net.Conn
	leave func()
}

// Close implements net.Conn.
func (c *boundedConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
