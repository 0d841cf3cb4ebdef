package exports

import (
	"bufio"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
)

// strangeMAC reports whether the kernel has seen another network card than a node's at an address,
// and which. Where it knows nothing, as through a router, for IPv6, or if the file cannot be
// read, there is nothing strange.
func (x *Exports) strangeMAC(addr netip.Addr, mac string) (seen string, strange bool) {
	f, err := os.Open(x.neighbours)
	if err != nil {
		return "", false
	}
	defer f.Close()
	macs := macsOf(f, addr)
	if len(macs) == 0 || slices.Contains(macs, mac) {
		return "", false
	}
	return macs[0], true
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
