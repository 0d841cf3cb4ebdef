package exports

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/rootnfsd/rootnfsd/hostlist"
)

// Inventory is what operators have said of nodes: their names, where they are
// found, and what they shall run. It is what inventory.json holds. Nodes that
// nobody has named work too; they go by their address.
type Inventory struct {
	Format int `json:"format"`
	// Entries are sorted by name.
	Entries []Entry `json:"nodes"`

	stamp           stamp
	byName          map[string]int // places in Entries
	byAddr          map[netip.Addr]int
	byMAC, bySerial map[string]int
	set             map[string]int // what Set was given, and as the how manieth
}

// Entry is a node that has a name.
type Entry struct {
	// Name is the node's name: a host name of at most 63 letters, digits, dots,
	// dashes and underscores that is no address.
	Name string `json:"name"`
	// Addresses are those that the node has; no other node has them.
	Addresses []netip.Addr `json:"addresses,omitempty"`
	// MAC is written as in dc:a6:32:01:36:c2, Serial as the last eight
	// hexadecimal digits of a Raspberry Pi's. No two nodes have the same.
	MAC    string `json:"mac,omitempty"`
	Serial string `json:"serial,omitempty"`
	// Labels are sorted words, by which nodes are chosen.
	Labels []string `json:"labels,omitempty"`
	// Hostname is what the node calls itself, if that is not its name.
	Hostname string `json:"hostname,omitempty"`
	// Cmdline is what the node has on its kernel command line: words that are added to those that all have, or
	// stand in for those with the same key.
	Cmdline string `json:"cmdline,omitempty"`
	// Pin is the version that the node gets whatever is promoted.
	Pin *Ref `json:"pin,omitempty"`
}

const (
	inventoryFile   = "inventory.json"
	inventoryFormat = 1
	// MostEntries is how many nodes an inventory may have.
	MostEntries  = 65536
	mostPerEntry = 64   // labels, and addresses
	mostCmdline  = 1024 // bytes
)

// Named returns the entry of that name, or nil. It is good until the inventory is changed, and
// may be changed itself by who changes that (UpdateInventory).
func (inv *Inventory) Named(name string) *Entry {
	if i, ok := inv.byName[name]; ok {
		return &inv.Entries[i]
	}
	return nil
}

// At returns the entry of the node with an address, or nil, as Named does.
func (inv *Inventory) At(addr netip.Addr) *Entry {
	if i, ok := inv.byAddr[addr]; ok {
		return &inv.Entries[i]
	}
	return nil
}

// PinnedTo returns the names of the nodes that are pinned to a version.
func (inv *Inventory) PinnedTo(ref Ref) []string {
	var names []string
	for _, e := range inv.Entries {
		if e.Pin != nil && ref.Is(*e.Pin) {
			names = append(names, e.Name)
		}
	}
	return names
}

// Set puts an entry in place of the one with its name, or adds it. The entries are in order
// again, and addresses find the new one, after Check.
func (inv *Inventory) Set(e Entry) {
	if inv.set == nil {
		inv.set = map[string]int{}
	}
	inv.set[e.Name] = len(inv.set) + 1
	if i, ok := inv.byName[e.Name]; ok {
		inv.Entries[i] = e
		return
	}
	if inv.byName == nil {
		inv.byName = map[string]int{}
	}
	inv.byName[e.Name] = len(inv.Entries)
	inv.Entries = append(inv.Entries, e)
}

// Remove takes the entries of those names out, where there are any.
func (inv *Inventory) Remove(names []string) {
	gone := make(map[string]bool, len(names))
	for _, name := range names {
		gone[name] = true
	}
	inv.Entries = slices.DeleteFunc(inv.Entries, func(e Entry) bool { return gone[e.Name] })
	inv.index()
}

func (inv *Inventory) index() {
	inv.byName = make(map[string]int, len(inv.Entries))
	inv.byAddr = make(map[netip.Addr]int, len(inv.Entries))
	inv.byMAC, inv.bySerial = map[string]int{}, map[string]int{}
	for i, e := range inv.Entries {
		inv.byName[e.Name] = i
		if e.MAC != "" {
			inv.byMAC[e.MAC] = i
		}
		if e.Serial != "" {
			inv.bySerial[e.Serial] = i
		}
		for _, a := range e.Addresses {
			inv.byAddr[a] = i
		}
	}
}

// EntryError says what is wrong with a node's entry.
type EntryError struct {
	Name  string
	Other string // the node that has already what is one node's only, if that is what is wrong
	Err   error
}

// Error names the node.
func (e *EntryError) Error() string { return "node " + e.Name + ": " + e.Err.Error() }

// Unwrap returns what is wrong.
func (e *EntryError) Unwrap() error { return e.Err }

