package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestNetbootCommand(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	none := filepath.Join(dir, "none.yaml")
	if err := os.WriteFile(none, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("ROOTNFSD_CONFIG", none)
	t.Setenv("ROOTNFSD_EXPORT", "")
	run := func(args string) (string, error) {
		return runApp(append([]string{"netboot"}, strings.Fields(args+" --server 10.0.0.1 --network 10.0.0.0/24")...)...)
	}
	const full = " --range 10.0.0.10,10.0.0.99 --router 10.0.0.254"
	check := func(name, args string, wants ...string) {
		t.Helper()
		text, err := run(args)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, want := range wants {
			want, without := strings.CutPrefix(want, "!")
			if strings.Contains(text, want) == without {
				t.Errorf("%s: %q, without it: %v, in\n%s", name, want, without, text)
			}
		}
	}
	// There is no store yet.
	check("proxy", "dnsmasq", "\nport=0\n", "10.0.0.0,proxy\n", "!dns-server")
	check("beside Pi-hole", "dnsmasq --keep-dns", "!\nport=0\n")
	check("the router resolves names", "dnsmasq"+full, "dns-server,10.0.0.254\n", "!dhcp-host")
	check("others do", "isc-dhcp --dns 9.9.9.9,10.0.0.1"+full, "domain-name-servers 9.9.9.9, 10.0.0.1;")
	for args, want := range map[string]string{
		"dnsmasq --dns 9.9.9.9": "--range", "kea --dns 9.9.9.x" + full: "--dns 9.9.9.x", "kea --dns fd00::1" + full: "IPv4",
		"kea": "--range", "dnsmasq --export nowhere": "there is no store at nowhere", "kea --keep-dns" + full: "keep-dns",
	} {
		if text, err := run(args); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %s, %v; want %s", args, text, err, want)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "images", ".rootnfsd"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := runApp("node", "set", "pi-01", "--address", "10.0.0.11", "--mac", "dc:a6:32:01:36:c2"); err != nil {
		t.Fatal(err)
	}
	check("a node with a name", "dnsmasq"+full, "dhcp-host=dc:a6:32:01:36:c2,10.0.0.11,pi-01\n")
}
