package exports

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)

// ago is a time before noon; none if it is negative.
func ago(d time.Duration) time.Time {
	if d < 0 {
		return time.Time{}
	}
	return noon.Add(-d)
}

func TestStates(t *testing.T) {
	const never = -1
	for _, c := range []struct {
		what            string
		mounted, called time.Duration // ago
		good, home      time.Duration
		want            NodeState
	}{
		{"it has just booted", time.Minute, 0, never, never, StateBooting},
		{"it goes on calling", 2 * time.Minute, 0, never, never, StateUp},
		{"it called for a while after its boot", 10 * time.Minute, 8 * time.Minute, never, never, StateUp},
		{"it mounted its home", time.Minute, 0, never, 30 * time.Second, StateUp},
		{"it mounted its home before it booted", time.Minute, 0, never, time.Hour, StateBooting},
		{"it said so", time.Minute, 0, 20 * time.Second, never, StateUp},
		{"it stopped calling before it was up", 6 * time.Minute, 5 * time.Minute, never, never, StateSilent},
		{"it was up and is silent", 2 * time.Hour, 16 * time.Minute, never, never, StateSilent},
		{"it was up before the server knew it", never, time.Minute, never, never, StateUp},
		{"it was not heard of for weeks", 400 * time.Hour, 300 * time.Hour, never, never, StateSilent},
	} {
		n := Node{Addr: netip.MustParseAddr(host), Good: ago(c.good), Home: ago(c.home)}
		n.Uses = []Use{{Ref: ref("v1"), FirstSeen: ago(c.mounted), Mounted: ago(c.mounted), Booted: ago(c.mounted), LastCall: ago(c.called)}}
		fleet := Fleet(&Rollout{}, new(Inventory), []Node{n}, noon)
		if len(fleet) != 1 || fleet[0].State != c.want {
			t.Errorf("%s: %+v; want %s", c.what, fleet, c.want)
		}
	}
}

// TestStatesOfBootFiles: a node that fetches boot files boots, as far as it can be told, until it has mounted its root.
func TestStatesOfBootFiles(t *testing.T) {
	for _, c := range []struct {
		what             string
		named            bool
		fetched, mounted time.Duration // ago; 0 for never
		want             NodeState
	}{
		{"a new node", false, time.Minute, 0, StateNew},
		{"a node with a name", true, time.Minute, 0, StateBooting},
		{"it never mounted its root", true, time.Hour, 0, StateSilent},
		{"it was up, and boots again", false, time.Minute, time.Hour, StateBooting},
		{"it mounted its root", false, 8 * time.Minute, 7 * time.Minute, StateUp},
	} {
		n := Node{Addr: netip.MustParseAddr(host), Netboot: &Netboot{Ref: ref("v1"), At: noon.Add(-c.fetched)}}
		if c.mounted > 0 {
			n.Uses = []Use{{Ref: ref("v1"), Mounted: ago(c.mounted), Booted: ago(c.mounted), Began: ago(c.mounted), LastCall: ago(c.mounted - 2*time.Minute)}}
		}
		inv := new(Inventory)
		if c.named {
			inv.Entries = []Entry{entry("pi", host)}
		}
		if err := inv.Check(); err != nil {
			t.Fatal(err)
		}
		fleet := Fleet(&Rollout{}, inv, []Node{n}, noon)
		if len(fleet) != 1 || fleet[0].State != c.want {
			t.Errorf("%s: %+v; want %s", c.what, fleet, c.want)
		}
	}
}

