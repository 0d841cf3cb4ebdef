package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// Rpcbind is a port mapper that nobody sees but who is started within it. A server
// that will not start without one, as nfs-ganesha, would otherwise need the
// machine's, and change what that tells the machine's clients.
type Rpcbind struct {
	cmd   *exec.Cmd
	ended chan struct{}
}

// rpcbindScript hides what is in /run, the socket of the machine's rpcbind with it.
// The port belongs to a network namespace that nobody else is in. rpcbind changes its
// user, by which it loses the signal at the death of its parent; but the shell keeps
// it, and is the first process of a PID namespace, which ends with it.
const rpcbindScript = "mount -t tmpfs tmpfs /run && rpcbind -f; exit 1"

// StartRpcbind starts one, for which it needs root.
func StartRpcbind(ctx context.Context) (*Rpcbind, error) {
	for _, program := range []string{"rpcbind", "unshare", "nsenter"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("%s is not installed (apt-get install rpcbind util-linux)", program)
		}
	}
	r := &Rpcbind{cmd: exec.Command("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "sh", "-c", rpcbindScript)}
	var err error
	if r.ended, err = spawn(r.cmd); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	socket := filepath.Join("/proc", strconv.Itoa(r.cmd.Process.Pid), "root/run/rpcbind.sock")
	for {
		if c, err := net.Dial("unix", socket); err == nil {
			c.Close()
			return r, nil
		}
		select {
		case <-r.ended:
			return nil, errors.New("rpcbind ended at once")
		case <-ctx.Done():
			r.Stop()
			return nil, fmt.Errorf("start rpcbind: %w", ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Within makes a command line run where the port mapper is seen, as the same process.
func (r *Rpcbind) Within(args ...string) []string {
	return append([]string{"nsenter", "--mount=/proc/" + strconv.Itoa(r.cmd.Process.Pid) + "/ns/mnt"}, args...)
}

// Stop ends it. More than once does no harm.
func (r *Rpcbind) Stop() {
	r.cmd.Process.Kill()
	<-r.ended
}
