package relay

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// Command is how a program is asked to be a relay: it must take these words, and the
// flags --listen, --target and --rtt, and call Main.
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
	fmt.Println(ln.Addr())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return r.Serve(ctx, ln)
}

// Process is a relay that runs as a process of its own, so that what it takes of the
// processors is charged to nobody else.
type Process struct {
	Addr string // where it listens, on loopback
	cmd  *exec.Cmd
}

// Start runs a relay to a target: the program at a path, which takes Command.
func Start(program, target string, rtt time.Duration) (*Process, error) {
	args := append(append([]string{}, Command...), "--listen", "127.0.0.1:0", "--target", target, "--rtt", rtt.String())
	p := &Process{cmd: exec.Command(program, args...)}
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		p.Stop()
		return nil, fmt.Errorf("start the relay to %s: %w", target, err)
	}
	p.Addr = strings.TrimSpace(line)
	return p, nil
}

// Stop ends the relay.
func (p *Process) Stop() {
	p.cmd.Process.Kill()
	p.cmd.Wait()
}
