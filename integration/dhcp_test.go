package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestDHCPConfigurations has the DHCP servers themselves check what is made for them: with no node, with a thousand, and with names that mean
// something else in their files.
func TestDHCPConfigurations(t *testing.T) {
	require(t, "dnsmasq", "kea-dhcp4", "dhcpd")
	dir := t.TempDir()
	store := filepath.Join(dir, "images")
	if err := os.Mkdir(store, 0o755); err != nil {
		t.Fatal(err)
	}
	odd := []string{"ignore", "infinite", "12h", "7", "a_b", "dead-beef", "host", "subnet", "range", "pi.example.org", "0x1", "set", "tag"}
	for _, nodes := range []int{0, len(odd), 1000} {
		csv := "name,address,mac\n"
		for i := range nodes {
			name := fmt.Sprintf("pi-%04d", i)
			if i < len(odd) {
				name = odd[i]
			}
			csv += fmt.Sprintf("%s,10.1.%d.%d,02:00:00:00:%02x:%02x\n", name, 10+i/250, 1+i%250, i/250, i%250)
		}
		file := filepath.Join(dir, "nodes.csv")
		if err := os.WriteFile(file, []byte(csv), 0o644); err != nil {
			t.Fatal(err)
		}
		cli(t, "node", "import", file, "--export", store)
		network := []string{"--export", store, "--server", "10.1.0.1", "--network", "10.1.0.0/16"}
		full := append([]string{"--range", "10.1.200.1,10.1.200.200", "--router", "10.1.0.254"}, network...)
		for _, c := range []struct {
			server string
			flags  []string
			check  string // the command that checks a file, whose name comes last
		}{
			{"dnsmasq", network, "dnsmasq --test --conf-file="},
			{"dnsmasq", append([]string{"--interface", "lo"}, full...), "dnsmasq --test --conf-file="},
			{"kea", full, "kea-dhcp4 -t "},
			{"isc-dhcp", full, "dhcpd -t -cf "},
		} {
			conf := filepath.Join(dir, c.server+".conf")
			text := cli(t, append([]string{"netboot", c.server}, c.flags...)...)
			if hosts := strings.Count(text, "02:00:00:00:"); hosts != nodes && len(c.flags) > len(network) {
				t.Errorf("%s has %d of %d nodes", c.server, hosts, nodes)
			}
			if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			check := strings.Fields(c.check + conf)
			if out := finish(t, exec.Command(check[0], check[1:]...)); out.status != 0 {
				t.Errorf("%s with %d nodes refuses what is made for it: %s%s", c.server, nodes, out.stdout, out.stderr)
			}
		}
	}
}
