package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rootnfsd/rootnfsd/integration/lab"
)

// Under emulation a boot takes about 40 seconds on an idle machine. The limit
// is for a busy one.
const bootLimit = 5 * time.Minute

// rootnfsd is the program that all tests run.
var rootnfsd string

func TestMain(m *testing.M) {
	os.Exit(withProgram(m.Run))
}

// withProgram builds rootnfsd for the time that run takes.
func withProgram(run func() int) int {
	dir, err := os.MkdirTemp("", "rootnfsd")
	if err == nil {
		defer os.RemoveAll(dir)
		rootnfsd, err = lab.Build(dir)
	}
	if err == nil {
		err = os.Chmod(dir, 0o755) // for tests that run it as another user
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return run()
}

// require skips the test where programs or root's rights are missing, or fails
// it if none may be skipped.
func require(t *testing.T, programs ...string) {
	t.Helper()
	if err := lab.Missing(programs...); err != nil {
		skip(t, err.Error())
	}
}

// skip skips the test, or fails it if none may be skipped.
func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("ROOTNFSD_TEST_ALL") != "" {
		t.Fatalf("this test may not be skipped (ROOTNFSD_TEST_ALL is set): %s", why)
	}
	t.Skip(why)
}

// long skips a test that takes too long for every day, unless such are asked for.
func long(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("ROOTNFSD_TEST_LONG") == "" {
		t.Skip(what + ", which takes many minutes; ROOTNFSD_TEST_LONG=1 runs it")
	}
}

func newNet(t *testing.T) *lab.Net {
	t.Helper()
	return untilEnd(t, lab.NewNet)
}

// host is a machine on the network of another one, until the test ends.
func host(t *testing.T, n *lab.Net, address, mac string) *lab.Net {
	t.Helper()
	return untilEnd(t, func() (*lab.Net, error) { return n.Host(address, mac) })
}

// untilEnd opens a network, which is closed when the test ends.
func untilEnd(t *testing.T, open func() (*lab.Net, error)) *lab.Net {
	t.Helper()
	require(t, "ip")
	n, err := open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func openGolden(t *testing.T) *lab.Golden {
	t.Helper()
	require(t, "mmdebstrap", "qemu-system-x86_64")
	g, err := lab.OpenGolden()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	return g
}

// serve runs the daemon until the test ends; where the test failed it shows the log.
func serve(t *testing.T, n *lab.Net, args ...string) *lab.Daemon {
	t.Helper()
	return serveBy(t, lab.Serve, n, args...)
}

// serveBy is serve by another function of the lab.
func serveBy(t *testing.T, start func(ctx context.Context, n *lab.Net, log, binary string, args ...string) (*lab.Daemon, error), n *lab.Net, args ...string) *lab.Daemon {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	d, err := start(ctx, n, filepath.Join(t.TempDir(), "log"), rootnfsd, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.Kill()
		if t.Failed() {
			t.Logf("log of rootnfsd:\n%s", d.Log())
		}
	})
	return d
}

// boot starts a node and waits until it is up.
func boot(t *testing.T, m lab.Machine) *lab.Guest {
	t.Helper()
	g := power(t, m)
	waitUp(t, g)
	return g
}

// power starts a node, which runs until the test ends; where the test failed it
// shows the console.
func power(t *testing.T, m lab.Machine) *lab.Guest {
	t.Helper()
	m.Console = filepath.Join(t.TempDir(), "console")
	g, err := lab.Start(m)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		g.Stop()
		if t.Failed() {
			t.Logf("end of the console:\n%s", g.Console(60))
		}
	})
	return g
}

// reboot reboots a node into the machine that it finds now.
func reboot(t *testing.T, g *lab.Guest, m lab.Machine) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bootLimit)
	defer cancel()
	if err := g.Reboot(ctx, m); err != nil {
		t.Fatal(err)
	}
	waitUp(t, g)
}

func waitUp(t *testing.T, g *lab.Guest) {
	t.Helper()
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), bootLimit)
	defer cancel()
	if err := g.Wait(ctx); err != nil {
		t.Fatalf("the node did not boot to the end: %v", err)
	}
	t.Logf("booted in %.0f s", time.Since(start).Seconds())
}

// in runs a script in a node and returns its output; the test ends if it fails.
func in(t *testing.T, g *lab.Guest, script string) string {
	t.Helper()
	out, err := tryIn(t, g, script)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// tryIn runs a script in a node that may fail.
func tryIn(t *testing.T, g *lab.Guest, script string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bootLimit)
	defer cancel()
	return g.Run(ctx, script)
}

// result is how a command ended and what it wrote.
type result struct {
	status         int
	stdout, stderr string
}

// finish runs cmd to its end.
func finish(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// expectLog waits until a server has said all that is wanted: it writes its log when it has time.
func expectLog(t *testing.T, d *lab.Daemon, want ...string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		log := d.Log()
		missing := slices.IndexFunc(want, func(w string) bool { return !strings.Contains(log, w) })
		if missing < 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("the log does not say %q:\n%s", want[missing], log)
			return
		}
	}
}

// background runs cmd until it is stopped, or the test ends.
func background(t *testing.T, cmd *exec.Cmd) (stop func()) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	t.Cleanup(stop)
	return stop
}

// cli runs rootnfsd and returns what it printed; the test ends if it fails.
func cli(t *testing.T, args ...string) string {
	t.Helper()
	r := finish(t, exec.Command(rootnfsd, args...))
	if r.status != 0 {
		t.Fatalf("rootnfsd %q: exit status %d\n%s%s", args, r.status, r.stdout, r.stderr)
	}
	return r.stdout
}

// cliJSON runs rootnfsd with --json and decodes what it printed.
func cliJSON[T any](t *testing.T, args ...string) T {
	t.Helper()
	out := cli(t, append(args, "--json")...)
	var v T
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatalf("rootnfsd %q --json printed what is no JSON: %v\n%s", args, err, out)
	}
	return v
}