// Check brings all entries into their one form and order. If there is something wrong with one, or
// two cannot be there together, it returns an *EntryError: about the one that was Set last of them.
func (inv *Inventory) Check() error {
	if len(inv.Entries) > MostEntries {
		return fmt.Errorf("there are %d nodes, and at most %d can be named", len(inv.Entries), MostEntries)
	}
	slices.SortStableFunc(inv.Entries, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	taken := map[string]string{} // what is one node's only, and whose it is
	for i := range inv.Entries {
		e := &inv.Entries[i]
		if err := e.Check(); err != nil {
			return err
		}
		if i > 0 && inv.Entries[i-1].Name == e.Name {
			return &EntryError{Name: e.Name, Err: errors.New("it is there twice")}
		}
		for _, mark := range e.marks() {
			if other, ok := taken[mark]; ok {
				return inv.conflict(mark, other, e.Name)
			}
			taken[mark] = e.Name
		}
	}
	inv.index()
	return nil
}

// conflict is the error that two nodes have what is one node's only.
func (inv *Inventory) conflict(mark, a, b string) error {
	if inv.set[a] > inv.set[b] {
		a, b = b, a
	}
	return &EntryError{Name: b, Other: a, Err: fmt.Errorf("the %s is that of node %s", mark, a)}
}

// marks are what no other node may have.
func (e *Entry) marks() []string {
	var marks []string
	for _, a := range e.Addresses {
		marks = append(marks, "address "+a.String())
	}
	if e.MAC != "" {
		marks = append(marks, "MAC address "+e.MAC)
	}
	if e.Serial != "" {
		marks = append(marks, "serial number "+e.Serial)
	}
	return marks
}

var (
	nameForm     = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$`)
	hostnameForm = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,62}[A-Za-z0-9])?$`)
	serialForm   = regexp.MustCompile(`^[0-9a-f]{8}$`)
)

// Check brings an entry into its one form, or says what is wrong with it by an *EntryError.
func (e *Entry) Check() error {
	fail := func(format string, args ...any) error {
		return &EntryError{Name: e.Name, Err: fmt.Errorf(format, args...)}
	}
	if err := checkNodeName(e.Name); err != nil {
		return &EntryError{Name: e.Name, Err: err}
	}
	e.Addresses = slices.Clone(e.Addresses)
	for i, a := range e.Addresses {
		if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() {
			return fail("%s is no address that a node can have", a)
		}
		e.Addresses[i] = a.Unmap().WithZone("")
	}
	slices.SortFunc(e.Addresses, netip.Addr.Compare)
	e.Addresses = slices.Compact(e.Addresses)
	if e.MAC != "" {
		mac, err := net.ParseMAC(e.MAC)
		if err != nil || len(mac) != 6 {
			return fail("%q is no MAC address, such as dc:a6:32:01:36:c2", e.MAC)
		}
		e.MAC = mac.String()
	}
	if e.Serial != "" {
		serial := strings.ToLower(strings.TrimPrefix(e.Serial, "0x"))
		if len(serial) == 16 {
			serial = serial[8:]
		}
		if !serialForm.MatchString(serial) {
			return fail("%q is no serial number of a Raspberry Pi, which has 8 or 16 hexadecimal digits (grep Serial /proc/cpuinfo)", e.Serial)
		}
		e.Serial = serial
	}
	for _, l := range e.Labels {
		if !nameForm.MatchString(l) {
			return fail("%q is no label: letters, digits, dots, dashes and underscores", l)
		}
	}
	e.Labels = slices.Clone(e.Labels)
	slices.Sort(e.Labels)
	e.Labels = slices.Compact(e.Labels)
	if len(e.Labels) > mostPerEntry || len(e.Addresses) > mostPerEntry {
		return fail("it has more than %d labels or addresses", mostPerEntry)
	}
	if e.Hostname != "" && !hostnameForm.MatchString(e.Hostname) {
		return fail("%q is no host name: letters, digits, dots and dashes, 64 at most", e.Hostname)
	}
	e.Cmdline = strings.Join(strings.Fields(e.Cmdline), " ")
	if len(e.Cmdline) > mostCmdline || strings.ContainsFunc(e.Cmdline, func(r rune) bool { return r < ' ' || r > '~' }) {
		return fail("%q is no part of a kernel command line: %d printable characters of ASCII at most", e.Cmdline, mostCmdline)
	}
	if strings.Count(e.Cmdline, `"`)%2 != 0 {
		return fail("%q has a quote that does not end, and would take in what follows", e.Cmdline)
	}
	return nil
}

