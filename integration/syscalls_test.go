package integration

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rootnfsd/rootnfsd/integration/lab"
)

// TestSystemCalls watches the daemon with strace: what it tells of objects and
// names comes from memory, and large reads go out by sendfile(2).
func TestSystemCalls(t *testing.T) {
	require(t, "strace", "nfs-ls", "nfs-cat")
	big := strings.Repeat("one line of a file that takes many reads\n", 100_000)
	store := newStore(t, map[string]files{"v1": {"etc/hostname": "golden\n", "usr/share/big": big, "usr/bin/tool": "#!\n"}})
	cli(t, "node", "set", "pi-01", "--export", store) // so that there are names to look for
	net := newNet(t)
	daemon := serve(t, net, "--export", store)
	const root = "nfs://127.0.0.1/images"
	// The first read of content compares it with its digest.
	expectOutput(t, net, big, "nfs-cat", root+"/usr/share/big?version=3")

	about := func(calls []string, names string) (found []string) {
		for _, c := range calls {
			if regexp.MustCompile(`^(` + names + `)\(`).MatchString(c) {
				found = append(found, c)
			}
		}
		return found
	}
	walked := systemCalls(t, daemon, func() {
		for _, dir := range []string{"", "/etc", "/usr", "/usr/share", "/usr/bin"} {
			output(t, net, "nfs-ls", root+dir+"?version=3")
		}
	})
	if len(about(walked, "write|sendto|sendmsg")) == 0 {
		t.Fatalf("strace saw no reply among %d calls: this test sees nothing", len(walked))
	}
	// What it looks at once a second, and on a mount, is what operators say. It writes who mounts.
	state := regexp.MustCompile(`/\.rootnfsd/(rollout\.json|inventory\.json|nodes\.json|boots\.journal|\.tmp-)`)
	for _, c := range about(walked, "open.*|.*stat.*|statx|readlink.*|getdents.*|pread.*|preadv.*") {
		if !state.MatchString(c) {
			t.Errorf("a walk through directories made it call %s", c)
		}
	}
	read := systemCalls(t, daemon, func() {
		expectOutput(t, net, big, "nfs-cat", root+"/usr/share/big?version=3")
	})
	if len(about(read, "sendfile.*")) == 0 {
		t.Error("a large file did not go out by sendfile")
	}
	for _, c := range about(read, "open.*") {
		if strings.Contains(c, "/packs/") || strings.Contains(c, "/v1/") {
			t.Errorf("a read made it call %s", c)
		}
	}
}

// systemCalls returns the system calls that the daemon makes while f runs.
func systemCalls(t *testing.T, daemon *lab.Daemon, f func()) (calls []string) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "strace")
	strace := exec.Command("strace", "-f", "-e", "signal=none", "-o", out, "-p", fmt.Sprint(daemon.PID()))
	stderr, err := strace.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := strace.Start(); err != nil {
		t.Fatal(err)
	}
	if said, err := bufio.NewReader(stderr).ReadString('\n'); err != nil || !strings.Contains(said, "attached") {
		t.Fatalf("strace: %q, %v", said, err)
	}
	f()
	strace.Process.Signal(os.Interrupt)
	strace.Wait()
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if _, call, ok := strings.Cut(line, " "); ok {
			calls = append(calls, strings.TrimSpace(call))
		}
	}
	return calls
}
