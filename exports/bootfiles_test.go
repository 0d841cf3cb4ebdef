package exports

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/rootnfsd/rootnfsd/fs"
)

// booter is a node that fetches boot files.
type booter struct {
	t    *testing.T
	s    *layered
	addr string
	id   BootID
}

func (b *booter) gets(step BootStep, want string) *Boot {
	b.t.Helper()
	got := b.opens(step, want)
	got.Confirmed()
	got.Done()
	return got
}

// opens is gets for a file that is being sent.
func (b *booter) opens(step BootStep, want string) *Boot {
	b.t.Helper()
	got, err := b.s.Boot(netip.MustParseAddr(b.addr), b.id, step)
	if err != nil || got.Version != want {
		b.t.Fatalf("%s %+v gets %+v, %v; want %s", b.addr, b.id, got, err, want)
	}
	return got
}

// clock moves the time of the exports, and of boots, on.
func (s *layered) clock(seconds int64) {
	s.served.clock(seconds)
	before := s.bootFiles.clock
	s.bootFiles.clock = func() int64 { return before() + seconds }
}

func (s *layered) promoted(t *testing.T, version string) {
	t.Helper()
	s.promote(t, version)
	s.refreshIfPromoted()
}

// mounts returns the version that a mount of a path leads to.
func (s *layered) mounts(t *testing.T, addr, path string) string {
	t.Helper()
	h, err := s.Mount(s.at(addr), path, Caller{Booting: true})
	if err != nil {
		t.Fatal(err)
	}
	var o Object
	if err := s.Resolve(s.at(addr), h, &o); err != nil {
		t.Fatal(err)
	}
	return o.ver.name
}

// rename gives a version another name, as sealing a changed tree does.
func (s *memStore) rename(from, to string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.versions {
		if s.versions[i].Name == from {
			s.versions[i].Name = to
		}
	}
}

