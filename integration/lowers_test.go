package integration

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rootnfsd/rootnfsd/integration/lab"
)

// TestConsistentLowers holds running nodes to the exact version that they
// booted: through promotions, and through crashes of the server.
func TestConsistentLowers(t *testing.T) {
	golden := openGolden(t)
	net := newNet(t)
	store := "--export=" + golden.Store
	cli(t, "promote", "v1", store)
	daemon := serveBy(t, lab.ServeHeld, net, store, "--allow=192.0.2.0/24")

	a := node(t, golden, net, 1, "v1")
	in(t, a, "echo scratch >/written; echo scratch >>/etc/version-marker; rm /etc/hostname; sync")
	startReader(t, a)

	cli(t, "promote", "v2", store)
	b := node(t, golden, net, 2, "v2")
	expectVersion(t, b, "v2")
	expectVersion(t, a, "v1")
	startReader(t, b)

	for range 10 {
		crash(t, daemon, a, b)
	}
	expectVersion(t, a, "v1")
	expectVersion(t, b, "v2")
	checkReader(t, a)
	checkReader(t, b)

	t.Run("remove refuses a version that a node runs", func(t *testing.T) {
		r := finish(t, exec.Command(rootnfsd, "remove", "v1", store))
		if r.status != 1 || !strings.Contains(r.stderr, address(a)) {
			t.Errorf("remove v1: exit status %d, %q; want 1 and %s named", r.status, r.stderr, address(a))
		}
	})
	t.Run("nodes tells who runs what", func(t *testing.T) {
		type node struct {
			Address, Running, Promised string
			RebootNeeded               bool `json:"reboot_needed"`
		}
		got := fmt.Sprint(cliJSON[[]node](t, "nodes", store))
		if want := fmt.Sprint([]node{{address(a), "v1", "v2", true}, {address(b), "v2", "v2", false}}); got != want {
			t.Errorf("nodes: %s; want %s", got, want)
		}
	})

	// All go back to v1, but for a node that is pinned to v2 and one that is a canary for it.
	cli(t, "rollback", store)
	cli(t, "node", "set", "pi-01", "--address", address(a), store)
	cli(t, "pin", "pi-01", "v2", store)
	cli(t, "node", "set", "pi-02", "--address", lab.NodeAddress(3), "--label", "canary", store)
	cli(t, "promote", "v2", "--label", "canary", store)
	reboot(t, a, withKernel(t, golden, "v2", a.Machine()))
	c := node(t, golden, net, 3, "v2")
	for _, g := range []*lab.Guest{a, b, c} {
		expectVersion(t, g, "v2")
	}
	if got := in(t, a, "cat /etc/version-marker; ls -d /written /etc/hostname 2>/dev/null || true"); got != "v2\n/etc/hostname\n" {
		t.Errorf("after a reboot: %q; want v2, /etc/hostname back and /written gone", got)
	}
	if got := in(t, b, "mount -o ro,vers=3,nolock "+lab.ServerAddress+":/images /mnt; cat /mnt/etc/version-marker; umount /mnt"); got != "v1\n" {
		t.Errorf("after a rollback a mount of a node without a name has %q; want v1", got)
	}

	t.Run("nodes with names differ in who they are", func(t *testing.T) {
		if first, second := identity(t, golden, a, "pi-01"), identity(t, golden, c, "pi-02"); first == second {
			t.Error("two nodes have the same machine-id")
		}
		if got, want := in(t, b, "cat /etc/hostname"), readFile(t, golden.Tree("v2")+"/etc/hostname"); got != want {
			t.Errorf("a node without a name has the host name %q; want that of its version, %q", got, want)
		}
	})
}

