// Package dhcp writes what a DHCP server has to say for nodes to find their boot files: configurations of dnsmasq, Kea
// and ISC DHCP.
//
// It owns their forms. It must not know where nodes and addresses come from, and runs nothing.
package dhcp

import (
	"cmp"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strings"
)

// Config is what a network is like. Its methods return texts of their own, and change nothing.
type Config struct {
	Server    netip.Addr   // of boot files, IPv4
	Interface string       // of the machine that DHCP is answered on; empty for all
	Network   netip.Prefix // of the nodes, IPv4
	// From and To are the first and the last address that nodes without one of their own get. If they are not valid,
	// another DHCP server gives out addresses.
	From, To netip.Addr
	Router   netip.Addr // not valid for none
	// DNS are the name servers that nodes are told of where addresses are given out; none for the router, if there is one.
	DNS []netip.Addr
	// KeepDNS is for a dnsmasq that resolves names, too: it goes on with that, and tells nodes of itself unless DNS has others.
	KeepDNS bool
	Hosts   []Host
}

// Host is a node that gets the same address each time.
type Host struct {
	Name     string
	Hostname string // what it calls itself; empty for its name
	MAC      string // as in dc:a6:32:01:36:c2
	Address  netip.Addr
}

var interfaceForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,14}$`)

// Check says what is wrong with the network. A Config for which it is nil makes no file that its server refuses.
func (c *Config) Check() error {
	switch {
	case !c.Server.Is4():
		return fmt.Errorf("%s: boot loaders need an IPv4 address of the server", c.Server)
	case c.Interface != "" && !interfaceForm.MatchString(c.Interface):
		return fmt.Errorf("%q is no network interface, such as eth0", c.Interface)
	case !c.Network.IsValid() || !c.Network.Addr().Is4() || c.Network.Bits() < 8 || c.Network.Bits() > 30:
		return fmt.Errorf("%s is no network of nodes, such as 192.168.1.0/24", c.Network)
	case c.From.IsValid() != c.To.IsValid():
		return errors.New("a range of addresses has a first and a last one")
	case c.From.IsValid() && (!c.Network.Contains(c.From) || !c.Network.Contains(c.To) || c.To.Less(c.From)):
		return fmt.Errorf("%s to %s is no range of addresses in %s", c.From, c.To, c.Network)
	case c.gives(c.Network.Masked().Addr()) || c.gives(broadcast(c.Network)):
		return fmt.Errorf("%s to %s has the first or the last address of %s in it, which no machine can have", c.From, c.To, c.Network.Masked())
	case c.gives(c.Server):
		return fmt.Errorf("%s to %s has the server's own address in it, %s", c.From, c.To, c.Server)
	case c.Router.IsValid() && c.gives(c.Router):
		return fmt.Errorf("%s to %s has the router's address in it, %s", c.From, c.To, c.Router)
	case c.Router.IsValid() && !c.Network.Contains(c.Router):
		return fmt.Errorf("the router %s is not in the network %s", c.Router, c.Network)
	}
	for _, a := range c.DNS {
		if !a.Is4() || a.IsUnspecified() {
			return fmt.Errorf("the name server %s is no IPv4 address", a)
		}
	}
	return nil
}

// gives reports whether an address is in the range that nodes get.
func (c *Config) gives(a netip.Addr) bool {
	return c.Full() && !a.Less(c.From) && !c.To.Less(a)
}

// broadcast returns the last address of a network of IPv4.
func broadcast(p netip.Prefix) netip.Addr {
	a := p.Masked().Addr().As4()
	for i, m := range net.CIDRMask(p.Bits(), 32) {
		a[i] |= ^m
	}
	return netip.AddrFrom4(a)
}

// Full reports whether the DHCP server that is configured gives out addresses.
func (c *Config) Full() bool { return c.From.IsValid() }

// dns returns the name servers that nodes are told of, separated by a text; empty for none.
func (c *Config) dns(separator string) string {
	if len(c.DNS) == 0 && c.Router.IsValid() {
		return c.Router.String()
	}
	var texts []string
	for _, a := range c.DNS {
		texts = append(texts, a.String())
	}
	return strings.Join(texts, separator)
}

// hosts returns those that can be in the configuration, and the names of the others.
func (c *Config) hosts() (hosts []Host, left []string) {
	for _, h := range c.Hosts {
		if h.MAC == "" || !h.Address.Is4() || !c.Network.Contains(h.Address) || h.Address == c.Server || h.Address == c.Router {
			left = append(left, h.Name)
			continue
		}
		hosts = append(hosts, h)
	}
	return hosts, left
}

// plainName is a host name that cannot be taken for anything else: dnsmasq has times and words where a name may be.
var plainName = regexp.MustCompile(`^[A-Za-z]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)

