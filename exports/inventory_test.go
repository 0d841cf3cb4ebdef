package exports

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func entry(name string, addrs ...string) Entry {
	e := Entry{Name: name}
	for _, a := range addrs {
		e.Addresses = append(e.Addresses, netip.MustParseAddr(a))
	}
	return e
}

// anyVersion is a check that finds every version.
func anyVersion(Ref) error { return nil }

// name puts entries into the inventory of a store.
func (s *served) name(t *testing.T, entries ...Entry) {
	t.Helper()
	err := OpenState(s.stateDir).UpdateInventory("me", anyVersion, func(inv *Inventory) error {
		for _, e := range entries {
			inv.Set(e)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestInventory(t *testing.T) {
	s := OpenState(t.TempDir())
	pi := Entry{
		Name: "pi-07", Addresses: []netip.Addr{netip.MustParseAddr("::ffff:192.0.2.7"), netip.MustParseAddr("fe80::1%eth0"), netip.MustParseAddr("192.0.2.7")},
		MAC: "DC-A6-32-01-36-C2", Serial: "100000000660CD37", Labels: []string{"rack1", "canary", "rack1"},
	}
	err := s.UpdateInventory("me", anyVersion, func(inv *Inventory) error {
		inv.Set(entry("b"))
		inv.Set(pi)
		inv.Set(entry("a"))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	inv, err := s.Inventory()
	if err != nil {
		t.Fatal(err)
	}
	got := inv.At(netip.MustParseAddr("192.0.2.7"))
	if got == nil || got.MAC != "dc:a6:32:01:36:c2" || got.Serial != "0660cd37" || fmt.Sprint(got.Addresses, got.Labels) != "[192.0.2.7 fe80::1] [canary rack1]" {
		t.Errorf("%+v", got)
	}
	if inv.At(netip.MustParseAddr("192.0.2.8")) != nil || inv.Named("c") != nil || inv.Named("a") == nil {
		t.Error("who is there is not who was named")
	}
	var names []string
	for _, e := range inv.Entries {
		names = append(names, e.Name)
	}
	if fmt.Sprint(names) != "[a b pi-07]" {
		t.Errorf("%v: not sorted", names)
	}
	before, _ := os.Stat(filepath.Join(s.dir, inventoryFile))
	if err := s.UpdateInventory("me", anyVersion, func(inv *Inventory) error { inv.Set(*inv.Named("a")); return nil }); err != nil {
		t.Fatal(err)
	}
	if after, _ := os.Stat(filepath.Join(s.dir, inventoryFile)); !os.SameFile(before, after) {
		t.Error("it was written though nothing changed")
	}
	if err := s.UpdateInventory("me", anyVersion, func(inv *Inventory) error { inv.Remove([]string{"pi-07", "c"}); return nil }); err != nil {
		t.Fatal(err)
	}
	if inv, _ = s.Inventory(); inv.Named("pi-07") != nil || inv.At(netip.MustParseAddr("192.0.2.7")) != nil || len(inv.Entries) != 2 {
		t.Errorf("after its removal: %+v", inv)
	}
}

func TestInventoryRefuses(t *testing.T) {
	s := OpenState(t.TempDir())
	first := entry("first", "192.0.2.1")
	first.MAC, first.Serial = "02:00:00:00:00:01", "00000001"
	if err := s.UpdateInventory("me", anyVersion, func(inv *Inventory) error { inv.Set(first); return nil }); err != nil {
		t.Fatal(err)
	}
	long := make([]string, mostPerEntry+1)
	for i := range long {
		long[i] = fmt.Sprint("l", i)
	}
	for why, e := range map[string]Entry{
		"no name for a node":         entry(""),
		"64":                         {Name: "x", Hostname: strings.Repeat("h", 65)},
		"1 to 63":                    entry(strings.Repeat("n", 64)),
		"letters, digits":            entry("a/b"),
		"first and last":             entry(".."),
		"but an address":             entry("192.0.2.9"),
		"the address 192.0.2.1 is":   entry("second", "192.0.2.1"),
		"the MAC address 02:00":      {Name: "second", MAC: "02-00-00-00-00-01"},
		"the serial number 00000001": {Name: "second", Serial: "1000000000000001"},
		"no address that a node":     entry("second", "0.0.0.0"),
		"no MAC address":             {Name: "second", MAC: "02:00:00:00:00"},
		"no serial number":           {Name: "second", Serial: "xyz"},
		"no label":                   {Name: "second", Labels: []string{"two words"}},
		"does not end":               {Name: "second", Cmdline: `a="b c`},
		"no host name":               {Name: "second", Hostname: "under_score"},
		"more than 64 labels":        {Name: "second", Labels: long},
	} {
		err := s.UpdateInventory("me", anyVersion, func(inv *Inventory) error { inv.Set(e); return nil })
		var wrong *EntryError
		if !errors.As(err, &wrong) || wrong.Name != e.Name || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v", why, err)
		}
	}
	if inv, err := s.Inventory(); err != nil || len(inv.Entries) != 1 {
		t.Errorf("what was refused is there: %+v, %v", inv, err)
	}
}

// TestInventoryOfOthers reads files that this program did not write.
func TestInventoryOfOthers(t *testing.T) {
	for what, c := range map[string]struct{ content, want string }{
		"cut":         {`{"format":1,"nodes":[{"na`, "not an inventory"},
		"empty":       {``, "not an inventory"},
		"newer":       {`{"format":2}`, "format 2 is not known"},
		"twice":       {`{"format":1,"nodes":[{"name":"a"},{"name":"a"}]}`, "node a: it is there twice"},
		"two with it": {`{"format":1,"nodes":[{"name":"a","serial":"00000001"},{"name":"b","serial":"00000001"}]}`, "node b: the serial number 00000001 is that of node a"},
	} {
		s := OpenState(t.TempDir())
		path := filepath.Join(s.dir, inventoryFile)
		if err := os.WriteFile(path, []byte(c.content), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := s.Inventory()
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v; want %s and the path", what, err, c.want)
		}
		if err := s.UpdateInventory("me", anyVersion, func(*Inventory) error { return nil }); err == nil {
			t.Errorf("%s: it was changed", what)
		}
		if b, _ := os.ReadFile(path); string(b) != c.content {
			t.Errorf("%s: it was overwritten", what)
		}
	}
}

// TestManyOperators has many change the inventory at once.
func TestManyOperators(t *testing.T) {
	dir := t.TempDir()
	var operators sync.WaitGroup
	const each = 10
	for i := range each {
		operators.Go(func() {
			for k := range each {
				err := OpenState(dir).UpdateInventory("me", anyVersion, func(inv *Inventory) error {
					inv.Set(entry(fmt.Sprintf("pi-%d-%d", i, k)))
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	operators.Wait()
	if inv, err := OpenState(dir).Inventory(); err != nil || len(inv.Entries) != each*each {
		t.Errorf("%d nodes, %v; want %d", len(inv.Entries), err, each*each)
	}
}

func TestManyEntries(t *testing.T) {
	s := OpenState(t.TempDir())
	const many = 10_000
	err := s.UpdateInventory("me", anyVersion, func(inv *Inventory) error {
		for i := range many {
			inv.Set(Entry{Name: fmt.Sprintf("pi-%d", many-i), Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})}, Labels: []string{"rack"}})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if inv, err := s.Inventory(); err != nil || len(inv.Entries) != many || inv.At(netip.MustParseAddr("10.0.0.7")).Name != fmt.Sprint("pi-", many-7) {
		t.Errorf("%d, %v", len(inv.Entries), err)
	}
	if err := s.UpdateInventory("me", anyVersion, func(inv *Inventory) error {
		for i := range MostEntries {
			inv.Set(entry(fmt.Sprint("n", i)))
		}
		return nil
	}); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("too many: %v", err)
	}
}

// FuzzInventory decodes what it is given; what it takes must come back as it was.
func FuzzInventory(f *testing.F) {
	f.Add([]byte(`{"format":1,"nodes":[{"name":"a","addresses":["192.0.2.1"],"mac":"02:00:00:00:00:01","serial":"00000001","labels":["x"],"hostname":"h"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		inv, err := decodeInventory(bytes.NewReader(b))
		if err != nil {
			return
		}
		for i, e := range inv.Entries {
			if inv.Named(e.Name) != &inv.Entries[i] {
				t.Fatalf("%s is not found", e.Name)
			}
			for _, a := range e.Addresses {
				if inv.At(a) != &inv.Entries[i] {
					t.Fatalf("%s is not found at %s", e.Name, a)
				}
			}
		}
		before := fmt.Sprintf("%+v", inv.Entries)
		if err := inv.Check(); err != nil {
			t.Fatalf("not taken again: %v", err)
		}
		if after := fmt.Sprintf("%+v", inv.Entries); after != before {
			t.Fatalf("%s became %s", before, after)
		}
	})
}

// TestPinsOfInventory pins and unpins by changes of the inventory, some of which fail.
func TestPinsOfInventory(t *testing.T) {
	s := OpenState(t.TempDir())
	va, vb := ref("va"), ref("vb")
	pinned := func(name string, to *Ref) Entry { return Entry{Name: name, Pin: to} }
	set := func(entries ...Entry) func(*Inventory) error {
		return func(inv *Inventory) error {
			for _, e := range entries {
				inv.Set(e)
			}
			return nil
		}
	}
	change := func(change func(*Inventory) error) {
		t.Helper()
		if err := s.UpdateInventory("me", anyVersion, change); err != nil {
			t.Fatal(err)
		}
	}
	change(set(pinned("pi-1", &va), pinned("pi-2", &va), pinned("pi-3", &vb), pinned("pi-4", nil)))
	change(set(pinned("pi-1", &va), Entry{Name: "pi-4", MAC: "02:00:00:00:00:04"})) // no pin changes
	change(set(pinned("pi-1", &vb), pinned("pi-2", nil)))
	change(func(inv *Inventory) error { inv.Remove([]string{"pi-1", "pi-3"}); return nil })

	gone := errors.New("gone")
	for what, c := range map[string]struct {
		check  func(Ref) error
		change func(*Inventory) error
		want   string
	}{
		"what is not there":    {func(Ref) error { return gone }, set(pinned("pi-9", &va)), "gone"},
		"the change fails":     {anyVersion, func(inv *Inventory) error { inv.Set(pinned("pi-9", &va)); return gone }, "gone"},
		"the inventory is bad": {anyVersion, set(pinned("pi-9", &va), pinned("pi/8", &va)), "pi/8"},
	} {
		if err := s.UpdateInventory("me", c.check, c.change); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if inv, err := s.Inventory(); err != nil || inv.Named("pi-9") != nil || len(inv.Entries) != 2 {
		t.Errorf("what was refused is there: %+v, %v", inv, err)
	}
	r, err := s.Rollout()
	if err != nil {
		t.Fatal(err)
	}
	var did []string
	for _, e := range r.History {
		did = append(did, fmt.Sprint(e.By, " ", e.Action, " ", e.Version, " ", e.Nodes))
	}
	if got, want := strings.Join(did, ", "), "me pin va pi-[1-2], me pin vb pi-3, me unpin va pi-2, me pin vb pi-1, me unpin vb pi-1,pi-3"; got != want {
		t.Errorf("history: %s; want %s", got, want)
	}
}

// TestConflicts holds that the entry is blamed which was set last.
func TestConflicts(t *testing.T) {
	s := OpenState(t.TempDir())
	put := func(entries ...Entry) error {
		return s.UpdateInventory("me", anyVersion, func(inv *Inventory) error {
			for _, e := range entries {
				inv.Set(e)
			}
			return nil
		})
	}
	if err := put(entry("m", "192.0.2.1")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		set         []Entry
		name, other string
	}{
		{[]Entry{entry("a", "192.0.2.1")}, "a", "m"},
		{[]Entry{entry("z", "192.0.2.1")}, "z", "m"},
		{[]Entry{entry("z", "192.0.2.2"), entry("a", "192.0.2.2")}, "a", "z"},
		{[]Entry{entry("a", "192.0.2.2"), entry("z", "192.0.2.2")}, "z", "a"},
	} {
		err := put(c.set...)
		var wrong *EntryError
		if !errors.As(err, &wrong) || wrong.Name != c.name || wrong.Other != c.other || !strings.Contains(err.Error(), "node "+c.name+": the address") || !strings.HasSuffix(err.Error(), "that of node "+c.other) {
			t.Errorf("%v: %v; want %s blamed, and %s named", c.set, err, c.name, c.other)
		}
	}
}
