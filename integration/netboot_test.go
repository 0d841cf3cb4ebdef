package integration

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rootnfsd/rootnfsd/integration/lab"
)

// TestNetboot boots a node by nothing but its firmware: iPXE in QEMU's network card asks dnsmasq for an address, and this
// server for all else. After a promote the next boot has the new kernel, the new initramfs and the new root; by then it is
// a router that gives out the addresses, and dnsmasq beside it tells only where to boot from (proxy DHCP).
func TestNetboot(t *testing.T) {
	t.Parallel() // with other guests, each of which keeps one processor busy
	require(t, "dnsmasq", "busybox")
	golden := openGolden(t)
	net := newNet(t)
	dir := kernelStore(t, golden)
	golden.Close() // for others
	store := "--export=" + dir
	cli(t, "seal", store)
	cli(t, "promote", "v1", store)
	cli(t, "node", "set", "pi-01", "--mac", "52:54:00:00:00:01", "--cmdline", "console=ttyS0 modules-load=overlay", store)
	stop := dhcp(t, net, dnsmasqConfig(t, store, "--range", "192.0.2.50,192.0.2.99"))
	serve(t, net, store, "--allow=192.0.2.0/24", "--tftp=:69")
	m, err := net.Node(1)
	if err != nil {
		t.Fatal(err)
	}
	g := boot(t, m)
	expectNetboot(t, g, "v1")
	cli(t, "promote", "v2", store)
	expectVersion(t, g, "v1")
	stop()
	router(t, net)
	dhcp(t, net, dnsmasqConfig(t, store))
	reboot(t, g, g.Machine())
	expectNetboot(t, g, "v2")

	type node struct {
		Name, MAC, Running, Promised string
		RebootNeeded                 bool `json:"reboot_needed"`
	}
	got := fmt.Sprint(cliJSON[[]node](t, "nodes", store))
	if want := fmt.Sprint([]node{{"pi-01", "52:54:00:00:00:01", "v2", "v2", false}}); got != want {
		t.Errorf("nodes: %s; want %s", got, want)
	}
}

// expectNetboot looks whether all of a node is of one version.
func expectNetboot(t *testing.T, g *lab.Guest, version string) {
	t.Helper()
	expectVersion(t, g, version)
	// The version of the boot protocol is in the header of the kernel's file.
	protocol := map[string]string{"v1": "0x020f\n", "v2": "0x020e\n"}[version]
	if got := in(t, g, "cat /sys/kernel/boot_params/version"); got != protocol {
		t.Errorf("the kernel has boot protocol %q; want that of %s, %q", got, version, protocol)
	}
	if got := in(t, g, "dmesg | grep -o 'initramfs of v[0-9]'"); got != "initramfs of "+version+"\n" {
		t.Errorf("the kernel log has %q; want the initramfs of %s", got, version)
	}
	line := in(t, g, "cat /proc/cmdline")
	for _, want := range []string{" nfsroot=" + lab.ServerAddress + ":/images@" + version + ",", " systemd.hostname=pi-01", " console=ttyS0 "} {
		if !strings.Contains(" "+strings.TrimSpace(line)+" ", want) {
			t.Errorf("the command line is %q; want%s", line, want)
		}
	}
	if got := in(t, g, "findmnt -no FSTYPE /; uname -n"); got != "overlay\npi-01\n" {
		t.Errorf("root and host name: %q; want an overlay and pi-01", got)
	}
}

// kernelStore is a store with the golden roots, of which each has a kernel and an initramfs of its own, as after an upgrade:
// the same programs, that say in a booted node of which version they are.
func kernelStore(t *testing.T, golden *lab.Golden) string {
	t.Helper()
	dir, err := os.MkdirTemp(filepath.Dir(golden.Store), "netboot")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	store := filepath.Join(dir, "images")
	if err := os.Mkdir(store, 0o755); err != nil {
		t.Fatal(err)
	}
	for version, protocol := range map[string]byte{"v1": 0x0f, "v2": 0x0e} {
		tree := filepath.Join(store, version)
		if r := finish(t, exec.Command("cp", "-al", golden.Tree(version), tree)); r.status != 0 {
			t.Fatal(r.stderr)
		}
		m, err := golden.Boot(version, lab.Machine{})
		if err != nil {
			t.Fatal(err)
		}
		kernel := []byte(readFile(t, m.Kernel))
		if at := 0x206; !bytes.Equal(kernel[at:at+2], []byte{0x0f, 2}) { // the kernel's Documentation/arch/x86/boot.rst
			t.Fatalf("%s has another boot protocol: %x", m.Kernel, kernel[at:at+2])
		} else {
			kernel[at] = protocol
		}
		replace(t, filepath.Join(tree, "boot", filepath.Base(m.Kernel)), kernel)
		replace(t, filepath.Join(tree, "boot", filepath.Base(m.Initrd)), append(initramfsOf(t, version), readFile(t, m.Initrd)...))
	}
	return store
}

// initramfsOf is what lies before an initramfs and makes that say of which version it is.
func initramfsOf(t *testing.T, version string) []byte {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "conf/conf.d/lab"), "echo initramfs of "+version+" >/dev/kmsg\n")
	cmd := exec.Command("sh", "-c", "find conf | busybox cpio -o -H newc")
	cmd.Dir = dir
	r := finish(t, cmd)
	if r.status != 0 {
		t.Fatal(r.stderr)
	}
	return []byte(r.stdout)
}

// replace puts a file in place of one that has other names, which keep what they have.
func replace(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

// dnsmasqConfig is what netboot prints for the network of a lab.
func dnsmasqConfig(t *testing.T, args ...string) string {
	t.Helper()
	return cli(t, append([]string{"netboot", "dnsmasq", "--server", lab.ServerAddress, "--interface", "br0", "--network", "192.0.2.0/24"}, args...)...)
}

// dhcp runs dnsmasq with a configuration until it is stopped, or the test ends.
func dhcp(t *testing.T, n *lab.Net, config string) (stop func()) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "conf")
	write(t, file, config)
	var log bytes.Buffer
	cmd := n.Command("dnsmasq", "--keep-in-foreground", "--conf-file="+file, "--log-facility=-", "--log-dhcp",
		"--dhcp-leasefile="+filepath.Join(dir, "leases"), "--pid-file="+filepath.Join(dir, "pid"), "--user=root")
	cmd.Stdout, cmd.Stderr = &log, &log
	stop = background(t, cmd)
	t.Cleanup(func() {
		stop()
		if t.Failed() {
			t.Logf("configuration of dnsmasq:\n%s\nits log:\n%s", config, &log)
		}
	})
	return stop
}

// router is a machine of its own that gives out addresses, and knows of no boot files.
func router(t *testing.T, n *lab.Net) {
	t.Helper()
	r := host(t, n, "192.0.2.254", "02:00:00:00:00:fe")
	dhcp(t, r, "port=0\ninterface=eth0\nno-ping\ndhcp-range=192.0.2.50,192.0.2.99,255.255.255.0,1h\n")
}
