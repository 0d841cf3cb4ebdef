package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/rootnfsd/rootnfsd/exports"
	"github.com/rootnfsd/rootnfsd/netboot/dhcp"
)

func netbootCommand() *cli.Command {
	return &cli.Command{
		Name:  "netboot",
		Usage: "print the configuration of a DHCP server that lets nodes find their boot files",
		Description: `Boot files come from rootnfsd serve --tftp; where that is, a node learns by DHCP.
Without --range dnsmasq goes beside the DHCP server that there is, a router's for
example, and runs on the machine that rootnfsd runs on.

Examples:
   rootnfsd netboot dnsmasq
   rootnfsd netboot dnsmasq --range 192.168.1.100,192.168.1.199 --router 192.168.1.1
   rootnfsd netboot kea --range 192.168.1.100,192.168.1.199`,
		HideHelpCommand: true,
		Subcommands: []*cli.Command{
			dhcpCommand("dnsmasq", "for dnsmasq, beside another DHCP server or in its place", func(c *dhcp.Config) (string, error) { return c.Dnsmasq(), nil },
				&cli.BoolFlag{Name: "keep-dns", Usage: "leave DNS as it is, for a dnsmasq that resolves names, too (Pi-hole)"}),
			dhcpCommand("kea", "for Kea", (*dhcp.Config).Kea),
			dhcpCommand("isc-dhcp", "for the DHCP server of ISC", (*dhcp.Config).ISC),
		},
		Action: func(c *cli.Context) error {
			if c.NArg() == 0 {
				return cli.ShowSubcommandHelp(c)
			}
			return unknownName("command", "netboot "+c.Args().First(), []string{"netboot dnsmasq", "netboot kea", "netboot isc-dhcp"}, "", "")
		},
	}
}

func dhcpCommand(name, usage string, text func(*dhcp.Config) (string, error), flags ...cli.Flag) *cli.Command {
	return &cli.Command{
		Name:  name,
		Usage: usage,
		Description: `Nodes whose MAC address and address are known (rootnfsd node set) get that address
each time, where the server gives out addresses. That needs the store; all else does not.

Examples:
   rootnfsd netboot ` + name + ` --range 192.168.1.100,192.168.1.199 --router 192.168.1.1
   rootnfsd netboot ` + name + ` --range 10.0.0.10,10.0.0.99 --server 10.0.0.1 --network 10.0.0.0/24`,
		Flags: append([]cli.Flag{
			exportFlag(), configFlag(),
			&cli.StringFlag{Name: "server", Usage: "the server's `ADDRESS` as nodes see it (default: server-address of the configuration, or this machine's)"},
			&cli.StringFlag{Name: "interface", Usage: "answer DHCP on this network `INTERFACE` alone"},
			&cli.StringFlag{Name: "network", Usage: "the nodes' `NETWORK`, such as 192.168.1.0/24 (default: that which this machine has the address in)"},
			&cli.StringFlag{Name: "range", Usage: "give out addresses `FROM,TO`"},
			&cli.StringFlag{Name: "router", Usage: "the `ADDRESS` of the nodes' router, with --range"},
			&cli.StringFlag{Name: "dns", Usage: "the nodes' name servers `ADDRESS[,ADDRESS]`, with --range (default: the router)"},
		}, flags...),
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			network, err := networkOf(c)
			if err != nil {
				return err
			}
			inv, err := inventoryIfAny(c, network.Full())
			if err != nil {
				return err
			}
			network.Hosts = hostsOf(inv)
			out, err := text(network)
			if err != nil {
				return usageError(c, "%v", err)
			}
			_, err = fmt.Fprint(c.App.Writer, out)
			return err
		},
	}
}

// inventoryIfAny returns the nodes of the store, or none where nobody has named a store and there is none at the usual place:
// the configuration may be wanted before there is one. Noted says that it matters to the user.
func inventoryIfAny(c *cli.Context, noted bool) (*exports.Inventory, error) {
	cfg, err := readConfig(c)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(usualStore); len(list(c, "export", cfg.Export)) == 0 && errors.Is(err, os.ErrNotExist) {
		if noted {
			fmt.Fprintln(os.Stderr, "note: no node has a line of its own, for there is no store here: name it with --export DIR, or in "+c.String("config"))
		}
		return new(exports.Inventory), nil
	}
	s, err := openOneStore(c)
	if err != nil {
		return nil, err
	}
	return s.state.Inventory()
}

// networkOf returns what the flags say of the network.
func networkOf(c *cli.Context) (*dhcp.Config, error) {
	cfg, err := readConfig(c)
	if err != nil {
		return nil, err
	}
	network := &dhcp.Config{Interface: c.String("interface"), KeepDNS: c.Bool("keep-dns")}
	if network.Server, _, err = serverOf(c, &cfg); err != nil {
		return nil, err
	}
	if text := c.String("network"); text != "" {
		if network.Network, err = netip.ParsePrefix(text); err != nil {
			return nil, usageError(c, "--network %s: want a network such as 192.168.1.0/24", text)
		}
	} else if network.Network, err = networkAround(network.Server); err != nil {
		return nil, err
	}
	if text := c.String("range"); text != "" {
		from, to, _ := strings.Cut(text, ",")
		var errTo error
		network.From, err = netip.ParseAddr(strings.TrimSpace(from))
		network.To, errTo = netip.ParseAddr(strings.TrimSpace(to))
		if errors.Join(err, errTo) != nil {
			return nil, usageError(c, "--range %s: want the first and the last address, as in 192.168.1.100,192.168.1.199", text)
		}
	}
	if text := c.String("router"); text != "" {
		if network.Router, err = netip.ParseAddr(text); err != nil {
			return nil, usageError(c, "--router %s: want an address such as 192.168.1.1", text)
		}
		if !network.Full() {
			return nil, usageError(c, "--router goes with --range: it is told by who gives out addresses")
		}
	}
	for _, text := range splitCommas([]string{c.String("dns")}) {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return nil, usageError(c, "--dns %s: want addresses such as 192.168.1.1,9.9.9.9", c.String("dns"))
		}
		network.DNS = append(network.DNS, a)
	}
	if len(network.DNS) > 0 && !network.Full() {
		return nil, usageError(c, "--dns goes with --range: it is told by who gives out addresses")
	}
	if err := network.Check(); err != nil {
		return nil, usageError(c, "%v", err)
	}
	return network, nil
}

// networkAround returns the network that this machine has an address in.
func networkAround(addr netip.Addr) (netip.Prefix, error) {
	own, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Prefix{}, err
	}
	for _, a := range own {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Unmap() == addr {
			return p.Masked(), nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("%s is not an address of this machine: say in which network it is, as in --network 192.168.1.0/24", addr)
}

// hostsOf returns the nodes that have names, as far as DHCP is concerned with them.
func hostsOf(inv *exports.Inventory) []dhcp.Host {
	var hosts []dhcp.Host
	for _, e := range inv.Entries {
		h := dhcp.Host{Name: e.Name, Hostname: e.Hostname, MAC: e.MAC}
		for _, a := range e.Addresses {
			if a.Is4() && !h.Address.IsValid() {
				h.Address = a
			}
		}
		hosts = append(hosts, h)
	}
	return hosts
}