// TestFleet puts together what operators said and what was seen.
func TestFleet(t *testing.T) {
	inv := &Inventory{Entries: []Entry{entry("pi-b", "10.0.0.2", "10.0.0.3"), entry("pi-a"), {Name: "pi-c", Labels: []string{"canary"}, Pin: &Ref{Version: "v9", Digest: digestOf(9)}}}}
	if err := inv.Check(); err != nil {
		t.Fatal(err)
	}
	use := func(v string, mounted time.Duration, exact bool) Use {
		return Use{Ref: ref(v), Mounted: ago(mounted), Booted: ago(mounted), LastCall: ago(mounted / 100), Exact: exact, Tally: Tally{Calls: 7}}
	}
	seen := []Node{
		{Addr: netip.MustParseAddr("10.0.0.2"), Uses: []Use{use("v1", 48*time.Hour, false)}},
		{Addr: netip.MustParseAddr("10.0.0.3"), Uses: []Use{use("v2", 10*time.Minute, false)}},
		{Addr: netip.MustParseAddr("10.0.0.10"), Uses: []Use{use("v1", time.Hour, true)}},
		{Addr: netip.MustParseAddr("10.0.0.9"), Uses: []Use{use("v1", time.Hour, false)}},
		{Addr: netip.MustParseAddr("10.0.0.11")},
	}
	seen[3].Uses[0].Tally = Tally{Calls: 4000, Reads: 2000, ReadBytes: 8 << 20, LargestRead: 4096}
	r := &Rollout{Stack: []Ref{ref("v2")}}
	var got []string
	for _, n := range Fleet(r, inv, seen, noon) {
		got = append(got, fmt.Sprintf("%s at %v runs %q, promised %s (%s), reboot %v, %s, %d calls, %d hints", n.Key(), n.Address, n.Running, n.Promised, n.Why, n.RebootNeeded, n.State, n.Calls, len(n.Hints)))
	}
	if n := statusOf(r, nil, seen[3:4], noon); len(n.Hints) != 1 || n.Hints[0] != "it reads in pieces of 4 KiB: add rsize=1048576 to its nfsroot= options" {
		t.Errorf("hints: %q", n.Hints)
	}
	want := `pi-a at invalid IP runs "", promised v2 (promoted), reboot false, new, 0 calls, 0 hints
pi-b at 10.0.0.3 runs "v2", promised v2 (promoted), reboot false, up, 7 calls, 0 hints
pi-c at invalid IP runs "", promised v9 (pinned), reboot false, new, 0 calls, 0 hints
10.0.0.9 at 10.0.0.9 runs "v1", promised v2 (promoted), reboot true, up, 4000 calls, 1 hints
10.0.0.10 at 10.0.0.10 runs "v1", promised v1 (its command line), reboot false, up, 7 calls, 0 hints
10.0.0.11 at 10.0.0.11 runs "", promised v2 (promoted), reboot false, new, 0 calls, 0 hints`
	if s := strings.Join(got, "\n"); s != want {
		t.Errorf("%s\nwant\n%s", s, want)
	}
}