// identity looks at who a node is that has a name, at once, as every process costs an emulated node a tenth
// of a second, and returns its machine-id.
func identity(t *testing.T, golden *lab.Golden, g *lab.Guest, name string) (machineID string) {
	t.Helper()
	const script = `systemd-id128 machine-id; cat /media/root-ro/etc/machine-id; uname -n; cat /etc/hostname
		cd /etc/ssh; keys="ssh_host_ed25519_key ssh_host_ecdsa_key"
		stat -c '%n %a %u %g' $keys; cat $keys
		cd /media/root-ro/etc/ssh
		stat -c '%n %a %u %g' $keys
		runuser -u ubuntu -- sh -c "cat $keys /etc/ssh/ssh_host_ed25519_key; exit 0" 2>&1 | grep -c 'Permission denied$'`
	machineID, rest, _ := strings.Cut(in(t, g, script), "\n")
	const modes = "ssh_host_ed25519_key 600 0 0\nssh_host_ecdsa_key 600 0 0\n"
	keys := golden.Store + "/.rootnfsd/node-keys/" + name + "/ssh_host_"
	want := machineID + "\n" + name + "\n" + name + "\n" + modes + readFile(t, keys+"ed25519_key") + readFile(t, keys+"ecdsa_key") + modes + "3\n"
	if len(machineID) != 32 || rest != want {
		t.Errorf("%s has the machine-id %q, and then says\n%s\nwant\n%s", name, machineID, rest, want)
	}
	return machineID
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// node boots a node with an address of its own from a version's kernel.
func node(t *testing.T, golden *lab.Golden, net *lab.Net, number int, version string) *lab.Guest {
	t.Helper()
	m, err := net.Node(number)
	if err != nil {
		t.Fatal(err)
	}
	return boot(t, withKernel(t, golden, version, m))
}

// withKernel gives a machine the kernel and initramfs of a version, as a boot server does.
func withKernel(t *testing.T, golden *lab.Golden, version string, m lab.Machine) lab.Machine {
	t.Helper()
	m, err := golden.Boot(version, m)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// expectVersion looks at the lower root itself, past the caches.
func expectVersion(t *testing.T, g *lab.Guest, want string) {
	t.Helper()
	other := map[string]string{"v1": "comes", "v2": "leaves"}[want]
	got := in(t, g, "echo 3 >/proc/sys/vm/drop_caches; cd /media/root-ro; cat etc/version-marker; head -1 usr/share/lab/big; ls usr/share/lab")
	if !strings.HasPrefix(got, want+"\n"+want+" 1\n") || strings.Contains(got, other) {
		t.Errorf("%s runs %q; want %s and nothing else", address(g), got, want)
	}
}

func address(g *lab.Guest) string { return lab.NodeAddress(g.Machine().Number) }

// startReader starts a process in the node that reads the lower root all the
// time and holds it against the checksums of its version (lab/recipe/reader.sh).
func startReader(t *testing.T, g *lab.Guest) {
	t.Helper()
	in(t, g, "setsid lab-reader >/dev/null 2>&1 & echo $! >/run/lab-reader.pid; while [ ! -s /run/lab-reader/files ]; do sleep 0.2; done")
	awaitReader(t, g)
}

// awaitReader returns when the reader has read two more files, and says how
// long it had paused since the last call: the longest time in which no file was
// done, 0 if that is under half a second.
func awaitReader(t *testing.T, g *lab.Guest) time.Duration {
	t.Helper()
	const script = `cd /run/lab-reader && files=$(cat files) &&
		for try in $(seq 600); do
			if [ "$(cat files)" -ge $((files + 2)) ]; then
				cat gaps 2>/dev/null
				rm -f gaps
				exit
			fi
			sleep 0.2
		done; exit 1`
	gaps, err := tryIn(t, g, script)
	if err != nil {
		t.Fatalf("%s reads no more: %v", address(g), err)
	}
	var longest time.Duration
	for gap := range strings.FieldsSeq(gaps) {
		us, err := strconv.Atoi(gap)
		if err != nil {
			t.Fatal(err)
		}
		longest = max(longest, time.Duration(us)*time.Microsecond)
	}
	return longest
}

// crash kills the daemon under nodes that read, starts it again, and returns
// when all of them go on. It logs how long the reading paused. The sockets stay
// open meanwhile, as they do under systemd: a client whose connection breaks
// connects again at once, and were that refused it would wait three seconds
// (call_connect_status in net/sunrpc/clnt.c).
func crash(t *testing.T, daemon *lab.Daemon, nodes ...*lab.Guest) {
	t.Helper()
	killed := time.Now()
	daemon.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := daemon.Start(ctx); err != nil {
		t.Fatal(err)
	}
	report := fmt.Sprintf("the daemon was away for %.2f s; reading paused", time.Since(killed).Seconds())
	for _, g := range nodes {
		report += fmt.Sprintf(" %.1f s on %s,", awaitReader(t, g).Seconds(), address(g))
	}
	t.Log(strings.TrimSuffix(report, ","))
}

// checkReader fails the test where the reader found something wrong, and ends it: others
// boot faster without.
func checkReader(t *testing.T, g *lab.Guest) {
	t.Helper()
	if wrong := in(t, g, "head -20 /run/lab-reader/wrong 2>/dev/null || true"); wrong != "" {
		t.Errorf("%s read what is not in its version:\n%s", address(g), wrong)
	}
	if kernel := in(t, g, "dmesg | grep -iE 'stale file handle|input/output error|nfs.*error' || true"); kernel != "" {
		t.Errorf("the kernel of %s complained:\n%s", address(g), kernel)
	}
	var files, listed int
	out := in(t, g, "cd /run/lab-reader; cat files; wc -l <manifest")
	if _, err := fmt.Sscan(out, &files, &listed); err != nil || listed == 0 || files < listed {
		t.Errorf("%s read %d files, %d are listed (%v); want each once at least", address(g), files, listed, err)
	}
	in(t, g, "kill -- -$(cat /run/lab-reader.pid)")
	t.Logf("%s read %d files", address(g), files)
}
