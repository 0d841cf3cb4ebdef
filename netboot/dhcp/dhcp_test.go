package dhcp_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/rootnfsd/rootnfsd/netboot/dhcp"
)

// home is a network without nodes.
func home() dhcp.Config {
	return dhcp.Config{
		Server: netip.MustParseAddr("192.168.1.66"), Network: netip.MustParsePrefix("192.168.1.0/24"),
		From: netip.MustParseAddr("192.168.1.100"), To: netip.MustParseAddr("192.168.1.199"), Router: netip.MustParseAddr("192.168.1.1"),
	}
}

func host(name, mac, addr string) dhcp.Host {
	h := dhcp.Host{Name: name, MAC: mac}
	if addr != "" {
		h.Address = netip.MustParseAddr(addr)
	}
	return h
}

// texts returns what there is for each server.
func texts(t *testing.T, c dhcp.Config) map[string]string {
	t.Helper()
	if err := c.Check(); err != nil {
		t.Fatal(err)
	}
	kea, err := c.Kea()
	if err != nil {
		t.Fatal(err)
	}
	isc, err := c.ISC()
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{"dnsmasq": c.Dnsmasq(), "kea": kea, "isc": isc}
}

func TestCheck(t *testing.T) {
	addr := netip.MustParseAddr
	for want, change := range map[string]func(*dhcp.Config){
		"":                       func(*dhcp.Config) {},
		"IPv4 address":           func(c *dhcp.Config) { c.Server = addr("fd00::1") },
		"no network interface":   func(c *dhcp.Config) { c.Interface = "eth0\nport=53" },
		"no network of nodes":    func(c *dhcp.Config) { c.Network = netip.MustParsePrefix("fd00::/64") },
		"192.168.1.0/31 is no":   func(c *dhcp.Config) { c.Network = netip.MustParsePrefix("192.168.1.0/31") },
		"a first and a last":     func(c *dhcp.Config) { c.To = netip.Addr{} },
		"192.168.2.9 is no":      func(c *dhcp.Config) { c.To = addr("192.168.2.9") },
		"192.168.1.99 is no":     func(c *dhcp.Config) { c.To = addr("192.168.1.99") },
		"name server fd00::1 is": func(c *dhcp.Config) { c.DNS = []netip.Addr{addr("9.9.9.9"), addr("fd00::1")} },
		"the router 10.0.0.1 is": func(c *dhcp.Config) { c.Router = addr("10.0.0.1") },
		"the server's own":       func(c *dhcp.Config) { c.From, c.To = addr("192.168.1.60"), addr("192.168.1.66") },
		"the router's address":   func(c *dhcp.Config) { c.From, c.To = addr("192.168.1.1"), addr("192.168.1.2") },
		"the first or the last":  func(c *dhcp.Config) { c.From = addr("192.168.1.0") },
		"no machine can have":    func(c *dhcp.Config) { c.To = addr("192.168.1.255") },
	} {
		c := home()
		change(&c)
		err := c.Check()
		if (err != nil) != (want != "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q", err, want)
		}
	}
}

// TestAll has what each server must say.
func TestAll(t *testing.T) {
	for server, wants := range map[string][]string{
		"dnsmasq": {"port=0\n", "dhcp-range=192.168.1.100,192.168.1.199,255.255.255.0,12h\n", "option:router,192.168.1.1\n", "option:dns-server,192.168.1.1\n", `0,"Raspberry Pi Boot   "` + "\n",
			"option:tftp-server,192.168.1.66\n", ",boot.ipxe,,192.168.1.66\n"},
		"kea": {`"subnet": "192.168.1.0/24"`, `"192.168.1.100 - 192.168.1.199"`, `"next-server": "192.168.1.66"`, `"routers", "data": "192.168.1.1"`, `"domain-name-servers", "data": "192.168.1.1"`,
			"52617370626572727920506920426f6f74202020ff"},
		"isc": {"subnet 192.168.1.0 netmask 255.255.255.0 {", "range 192.168.1.100 192.168.1.199;", "next-server 192.168.1.66;", "routers 192.168.1.1;", "domain-name-servers 192.168.1.1;",
			"52:61:73:70:62:65:72:72:79:20:50:69:20:42:6f:6f:74:20:20:20:ff;"},
	} {
		text := texts(t, home())[server]
		for _, want := range wants {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %q in\n%s", server, want, text)
			}
		}
	}
}