// name returns the name to give to a host by DHCP, up to its first dot; empty if there is none that all programs take.
func (h *Host) name() string {
	name, _, _ := strings.Cut(cmp.Or(h.Hostname, h.Name), ".")
	if !plainName.MatchString(name) || name == "ignore" || name == "infinite" {
		return ""
	}
	return name
}

// piPrefixes are what the MAC addresses of Raspberry Pis begin with, as the IEEE has assigned them.
var piPrefixes = []string{"b8:27:eb", "dc:a6:32", "e4:5f:01", "d8:3a:dd", "28:cd:c1", "2c:cf:67", "88:a2:9e"}

// piService is what the firmware of a Raspberry Pi looks for in an answer. The ROM of a Pi 3 wants the three spaces.
const piService = "Raspberry Pi Boot   "

// piOption returns option 43 as the firmware takes it, in the form of PXE (version 2.1, section 2.3): discovery control, a menu prompt without
// a wait, and a menu of one entry.
func piOption() []byte {
	b := []byte{6, 1, 3, 10, 4, 0, 'P', 'X', 'E', 9, byte(3 + len(piService)), 0, 0, byte(len(piService))}
	return append(append(b, piService...), 255)
}

// text is a configuration that is being written.
type text struct{ strings.Builder }

func (t *text) line(format string, args ...any) { fmt.Fprintf(t, format+"\n", args...) }

