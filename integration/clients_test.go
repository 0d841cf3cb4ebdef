package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rootnfsd/rootnfsd/integration/lab"
)

// TestClients tries the NFS clients that run without a kernel's help.
func TestClients(t *testing.T) {
	require(t, "nfs-ls", "nfs-cat", "nfs-cp", "showmount", "rpcinfo")
	big := strings.Repeat("one line of a file that takes many reads\n", 100_000)
	store := newStore(t, map[string]files{"v1": {
		"etc/hostname": "golden\n", "usr/share/big": big, "usr/bin/tool": "",
	}})
	if err := os.Chmod(filepath.Join(store, "v1/usr/bin/tool"), 0o751); err != nil {
		t.Fatal(err)
	}

	t.Run("with the port mapper", func(t *testing.T) {
		net := newNet(t)
		daemon := serve(t, net, "--export", store)
		expectLog(t, daemon, "/images  v1  ", lab.ServerAddress+":2049", "nfsroot="+lab.ServerAddress+":/images,v3,tcp,", "port mapper: port 111")
		checkLibnfs(t, net, "version=3", big)
		checkShowmount(t, net)
		checkRPCInfo(t, net)
		// What was sealed is what is served, whatever becomes of the tree.
		write(t, filepath.Join(store, "v1/etc/hostname"), "edited\n")
		expectOutput(t, net, "golden\n", "nfs-cat", "nfs://127.0.0.1/images/etc/hostname?version=3")
	})
	t.Run("without", func(t *testing.T) {
		net := newNet(t)
		serve(t, net, "--export", store, "--listen", "127.0.0.1:12049", "--portmap", "off")
		checkLibnfs(t, net, "version=3&nfsport=12049&mountport=12049", big)
	})
}

// TestForeignPortMapper serves beside an rpcbind that has port 111.
func TestForeignPortMapper(t *testing.T) {
	require(t, "rpcbind", "rpcinfo", "nfs-cat", "unshare")
	net := newNet(t)
	// Its socket and its state must not be those of the machine's own rpcbind.
	rpcbind := net.Command("unshare", "--mount", "sh", "-c", "mount -t tmpfs tmpfs /run && exec rpcbind -f")
	background(t, rpcbind)
	for deadline := time.Now().Add(time.Minute); finish(t, net.Command("rpcinfo", "-p", "127.0.0.1")).status != 0; {
		if time.Now().After(deadline) {
			t.Fatal("rpcbind does not answer")
		}
		time.Sleep(20 * time.Millisecond)
	}

	store := newStore(t, map[string]files{"v1": smallTree})
	daemon := serve(t, net, "--export", store)
	expectLog(t, daemon, "rpcbind")
	expectOutput(t, net, "golden\n", "nfs-cat", "nfs://127.0.0.1/images/etc/hostname?version=3")
}

func checkLibnfs(t *testing.T, net *lab.Net, options, big string) {
	t.Helper()
	url := func(path string) string { return "nfs://127.0.0.1/images" + path + "?" + options }
	expectOutput(t, net, "golden\n", "nfs-cat", url("/etc/hostname"))

	listing := output(t, net, "nfs-ls", url("/usr/bin"))
	if fields := strings.Fields(listing); len(fields) < 6 || fields[0] != "-rwxr-x--x" || fields[len(fields)-1] != "tool" {
		t.Errorf("nfs-ls: %q; want tool, of mode 0751", listing)
	}

	copied := filepath.Join(t.TempDir(), "copied")
	output(t, net, "nfs-cp", url("/usr/share/big"), copied)
	if got, err := os.ReadFile(copied); err != nil || string(got) != big {
		t.Errorf("nfs-cp copied %d bytes (%v); want %d equal ones", len(got), err, len(big))
	}
	if r := finish(t, net.Command("nfs-cat", url("/etc/none"))); r.status == 0 || !strings.Contains(r.stderr, "NOENT") {
		t.Errorf("nfs-cat of a file that is not there: exit status %d, %q; want NOENT", r.status, r.stderr)
	}
}

func checkShowmount(t *testing.T, net *lab.Net) {
	t.Helper()
	exports := output(t, net, "showmount", "--no-headers", "--exports", "127.0.0.1")
	if !strings.Contains(exports, "/images ") || !strings.Contains(exports, "127.0.0.0/8") {
		t.Errorf("showmount -e: %q; want /images and the networks that may mount it", exports)
	}
	mounts := output(t, net, "showmount", "--no-headers", "--all", "127.0.0.1")
	if !strings.Contains(mounts, "127.0.0.1:/images") {
		t.Errorf("showmount -a: %q; want the mount of the clients before", mounts)
	}
}

func checkRPCInfo(t *testing.T, net *lab.Net) {
	t.Helper()
	rows := output(t, net, "rpcinfo", "-p", "127.0.0.1")
	for _, want := range []string{
		"100000 2 tcp 111", "100000 2 udp 111",
		"100003 3 tcp 2049",
		"100005 3 tcp 2049", "100005 3 udp 2049",
	} {
		if !hasRow(rows, want) {
			t.Errorf("rpcinfo -p does not list %q:\n%s", want, rows)
		}
	}
	for _, c := range []struct {
		transport string
		program   int
	}{{"-t", 100003}, {"-t", 100005}, {"-u", 100005}} {
		output(t, net, "rpcinfo", c.transport, "127.0.0.1", fmt.Sprint(c.program), "3")
	}
}

// hasRow reports whether a line of a table begins with the words of want.
func hasRow(table, want string) bool {
	for line := range strings.Lines(table) {
		if strings.HasPrefix(strings.Join(strings.Fields(line), " ")+" ", want+" ") {
			return true
		}
	}
	return false
}

// output runs a program in a network and returns its standard output.
func output(t *testing.T, net *lab.Net, program string, args ...string) string {
	t.Helper()
	r := finish(t, net.Command(program, args...))
	if r.status != 0 {
		t.Fatalf("%s %q: exit status %d\n%s%s", program, args, r.status, r.stdout, r.stderr)
	}
	return r.stdout
}

func expectOutput(t *testing.T, net *lab.Net, want, program string, args ...string) {
	t.Helper()
	if got := output(t, net, program, args...); got != want {
		t.Errorf("%s %q: %q; want %q", program, args, got, want)
	}
}
