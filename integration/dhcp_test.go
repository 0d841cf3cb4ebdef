package integration

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rootnfsd/rootnfsd/integration/lab"
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

// TestProxyDHCP asks for an address where a router gives them out. A Raspberry Pi and iPXE hear beside it where their boot files are; a
// PC hears nothing else, for it would take that for a failure.
func TestProxyDHCP(t *testing.T) {
	require(t, "dnsmasq")
	store := newStore(t, map[string]files{"v1": bootTree("v1")})
	n := newNet(t)
	router(t, n)
	dhcp(t, n, dnsmasqConfig(t, "--export", store))
	pi := newDHCPClient(t, n, "dc:a6:32:01:36:c2")
	ipxe := newDHCPClient(t, n, "52:54:00:00:00:09")
	pc := newDHCPClient(t, n, "02:00:00:00:00:09")

	const arch = "\x5d\x02\x00\x00" + "\x5e\x03\x01\x02\x01" + "\x61\x11\x00RPi4\x14\x31\xd0\x00\x32\x01\x36\xc2\x06\x60\xcd\x37"
	// What the bootloader of a Raspberry Pi 4 sends.
	fromPi := "\x37\x0e\x01\x03\x2b\x3c\x42\x43\x80\x81\x82\x83\x84\x85\x86\x87" + "\x3c\x20PXEClient:Arch:00000:UNDI:002001" + arch
	o := pi.ask(fromPi, lab.ServerAddress)
	if o.options[60] != "PXEClient" || !strings.Contains(o.options[43], "Raspberry Pi Boot   ") || o.next != lab.ServerAddress || o.address != "0.0.0.0" {
		t.Errorf("a Raspberry Pi is told %+q", o)
	}
	if o := pi.ask(fromPi, "192.0.2.254"); !strings.HasPrefix(o.address, "192.0.2.") {
		t.Errorf("the router offers a Raspberry Pi %+q", o)
	}
	fromIPXE := "\x37\x04\x01\x03\x42\x43" + "\x3c\x20PXEClient:Arch:00000:UNDI:002001" + "\x4d\x04iPXE" + "\xaf\x03\x13\x01\x01" + arch
	if o := ipxe.ask(fromIPXE, lab.ServerAddress); o.file != "boot.ipxe" || o.next != lab.ServerAddress {
		t.Errorf("iPXE is told %+q", o)
	}
	fromPC := strings.Replace(fromPi, "00000", "00007", 1)
	if o := pc.ask(fromPC, "192.0.2.254"); !strings.HasPrefix(o.address, "192.0.2.") {
		t.Errorf("the router offers a PC %+q", o)
	}
	pi.ask(fromPi, lab.ServerAddress) // which comes behind an answer to the PC
	for err := error(nil); err == nil; {
		_, err = pc.hear(time.Now().Add(100 * time.Millisecond)) // it is there already
	}
	if pc.heard[lab.ServerAddress] {
		t.Errorf("a PC hears from %v", pc.heard)
	}
}

// dhcpClient is a machine that asks for an address.
type dhcpClient struct {
	t     *testing.T
	mac   net.HardwareAddr
	conn  net.PacketConn
	heard map[string]bool // the servers that have answered
}

// dhcpOffer is an answer (RFC 2131, section 2).
type dhcpOffer struct {
	from, address, next, file string
	options                   map[byte]string
}

func newDHCPClient(t *testing.T, n *lab.Net, mac string) *dhcpClient {
	t.Helper()
	c := &dhcpClient{t: t, heard: map[string]bool{}}
	var err error
	if c.mac, err = net.ParseMAC(mac); err != nil {
		t.Fatal(err)
	}
	h := host(t, n, fmt.Sprintf("192.0.2.%d", 200+c.mac[0]%50), mac)
	if err := h.Enter(func() (err error) { c.conn, err = net.ListenPacket("udp4", ":68"); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.conn.Close() })
	return c
}

// ask sends a DHCPDISCOVER with options until a server answers.
func (c *dhcpClient) ask(options, server string) dhcpOffer {
	c.t.Helper()
	p := make([]byte, 236, 400)
	copy(p, []byte{1, 1, 6, 0, 'x', 'i', 'd', '1'})
	p[10] = 0x80 // broadcast the answer
	copy(p[28:], c.mac)
	p = append(append(append(p, "\x63\x82\x53\x63\x35\x01\x01"...), options...), 0xff)
	for range 20 {
		if _, err := c.conn.WriteTo(p, &net.UDPAddr{IP: net.IPv4(192, 0, 2, 255), Port: 67}); err != nil {
			c.t.Fatal(err)
		}
		deadline := time.Now().Add(time.Second)
		for {
			o, err := c.hear(deadline)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break // dnsmasq may not have been ready
			}
			if err != nil {
				c.t.Fatal(err)
			}
			if o.from == server {
				return o
			}
		}
	}
	c.t.Fatalf("%s hears nothing from %s", c.mac, server)
	return dhcpOffer{}
}

// hear waits for an answer.
func (c *dhcpClient) hear(deadline time.Time) (o dhcpOffer, err error) {
	c.conn.SetReadDeadline(deadline)
	for {
		p := make([]byte, 1500)
		n, from, err := c.conn.ReadFrom(p)
		if err != nil {
			return o, err
		}
		if n < 240 || p[0] != 2 || !bytes.Equal(p[28:34], c.mac) {
			continue
		}
		o = dhcpOffer{
			from: from.(*net.UDPAddr).IP.String(), address: net.IP(p[16:20]).String(), next: net.IP(p[20:24]).String(),
			file: strings.TrimRight(string(p[108:236]), "\x00"), options: map[byte]string{},
		}
		c.heard[o.from] = true
		for rest := p[240:n]; len(rest) > 1 && rest[0] != 0xff; {
			if rest[0] == 0 {
				rest = rest[1:]
				continue
			}
			end := 2 + int(rest[1])
			if end > len(rest) {
				return o, fmt.Errorf("option %d is cut short", rest[0])
			}
			o.options[rest[0]] = string(rest[2:end])
			rest = rest[end:]
		}
		return o, nil
	}
}
