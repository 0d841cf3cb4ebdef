package relay

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// startDatagrams returns the address of a relay to a server at its own address.
func startDatagrams(t *testing.T, rtt time.Duration, server net.PacketConn, change func(*Datagrams)) *net.UDPAddr {
	t.Helper()
	r, err := NewDatagrams(server.LocalAddr().String(), rtt)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(r)
	}
	socket, local, err := listenDatagrams("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Serve(ctx, socket) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return net.UDPAddrFromAddrPort(local)
}

// port opens a socket at an address of loopback.
func port(t *testing.T, ip string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(ip)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute)) // a test that goes wrong should say so
	return c
}

// receive returns the next datagram and who has sent it.
func receive(t *testing.T, c *net.UDPConn) (string, *net.UDPAddr) {
	t.Helper()
	b := make([]byte, 1<<16)
	n, from, err := c.ReadFromUDP(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n]), from
}

func send(t *testing.T, c *net.UDPConn, to *net.UDPAddr, text string) {
	t.Helper()
	if _, err := c.WriteToUDP([]byte(text), to); err != nil {
		t.Fatal(err)
	}
}

// TestTransferPorts makes two transfers as TFTP has them, side by side and by one
// client: the server answers each from a port of its own.
func TestTransferPorts(t *testing.T) {
	server := port(t, "127.0.0.1")
	addr := startDatagrams(t, time.Millisecond, server, nil)
	client := port(t, "127.1.2.3")
	transfers := []*net.UDPConn{port(t, "127.0.0.1"), port(t, "127.0.0.1")}
	var seen []*net.UDPAddr // ports of the relay
	for i, transfer := range transfers {
		send(t, client, addr, "request")
		request, from := receive(t, server)
		if request != "request" || !from.IP.Equal(net.IPv4(127, 1, 2, 3)) {
			t.Fatalf("the server got %q from %v", request, from)
		}
		send(t, transfer, from, fmt.Sprint("block of ", i))
		block, at := receive(t, client)
		if block != fmt.Sprint("block of ", i) {
			t.Errorf("the client got %q", block)
		}
		seen = append(seen, at)
	}
	if seen[0].Port == seen[1].Port || seen[0].Port == addr.Port {
		t.Errorf("the client sees the transfers at %v, and the relay at %v", seen, addr)
	}
	for i, transfer := range transfers {
		for range 3 {
			send(t, client, seen[i], fmt.Sprint("ack of ", i))
			ack, from := receive(t, transfer)
			if ack != fmt.Sprint("ack of ", i) {
				t.Errorf("the server got %q for transfer %d", ack, i)
			}
			send(t, transfer, from, "more")
			if block, at := receive(t, client); block != "more" || at.Port != seen[i].Port {
				t.Errorf("the client got %q from %v; want it from %v", block, at, seen[i])
			}
		}
	}
}

// TestDatagramDelay makes round trips, none of which may be shorter than asked for, and
// loses nothing of what many clients send, whatever the size.
func TestDatagramDelay(t *testing.T) {
	const rtt, clients, rounds = 3 * time.Millisecond, 8, 20
	server := port(t, "127.0.0.1")
	addr := startDatagrams(t, rtt, server, nil)
	go func() {
		b := make([]byte, 1<<16)
		for {
			n, from, err := server.ReadFromUDP(b)
			if err != nil {
				return
			}
			server.WriteToUDP(b[:n], from)
		}
	}()
	var running sync.WaitGroup
	for i := range clients {
		client := port(t, fmt.Sprintf("127.0.1.%d", i+1))
		running.Go(func() {
			for round := range rounds {
				sent := bytes.Repeat([]byte{byte(i*rounds + round)}, round*500+i)
				begun := time.Now()
				client.WriteToUDP(sent, addr)
				b := make([]byte, 1<<16)
				n, _, err := client.ReadFromUDP(b)
				if took := time.Since(begun); err != nil || took < rtt {
					t.Errorf("client %d: a round trip took %v: %v", i, took, err)
				}
				if !bytes.Equal(b[:n], sent) {
					t.Errorf("client %d: %d bytes came back of %d, or others", i, n, len(sent))
				}
			}
		})
	}
	running.Wait()
}

// TestDatagramStrangers has others send to the ports of a transfer: neither side hears
// of it.
func TestDatagramStrangers(t *testing.T) {
	server, stranger := port(t, "127.0.0.1"), port(t, "127.9.9.9")
	addr := startDatagrams(t, 0, server, nil)
	client := port(t, "127.0.0.5")
	send(t, client, addr, "request")
	_, from := receive(t, server)
	send(t, stranger, from, "not from the server")
	send(t, server, from, "answer")
	answer, at := receive(t, client)
	if answer != "answer" {
		t.Errorf("the client got %q", answer)
	}
	send(t, stranger, at, "not from the client")
	send(t, client, at, "ack")
	if ack, _ := receive(t, server); ack != "ack" {
		t.Errorf("the server got %q", ack)
	}
}

// TestDatagramPorts has a server answer from more ports than one client may see.
func TestDatagramPorts(t *testing.T) {
	server := port(t, "127.0.0.1")
	addr := startDatagrams(t, 0, server, nil)
	client := port(t, "127.0.0.5")
	send(t, client, addr, "request")
	_, from := receive(t, server)
	for range maxPorts + 3 {
		send(t, port(t, "127.0.0.1"), from, "answer")
	}
	send(t, client, addr, "the last request")
	receive(t, server)
	seen := map[netip.AddrPort]bool{}
	for range maxPorts {
		_, at := receive(t, client)
		seen[at.AddrPort()] = true
	}
	if len(seen) != maxPorts {
		t.Errorf("%d answers came from %d ports", maxPorts, len(seen))
	}
	client.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if n, at, err := client.ReadFromUDP(make([]byte, 100)); err == nil {
		t.Errorf("%d bytes more came from %v", n, at)
	}
}

// TestDatagramClients has one client more than there is room for.
func TestDatagramClients(t *testing.T) {
	server := port(t, "127.0.0.1")
	addr := startDatagrams(t, time.Millisecond, server, func(d *Datagrams) { d.most = 2 })
	clients := []*net.UDPConn{port(t, "127.0.0.5"), port(t, "127.0.0.5"), port(t, "127.0.0.5")}
	for i, client := range append(clients, clients[0]) {
		send(t, client, addr, fmt.Sprint("request ", i))
	}
	for _, want := range []string{"request 0", "request 1", "request 3"} {
		if got, _ := receive(t, server); got != want {
			t.Errorf("the server got %q; want %q", got, want)
		}
	}
}

// TestDatagramIdle waits until a flow is forgotten: then the server sees the client at
// another port.
func TestDatagramIdle(t *testing.T) {
	server := port(t, "127.0.0.1")
	addr := startDatagrams(t, 0, server, func(d *Datagrams) { d.idle = time.Millisecond })
	client := port(t, "127.0.0.5")
	send(t, client, addr, "request")
	_, first := receive(t, server)
	for deadline := time.Now().Add(time.Minute); ; {
		send(t, client, addr, "request")
		if _, from := receive(t, server); from.Port != first.Port {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("an idle flow was not forgotten")
		}
		time.Sleep(10 * time.Millisecond)
	}
}
