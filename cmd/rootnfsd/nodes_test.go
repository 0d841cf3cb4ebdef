package main

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/rootnfsd/rootnfsd/exports"
)

// TestNodeTable: a node that nobody named shows what it can be named by.
func TestNodeTable(t *testing.T) {
	status := func(addr, name, serial, mac string) exports.NodeStatus {
		n := exports.NodeStatus{State: exports.StateBooting, RebootNeeded: true}
		n.Address, n.Name, n.Serial, n.MAC = netip.MustParseAddr(addr), name, serial, mac
		return n
	}
	var b strings.Builder
	if err := nodeTable(&b, []exports.NodeStatus{
		status("10.0.0.1", "", "0660cd37", "dc:a6:32:01:36:c2"),
		status("10.0.0.2", "", "", "02:00:00:00:00:01"),
		status("10.0.0.3", "", "", ""),
		status("10.0.0.4", "pi-04", "0660cd38", "dc:a6:32:01:36:c3"),
	}); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	for i, want := range []string{"-  serial 0660cd37; MAC dc:a6:32:01:36:c2; reboot needed", "-  MAC 02:00:00:00:00:01; reboot needed", "-  reboot needed", "-  reboot needed"} {
		if i+1 >= len(lines) || !strings.HasSuffix(lines[i+1], want) {
			t.Errorf("line %d: want %q in\n%s", i+1, want, b.String())
		}
	}
}
