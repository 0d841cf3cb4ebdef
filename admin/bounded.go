package admin

import (
	"net"
	"net/netip"
	"sync"
)

// bounded is a listener that has so many connections and no more: what comes beyond is
// closed. Those that may not ask anything have a few places of their own, and no client has many, so
// that none can take the places of others.
type bounded struct {
	net.Listener
	admits           func(net.Addr) bool
	conns, strangers chan struct{} // a token for each

	mu   sync.Mutex // guards from
	from map[netip.Prefix]int
}

func newBounded(ln net.Listener, admits func(net.Addr) bool) *bounded {
	return &bounded{
		Listener: ln, admits: admits, from: map[netip.Prefix]int{},
		conns: make(chan struct{}, maxConns), strangers: make(chan struct{}, maxStrangers),
	}
}

// Accept implements net.Listener.
func (b *bounded) Accept() (net.Conn, error) {
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if leave, ok := b.place(c.RemoteAddr()); ok {
			return &boundedConn{Conn: c, leave: sync.OnceFunc(leave)}, nil
		}
		c.Close()
	}
}

// place takes a place for a connection, if there is one, and returns what gives it back.
func (b *bounded) place(remote net.Addr) (leave func(), ok bool) {
	places := b.strangers
	if b.admits(remote) {
		places = b.conns
	}
	client := clientOf(remote)
	b.mu.Lock()
	defer b.mu.Unlock()
	if client.IsValid() && b.from[client] >= maxOfClient {
		return nil, false
	}
	select {
	case places <- struct{}{}:
	default:
		return nil, false
	}
	b.from[client]++
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.from[client]--; b.from[client] == 0 {
			delete(b.from, client)
		}
		<-places
	}, true
}

// clientOf is what counts as one client: an address, or for IPv6 the network of 64 bits that a host
// can choose its address in (RFC 4291, section 2.5.4). It is not valid for a socket of the file system.
func clientOf(remote net.Addr) netip.Prefix {
	tcp, ok := remote.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	addr := tcp.AddrPort().Addr().Unmap().WithZone("")
	bits := addr.BitLen()
	if addr.Is6() {
		bits = 64
	}
	client, _ := addr.Prefix(bits) // which fails for too many bits alone
	return client
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
