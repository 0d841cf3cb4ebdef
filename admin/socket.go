package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// SocketName is the socket of a store, in its state directory.
const SocketName = "control.sock"

// maxSocketPath is the longest path that fits into an address (sun_path in unix(7), without
// the zero at its end).
const maxSocketPath = len(unix.RawSockaddrUnix{}.Path) - 1

// Listen makes the socket of a store, which only the user that serves it can open, and
// root. What a server left behind that was killed is replaced; one that answers is
// not. Close takes the socket away.
func Listen(stateDir string) (net.Listener, error) {
	path := filepath.Join(stateDir, SocketName)
	if err := makeRoom(path); err != nil {
		return nil, err
	}
	address, done, err := shortPath(path)
	if err != nil {
		return nil, err
	}
	defer done()
	lc := net.ListenConfig{Control: makePrivate}
	ln, err := lc.Listen(context.Background(), "unix", address)
	if err != nil {
		return nil, fmt.Errorf("make the socket %s: %w", path, err)
	}
	unixListener := ln.(*net.UnixListener)
	unixListener.SetUnlinkOnClose(false) // it would do so by address, which may be another's by then
	return &socket{unixListener, path}, nil
}

// makePrivate sets the mode of a socket before it has a name: the file that bind makes
// has the same (unix_bind_bsd in net/unix/af_unix.c).
func makePrivate(_, _ string, c syscall.RawConn) (err error) {
	if e := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); e != nil {
		return e
	}
	return err
}

// socket is the listener of a store.
type socket struct {
	*net.UnixListener
	path string
}

// Close implements net.Listener.
func (s *socket) Close() error {
	err := s.UnixListener.Close()
	if !errors.Is(err, net.ErrClosed) { // else it is away, and there may be another's
		os.Remove(s.path)
	}
	return err
}

// makeRoom removes a socket that nobody listens on any more.
func makeRoom(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != os.ModeSocket:
		return fmt.Errorf("%s is no socket: move it away", path)
	}
	c, err := dialSocket(context.Background(), path)
	switch {
	case err == nil:
		c.Close()
		return fmt.Errorf("another process answers on %s", path)
	case errors.Is(err, syscall.ECONNREFUSED):
		return os.Remove(path)
	}
	return err
}

// dialSocket connects to a socket by its path.
func dialSocket(ctx context.Context, path string) (net.Conn, error) {
	address, done, err := shortPath(path)
	if err != nil {
		return nil, err
	}
	defer done()
	var d net.Dialer
	return d.DialContext(ctx, "unix", address)
}

// shortPath returns a path that fits into an address and, until done is called, leads to
// the same file.
func shortPath(path string) (short string, done func(), err error) {
	if len(path) <= maxSocketPath {
		return path, func() {}, nil
	}
	fd, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, &os.PathError{Op: "open", Path: filepath.Dir(path), Err: err}
	}
	return filepath.Join("/proc/self/fd", strconv.Itoa(fd), filepath.Base(path)), func() { unix.Close(fd) }, nil
}