func TestProxy(t *testing.T) {
	c := home()
	c.From, c.To, c.Router, c.Interface = netip.Addr{}, netip.Addr{}, netip.Addr{}, "eth0"
	c.Hosts = []dhcp.Host{host("pi-01", "dc:a6:32:01:36:c1", "192.168.1.21")}
	text := c.Dnsmasq()
	if !strings.Contains(text, "dhcp-range=tag:node,192.168.1.0,proxy\n") || !strings.Contains(text, "interface=eth0\n") || strings.Contains(text, "dhcp-host") || strings.Contains(text, "router") {
		t.Error(text)
	}
	// What another server says of the network stays as it is, and other machines that boot from the network are left alone.
	if strings.Contains(text, "dhcp-option") || !strings.Contains(text, "\ndhcp-mac=set:pi,dc:a6:32:*:*:*\n") {
		t.Error(text)
	}
	for _, line := range regexp.MustCompile(`(?m)^(pxe-service|dhcp-boot)=.*$`).FindAllString(text, -1) {
		if !strings.Contains(line, "=tag:pi,tag:!ipxe,") && !strings.Contains(line, "=tag:ipxe,") {
			t.Errorf("%s is for any machine", line)
		}
	}
	if _, err := c.Kea(); err == nil {
		t.Error("Kea goes beside another server")
	}
	if _, err := c.ISC(); err == nil {
		t.Error("ISC DHCP goes beside another server")
	}
}

// TestDNS: what nodes ask for names, and that a dnsmasq which resolves names goes on with it.
func TestDNS(t *testing.T) {
	addr := netip.MustParseAddr
	two := []netip.Addr{addr("9.9.9.9"), addr("192.168.1.66")}
	for _, c := range []struct {
		name              string
		change            func(*dhcp.Config)
		dnsmasq, kea, isc string // empty for none
	}{
		{"the router", func(*dhcp.Config) {}, "192.168.1.1", "192.168.1.1", "192.168.1.1"},
		{"two", func(c *dhcp.Config) { c.DNS = two }, "9.9.9.9,192.168.1.66", "9.9.9.9, 192.168.1.66", "9.9.9.9, 192.168.1.66"},
		{"none", func(c *dhcp.Config) { c.Router = netip.Addr{} }, "", "", ""},
		{"without a router", func(c *dhcp.Config) { c.Router, c.DNS = netip.Addr{}, two[:1] }, "9.9.9.9", "9.9.9.9", "9.9.9.9"},
		{"dnsmasq itself", func(c *dhcp.Config) { c.KeepDNS = true }, "", "192.168.1.1", "192.168.1.1"},
		{"others than dnsmasq", func(c *dhcp.Config) { c.KeepDNS, c.DNS = true, two[:1] }, "9.9.9.9", "9.9.9.9", "9.9.9.9"},
	} {
		conf := home()
		c.change(&conf)
		all := texts(t, conf)
		for server, want := range map[string]string{"dnsmasq": c.dnsmasq, "kea": c.kea, "isc": c.isc} {
			form := map[string]string{"dnsmasq": `(?m)^dhcp-option=option:dns-server,(.*)$`, "kea": `"domain-name-servers", "data": "([^"]*)"`, "isc": `option domain-name-servers (.*);`}[server]
			got := ""
			if m := regexp.MustCompile(form).FindStringSubmatch(all[server]); m != nil {
				got = m[1]
			}
			if got != want {
				t.Errorf("%s: %s tells of %q; want %q", c.name, server, got, want)
			}
		}
		if off := strings.Contains(all["dnsmasq"], "\nport=0\n"); off == conf.KeepDNS {
			t.Errorf("%s:\n%s", c.name, all["dnsmasq"])
		}
	}
}