// Dnsmasq returns a configuration of dnsmasq (dnsmasq(8)).
func (c *Config) Dnsmasq() string {
	var t text
	t.line("# Boot files of rootnfsd, at %s: for /etc/dnsmasq.d/rootnfsd.conf", c.Server)
	t.line("")
	if c.KeepDNS {
		t.line("# This dnsmasq goes on with DNS. It must have no enable-tftp, for the boot files come from rootnfsd.")
	} else {
		t.line("# DHCP alone: no enable-tftp, for the boot files come from rootnfsd; and port=0 is no DNS. Where this dnsmasq resolves names")
		t.line("# for others (Pi-hole does), take that line away: rootnfsd netboot dnsmasq --keep-dns leaves it out.")
		t.line("port=0")
	}
	if c.Interface != "" {
		t.line("interface=%s", c.Interface)
	}
	t.line("")
	if c.Full() {
		t.line("# Addresses for nodes that have none of their own below.")
		t.line("dhcp-range=%s,%s,%s,12h", c.From, c.To, netmask(c.Network))
		if c.Router.IsValid() {
			t.line("dhcp-option=option:router,%s", c.Router)
		} else {
			t.line("dhcp-option=option:router # none: nodes reach this network alone")
		}
		if dns := c.dns(","); dns != "" && (len(c.DNS) > 0 || !c.KeepDNS) {
			t.line("dhcp-option=option:dns-server,%s", dns)
		}
	} else {
		t.line("# Another server gives out the addresses; this one adds where to boot from, for Raspberry Pis and iPXE alone.")
		t.line("dhcp-range=tag:node,%s,proxy", c.Network.Masked().Addr())
		t.line("tag-if=set:node,tag:pi")
		t.line("tag-if=set:node,tag:ipxe")
	}
	t.line("")
	if c.Full() {
		t.line("# What the firmware of a Raspberry Pi looks for. A Pi 3 wants the spaces.")
		t.line("pxe-service=tag:!ipxe,0,%q", piService)
		t.line("")
		t.line("# Where the boot files are: for firmware that reads option 66, and for that which reads the header.")
		t.line("dhcp-option=option:tftp-server,%s", c.Server)
		t.line("dhcp-boot=tag:!ipxe,tag:!efi64,,,%s", c.Server)
	} else {
		t.line("# Raspberry Pis, by what their MAC addresses begin with: a PC would take an answer without a file for a failure. Add what is")
		t.line("# missing for a newer one.")
		for _, prefix := range piPrefixes {
			t.line("dhcp-mac=set:pi,%s:*:*:*", prefix)
		}
		t.line("")
		t.line("# What their firmware looks for, and where the boot files are. A Pi 3 wants the spaces.")
		t.line("pxe-service=tag:pi,tag:!ipxe,0,%q", piService)
		t.line("dhcp-boot=tag:pi,tag:!ipxe,,,%s", c.Server)
	}
	t.line("")
	t.line("# iPXE, which says so by option 175: the network ROM of QEMU is one. Others need it first: put it")
	t.line("# into the boot directory of the image, as ipxe.efi, and take away the signs.")
	t.line("dhcp-match=set:ipxe,175")
	t.line("dhcp-boot=tag:ipxe,boot.ipxe,,%s", c.Server)
	t.line("#dhcp-match=set:efi64,option:client-arch,7")
	if !c.Full() {
		t.line("#tag-if=set:node,tag:efi64")
	}
	t.line("#dhcp-boot=tag:efi64,tag:!ipxe,ipxe.efi,,%s", c.Server)
	if !c.Full() {
		return t.String()
	}
	hosts, left := c.hosts()
	t.line("")
	t.line("# The nodes whose MAC address is known (rootnfsd node list).")
	for _, h := range hosts {
		if name := h.name(); name != "" {
			t.line("dhcp-host=%s,%s,%s", h.MAC, h.Address, name)
		} else {
			t.line("dhcp-host=%s,%s # %s", h.MAC, h.Address, h.Name)
		}
	}
	c.leftOut(&t, "#", left)
	return t.String()
}

// leftOut says in comments which nodes have no line.
func (c *Config) leftOut(t *text, sign string, names []string) {
	if len(names) > 0 {
		t.line("%s Not here, for want of a MAC address or of an address of its own in %s: %s", sign, c.Network.Masked(), strings.Join(names, " "))
	}
}

func netmask(p netip.Prefix) net.IP { return net.IP(net.CIDRMask(p.Bits(), 32)) }

// errNeedsRange is why only dnsmasq can go beside another DHCP server.
var errNeedsRange = errors.New("this server gives out the addresses: say which with --range FROM,TO; where another one does, use dnsmasq beside it")

