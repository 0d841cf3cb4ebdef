package integration

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rootnfsd/rootnfsd/integration/lab"
)

// bootTree is a version of a Raspberry Pi's with some name.
func bootTree(name string) files {
	return files{
		"etc/hostname":                 name + "\n",
		"boot/firmware/start4.elf":     "firmware of " + name + "\n",
		"boot/firmware/kernel8.img":    strings.Repeat("kernel of "+name+"\n", 50_000),
		"boot/firmware/cmdline.txt":    "console=tty1 root=PARTUUID=1-02 rootwait quiet\n",
		"boot/firmware/overlays/a.dtb": "overlay of " + name + "\n",
	}
}

// fetch gets a boot file.
func fetch(t *testing.T, net *lab.Net, name string) string {
	t.Helper()
	return output(t, net, "curl", "--silent", "--show-error", "--max-time", "60", "tftp://"+lab.ServerAddress+"/"+name)
}

// TestBootFilesServed: what a node fetches, and then mounts, is one version, whatever is promoted meanwhile.
func TestBootFilesServed(t *testing.T) {
	require(t, "curl", "nfs-cat")
	store := newStore(t, map[string]files{"v1": bootTree("v1"), "v2": bootTree("v2")})
	at := "--export=" + store
	cli(t, "promote", "v1", at)
	net := newNet(t)
	daemon := serve(t, net, at, "--tftp", ":69", "--allow", "192.0.2.0/24")
	expectLog(t, daemon, "boot files: TFTP on "+lab.ServerAddress+":69")
	cli(t, "node", "set", "pi-07", "--serial", "0660cd37", "--cmdline", "panic=3", at)

	expect := func(version string) {
		t.Helper()
		if got, want := fetch(t, net, "0660cd37/kernel8.img"), bootTree(version)["boot/firmware/kernel8.img"]; got != want {
			t.Errorf("the kernel begins with %.20q; want %.20q", got, want)
		}
		if got, want := fetch(t, net, "0660cd37/overlays/a.dtb"), "overlay of "+version+"\n"; got != want {
			t.Errorf("%q; want %q", got, want)
		}
		line := fetch(t, net, "0660cd37/cmdline.txt")
		if want := cli(t, "cmdline", "--node", "pi-07", "--server", lab.ServerAddress, "--version", version, at); line != want {
			t.Errorf("the command line is\n%swhich cmdline says is\n%s", line, want)
		}
		if want := "nfsroot=" + lab.ServerAddress + ":/images@" + version + ",v3,"; !strings.Contains(line, want) || !strings.HasSuffix(line, " panic=3\n") {
			t.Errorf("%q; want %s in it", line, want)
		}
	}
	if got := fetch(t, net, "0660cd37/start4.elf"); got != "firmware of v1\n" {
		t.Errorf("%q", got)
	}
	cli(t, "promote", "v2", at)
	expect("v1")
	expectOutput(t, net, "v1\n", "nfs-cat", "nfs://"+lab.ServerAddress+"/images/etc/hostname?version=3")
	if got := fetch(t, net, "0660cd37/start4.elf"); got != "firmware of v2\n" {
		t.Errorf("the next boot: %q", got)
	}
	expect("v2")
	nodes := cliJSON[[]struct {
		Name    string
		Netboot struct{ Serial, Version string }
	}](t, "node", "show", "pi-07", "--json", at)
	if len(nodes) != 1 || nodes[0].Netboot.Serial != "0660cd37" || nodes[0].Netboot.Version != "v2" {
		t.Errorf("node show says %+v", nodes)
	}
	// Of one that says nothing and has no name, the kernel knows the card.
	fetch(t, host(t, net, "192.0.2.77", "02:00:00:00:00:77"), "start4.elf")
	type node struct{ Name, Address, MAC, State string }
	if got, want := fmt.Sprint(cliJSON[[]node](t, "nodes", "192.0.2.77", at)), fmt.Sprint([]node{{"", "192.0.2.77", "02:00:00:00:00:77", "new"}}); got != want {
		t.Errorf("nodes: %s; want %s", got, want)
	}
	for _, name := range []string{"nothing", "../../etc/hostname", "overlays"} {
		if out := finish(t, net.Command("curl", "--silent", "--max-time", "60", "tftp://"+lab.ServerAddress+"/"+name, "--path-as-is")); out.status == 0 {
			t.Errorf("%s is %q", name, out.stdout)
		}
	}
}

