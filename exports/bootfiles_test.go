package exports

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"testing"

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
	got, err := b.s.Boot(netip.MustParseAddr(b.addr), b.id, step)
	if err != nil || got.Version != want {
		b.t.Fatalf("%s %+v gets %+v, %v; want %s", b.addr, b.id, got, err, want)
	}
	return got
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
		{"and so do ten with", func(t *testing.T, s *layered, b *booter) {
			b.gets(BootFirst, "v1")
			s.promoted(t, "v2")
			for range 9 {
				s.clock(60)
				b.gets(BootAny, "v1")
			}
			s.clock(60)
			b.gets(BootAny, "v2")
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
	const arp = "IP address       HW type     Flags       HW address            Mask     Device\n" +
		"10.1.2.7         0x1         0x2         dc:a6:32:01:36:c2     *        eth0\n"
	if err := os.WriteFile(s.neighbours, []byte(arp), 0o644); err != nil {
		t.Fatal(err)
	}
	err := OpenState(s.stateDir).UpdateInventory("me", anyVersion, func(inv *Inventory) error {
		inv.Set(Entry{Name: "by-serial", Serial: "0660cd37", Pin: &v2})
		inv.Set(Entry{Name: "by-mac", MAC: "dc:a6:32:01:36:c2", Pin: &v2})
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
		{addr: "10.1.2.4", id: BootID{MAC: "dc:a6:32:01:36:c2"}, node: "by-mac", version: "v2"},
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
	s.starting.Store(true)
	if err := try(host); err != fs.ErrWouldBlock {
		t.Errorf("too early: %v; want ErrWouldBlock", err)
	}
	s.store.seal("v1", 'a')
	if err := s.Started(); err != nil {
		t.Fatal(err)
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
			s.CommandLineGiven(boot)
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
		if _, err := s.Boot(addr, BootID{Serial: fmt.Sprintf("%08x", i)}, BootFirst); err != nil {
			t.Fatal(err)
		}
	}
	b := &s.bootFiles
	if len(b.byKey) > mostBootFiles || len(b.byAddr) > mostBootFiles || len(b.serials) > mostBootFiles {
		t.Errorf("%d boots at %d addresses, %d serial numbers; want %d at most", len(b.byKey), len(b.byAddr), len(b.serials), mostBootFiles)
	}
	s.bootFiles.sweep(s.nodes.now.Load() + bootFilesTime)
	if len(b.byKey)+len(b.byAddr) > 0 {
		t.Errorf("%d boots at %d addresses are never over", len(b.byKey), len(b.byAddr))
	}
}

// TestFirstMachine: what is a node's own goes to the machine that first was it, whatever else gets the address.
func TestFirstMachine(t *testing.T) {
	s := serveLayers(t, hostnames, "v1")
	at := func(mac string) {
		t.Helper()
		line := fmt.Sprintf("IP address HW type Flags HW address Mask Device\n%s 0x1 0x2 %s * eth0\n", host, mac)
		if err := os.WriteFile(s.neighbours, []byte(line), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(what string, own bool) {
		t.Helper()
		want := byte(kindVersion)
		if own {
			want = kindLayer
		}
		if h := s.mountAs(t, s.peer); h[1] != want {
			t.Errorf("%s: handle %x; want kind %x", what, h, want)
		}
	}
	const one, two = "dc:a6:32:01:36:c1", "dc:a6:32:01:36:c2"
	s.name(t, map[string]string{host: "pi-01"})
	if err := os.WriteFile(s.neighbours, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	expect("a machine that the kernel does not see", true)
	at(one)
	expect("the first machine", true)
	at(two)
	expect("another machine", false)
	if n := s.Fleet("images")[0]; n.MAC != one || len(n.Hints) != 1 {
		t.Errorf("the fleet has %s, %q", n.MAC, n.Hints)
	}
	s.restart(t) // as after a crash: the journal has it
	expect("another machine, and another server", false)
	at(one)
	expect("the first machine again", true)
	s.name(t, map[string]string{host: "pi-02"})
	at(two)
	expect("another machine as another node", true)
	err := OpenState(s.stateDir).UpdateInventory("me", anyVersion, func(inv *Inventory) error {
		inv.Named("pi-02").MAC = one
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	expect("another machine than the operator says", false)
	at(one)
	expect("that which the operator says", true)
}