func TestBootGetsOneVersion(t *testing.T) {
	pi := BootID{Serial: "0660cd37"}
	for _, c := range []struct {
		name string
		then func(t *testing.T, s *layered, b *booter)
	}{
		{"a promote in the middle mixes nothing", func(t *testing.T, s *layered, b *booter) {
			b.gets(BootFirst, "v1")
			s.promoted(t, "v2")
			b.gets(BootFirst, "v1")
			b.gets(BootAny, "v1")
			b.gets(BootLast, "v1")
			b.gets(BootAny, "v1")
			if got := s.mounts(t, b.addr, "/"); got != "v1" {
				t.Errorf("the mount gets %s; want v1", got)
			}
			b.gets(BootAny, "v2")
		}},
		{"also not for a version that is sealed again", func(t *testing.T, s *layered, b *booter) {
			was := b.gets(BootFirst, "v1")
			s.store.rename("v1", "v1~1")
			s.store.seal("v1", 'z')
			if err := s.Refresh(); err != nil {
				t.Fatal(err)
			}
			if got := s.mounts(t, b.addr, "/images@v1"); got != "v1~1" {
				t.Errorf("the mount of what was v1 gets %s; want v1~1", got)
			}
			if now := s.table.Load().images[0].named("v1"); now.digest == was.Digest {
				t.Error("the test seals nothing else")
			}
		}},
		{"two minutes without a request end it", func(t *testing.T, s *layered, b *booter) {
			b.gets(BootFirst, "v1")
			s.promoted(t, "v2")
			s.clock(bootFilesTime - 1)
			b.gets(BootAny, "v1")
			s.clock(bootFilesTime)
			b.gets(BootAny, "v2")
		}},
		{"a slow network mixes nothing, and who fails slowly begins anew", func(t *testing.T, s *layered, b *booter) {
			b.gets(BootFirst, "v1")
			s.promoted(t, "v2")
			for range 20 {
				s.clock(60)
				b.gets(BootAny, "v1")
			}
			b.gets(BootFirst, "v2")
		}},
		{"a boot that is forgotten does not change what is known", func(t *testing.T, s *layered, b *booter) {
			late := b.opens(BootLast, "v1")
			s.promoted(t, "v2")
			b.gets(BootFirst, "v2")
			late.Confirmed()
			late.Done()
			if n := s.Fleet("images")[0]; n.Netboot.Version != "v2" {
				t.Errorf("it boots %s; want v2", n.Netboot.Version)
			}
		}},
		{"a node that begins anew gets what is promoted now", func(t *testing.T, s *layered, b *booter) {
			b.gets(BootFirst, "v1")
			b.gets(BootLast, "v1")
			s.promoted(t, "v2")
			b.gets(BootLast, "v1")
			b.gets(BootFirst, "v2")
			b.gets(BootFirst, "v2")
		}},
		{"a version that is removed is not given", func(t *testing.T, s *layered, b *booter) {
			b.gets(BootFirst, "v1")
			s.promoted(t, "v2")
			s.store.remove("v1")
			if err := s.Refresh(); err != nil {
				t.Fatal(err)
			}
			b.gets(BootAny, "v2")
		}},
		{"it outlives the server", func(t *testing.T, s *layered, b *booter) {
			b.gets(BootFirst, "v1")
			s.nodes.save(s.table.Load().images, s.log, true)
			s.restart(t)
			s.promoted(t, "v2")
			b.gets(BootAny, "v1")
			if got := s.mounts(t, b.addr, "/"); got != "v1" {
				t.Errorf("the mount gets %s; want v1", got)
			}
		}},
		{"a file that is under way keeps it", func(t *testing.T, s *layered, b *booter) {
			slow := b.opens(BootLast, "v1")
			s.promoted(t, "v2")
			s.clock(2 * bootFilesMost)
			b.gets(BootAny, "v1")
			slow.Done()
			s.clock(bootFilesTime)
			b.gets(BootAny, "v2")
		}},
		{"a boot ROM that does not say who it is", func(t *testing.T, s *layered, b *booter) {
			rom := &booter{t, s, b.addr, BootID{}}
			rom.gets(BootFirst, "v1")
			s.promoted(t, "v2")
			b.gets(BootFirst, "v1")
			rom.gets(BootAny, "v1")
			b.gets(BootLast, "v1")
			if n := s.Fleet("images")[0]; n.Serial != b.id.Serial {
				t.Errorf("the serial number is %q", n.Serial)
			}
			rom.gets(BootFirst, "v2")
			if got := s.mounts(t, b.addr, "/"); got != "v2" {
				t.Errorf("the mount gets %s; want v2", got)
			}
		}},
		{"a mount that is repeated", func(t *testing.T, s *layered, b *booter) {
			b.gets(BootFirst, "v1")
			s.mounts(t, b.addr, "/")
			s.promoted(t, "v2")
			if got := s.mounts(t, b.addr, "/"); got != "v1" {
				t.Errorf("the mount again gets %s; want v1", got)
			}
			s.clock(retryTime)
			if got := s.mounts(t, b.addr, "/"); got != "v2" {
				t.Errorf("another mount gets %s; want v2", got)
			}
		}},
		{"a server that starts anew gives no old version to a node that is up", func(t *testing.T, s *layered, b *booter) {
			b.gets(BootFirst, "v1")
			s.mounts(t, b.addr, "/")
			s.nodes.save(s.table.Load().images, s.log, true)
			s.restart(t)
			s.promoted(t, "v2")
			b.gets(BootFirst, "v2")
		}},
		{"a datagram from an address that is made up decides nothing", func(t *testing.T, s *layered, b *booter) {
			b.opens(BootFirst, "v1").Done()
			s.promoted(t, "v2")
			if got := s.mounts(t, b.addr, "/"); got != "v2" {
				t.Errorf("the mount gets %s; want v2", got)
			}
			if n := s.Fleet("images")[0]; n.Serial != "" {
				t.Errorf("the node has serial number %s", n.Serial)
			}
		}},
		{"a clock that is set does not matter", func(t *testing.T, s *layered, b *booter) {
			b.gets(BootLast, "v1").CommandLineGiven()
			s.served.clock(50 * 365 * 24 * 3600)
			if got := s.mounts(t, b.addr, "/images@v1"); got != "v1" {
				t.Errorf("the mount gets %s; want v1", got)
			}
			if n := s.Fleet("images")[0]; n.Why != ByRollout || n.Serial != b.id.Serial {
				t.Errorf("%+v", n)
			}
		}},
		{"nodes behind one address have each their own", func(t *testing.T, s *layered, b *booter) {
			other := &booter{t, s, b.addr, BootID{Serial: "11111111"}}
			b.gets(BootFirst, "v1")
			s.promoted(t, "v2")
			other.gets(BootFirst, "v2")
			b.gets(BootAny, "v1")
			if got := s.mounts(t, b.addr, "/images@v1"); got != "v1" {
				t.Errorf("the mount gets %s; want v1", got)
			}
			b.gets(BootAny, "v1")
			other.gets(BootAny, "v2")
		}},
		{"who says who it is late gets what it got before", func(t *testing.T, s *layered, b *booter) {
			rom := &booter{t, s, b.addr, BootID{}}
			rom.gets(BootFirst, "v1")
			s.promoted(t, "v2")
			b.gets(BootFirst, "v1")
			b.gets(BootLast, "v1")
			if got := s.mounts(t, b.addr, "/"); got != "v1" {
				t.Errorf("the mount gets %s; want v1", got)
			}
			rom.gets(BootFirst, "v2")
		}},
		{"and who says it early, too", func(t *testing.T, s *layered, b *booter) {
			loader := &booter{t, s, b.addr, BootID{}}
			b.gets(BootFirst, "v1")
			s.promoted(t, "v2")
			b.gets(BootLast, "v1")
			loader.gets(BootLast, "v1")
			loader.gets(BootAny, "v1")
			if got := s.mounts(t, b.addr, "/images@v1"); got != "v1" {
				t.Errorf("the mount gets %s; want v1", got)
			}
			b.gets(BootAny, "v2")
		}},
		{"a boot that begins anew without a name", func(t *testing.T, s *layered, b *booter) {
			rom := &booter{t, s, b.addr, BootID{}}
			b.gets(BootFirst, "v1")
			b.gets(BootLast, "v1")
			s.promoted(t, "v2")
			rom.gets(BootFirst, "v2")
			b.gets(BootFirst, "v2")
			if got := s.mounts(t, b.addr, "/"); got != "v2" {
				t.Errorf("the mount gets %s; want v2", got)
			}
			if n := len(s.bootFiles.byKey); n != 1 {
				t.Errorf("%d boots; want one", n)
			}
			s.clock(retryTime)
			s.bootFiles.sweep()
			if n := len(s.bootFiles.byKey); n > 0 {
				t.Errorf("%d boots are not over", n)
			}
		}},
		{"a node that turns out to be another gets its own", func(t *testing.T, s *layered, b *booter) {
			err := OpenState(s.stateDir).UpdateInventory("me", anyVersion, func(inv *Inventory) error {
				inv.Set(Entry{Name: "pinned", Serial: b.id.Serial, Pin: &Ref{"v2", digestOf('b')}})
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			rom := &booter{t, s, b.addr, BootID{}}
			rom.gets(BootFirst, "v1")
			b.gets(BootFirst, "v2")
			rom.gets(BootAny, "v2")
			if got := s.mounts(t, b.addr, "/"); got != "v2" {
				t.Errorf("the mount gets %s; want v2", got)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serveLayers(t, nil, "v1", "v2")
			s.promoted(t, "v1")
			c.then(t, s, &booter{t, s, host, pi})
		})
	}
}

func TestBootFindsTheNode(t *testing.T) {
	s := serveLayers(t, nil, "v1", "v2")
	s.promoted(t, "v1")
	v2 := Ref{"v2", digestOf('b')}
	s.arp(t, "10.1.2.7", card2)
	err := OpenState(s.stateDir).UpdateInventory("me", anyVersion, func(inv *Inventory) error {
		inv.Set(Entry{Name: "by-serial", Serial: "0660cd37", Pin: &v2})
		inv.Set(Entry{Name: "by-mac", MAC: card2, Pin: &v2})
		inv.Set(Entry{Name: "by-address", Addresses: []netip.Addr{netip.MustParseAddr("10.1.2.5")}, Pin: &v2})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		addr               string
		id                 BootID
		node, version      string
		trusted, elsewhere bool
	}{
		{addr: "10.1.2.3", id: BootID{Serial: "0660cd37"}, node: "by-serial", version: "v2"},
		{addr: "10.1.2.4", id: BootID{MAC: card2}, node: "by-mac", version: "v2"},
		{addr: "10.1.2.5", node: "by-address", version: "v2", trusted: true},
		{addr: "10.1.2.5", id: BootID{Serial: "0660cd37"}, node: "by-serial", version: "v2", elsewhere: true},
		{addr: "10.1.2.5", id: BootID{Serial: "11111111"}, node: "by-address", version: "v2", trusted: true},
		{addr: "10.1.2.6", id: BootID{Serial: "22222222"}, version: "v1"},
		{addr: "10.1.2.7", node: "by-mac", version: "v2"},
	} {
		b := (&booter{t, s, c.addr, c.id}).gets(BootFirst, c.version)
		name := ""
		if b.Node != nil {
			name = b.Node.Name
		}
		if name != c.node || b.Trusted != c.trusted || b.Elsewhere != c.elsewhere {
			t.Errorf("%s %+v: node %q, trusted %v, elsewhere %v; want %+v", c.addr, c.id, name, b.Trusted, b.Elsewhere, c)
		}
		if got := s.mounts(t, c.addr, "/"); got != c.version {
			t.Errorf("%s %+v mounts %s; want %s", c.addr, c.id, got, c.version)
		}
	}
	if s.said("at another address before") != 1 {
		t.Errorf("log %v", s.logs.All())
	}
	// Who was seen is in the fleet: nodes with a name by that, the unknown one with all that it said.
	got := map[string]string{}
	for _, n := range s.Fleet("images") {
		got[n.Key()] = fmt.Sprint(n.Address, n.Serial, n.MAC, n.Running, n.Promised, n.Why)
	}
	for key, want := range map[string]string{
		"by-serial": "10.1.2.3 0660cd37 v2 v2 pinned", "10.1.2.6": "10.1.2.6 22222222 v1 v1 promoted",
	} {
		var a, serial, running, promised, why string
		fmt.Sscan(want, &a, &serial, &running, &promised, &why)
		if want := fmt.Sprint(netip.MustParseAddr(a), serial, "", running, promised, Why(why)); got[key] != want {
			t.Errorf("%s: %s; want %s", key, got[key], want)
		}
	}
}

// TestWhoClaimsToBe: who says that it is a node that has an address is not that node to anybody but itself.
func TestWhoClaimsToBe(t *testing.T) {
	s := serveLayers(t, nil, "v1", "v2")
	s.promoted(t, "v1")
	s.nodesAre(t, Entry{Name: "pi-01", Addresses: []netip.Addr{netip.MustParseAddr(host)}, Serial: "0660cd37"})
	s.mounts(t, host, "/")
	(&booter{t, s, secondHost, BootID{Serial: "0660cd37"}}).gets(BootFirst, "v1")
	var got []string
	for _, n := range s.Fleet("images") {
		got = append(got, fmt.Sprintf("%s %s %v", n.Key(), n.Address, n.Netboot != nil))
	}
	if want := fmt.Sprintf("[pi-01 %s false %s %[2]s true]", host, secondHost); fmt.Sprint(got) != want {
		t.Errorf("%s; want %s", got, want)
	}
	if hints := s.Fleet("images")[1].Hints; len(hints) != 1 || hints[0] != "it says that it is pi-01: rootnfsd node set pi-01 --address "+secondHost+", if it is" {
		t.Errorf("hints: %q", hints)
	}
}

// TestBootOfAnotherImage: a boot ROM that does not say who it is has begun with the first image, and the node is in another one.
func TestBootOfAnotherImage(t *testing.T) {
	stores := map[string]*memStore{"a": {}, "b": {}}
	var images []Image
	for _, name := range []string{"a", "b"} {
		stores[name].seal(name+"1", name[0])
		images = append(images, Image{Name: name, Dir: "/srv/" + name, StateDir: t.TempDir(), Versions: stores[name]})
	}
	err := OpenState(images[1].StateDir).UpdateInventory("me", anyVersion, func(inv *Inventory) error {
		inv.Set(Entry{Name: "pi-9", Serial: "0660cd99"})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	x, err := New(Config{Images: images, Allow: DefaultAllow(), Log: zaptest.NewLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		id   BootID
		want string
	}{{BootID{}, "a1"}, {BootID{Serial: "0660cd99"}, "b1"}, {BootID{}, "b1"}} {
		b, err := x.Boot(netip.MustParseAddr(host), c.id, BootAny)
		if err != nil || b.Version != c.want {
			t.Fatalf("%+v gets %+v, %v; want %s", c.id, b, err, c.want)
		}
		b.Confirmed()
		b.Done()
	}
}

// TestBootsAreNotToldForEver: whoever begins one boot after the other fills no log.
func TestBootsAreNotToldForEver(t *testing.T) {
	s := serveLayers(t, nil, "v1")
	s.promoted(t, "v1")
	for i := range 100 {
		(&booter{t, s, host, BootID{Serial: fmt.Sprintf("%08x", i)}}).gets(BootFirst, "v1")
	}
	if n := s.said("fetches boot files"); n != mostTold {
		t.Errorf("said %d times; want %d", n, mostTold)
	}
}

func TestBootErrors(t *testing.T) {
	s := serveLayers(t, nil)
	try := func(addr string) error {
		_, err := s.Boot(netip.MustParseAddr(addr), BootID{}, BootFirst)
		return err
	}
	if err := try("8.8.8.8"); !errors.Is(err, fs.ErrAccess) {
		t.Errorf("from elsewhere: %v; want ErrAccess", err)
	}
	if err := try(host); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing is promoted: %v; want ErrNotExist", err)
	}
	s.started, s.closing = make(chan struct{}), sync.Once{}
	if err := try(host); err != fs.ErrWouldBlock {
		t.Errorf("too early: %v; want ErrWouldBlock", err)
	}
	s.store.seal("v1", 'a')
	mounted := make(chan error)
	go func() { // it waits, or comes later
		_, err := s.Mount(s.at(host), "/", Caller{Booting: true})
		mounted <- err
	}()
	if err := s.Started(); err != nil {
		t.Fatal(err)
	}
	if err := <-mounted; err != nil {
		t.Errorf("the mount that was too early: %v", err)
	}
	(&booter{t, s, host, BootID{}}).gets(BootFirst, "v1")
}

// TestCommandLineGiven: a node whose command line names a version because the server wrote it gets what is promoted
// at its next boot.
func TestCommandLineGiven(t *testing.T) {
	s := serveLayers(t, nil, "v1", "v2")
	s.promoted(t, "v1")
	b := &booter{t, s, host, BootID{Serial: "0660cd37"}}
	for _, given := range []bool{false, true} {
		boot := b.gets(BootFirst, "v1")
		if given {
			boot.CommandLineGiven()
		}
		if got := s.mounts(t, host, "/images@v1"); got != "v1" {
			t.Fatalf("mounts %s", got)
		}
		s.promoted(t, "v2")
		n := s.Fleet("images")[0]
		want := map[bool]string{false: "v1 its command line false", true: "v2 promoted true"}[given]
		if got := fmt.Sprint(n.Promised, " ", n.Why, " ", n.RebootNeeded); got != want {
			t.Errorf("given %v: %s; want %s", given, got, want)
		}
		s.promoted(t, "v1")
	}
}

// TestBootsAreBounded: whoever makes up addresses fills no memory.
func TestBootsAreBounded(t *testing.T) {
	s := serveLayers(t, nil, "v1")
	s.promoted(t, "v1")
	for i := range mostBootFiles + 100 {
		addr := netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)})
		(&booter{t, s, addr.String(), BootID{Serial: fmt.Sprintf("%08x", i)}}).gets(BootFirst, "v1")
	}
	victim := &booter{t, s, "10.1.2.9", BootID{Serial: "0660cd37"}}
	victim.gets(BootFirst, "v1")
	s.store.seal("v2", 'b')
	s.promoted(t, "v2")
	for i := range mostBootFiles {
		b := (&booter{t, s, "10.1.2.10", BootID{Serial: fmt.Sprintf("%08x", i)}}).opens(BootFirst, "v2")
		b.Done()
	}
	victim.gets(BootAny, "v1")
	b := &s.bootFiles
	if len(b.byAddr[netip.MustParseAddr("10.1.2.10")]) > mostAtAddress {
		t.Errorf("%d boots at one address", len(b.byAddr[netip.MustParseAddr("10.1.2.10")]))
	}
	if len(b.byKey) > mostBootFiles || len(b.byAddr) > mostBootFiles || len(b.serials) > mostBootFiles {
		t.Errorf("%d boots at %d addresses, %d serial numbers; want %d at most", len(b.byKey), len(b.byAddr), len(b.serials), mostBootFiles)
	}
	s.clock(bootFilesTime)
	s.bootFiles.sweep()
	if len(b.byKey)+len(b.byAddr) > 0 {
		t.Errorf("%d boots at %d addresses are never over", len(b.byKey), len(b.byAddr))
	}
}

// The MAC addresses of machines.
const (
	card1 = "dc:a6:32:01:36:c1"
	card2 = "dc:a6:32:01:36:c2"
	card3 = "dc:a6:32:01:36:c3"
)

// arp has the kernel see machines: a MAC address at an address, each in turn.
func (s *served) arp(t *testing.T, pairs ...string) {
	t.Helper()
	table := "IP address HW type Flags HW address Mask Device\n"
	for i := 0; i < len(pairs); i += 2 {
		table += fmt.Sprintf("%s 0x1 0x2 %s * eth0\n", pairs[i], pairs[i+1])
	}
	if err := os.WriteFile(s.neighbours, []byte(table), 0o644); err != nil {
		t.Fatal(err)
	}
}

// nodesAre replaces the inventory.
func (s *layered) nodesAre(t *testing.T, entries ...Entry) {
	t.Helper()
	err := OpenState(s.stateDir).UpdateInventory("me", anyVersion, func(inv *Inventory) error {
		inv.Entries = entries
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	s.refreshIfPromoted()
}

// isNode reports whether what has an address gets files of its own when it mounts its root.
func (s *layered) isNode(t *testing.T, addr string) bool {
	t.Helper()
	p := s.at(addr)
	name, err := s.get(t, p, s.mountAs(t, p), "etc/hostname")
	return err == nil && strings.HasPrefix(name, "pi-")
}

// TestMachines: what is a node's own goes to the machine that first was it, whatever else gets the address.
func TestMachines(t *testing.T) {
	const x, y = "10.1.2.3", "10.1.2.4"
	with := func(e Entry, mac, serial string) Entry { e.MAC, e.Serial = mac, serial; return e }
	pi := entry("pi-01", x)
	type look struct { // a machine at an address, and whether it is the node
		mac, addr string
		own       bool
	}
	for _, c := range []struct {
		name string
		do   func(t *testing.T, s *layered, see func(...look))
	}{
		{"the first is the node", func(t *testing.T, s *layered, see func(...look)) {
			s.nodesAre(t, pi)
			see(look{"", x, true}, look{card1, x, true}, look{card2, x, false}, look{"", x, true}, look{card1, x, true})
		}},
		{"also after a crash", func(t *testing.T, s *layered, see func(...look)) {
			s.nodesAre(t, pi)
			see(look{card1, x, true})
			s.restart(t)
			see(look{card2, x, false}, look{card1, x, true})
		}},
		{"what an operator says counts", func(t *testing.T, s *layered, see func(...look)) {
			s.nodesAre(t, pi)
			see(look{card1, x, true})
			s.nodesAre(t, with(pi, card2, ""))
			see(look{card1, x, false}, look{card2, x, true})
			s.nodesAre(t, pi)
			see(look{card3, x, true}, look{card1, x, false}) // it is forgotten what was before
		}},
		{"two addresses, two cards", func(t *testing.T, s *layered, see func(...look)) {
			s.nodesAre(t, with(entry("pi-01", x, y), card1, ""))
			see(look{card2, y, true}, look{card1, x, true}, look{card3, y, false}, look{card2, x, true})
		}},
		{"another address, the same machine", func(t *testing.T, s *layered, see func(...look)) {
			s.nodesAre(t, pi)
			see(look{card1, x, true})
			s.nodesAre(t, entry("pi-01", y))
			see(look{card2, y, false}, look{card1, y, true})
		}},
		{"addresses are swapped before the machines have them", func(t *testing.T, s *layered, see func(...look)) {
			s.nodesAre(t, pi, entry("pi-02", y))
			see(look{card1, x, true}, look{card2, y, true})
			s.nodesAre(t, entry("pi-01", y), entry("pi-02", x))
			see(look{card1, x, false}, look{card2, y, false}, look{card1, y, true}, look{card2, x, true})
		}},
		{"a name that is taken away and given anew", func(t *testing.T, s *layered, see func(...look)) {
			s.nodesAre(t, pi)
			see(look{card1, x, true})
			s.nodesAre(t)
			s.nodesAre(t, pi)
			see(look{card2, x, true}, look{card1, x, false})
		}},
		{"named by its card alone", func(t *testing.T, s *layered, see func(...look)) {
			s.nodesAre(t, Entry{Name: "pi-01", MAC: card1})
			see(look{card1, y, true}, look{card1, x, true}, look{card2, y, false}, look{"", y, false})
		}},
		{"a machine that says another serial number", func(t *testing.T, s *layered, see func(...look)) {
			s.nodesAre(t, with(pi, "", "0660cd37"))
			(&booter{t, s, x, BootID{Serial: "11111111"}}).gets(BootFirst, "v1")
			see(look{card2, x, false}, look{"", x, false})
			(&booter{t, s, x, BootID{Serial: "0660cd37"}}).gets(BootFirst, "v1")
			see(look{card1, x, true})
		}},
		{"a file that is damaged makes strangers of all but those whose cards were said", func(t *testing.T, s *layered, see func(...look)) {
			s.nodesAre(t, pi, with(entry("pi-02", y), card2, ""))
			see(look{card1, x, true})
			path := filepath.Join(s.stateDir, machinesFile)
			if err := os.WriteFile(path, []byte("{"), 0o644); err != nil {
				t.Fatal(err)
			}
			s.restart(t)
			see(look{card1, x, false}, look{card2, y, true})
			if s.said("restore it from a backup") == 0 {
				t.Errorf("log %v", s.logs.All())
			}
			os.Remove(path)
			s.restart(t)
			see(look{card3, x, true})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serveLayers(t, hostnames, "v1")
			s.promoted(t, "v1")
			c.do(t, s, func(looks ...look) {
				t.Helper()
				for i, l := range looks {
					s.arp(t, l.addr, l.mac)
					if l.mac == "" {
						s.arp(t)
					}
					if got := s.isNode(t, l.addr); got != l.own {
						t.Errorf("look %d: %+v: the node %v", i, l, got)
					}
				}
			})
		})
	}
}

// TestStrangerIsSaid: operators see what is the matter, whenever within a second it comes.
func TestStrangerIsSaid(t *testing.T) {
	s := serveLayers(t, hostnames, "v1")
	s.nodesAre(t, entry("pi-01", host))
	s.arp(t, host, card1)
	s.isNode(t, host)
	s.arp(t, host, card2)
	s.isNode(t, host)
	want := "the machine at the address of pi-01 is " + card2 + ", not " + card1 + ": give each its own address or, if it is the node, rootnfsd node set pi-01 --mac " + card2
	if n := s.Fleet("images")[0]; len(n.Hints) != 1 || n.Hints[0] != want {
		t.Errorf("hints: %q; want %q", n.Hints, want)
	}
}

// TestStolenHandleAtTheAddress: another machine at a node's address gets nothing by the handles that the node was given.
func TestStolenHandleAtTheAddress(t *testing.T) {
	s := serveLayers(t, hostnames, "v1")
	s.nodesAre(t, entry("pi-01", host))
	s.arp(t, host, card1)
	p := s.at(host)
	own, err := s.handle(t, p, s.mountAs(t, p), "etc/hostname")
	if err != nil {
		t.Fatal(err)
	}
	s.arp(t, host, card2)
	if got, err := s.contentAt(s.at(host), own); err != fs.ErrAccess {
		t.Errorf("another machine reads %q, %v; want ErrAccess", got, err)
	}
	if got, err := s.contentAt(p, own); got != "pi-01" || err != nil {
		t.Errorf("the node reads %q, %v", got, err)
	}
}

// TestConnectionOfAStranger: who was taken for the node is not any more when that is known, on a connection from before, too.
func TestConnectionOfAStranger(t *testing.T) {
	s := serveLayers(t, hostnames, "v1")
	s.nodesAre(t, entry("pi-01", host))
	s.arp(t, host, card2)
	p := s.at(host)
	if got := s.identify(p, s.table.Load()).byImage[0].standing; got != fresh {
		t.Errorf("before anybody mounts: %d; want %d", got, fresh)
	}
	s.arp(t, host, card1)
	s.isNode(t, host)
	if got := s.identify(p, s.table.Load()).byImage[0].standing; got != stranger {
		t.Errorf("when the node has: %d; want %d", got, stranger)
	}
}

func TestHomeOfFirstMachine(t *testing.T) {
	s := serveHomes(t, nil)
	s.neighbours = filepath.Join(s.stateDir, "arp")
	s.name(t, Entry{Name: "pi-01", Addresses: []netip.Addr{netip.MustParseAddr(host)}})
	s.refreshIfPromoted()
	for _, c := range []struct {
		mac  string
		want error
	}{{card1, nil}, {card2, fs.ErrAccess}, {card1, nil}} {
		s.arp(t, host, c.mac)
		for _, from := range []Caller{{}, {Datagram: true}} {
			p := s.at(host)
			h, err := s.Mount(p, "/home", from)
			if err == nil {
				err = s.CheckHome(p, h)
			}
			if !errors.Is(err, c.want) {
				t.Errorf("%s mounts the home, %+v: %v; want %v", c.mac, from, err, c.want)
			}
		}
	}
}

// TestBootHoldsItsVersion: what a node has fetched boot files of must not be removed before it mounts its root.
func TestBootHoldsItsVersion(t *testing.T) {
	s := serveLayers(t, nil, "v1", "v2")
	s.promoted(t, "v1")
	(&booter{t, s, host, BootID{}}).gets(BootFirst, "v1")
	s.nodes.save(s.table.Load().images, s.log, true)
	nodes, err := OpenState(s.stateDir).Nodes()
	if err != nil || len(nodes) != 1 {
		t.Fatalf("%+v, %v", nodes, err)
	}
	now := nodes[0].Netboot.At
	for _, c := range []struct {
		version byte
		after   time.Duration
		want    bool
	}{{'a', 0, true}, {'a', 9 * time.Minute, true}, {'a', time.Hour, false}, {'b', 0, false}} {
		if got := nodes[0].Needs(Ref{"", digestOf(c.version)}, now.Add(c.after)); got != c.want {
			t.Errorf("after %s it needs %c: %v; want %v", c.after, c.version, got, c.want)
		}
	}
}

// TestBootOfAnyUser has a user of a node ask for boot files as another one, which needs no privilege: the kernel knows the node's card, so
// that it stays itself, with its files and its home.
func TestBootOfAnyUser(t *testing.T) {
	s := serveHomes(t, nil)
	s.neighbours = s.stateDir + "/arp"
	s.name(t, Entry{Name: "pi-01", Serial: "0660cd37", Addresses: []netip.Addr{netip.MustParseAddr(host)}})
	s.promote(t, "v1")
	s.refreshIfPromoted()
	s.arp(t, host, card1)
	if _, err := s.Mount(s.at(host), "/home", Caller{}); err != nil {
		t.Fatal(err)
	}
	b, err := s.Boot(netip.MustParseAddr(host), BootID{Serial: "11111111"}, BootFirst)
	if err != nil {
		t.Fatal(err)
	}
	b.Confirmed()
	b.Done()
	if b.Trusted {
		t.Error("who says that it is another one gets secrets of the node's")
	}
	if _, err := s.Mount(s.at(host), "/home", Caller{}); err != nil {
		t.Errorf("its home, afterwards: %v", err)
	}
	s.arp(t, host, card2)
	if _, err := s.Mount(s.at(host), "/home", Caller{}); err == nil {
		t.Error("another card there gets the home")
	}
}

// TestBootSeenLate has the kernel hear of a card only after the first request.
func TestBootSeenLate(t *testing.T) {
	s := serveLayers(t, hostnames, "v1")
	s.promoted(t, "v1")
	e := entry("pi-01", host)
	e.MAC = card1
	s.nodesAre(t, e)
	s.arp(t)
	pi := &booter{t, s, host, BootID{}}
	if b := pi.gets(BootFirst, "v1"); !b.Trusted {
		t.Error("a node behind a router is not trusted")
	}
	s.arp(t, host, card2)
	if b := pi.gets(BootLast, "v1"); b.Trusted {
		t.Error("another card is seen there, and still it is trusted")
	}
}

// TestBootClockBack starts a server again whose clock has gone back, as that of a machine without a battery does: a boot from before goes on,
// but not until the clock has caught up.
func TestBootClockBack(t *testing.T) {
	s := serveLayers(t, nil, "v1", "v2")
	s.promoted(t, "v1")
	pi := &booter{t, s, host, BootID{Serial: "0660cd37"}}
	pi.gets(BootFirst, "v1")
	for _, nd := range s.nodes.all() {
		f := *nd.netboot.Load()
		f.At = time.Now().Add(40 * time.Minute)
		nd.netboot.Store(&f)
	}
	s.nodes.save(s.table.Load().images, s.log, true)
	s.promoted(t, "v2")
	s.restart(t)
	pi.gets(BootFirst, "v1")
	s.clock(bootFilesMost)
	pi.gets(BootFirst, "v2")
}