// TestHosts: names that mean something else to a server are left out, nodes all the same get their addresses.
func TestHosts(t *testing.T) {
	c := home()
	c.Hosts = []dhcp.Host{
		host("pi-01", "dc:a6:32:01:36:c1", "192.168.1.21"), host("ignore", "dc:a6:32:01:36:c2", "192.168.1.22"),
		host("12h", "dc:a6:32:01:36:c3", "192.168.1.23"), host("a_b", "dc:a6:32:01:36:c4", "192.168.1.24"),
		host("infinite", "dc:a6:32:01:36:c5", "192.168.1.25"), host("pi.example.org", "dc:a6:32:01:36:c6", "192.168.1.26"),
		{Name: "pi-07", Hostname: "kitchen", MAC: "dc:a6:32:01:36:c7", Address: netip.MustParseAddr("192.168.1.27")},
		host("no-mac", "", "192.168.1.28"), host("no-address", "dc:a6:32:01:36:c8", ""), host("elsewhere", "dc:a6:32:01:36:c9", "10.0.0.1"),
		host("server", "dc:a6:32:01:36:ca", "192.168.1.66"), host("router", "dc:a6:32:01:36:cb", "192.168.1.1"),
	}
	all := texts(t, c)
	names := map[string]*regexp.Regexp{
		"dnsmasq": regexp.MustCompile(`(?m)^dhcp-host=[0-9a-f:]{17},192\.168\.1\.(\d+)(?:,([A-Za-z0-9-]+)| # \S+)$`),
		"kea":     regexp.MustCompile(`"hw-address": "[0-9a-f:]{17}", "ip-address": "192\.168\.1\.(\d+)"(?:, "hostname": "([^"]*)")?}`),
		"isc":     regexp.MustCompile(`(?m)^host node\d+ { hardware ethernet [0-9a-f:]{17}; fixed-address 192\.168\.1\.(\d+);(?: option host-name "([^"]*)";)? } # \S+$`),
	}
	for server, form := range names {
		got := ""
		for _, m := range form.FindAllStringSubmatch(all[server], -1) {
			got += m[1] + m[2] + " "
		}
		if got != "21pi-01 22 23 24 25 26pi 27kitchen " {
			t.Errorf("%s: hosts %s in\n%s", server, got, all[server])
		}
		if !strings.Contains(all[server], ": no-mac no-address elsewhere server router\n") {
			t.Errorf("%s does not say who is left out:\n%s", server, all[server])
		}
	}
}

// TestKeaIsJSON: without its comments.
func TestKeaIsJSON(t *testing.T) {
	for _, n := range []int{0, 1, 1000} {
		c := home()
		c.Network = netip.MustParsePrefix("10.0.0.0/8")
		c.From, c.To, c.Router, c.Interface = netip.MustParseAddr("10.1.0.0"), netip.MustParseAddr("10.2.0.0"), netip.Addr{}, "eth0"
		for i := range n {
			c.Hosts = append(c.Hosts, host(fmt.Sprintf("pi-%04d", i), fmt.Sprintf("02:00:00:00:%02x:%02x", i>>8, i&255), fmt.Sprintf("10.9.%d.%d", i>>8, i&255)))
		}
		text := regexp.MustCompile(`(?m)^ *//.*$`).ReplaceAllString(texts(t, c)["kea"], "")
		var conf struct {
			Dhcp4 struct {
				Subnets []struct {
					Reservations []struct{ Hostname string }
				} `json:"subnet4"`
			}
		}
		if err := json.Unmarshal([]byte(text), &conf); err != nil {
			t.Fatalf("%d nodes: %v in\n%s", n, err, text)
		}
		if r := conf.Dhcp4.Subnets[0].Reservations; len(r) != n || n > 0 && r[n-1].Hostname != fmt.Sprintf("pi-%04d", n-1) {
			t.Errorf("%d reservations; want %d", len(r), n)
		}
	}
}
