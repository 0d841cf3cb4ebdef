package relay

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Command is how a program is asked to be a relay: it must take these words, and the
// flags --listen, --target, --rtt and --udp, and call Main, or MainDatagrams for --udp.
var Command = []string{"bench", "relay"}

// Main relays from the address listen until it is told to stop. It says where it
// listens on standard output, by a line that is the address.
func Main(listen, target string, rtt time.Duration) error {
	r, err := New(target, rtt)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	return serve(ln.Addr(), func(ctx context.Context) error { return r.Serve(ctx, ln) })
}

// MainDatagrams is Main for datagrams.
func MainDatagrams(listen, target string, rtt time.Duration) error {
	r, err := NewDatagrams(target, rtt)
	if err != nil {
		return err
	}
	socket, local, err := listenDatagrams(listen)
	if err != nil {
		return err
	}
	return serve(local, func(ctx context.Context) error { return r.Serve(ctx, socket) })
}

// serve says where a relay listens, and calls f until it is told to stop.
func serve(at fmt.Stringer, f func(context.Context) error) error {
	fmt.Println(at)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return f(ctx)
}

// Process is a relay that runs as a process of its own, so that what it takes of the
// processors is charged to nobody else.
type Process struct {
	Addr  string // where it listens, on loopback
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has ended
}

// Start runs a relay to a target: the program at a path, which takes Command.
func Start(program, target string, rtt time.Duration) (*Process, error) {
	return startProcess(program, target, rtt)
}

// StartDatagrams is Start for datagrams.
func StartDatagrams(program, target string, rtt time.Duration) (*Process, error) {
	return startProcess(program, target, rtt, "--udp")
}

func startProcess(program, target string, rtt time.Duration, flags ...string) (*Process, error) {
	args := append(append([]string{}, Command...), "--listen", "127.0.0.1:0", "--target", target, "--rtt", rtt.String())
	args = append(args, flags...)
	p := &Process{cmd: exec.Command(program, args...), ended: make(chan struct{})}
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go p.run(started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start the relay to %s: %w", target, err)
	}
	return p, nil
}

// run runs the process to its end. It tells started when the process listens, or why
// it does not. The signal at the death of the parent is sent when the thread ends that
// has started the process (PR_SET_PDEATHSIG in prctl(2)), so that one stays.
func (p *Process) run(started chan<- error) {
	runtime.LockOSThread()
	defer close(p.ended)
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		started <- err
		return
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	p.Addr = strings.TrimSpace(line)
	started <- err
	p.cmd.Wait() // it is told to end, or has said why it did
}

// Stop ends the relay.
func (p *Process) Stop() {
	p.cmd.Process.Kill()
	<-p.ended
}
