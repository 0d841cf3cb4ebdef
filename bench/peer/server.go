package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Server is a server that runs.
type Server struct {
	Meter
	// Name is short; About says which version it is, and how it is configured.
	Name, About string
	// Addr is where NFS is, MountAddr where MOUNT is, and MountPath what to mount
	// there to get the tree.
	Addr, MountAddr, MountPath string
	// TFTPAddr is where TFTP is, for a server that is measured in that and has no Addr.
	TFTPAddr netip.AddrPort

	cmd    *exec.Cmd
	dir    string        // of its own, for logs and configuration
	ended  chan struct{} // closed when the process has ended
	mapper *Rpcbind      // what it is registered with, if it has to be
	group  *controlGroup // of the processes that it makes, if it makes any
	stop   sync.Once
}

const (
	startLimit = 2 * time.Minute // a server may read or seal a large tree first
	stopLimit  = 10 * time.Second
)

// start runs a program as a server and waits until it answers. What it
// prints is kept for when it fails. dir is removed when it has stopped.
func (s *Server) start(ctx context.Context, dir, program string, args ...string) error {
	s.dir = dir
	log, err := os.Create(filepath.Join(dir, "output"))
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd = exec.Command(program, args...)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if s.ended, err = spawn(s.cmd); err != nil {
		os.RemoveAll(dir)
		return err
	}
	s.Meter = Meter(s.cmd.Process.Pid)
	if s.group != nil {
		err = s.group.add(s.cmd.Process.Pid)
	}
	if err == nil {
		err = s.await(ctx)
	}
	if err != nil {
		last := lastLines(log.Name(), 5)
		s.Stop()
		return fmt.Errorf("start %s: %w%s", s.Name, err, last)
	}
	return nil
}

// spawn starts a process that ends when this one does. The channel is closed when it
// has ended. The signal at the death of the parent is sent when the thread ends that
// has started the process (PR_SET_PDEATHSIG in prctl(2)), so that one does nothing but
// wait for it.
func spawn(cmd *exec.Cmd) (ended chan struct{}, err error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid:   true,            // a ^C is for the bench, which stops its servers
		Pdeathsig: syscall.SIGKILL, // and where it cannot, none is left behind
	}
	ended = make(chan struct{})
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait() // how it ended is seen in what it printed
			close(ended)
		}
	}()
	return ended, <-started
}

// await waits until the server accepts connections, or gives out boot files.
func (s *Server) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	var why error // it does not answer
	for {
		err := s.try(ctx)
		if err == nil {
			return nil
		}
		if why == nil || ctx.Err() == nil { // else the try itself was cut off
			why = err
		}
		select {
		case <-s.ended:
			return errors.New("it ended at once")
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), why)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *Server) try(ctx context.Context) error {
	if s.TFTPAddr.IsValid() {
		return tryTFTP(ctx, s.TFTPAddr)
	}
	c, err := new(net.Dialer).DialContext(ctx, "tcp", s.Addr)
	if err != nil {
		return err
	}
	return c.Close()
}

// Family meters the server with all the processes that it has made.
func (s *Server) Family() Family { return Family{s.Meter, s.group} }

// Alive reports whether the process runs.
func (s *Server) Alive() bool {
	select {
	case <-s.ended:
		return false
	default:
		return true
	}
}

// Stop ends the process, kindly at first, and removes what it left behind.
func (s *Server) Stop() {
	s.stop.Do(func() {
		s.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-s.ended:
		case <-time.After(stopLimit):
			s.cmd.Process.Kill()
			<-s.ended
		}
		if s.mapper != nil {
			s.mapper.Stop()
		}
		if s.group != nil {
			s.group.remove()
		}
		os.RemoveAll(s.dir)
	})
}

// FreeAddr returns an address of loopback with a port that nobody has just now, for TCP and for UDP, and that is not one
// of those which the kernel gives to who wants any.
func FreeAddr() (string, error) {
	for {
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(20_000)))
		if errors.Is(err, unix.EADDRINUSE) {
			continue
		}
		if err != nil {
			return "", err
		}
		pc, err := net.ListenPacket("udp", ln.Addr().String())
		ln.Close()
		if errors.Is(err, unix.EADDRINUSE) {
			continue
		}
		if err != nil {
			return "", err
		}
		pc.Close()
		return ln.Addr().String(), nil
	}
}

// lastLines are the last lines of a file, each on a line of its own.
func lastLines(path string, n int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	lines = lines[max(0, len(lines)-n):]
	return "\n   " + string(bytes.Join(lines, []byte("\n   ")))
}
