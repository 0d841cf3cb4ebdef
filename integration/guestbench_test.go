package integration

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rootnfsd/rootnfsd/bench"
)

// TestLongGuestBench lets guestbench run for a short time and looks that it has
// measured everything, and that no call failed.
func TestLongGuestBench(t *testing.T) {
	long(t, "measures in a guest")
	require(t, "ip", "mmdebstrap", "mke2fs", "qemu-system-x86_64", "ganesha.nfsd")
	file := filepath.Join(t.TempDir(), "report.json")
	if out, err := exec.CommandContext(t.Context(), "go", "run", "./guestbench", "--quick", "--json", file).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	report, err := bench.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	servers := map[string]int{}
	for _, r := range report.Results {
		servers[r.Server]++
		for _, run := range r.Runs {
			if run.Calls == 0 || run.Errors != 0 {
				t.Errorf("%s of %s: %d calls, %d of them failed", r.Work, r.Server, run.Calls, run.Errors)
			}
		}
	}
	// 8 works race with 2 settings, and counted with one; 5 jobs of fio read from the host,
	// and as many in the guest.
	for server, want := range map[string]int{"rootnfsd": 34, "knfsd": 29, "nfs-ganesha": 5} {
		if servers[server] != want {
			t.Errorf("%d results of %s, want %d", servers[server], server, want)
		}
	}
}
