package nfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

// RPCBind is where a host's own rpcbind listens.
const RPCBind = "127.0.0.1:111"

// Register tells the rpcbind at addr, normally RPCBind, where NFS and MOUNT are:
// for hosts on which another program has port 111. It takes the right to bind a
// privileged port, which rpcbind wants to see. What it registers stays until
// the function that it returns takes it back. On an error nothing is left
// registered.
func Register(ctx context.Context, addr string, ports Ports) (unregister func(context.Context) error, err error) {
	r := &registration{addr: addr}
	for _, s := range ports.services() {
		if s.prog == progPortmap {
			continue // rpcbind is that itself
		}
		if err := r.set(ctx, s); err != nil {
			return nil, errors.Join(fmt.Errorf("register with the rpcbind at %s: %w", addr, err), r.unset(ctx))
		}
	}
	return r.unset, nil
}

// registration is what was registered with an rpcbind.
type registration struct {
	addr string
	done []service
}

const (
	portmapSet     = 1
	portmapUnset   = 2
	portmapGetPort = 3
)

// set registers a service. What an earlier run of this server left behind is no
// obstacle: rpcbind takes the same mapping twice.
func (r *registration) set(ctx context.Context, s service) error {
	ok, err := r.call(ctx, portmapSet, s)
	if err != nil {
		return err
	}
	if ok == 0 {
		port, err := r.call(ctx, portmapGetPort, s)
		return errors.Join(fmt.Errorf("it refused program %d version %d, which it says is at port %d: another server has it, see rpcinfo -p", s.prog, s.vers, port), err)
	}
	r.done = append(r.done, s)
	return nil
}

func (r *registration) unset(ctx context.Context) error {
	var errs []error
	for _, s := range r.done {
		// UNSET takes a version away from all protocols at once, so that it
		// finds nothing to do for the second one is no error.
		_, err := r.call(ctx, portmapUnset, s)
		errs = append(errs, err)
	}
	r.done = nil
	return errors.Join(errs...)
}

// call calls a procedure of version 2 that takes a mapping and returns a number.
func (r *registration) call(ctx context.Context, proc uint32, s service) (uint32, error) {
	conn, err := dialPrivileged(ctx, r.addr)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	deadline := time.Now().Add(5 * time.Second)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := conn.SetDeadline(deadline); err != nil {
		return 0, err
	}

	var e wire.Encoder
	e.Reset(make([]byte, 128))
	mark := e.BeginRecord()
	e.CallHeader(uint32(time.Now().UnixNano()), progPortmap, 2, proc)
	e.Uint32(s.prog)
	e.Uint32(s.vers)
	e.Uint32(s.proto)
	e.Uint32(uint32(s.port))
	e.EndRecord(mark, 0)
	if _, err := conn.Write(e.Bytes()); err != nil {
		return 0, err
	}
	return readNumber(conn)
}

// readNumber reads a reply whose result is a number.
func readNumber(conn io.Reader) (uint32, error) {
	var mark [wire.MarkSize]byte
	if _, err := io.ReadFull(conn, mark[:]); err != nil {
		return 0, err
	}
	n, last := wire.ParseMark(mark[:])
	const most = 1 << 10
	if n > most || !last {
		return 0, errors.New("its reply is malformed")
	}
	reply := make([]byte, n)
	if _, err := io.ReadFull(conn, reply); err != nil {
		return 0, err
	}
	d := wire.NewDecoder(reply)
	_, stat, accepted := d.ReplyHeader()
	if !accepted || stat != wire.Success {
		return 0, errors.New("it does not take the call")
	}
	result := d.Uint32()
	if !d.Done() {
		return 0, errors.New("its reply is malformed")
	}
	return result, nil
}

// dialPrivileged connects from a port below 1024, which only root can bind: that
// is how rpcbind knows who may register. It goes through the ports as
// bindresvport(3) does.
func dialPrivileged(ctx context.Context, addr string) (net.Conn, error) {
	const low, high = 600, 1023
	var err error
	for port := high; port >= low; port-- {
		d := net.Dialer{LocalAddr: &net.TCPAddr{Port: port}}
		var c net.Conn
		if c, err = d.DialContext(ctx, "tcp", addr); err == nil {
			return c, nil
		}
		if !errors.Is(err, unix.EADDRINUSE) && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return nil, err
		}
	}
	return nil, err
}
