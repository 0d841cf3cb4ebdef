package udp_test

import (
	"bytes"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/rootnfsd/rootnfsd/bench/udp"
)

var loopback = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0)

func listen(t *testing.T) (*udp.Socket, netip.AddrPort) {
	t.Helper()
	s, err := udp.Listen(loopback)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	at, err := s.Local()
	if err != nil || at.Port() == 0 || at.Addr() != loopback.Addr() {
		t.Fatalf("the socket is at %v: %v", at, err)
	}
	return s, at
}

// await waits for sockets until one is ready.
func await(t *testing.T, p *udp.Poll) []int32 {
	t.Helper()
	ready, err := p.Wait(time.Minute)
	if err != nil || len(ready) == 0 {
		t.Fatalf("sockets %v are ready: %v", ready, err)
	}
	return ready
}

// TestSockets sends datagrams of all sizes there and back.
func TestSockets(t *testing.T) {
	a, aAt := listen(t)
	b, bAt := listen(t)
	p, err := udp.NewPoll()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for key, s := range []*udp.Socket{a, b} {
		if err := p.Add(s, int32(key)); err != nil {
			t.Fatal(err)
		}
	}
	if ready, err := p.Wait(0); err != nil || len(ready) != 0 {
		t.Errorf("%v are ready before anything was sent: %v", ready, err)
	}
	buf := make([]byte, udp.MaxDatagram)
	if _, err := a.Receive(buf); !errors.Is(err, udp.ErrNothing) {
		t.Errorf("received from nobody: %v", err)
	}
	for _, n := range []int{0, 1, 516, 1472, 65_507} {
		sent := bytes.Repeat([]byte{byte(n)}, n)
		if err := a.SendTo(sent, bAt); err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		if ready := await(t, p); !slices.Equal(ready, []int32{1}) {
			t.Errorf("%v are ready; want 1 alone", ready)
		}
		got, from, err := b.ReceiveFrom(buf)
		if err != nil || from != aAt || !bytes.Equal(buf[:got], sent) {
			t.Errorf("%d bytes from %v; want %d from %v: %v", got, from, n, aAt, err)
		}
	}
	if err := b.Connect(aAt); err != nil {
		t.Fatal(err)
	}
	if err := b.Send([]byte("back")); err != nil {
		t.Fatal(err)
	}
	if ready := await(t, p); !slices.Equal(ready, []int32{0}) {
		t.Errorf("%v are ready; want 0 alone", ready)
	}
	if n, err := a.Receive(buf); err != nil || string(buf[:n]) != "back" {
		t.Errorf("received %q: %v", buf[:n], err)
	}
}

// TestConnected hears nobody but the one it is connected to.
func TestConnected(t *testing.T) {
	a, aAt := listen(t)
	b, bAt := listen(t)
	other, _ := listen(t)
	if err := b.Connect(aAt); err != nil {
		t.Fatal(err)
	}
	for s, text := range map[*udp.Socket]string{other: "other", a: "a"} {
		if err := s.SendTo([]byte(text), bAt); err != nil {
			t.Fatal(err)
		}
	}
	p, err := udp.NewPoll()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Add(b, 0); err != nil {
		t.Fatal(err)
	}
	await(t, p)
	buf := make([]byte, 10)
	if n, err := b.Receive(buf); err != nil || string(buf[:n]) != "a" {
		t.Errorf("received %q: %v", buf[:n], err)
	}
	if _, err := b.Receive(buf); !errors.Is(err, udp.ErrNothing) {
		t.Errorf("received more: %v", err)
	}
}

func TestListen(t *testing.T) {
	_, at := listen(t)
	for name, local := range map[string]netip.AddrPort{
		"taken": at, "no address": {}, "IPv6": netip.MustParseAddrPort("[::1]:0"), "not ours": netip.MustParseAddrPort("192.0.2.77:0"),
	} {
		if s, err := udp.Listen(local); err == nil {
			s.Close()
			t.Errorf("%s: no error", name)
		}
	}
}
