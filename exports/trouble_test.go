package exports

import (
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestTroubleIsRemembered(t *testing.T) {
	s := serve(t, "v1")
	for _, vers := range []uint32{4, 4, 2} {
		s.peer.NoteWrongVersion(vers)
	}
	if _, err := s.Mount(s.peer, "/nope", Caller{}); err == nil {
		t.Fatal("/nope was mounted")
	}
	if _, err := s.Mount(s.peer, "/"+strings.Repeat("ä", 400), Caller{}); err == nil {
		t.Fatal("a name that is too long was mounted")
	}
	if _, err := s.Mount(s.peer, "/forged", Caller{Datagram: true}); err == nil {
		t.Fatal("/forged was mounted")
	}
	check := func(when string) Trouble {
		t.Helper()
		s.nodes.save(s.table.Load().images, s.log, true)
		list, err := OpenState(s.stateDir).Nodes()
		if err != nil || len(list) != 1 || list[0].Addr.String() != host {
			t.Fatalf("%s: %+v, %v; want %s alone", when, list, err, host)
		}
		got := list[0].Trouble
		if got.AskedNFS4 != 2 || got.AskedNFS2 != 1 || got.MountErrors != 2 || got.WrongVersionAt.IsZero() || got.LastErrorAt.IsZero() {
			t.Errorf("%s: %+v", when, got)
		}
		if len(got.LastError) > maxErrorText || !strings.Contains(got.LastError, "ä") || !utf8.ValidString(got.LastError) {
			t.Errorf("%s: the last error is %q", when, got.LastError)
		}
		return got
	}
	before := check("at once")
	s.restart(t)
	if after := check("after a restart"); after != before {
		t.Errorf("after a restart: %+v; want %+v", after, before)
	}
	fleet := s.Fleet("images")
	if len(fleet) != 1 || fleet[0].State != StateNew || fleet[0].Trouble != before || len(fleet[0].Hints) != 2 {
		t.Errorf("the fleet is %+v; want one new node with two hints", fleet)
	}
}

// TestTroubleOfOneImage looks for a node of the first image in the list of the second.
func TestTroubleOfOneImage(t *testing.T) {
	n := &nodes{byAddr: map[netip.Addr]*node{}}
	n.tick()
	quiet := &Peer{addr: netip.MustParseAddr("10.0.0.1"), allowed: true, nodes: n}
	quiet.NoteWrongVersion(4)
	user := &Peer{addr: netip.MustParseAddr("10.0.0.2"), allowed: true, nodes: n}
	n.use(user, &version{image: &image{name: "b"}, name: "v1"})
	user.NoteWrongVersion(4)
	stranger := &Peer{addr: netip.MustParseAddr("10.0.0.3"), nodes: n}
	stranger.NoteWrongVersion(4)
	for image, want := range map[string]string{"a": "10.0.0.1", "b": "10.0.0.2"} {
		list := recordOf(image, image == "a", n.all())
		if len(list) != 1 || list[0].Addr.String() != want || list[0].AskedNFS4 != 1 {
			t.Errorf("image %s: %+v; want %s, which asked for NFS 4", image, list, want)
		}
	}
}

// TestOldTroubleIsForgotten is about a machine that asked once and never again.
func TestOldTroubleIsForgotten(t *testing.T) {
	n := &nodes{byAddr: map[netip.Addr]*node{}}
	p := &Peer{addr: netip.MustParseAddr("10.0.0.1"), allowed: true, nodes: n}
	n.now.Store(time.Now().Add(-goneTime - time.Minute).Unix())
	p.NoteWrongVersion(4)
	if list := recordOf("a", true, n.all()); len(list) != 0 {
		t.Errorf("%+v; want nobody", list)
	}
}

// TestTroubleIsBounded fills the record with nodes that only asked for what is not there.
func TestTroubleIsBounded(t *testing.T) {
	s := serve(t, "v1")
	s.mount(t, "/")
	for i := range uint32(mostNodes + 10) {
		p := s.Peer(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 700))
		p.NoteWrongVersion(4)
	}
	all := s.nodes.all()
	if len(all) != mostNodes {
		t.Errorf("%d nodes are remembered; want %d", len(all), mostNodes)
	}
	if user := s.nodes.get(netip.MustParseAddr(host)); user == nil || user.lastCall() == 0 {
		t.Error("they made the server forget a node that mounted something, or might")
	}
}
