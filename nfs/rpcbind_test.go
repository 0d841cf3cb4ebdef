package nfs

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// inOwnNetwork runs the rest of the test in a new network namespace with only
// loopback, and with a /run of its own, where rpcbind harms nobody. Programs that
// the test starts are in it too, and so are sockets that this goroutine makes.
func inOwnNetwork(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: for a network namespace and privileged ports")
	}
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
		t.Skipf("no namespaces here: %v", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	if err := raiseLoopback(); err != nil {
		t.Fatal(err)
	}
}

// raiseLoopback is "ip link set lo up", which a small Debian does not have.
func raiseLoopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}

// startRPCBind runs Debian's rpcbind.
func startRPCBind(t *testing.T) {
	t.Helper()
	path, err := exec.LookPath("rpcbind")
	if err != nil {
		t.Skip("rpcbind is missing: apt-get install rpcbind")
	}
	cmd := exec.Command(path, "-f")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	eventually(t, "rpcbind listens", func() bool {
		c, err := net.Dial("tcp4", RPCBind)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// rpcinfo returns the lines of rpcinfo -p that are not about rpcbind itself.
func rpcinfo(t *testing.T) (lines []string) {
	t.Helper()
	out, err := exec.Command("rpcinfo", "-p", "127.0.0.1").CombinedOutput()
	if err != nil {
		t.Fatalf("rpcinfo: %v: %s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) >= 4 && f[0] != "program" && f[0] != "100000" {
			lines = append(lines, strings.Join(f[:4], " "))
		}
	}
	return lines
}

func TestRegister(t *testing.T) {
	inOwnNetwork(t)
	ctx := t.Context()
	if _, err := Register(ctx, RPCBind, anyPorts); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("without an rpcbind: %v", err)
	}
	startRPCBind(t)

	if _, err := Register(ctx, RPCBind, anyPorts); err != nil {
		t.Fatal(err)
	}
	want := []string{"100003 3 tcp 2049", "100005 1 tcp 2050", "100005 1 udp 2051", "100005 3 tcp 2050", "100005 3 udp 2051"}
	if got := rpcinfo(t); !sameLines(got, want) {
		t.Errorf("registered %q, want %q", got, want)
	}

	// What a killed server left behind is taken over by its successor.
	unregister, err := Register(ctx, RPCBind, anyPorts)
	if err != nil {
		t.Fatalf("a second time: %v", err)
	}
	// Another server's is not.
	others := anyPorts
	others.NFS = 3049
	if _, err := Register(ctx, RPCBind, others); err == nil || !strings.Contains(err.Error(), "2049") {
		t.Errorf("over another server's registration: %v", err)
	}
	if got := rpcinfo(t); !sameLines(got, want) {
		t.Errorf("a refused registration left %q, want %q", got, want)
	}
	if err := unregister(context.Background()); err != nil {
		t.Error(err)
	}
	if got := rpcinfo(t); len(got) != 0 {
		t.Errorf("after taking it back: %q", got)
	}
}

func sameLines(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	seen := map[string]bool{}
	for _, line := range a {
		seen[line] = true
	}
	for _, line := range b {
		if !seen[line] {
			return false
		}
	}
	return true
}
