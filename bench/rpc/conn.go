package rpc

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Options say how to connect, and as whom. The zero Options are root, from
// whatever address the kernel chooses.
type Options struct {
	// Timeout bounds dialing, and each wait for a reply; 30 s if it is zero.
	Timeout  time.Duration
	UID, GID uint32
	// Local is the address to call from. All of 127.0.0.0/8 is there on
	// loopback, so that many nodes have addresses of their own.
	Local netip.Addr
	// Reserved calls from a port below 1024, of which servers conclude that the
	// caller is root (the export option "secure" of the kernel's). It needs root,
	// and there are few such ports.
	Reserved bool
}

const defaultTimeout = 30 * time.Second

// Conn is a connection to a server, for one goroutine at a time. It has the
// methods of Caller to make calls with.
type Conn struct {
	Caller
	tcp     *net.TCPConn
	raw     syscall.RawConn
	timeout time.Duration
	armed   time.Time // when the deadline was last moved

	stream Stream
	reply  Reply

	// What fill reads into or throws away, and what came of it. They are here
	// so that nothing is allocated.
	fillFrom func(fd uintptr) (done bool)
	n        int
	err      error
}

// Dial connects to the server at host:port.
func Dial(addr string, o Options) (*Conn, error) {
	c := &Conn{Caller: NewCaller(o.UID, o.GID), timeout: cmp.Or(o.Timeout, defaultTimeout)}
	nc, err := o.connect(addr, c.timeout)
	if err != nil {
		return nil, err
	}
	c.tcp = nc.(*net.TCPConn)
	if c.raw, err = c.tcp.SyscallConn(); err != nil {
		nc.Close()
		return nil, err
	}
	c.fillFrom = c.receive
	return c, nil
}

func (o *Options) connect(addr string, timeout time.Duration) (net.Conn, error) {
	d := net.Dialer{Timeout: timeout}
	if !o.Reserved {
		if o.Local.IsValid() {
			d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(o.Local, 0))
		}
		return d.Dial("tcp", addr)
	}
	d.Control = func(_, _ string, c syscall.RawConn) (err error) { // ports that linger can be had again
		if e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) }); e != nil {
			return e
		}
		return err
	}
	// Those that daemons like to have are below 600.
	const highest, lowest = 1023, 600
	var err error
	for port := highest; port >= lowest; port-- {
		from := &net.TCPAddr{Port: port}
		if o.Local.IsValid() {
			from.IP = o.Local.AsSlice()
		}
		d.LocalAddr = from
		var c net.Conn
		// A port may be taken, or linger from an earlier connection.
		if c, err = d.Dial("tcp", addr); !errors.Is(err, unix.EADDRINUSE) && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return c, err
		}
	}
	return nil, err
}

// Close closes the connection.
func (c *Conn) Close() error { return c.tcp.Close() }

// Send sends calls in one write.
func (c *Conn) Send(calls []byte) error {
	c.arm()
	_, err := c.tcp.Write(calls)
	return err
}

// Pending takes the next reply that has arrived already, without a look at the
// connection. The reply is valid until the next Receive. It is nil if there is
// none.
func (c *Conn) Pending() (*Reply, error) {
	ok, err := c.stream.Next(&c.reply)
	if !ok {
		return nil, err
	}
	return &c.reply, err
}

// Receive waits for the next reply, which is valid until the next Receive or
// Pending. At the end of the stream it returns io.EOF, or io.ErrUnexpectedEOF.
func (c *Conn) Receive() (*Reply, error) {
	for {
		if r, err := c.Pending(); r != nil || err != nil {
			return r, err
		}
		if err := c.fill(); err != nil {
			return nil, err
		}
	}
}

// fill waits for bytes and takes them off the connection.
func (c *Conn) fill() error {
	c.arm()
	if err := c.raw.Read(c.fillFrom); err != nil {
		return err
	}
	switch {
	case c.err != nil:
		return c.err
	case c.n == 0:
		return io.EOF
	}
	return nil
}

// receive is what the runtime calls when there may be something to receive.
func (c *Conn) receive(fd uintptr) (done bool) {
	c.n, c.err = c.stream.ReadFrom(int(fd))
	return c.err != unix.EAGAIN
}

// arm moves the deadline, now and then: that is not free, and nobody minds a
// wait that is a little shorter.
func (c *Conn) arm() {
	now := time.Now()
	if now.Sub(c.armed) > c.timeout/8 {
		c.armed = now
		c.tcp.SetDeadline(now.Add(c.timeout)) // it fails where Read and Write will
	}
}

// Do makes one call and waits for its reply. No other call may be in flight. The
// call may have failed: the reply says so.
func (c *Conn) Do(xid uint32, call []byte) (*Reply, error) {
	if err := c.Send(call); err != nil {
		return nil, err
	}
	r, err := c.Receive()
	if err == nil && r.XID != xid {
		err = fmt.Errorf("a reply to call %d, where %d was made", r.XID, xid)
	}
	return r, err
}

// Mount asks for the handle of an exported path, over this same connection: it is
// for one to a mount port, or to a server that has all on one port.
func (c *Conn) Mount(path string) (handle []byte, err error) {
	const xid = 1
	r, err := c.Do(xid, c.AppendMount(nil, xid, path))
	if err == nil {
		err = r.Err()
	}
	if err == nil {
		var ok bool
		if handle, ok = r.Mount(); !ok || len(handle) == 0 {
			err = errors.New("malformed results")
		}
	}
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", path, err)
	}
	return append([]byte(nil), handle...), nil
}

// Mount asks the MOUNT service at host:port for the handle of an exported path.
func Mount(addr, path string, o Options) (handle []byte, err error) {
	c, err := Dial(addr, o)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.Mount(path)
}

// Port asks the port mapper of a host where a program is, over TCP.
func Port(host string, prog, vers uint32, o Options) (uint16, error) {
	c, err := Dial(net.JoinHostPort(host, "111"), o)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	const xid = 1
	r, err := c.Do(xid, c.AppendGetport(nil, xid, prog, vers))
	if err != nil {
		return 0, err
	}
	// The result is a port where other programs have a status.
	port := r.Status
	r.Status = 0
	if err := r.Err(); err != nil {
		return 0, err
	}
	if port == 0 || port > 65535 {
		return 0, errors.New("program " + strconv.Itoa(int(prog)) + " is not registered with the port mapper of " + host)
	}
	return uint16(port), nil
}