func checkNodeName(name string) error {
	if !nameForm.MatchString(name) {
		return errors.New("that is no name for a node: 1 to 63 letters, digits, dots, dashes and underscores, first and last a letter or digit")
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return errors.New("that is no name for a node but an address, by which it goes without a name")
	}
	return nil
}

// Inventory reads the inventory. A store in which nobody named a node has an
// empty one.
func (s *State) Inventory() (*Inventory, error) {
	inv, stamp, err := readState(s, inventoryFile, decodeInventory)
	if stamp.none() {
		return &Inventory{Format: inventoryFormat}, err
	}
	inv.stamp = stamp
	return inv, nil
}

// inventoryAfter reads an inventory that was replaced. If it cannot be read, it is as it was before, until it
// is replaced again: what is promoted counts though nobody can tell who is who.
func (s *State) inventoryAfter(before *Inventory) (*Inventory, error) {
	inv, err := s.Inventory()
	if err == nil {
		return inv, nil
	}
	kept := *before
	if info, err := os.Stat(filepath.Join(s.dir, inventoryFile)); err == nil {
		kept.stamp = stampOf(info)
	}
	return &kept, err
}

func decodeInventory(from io.Reader) (*Inventory, error) {
	inv := new(Inventory)
	if err := json.NewDecoder(from).Decode(inv); err != nil {
		return nil, fmt.Errorf("not an inventory of nodes: %w; restore it from a backup, or move it away and name the nodes again", err)
	}
	if inv.Format != inventoryFormat {
		return nil, fmt.Errorf("format %d is not known to this version of rootnfsd, which writes format %d", inv.Format, inventoryFormat)
	}
	return inv, inv.Check()
}

// UpdateInventory changes the inventory under the lock that promotes take, too, and replaces
// it durably. Nothing is written if change changes nothing, or leaves behind what is wrong,
// which is the error then; so is that of check for a version that a node is newly pinned
// to, which nobody can remove meanwhile. Who was pinned and unpinned is noted in the history.
func (s *State) UpdateInventory(by string, check func(Ref) error, change func(*Inventory) error) error {
	return s.update(func(r *Rollout) (bool, error) {
		events, err := s.updateInventory(r, check, change)
		for _, e := range events {
			e.By = by
			r.note(e)
		}
		return len(events) > 0, err
	})
}

// updateInventory is UpdateInventory for who holds the lock. It returns what is to be noted.
func (s *State) updateInventory(r *Rollout, check func(Ref) error, change func(*Inventory) error) ([]Event, error) {
	inv, err := s.Inventory()
	if err != nil {
		return nil, err
	}
	pins, placed := inv.pins(), inv.placed()
	before, err := json.Marshal(inv)
	if err != nil {
		return nil, err
	}
	if err := change(inv); err != nil {
		return nil, err
	}
	if err := inv.Check(); err != nil {
		return nil, err
	}
	if err := r.keepNodes(placed, inv); err != nil {
		return nil, err
	}
	events := pinEvents(pins, inv.pins())
	for _, e := range events {
		if e.Action != "pin" {
			continue
		}
		if err := check(e.Ref); err != nil {
			return nil, err
		}
	}
	after, err := json.Marshal(inv)
	if err != nil || bytes.Equal(before, after) {
		return nil, err
	}
	return events, replaceJSON(filepath.Join(s.dir, inventoryFile), inv)
}

// pins returns what nodes are pinned to, by name.
func (inv *Inventory) pins() map[string]Ref {
	pins := map[string]Ref{}
	for _, e := range inv.Entries {
		if e.Pin != nil {
			pins[e.Name] = *e.Pin
		}
	}
	return pins
}

// pinEvents returns an event for each version that nodes were unpinned from, and then for each that
// they were pinned to.
func pinEvents(before, after map[string]Ref) []Event {
	unpinned, pinned := map[Ref][]string{}, map[Ref][]string{}
	for name, ref := range before {
		if _, ok := after[name]; !ok {
			unpinned[ref] = append(unpinned[ref], name)
		}
	}
	for name, ref := range after {
		if was, ok := before[name]; !ok || was != ref {
			pinned[ref] = append(pinned[ref], name)
		}
	}
	return append(eventsOf("unpin", unpinned), eventsOf("pin", pinned)...)
}

// eventsOf makes an event for each version, sorted by their names.
func eventsOf(action string, nodes map[Ref][]string) []Event {
	var events []Event
	for ref, names := range nodes {
		slices.Sort(names)
		events = append(events, Event{Action: action, Ref: ref, Nodes: hostlist.Compress(names)})
	}
	slices.SortFunc(events, func(a, b Event) int {
		return cmp.Or(strings.Compare(a.Version, b.Version), bytes.Compare(a.Digest[:], b.Digest[:]))
	})
	return events
}