// TestCounts counts what a node does over its boots, and keeps it over a restart.
func TestCounts(t *testing.T) {
	s := serve(t, "va")
	s.promote(t, "va")
	boot := func() []byte {
		t.Helper()
		h, err := s.Mount(s.peer, "/", Caller{Booting: true})
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	want := func(when string, tally Tally, boots int64) {
		t.Helper()
		fleet := s.Fleet("images")
		if len(fleet) != 1 || fleet[0].Tally != tally || fleet[0].Boots != boots {
			t.Errorf("%s: %+v; want %+v and %d boots", when, fleet, tally, boots)
		}
	}
	resolve := func(h []byte) {
		t.Helper()
		var o Object
		for i := range uint32(3) {
			if err := s.Resolve(s.Peer(netip.AddrPortFrom(netip.MustParseAddr(host), 700)), h, &o); err != nil {
				t.Fatal(err)
			}
			o.NoteRead(0, 1000*i)
		}
	}
	h := boot()
	resolve(h)
	want("three READs", Tally{3, 3, 3000, 2000}, 1)
	boot()
	want("nfsmount tries again", Tally{3, 3, 3000, 2000}, 1)
	s.nodes.save(s.table.Load().images, s.log, true)
	s.restart(t)
	want("after a restart", Tally{3, 3, 3000, 2000}, 1)
	resolve(h)
	want("and more", Tally{6, 6, 6000, 2000}, 1)
	s.clock(retryTime)
	boot()
	want("after another boot", Tally{}, 2)
}

// TestBootIsSaved has a server killed as soon as a node has its root.
func TestBootIsSaved(t *testing.T) {
	s := serve(t, "va", "vb")
	for _, v := range []string{"va", "vb"} {
		s.promote(t, v)
		if _, err := s.Mount(s.peer, "/", Caller{Booting: true}); err != nil {
			t.Fatal(err)
		}
		s.clock(2) // seconds, which is what times are kept in
	}
	s.restart(t) // with nothing saved since
	if fleet := s.Fleet("images"); len(fleet) != 1 || fleet[0].Running != "vb" {
		t.Errorf("%+v; want a node that runs vb", fleet)
	}
}

func TestMarkGood(t *testing.T) {
	s := serve(t, "va")
	s.promote(t, "va")
	addr := netip.MustParseAddr(host)
	if s.MarkGood(addr) {
		t.Error("a node that nobody knows is good")
	}
	s.mount(t, "/")
	if !s.MarkGood(addr) || s.Fleet("images")[0].State != StateUp {
		t.Errorf("%+v; want it up", s.Fleet("images"))
	}
}

// TestBoots tells boots from other mounts.
func TestBoots(t *testing.T) {
	s := serve(t, "va", "vb")
	s.promote(t, "va")
	kernel, user := s.peer, s.Peer(netip.MustParseAddrPort(host+":2000"))
	want := func(when string, running string, boots int64) {
		t.Helper()
		n := s.Fleet("images")[0]
		if n.Running != running || n.Boots != boots {
			t.Errorf("%s: it runs %s, booted %d times; want %s, %d", when, n.Running, n.Boots, running, boots)
		}
	}
	mount := func(p *Peer, path string, booting bool) {
		t.Helper()
		s.clock(2 * retryTime)
		h, err := s.Mount(p, path, Caller{Booting: booting})
		if err == nil {
			_, err = s.read(t, h)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	mount(kernel, "/images", false)
	want("nfsroot of the kernel", "va", 1)
	mount(kernel, "/", false)
	want("another mount beside the root", "va", 1)
	mount(kernel, "/images", false)
	want("the kernel again", "va", 2)
	mount(user, "/images@vb", true)
	mount(user, "/images", true)
	want("mounts by a user", "va", 2)
	mount(kernel, "/", true)
	want("an initramfs", "va", 3)
	mount(kernel, "/images", false)
	want("what it mounts when it is up", "va", 3)

	other := s.Peer(netip.MustParseAddrPort("10.9.9.9:700"))
	mount(other, "/", false)
	if n := s.Fleet("images")[1]; n.Boots != 1 {
		t.Errorf("another node has no initramfs: %+v", n)
	}
}

// TestBrokenInventory follows rollouts though nobody can tell who is who.
func TestBrokenInventory(t *testing.T) {
	s := serve(t, "va", "vb")
	s.promote(t, "va")
	s.name(t, Entry{Name: "pi", Addresses: []netip.Addr{netip.MustParseAddr(host)}, Pin: &Ref{Version: "va", Digest: digestOf('a')}})
	get := func(addr, want string) {
		t.Helper()
		h, err := s.Mount(s.Peer(netip.MustParseAddrPort(addr+":700")), "/", Caller{})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := s.read(t, h); got != want || err != nil {
			t.Errorf("%s gets %s, %v; want %s", addr, got, err, want)
		}
	}
	get(host, "a")
	path := filepath.Join(s.stateDir, inventoryFile)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".new", []byte(`{"format":2}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	s.promote(t, "vb")
	get("10.9.9.9", "b")
	get(host, "a")
	if err := s.Ready(); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("ready: %v", err)
	}
	s.restart(t)
	get("10.9.9.9", "b")
	if err := s.Ready(); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("ready after a restart: %v", err)
	}
	if err := os.WriteFile(path+".new", good, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	get(host, "a")
	if err := s.Ready(); err != nil {
		t.Errorf("mended: %v", err)
	}
}
