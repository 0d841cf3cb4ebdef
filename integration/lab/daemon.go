package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Daemon is rootnfsd serve, running in a network.
type Daemon struct {
	net    *Net
	args   []string   // program and arguments
	log    string     // file
	held   []*os.File // its sockets, if they outlive it
	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has ended
}

// Serve runs the rootnfsd at binary with the arguments of serve and returns
// when it says that it is ready. Its output is appended to the file log.
func Serve(ctx context.Context, n *Net, log, binary string, args ...string) (*Daemon, error) {
	d := &Daemon{net: n, log: log, args: append([]string{binary, "serve"}, args...)}
	return d, d.Start(ctx)
}

// ServeHeld is Serve with sockets that are held by this process, as systemd holds
// those of a .socket unit, and outlive a crash of the daemon.
func ServeHeld(ctx context.Context, n *Net, log, binary string, args ...string) (*Daemon, error) {
	held, err := n.openSockets()
	if err != nil {
		return nil, err
	}
	d := &Daemon{net: n, log: log, held: held, args: append([]string{binary, "serve"}, args...)}
	return d, d.Start(ctx)
}

// Start starts a daemon that has been killed, with the arguments it had.
func (d *Daemon) Start(ctx context.Context) error {
	log, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	notify, err := listenNotify()
	if err != nil {
		return err
	}
	defer notify.close()
	// The shell says which process the sockets are for (sd_listen_fds(3)); the
	// daemon then takes its place.
	d.cmd = d.net.Command("sh", append([]string{"-c", `export LISTEN_PID=$$; exec "$@"`, "sh"}, d.args...)...)
	d.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+notify.path, fmt.Sprintf("LISTEN_FDS=%d", len(d.held)))
	d.cmd.ExtraFiles = d.held
	d.cmd.Stdout, d.cmd.Stderr = log, log
	if err := d.cmd.Start(); err != nil {
		return err
	}
	d.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) {
		cmd.Wait()
		close(exited)
	}(d.cmd, d.exited)
	select {
	case <-notify.ready():
		return nil
	case <-d.exited:
		return errors.New("rootnfsd ended:\n" + d.Log())
	case <-ctx.Done():
		d.Kill()
		return fmt.Errorf("rootnfsd did not become ready: %w\n%s", ctx.Err(), d.Log())
	}
}

// Kill ends the daemon as a crash would, without a chance to clean up, and
// returns when it is gone. Killing one that has ended does nothing.
func (d *Daemon) Kill() {
	d.cmd.Process.Kill()
	<-d.exited
}

// Stop ends the daemon in good order and returns when it is gone; one that takes
// too long is killed.
func (d *Daemon) Stop() {
	d.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.AfterFunc(time.Minute, func() { d.cmd.Process.Kill() })
	defer timer.Stop()
	<-d.exited
}

// PID is the process.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// Log is all that the daemon has written.
func (d *Daemon) Log() string {
	b, err := os.ReadFile(d.log)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b))
}

// notifySocket is where a daemon says that it is ready, as to systemd (sd_notify(3)).
type notifySocket struct {
	path string
	conn *net.UnixConn
}

func listenNotify() (*notifySocket, error) {
	dir, err := os.MkdirTemp("", "notify")
	if err != nil {
		return nil, err
	}
	s := &notifySocket{path: filepath.Join(dir, "socket")}
	if s.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: s.path, Net: "unixgram"}); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return s, nil
}

// ready returns a channel that is closed when the daemon is ready.
func (s *notifySocket) ready() <-chan struct{} {
	ready := make(chan struct{})
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := s.conn.Read(b)
			if err != nil {
				return // closed
			}
			if strings.Contains(string(b[:n]), "READY=1") {
				close(ready)
				return
			}
		}
	}()
	return ready
}

func (s *notifySocket) close() {
	s.conn.Close()
	os.RemoveAll(filepath.Dir(s.path))
}