// TestTFTPPort: another program that has the port is named.
func TestTFTPPort(t *testing.T) {
	require(t, "dnsmasq")
	store := newStore(t, map[string]files{"v1": bootTree("v1")})
	net := newNet(t)
	dnsmasq := net.Command("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--enable-tftp", "--tftp-root="+store, "--log-facility=-", "--pid-file=", "--user=root")
	said, err := dnsmasq.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	background(t, dnsmasq)
	if _, err := said.Read(make([]byte, 100)); err != nil { // it speaks when it listens
		t.Fatal(err)
	}
	out := finish(t, net.Command(rootnfsd, "serve", "--export", store, "--tftp", ":69"))
	if out.status == 0 || !strings.Contains(out.stderr, "dnsmasq (process ") || !strings.Contains(out.stderr, "enable-tftp") || !strings.Contains(out.stderr, "--tftp") {
		t.Errorf("exit status %d: %s", out.status, out.stderr)
	}
	if _, err := os.Stat(filepath.Join(store, ".rootnfsd/versions/v1")); err == nil {
		t.Error("it sealed a version before it saw that the port is taken")
	}
}

// TestServesWhileSealing holds the lock that sealing needs: nodes get what is there all the same.
func TestServesWhileSealing(t *testing.T) {
	require(t, "curl", "nfs-cat")
	store := newStore(t, map[string]files{"v1": bootTree("v1")})
	cli(t, "promote", "v1", "--export", store)
	mkdir(t, filepath.Join(store, "v2"))
	lockStore(t, store)
	net := newNet(t)
	serveUnready(t, net, "--export", store, "--tftp", ":69", "--allow", "192.0.2.0/24")
	askUntil(t, net, func(r result) bool { return r.stdout == "v1\n" })
	if got := fetch(t, net, "kernel8.img"); got != bootTree("v1")["boot/firmware/kernel8.img"] {
		t.Errorf("%.20q", got)
	}
	if got := versionNames(t, store); len(got) != 1 {
		t.Errorf("there are %q: the test holds nothing up", got)
	}
}

// TestTooEarly: a node for which there is nothing yet is told what makes it ask again, and gets its files then.
func TestTooEarly(t *testing.T) {
	require(t, "curl", "nfs-cat")
	store := newStore(t, map[string]files{"v1": bootTree("v1")})
	unlock := lockStore(t, store)
	net := newNet(t)
	serveUnready(t, net, "--export", store, "--tftp", ":69", "--allow", "192.0.2.0/24")
	askUntil(t, net, func(r result) bool { return strings.Contains(r.stderr, "NOENT") }) // upon which nfsmount tries again
	const timedOut = 28
	if r := finish(t, net.Command("curl", "--silent", "--max-time", "2", "tftp://"+lab.ServerAddress+"/start4.elf")); r.status != timedOut {
		t.Errorf("curl ends with %d, having got %q; want that it gets no answer", r.status, r.stdout)
	}
	unlock()
	askUntil(t, net, func(r result) bool { return r.stdout == "v1\n" })
	if got := fetch(t, net, "start4.elf"); got != "firmware of v1\n" {
		t.Errorf("%q", got)
	}
}

// serveUnready starts a server, which may not be ready, until the test ends.
func serveUnready(t *testing.T, net *lab.Net, args ...string) {
	t.Helper()
	server := net.Command(rootnfsd, append([]string{"serve"}, args...)...)
	log := new(bytes.Buffer)
	server.Stdout, server.Stderr = log, log
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of rootnfsd:\n%s", log)
		}
	})
	background(t, server)
}

// askUntil mounts and reads until the outcome is the one that is waited for.
func askUntil(t *testing.T, net *lab.Net, done func(result) bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		r := finish(t, net.Command("timeout", "20", "nfs-cat", "nfs://"+lab.ServerAddress+"/images/etc/hostname?version=3"))
		if done(r) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the server answers with %q %q", r.stdout, r.stderr)
		}
	}
}

// lockStore takes the lock of who changes a store's versions, until unlock is called.
func lockStore(t *testing.T, store string) (unlock func()) {
	t.Helper()
	mkdir(t, filepath.Join(store, ".rootnfsd"))
	f, err := os.OpenFile(filepath.Join(store, ".rootnfsd", "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err == nil {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return func() { f.Close() }
}