// Kea returns a configuration of Kea's kea-dhcp4, which is JSON with comments. The error is that no range is set.
func (c *Config) Kea() (string, error) {
	if !c.Full() {
		return "", errNeedsRange
	}
	var t text
	t.line("// Boot files of rootnfsd, at %s: for /etc/kea/kea-dhcp4.conf", c.Server)
	t.line(`{"Dhcp4": {`)
	t.line(`  "interfaces-config": {"interfaces": [%s]},`, quote(cmp.Or(c.Interface, "*")))
	t.line(`  "lease-database": {"type": "memfile", "persist": true},`)
	t.line(`  "valid-lifetime": 43200,`)
	t.line("  // iPXE says so by option 175. Other machines than a Raspberry Pi need it first.")
	t.line(`  "client-classes": [{"name": "iPXE", "test": "option[175].exists", "next-server": "%s", "boot-file-name": "boot.ipxe"}],`, c.Server)
	t.line(`  "subnet4": [{`)
	t.line(`    "id": 1,`)
	t.line(`    "subnet": "%s",`, c.Network.Masked())
	t.line(`    "pools": [{"pool": "%s - %s"}],`, c.From, c.To)
	t.line("    // Where the boot files are: for firmware that reads the header, and for that which reads option 66.")
	t.line(`    "next-server": "%s",`, c.Server)
	t.line(`    "option-data": [`)
	t.line(`      {"name": "tftp-server-name", "data": "%s"},`, c.Server)
	if c.Router.IsValid() {
		t.line(`      {"name": "routers", "data": "%s"},`, c.Router)
	}
	if dns := c.dns(", "); dns != "" {
		t.line(`      {"name": "domain-name-servers", "data": "%s"},`, dns)
	}
	t.line("      // What the firmware of a Raspberry Pi looks for: a menu of PXE with %q. A Pi 3 wants the spaces.", piService)
	t.line(`      {"code": 43, "csv-format": false, "always-send": true, "data": "%s"}`, hex.EncodeToString(piOption()))
	t.line(`    ],`)
	hosts, left := c.hosts()
	t.line("    // The nodes whose MAC address is known (rootnfsd node list).")
	t.line(`    "reservations": [`)
	for i, h := range hosts {
		hostname := ""
		if name := h.name(); name != "" {
			hostname = `, "hostname": ` + quote(name)
		}
		comma := ","
		if i == len(hosts)-1 {
			comma = ""
		}
		t.line(`      {"hw-address": "%s", "ip-address": "%s"%s}%s`, h.MAC, h.Address, hostname, comma)
	}
	c.leftOut(&t, "      //", left)
	t.line(`    ]`)
	t.line(`  }]`)
	t.line(`}}`)
	return t.String(), nil
}

// quote returns a string as JSON.
func quote(s string) string {
	b, _ := json.Marshal(s) // which takes any string
	return string(b)
}

// ISC returns a configuration of ISC DHCP (dhcpd.conf(5)). The error is that no range is set.
func (c *Config) ISC() (string, error) {
	if !c.Full() {
		return "", errNeedsRange
	}
	var t text
	t.line("# Boot files of rootnfsd, at %s: for /etc/dhcp/dhcpd.conf", c.Server)
	if c.Interface != "" {
		t.line("# It listens where /etc/default/isc-dhcp-server says: INTERFACESv4=\"%s\"", c.Interface)
	}
	t.line("")
	t.line("default-lease-time 43200;")
	t.line("")
	t.line("# iPXE says so by option 175. Other machines than a Raspberry Pi need it first.")
	t.line("option ipxe-encapsulated code 175 = string;")
	t.line("if exists ipxe-encapsulated {")
	t.line("  filename \"boot.ipxe\";")
	t.line("}")
	t.line("")
	t.line("subnet %s netmask %s {", c.Network.Masked().Addr(), netmask(c.Network))
	t.line("  range %s %s;", c.From, c.To)
	if c.Router.IsValid() {
		t.line("  option routers %s;", c.Router)
	}
	if dns := c.dns(", "); dns != "" {
		t.line("  option domain-name-servers %s;", dns)
	}
	t.line("  # Where the boot files are: for firmware that reads the header, and for that which reads option 66.")
	t.line("  next-server %s;", c.Server)
	t.line("  option tftp-server-name \"%s\";", c.Server)
	t.line("  # What the firmware of a Raspberry Pi looks for: a menu of PXE with %q. A Pi 3 wants the spaces.", piService)
	var octets []string
	for _, o := range piOption() {
		octets = append(octets, fmt.Sprintf("%02x", o))
	}
	t.line("  option vendor-encapsulated-options %s;", strings.Join(octets, ":"))
	t.line("}")
	t.line("")
	hosts, left := c.hosts()
	t.line("# The nodes whose MAC address is known (rootnfsd node list).")
	for i, h := range hosts {
		name := ""
		if n := h.name(); n != "" {
			name = fmt.Sprintf(" option host-name \"%s\";", n)
		}
		t.line("host node%d { hardware ethernet %s; fixed-address %s;%s } # %s", i+1, h.MAC, h.Address, name, h.Name)
	}
	c.leftOut(&t, "#", left)
	return t.String(), nil
}
