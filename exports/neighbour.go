package exports

import (
	"bufio"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// macsAt returns the MAC addresses that the kernel has seen at an address: several where it is in several
// networks, none where the kernel knows none, as through a router, or for IPv6, or if the file cannot be read.
func (x *Exports) macsAt(addr netip.Addr) []string {
	f, err := os.Open(x.neighbours)
	if err != nil {
		return nil
	}
	defer f.Close()
	return macsOf(f, addr)
}

// arpComplete is the flag of an entry that has an answer (ATF_COM).
const arpComplete = 0x2

// macsOf returns the MAC addresses at an address in a table in the form of /proc/net/arp (proc_net(5)).
func macsOf(table io.Reader, addr netip.Addr) []string {
	var macs []string
	for lines := bufio.NewScanner(table); lines.Scan(); {
		fields := strings.Fields(lines.Text()) // address, type, flags, MAC address, mask, device
		if len(fields) < 6 || fields[0] != addr.String() {
			continue
		}
		flags, err := strconv.ParseUint(fields[2], 0, 32)
		if err == nil && flags&arpComplete != 0 {
			macs = append(macs, strings.ToLower(fields[3]))
		}
	}
	return macs
}
