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

func TestMountsOfShowmount(t *testing.T) {
	s := serve(t, "v1")
	if _, err := s.Mount(s.peer, "/images/etc", Caller{}); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprint([]MountEntry{{host, "/images/etc"}})
	if got := fmt.Sprint(s.Mounts()); got != want {
		t.Errorf("%s; want %s", got, want)
	}
	s.Unmount(s.peer, "/images/other")
	if got := fmt.Sprint(s.Mounts()); got != want {
		t.Errorf("after another path was unmounted: %s; want %s", got, want)
	}
	s.Unmount(s.peer, "/images/etc")
	if got := s.Mounts(); got != nil {
		t.Errorf("after it was unmounted: %v; want none", got)
	}
}

func TestNodesAreRemembered(t *testing.T) {
	s := serve(t, "v1", "v2")
	s.promote(t, "v1")
	h := s.mount(t, "/")
	s.read(t, h)
	s.nodes.save(s.table.Load().images, s.log, false)
	check := func(when string) {
		t.Helper()
		list, err := OpenState(s.stateDir).Nodes()
		if err != nil || len(list) != 1 {
			t.Fatalf("%s: %v, %v; want one node", when, list, err)
		}
		running := list[0].Running(time.Now())
		if list[0].Addr.String() != host || len(running) != 1 || running[0].Version != "v1" || running[0].Path != "/" {
			t.Errorf("%s: %+v; want %s on v1", when, list[0], host)
		}
	}
	check("after the first call")
	s.restart(t)
	s.read(t, h)
	s.nodes.save(s.table.Load().images, s.log, true)
	check("after a restart")
}

func TestStrangersLeaveNoTrace(t *testing.T) {
	s := serve(t, "v1")
	var o Object
	for i := range 256 {
		p := s.Peer(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 700))
		s.Resolve(p, make([]byte, versionHandle), &o)
		s.Mount(p, "/nope", Caller{Datagram: true})
		if _, err := s.Mount(p, "/", Caller{Datagram: true}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(s.nodes.all()); n != 0 {
		t.Errorf("%d nodes are remembered that never used anything", n)
	}
}

func TestRunning(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	use := func(version string, mounted, last time.Duration) Use {
		return Use{Ref: Ref{Version: version}, Mounted: ago(mounted), LastCall: ago(last)}
	}
	boot := func(version string, booted, last time.Duration) Use {
		u := use(version, booted, last)
		u.Booted = u.Mounted
		return u
	}
	const day = 24 * time.Hour
	for _, c := range []struct {
		name string
		uses []Use
		want string
	}{
		{"one version", []Use{boot("v1", time.Hour, time.Minute)}, "v1"},
		{"rebooted an hour ago", []Use{boot("v1", 3*time.Hour, 2*time.Hour), boot("v2", time.Hour, 0)}, "v2"},
		{"rebooted just now", []Use{boot("v1", 3*time.Hour, 10*time.Second), boot("v2", 5*time.Second, 0)}, "v2 v1"},
		{"looks at another one and goes on with the first", []Use{boot("v1", 3*time.Hour, time.Minute), use("v2", time.Hour, time.Hour)}, "v1 v2"},
		{"looked at another one, and its root is silent", []Use{boot("v1", 3*time.Hour, 2*time.Hour), use("v2", time.Hour, time.Hour)}, "v1 v2"},
		{"without an initramfs, rebooted an hour ago: it cannot be told", []Use{use("v1", 3*time.Hour, 2*time.Hour), use("v2", time.Hour, 0)}, "v2 v1"},
		{"without an initramfs, rebooted two days ago", []Use{use("v1", 3*day, 2*day+time.Hour), use("v2", 2*day, 0)}, "v2"},
		{"idle for a day", []Use{boot("v1", 30*time.Hour, day)}, "v1"},
		{"silent for a month", []Use{boot("v1", 30*day, 30*day)}, ""},
		{"its mount was before the record began", []Use{{Ref: Ref{Version: "v1"}, LastCall: ago(time.Second)}}, "v1"},
		{"back to the first", []Use{boot("v1", time.Hour, 0), boot("v2", 3*time.Hour, 2*time.Hour)}, "v1"},
		{"the clock was set back", []Use{boot("v1", -time.Hour, -time.Hour), boot("v2", -2*time.Hour, -2*time.Hour)}, "v2 v1"},
	} {
		n := Node{Uses: c.uses}
		var got []string
		for _, u := range n.Running(now) {
			got = append(got, u.Version)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: runs %v; want %s", c.name, got, c.want)
		}
	}
}

func TestManyVersionsOfOneNode(t *testing.T) {
	var names []string
	for i := range 3 * mostUses {
		names = append(names, fmt.Sprintf("v%d", i))
	}
	s := serve(t, names...)
	for _, name := range names {
		if _, err := s.Mount(s.peer, "/@"+name, Caller{}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(*s.peer.node.Load().uses.Load()); n != mostUses {
		t.Errorf("%d uses are remembered; want the last %d", n, mostUses)
	}
}

func TestForgottenNodeIsKnownAgain(t *testing.T) {
	s := serve(t, "v1")
	h := s.mount(t, "/")
	s.nodes.mu.Lock()
	s.nodes.forgetOldest()
	s.nodes.mu.Unlock()
	if n := len(s.nodes.all()); n != 0 {
		t.Fatalf("%d nodes after the only one was forgotten", n)
	}
	s.read(t, h)
	if n := len(s.nodes.all()); n != 1 {
		t.Errorf("%d nodes after it made a call; want it back", n)
	}
}

func TestDamagedRecordOfNodesIsSetAside(t *testing.T) {
	s := serve(t, "v1")
	path := filepath.Join(s.stateDir, nodesFile)
	if err := os.WriteFile(path, []byte(`{"format":1,"nodes":[{"addr`), 0o644); err != nil {
		t.Fatal(err)
	}
	s.restart(t)
	if _, err := os.Stat(path + ".damaged"); err != nil {
		t.Errorf("the damaged record was not kept: %v", err)
	}
	if got, err := s.content(t, "/"); got != "a" || err != nil {
		t.Errorf("content %q, %v", got, err)
	}
}
