package tftp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// server is a small server of one file, that a test can make behave badly.
type server struct {
	content []byte
	// grant changes the options that are granted, before they are sent.
	grant func(map[string]string)
	// lose says of each datagram that a client is sent, counted from 0, whether it gets
	// lost.
	lose func(n int) bool
	// spoil changes a DATA before it is sent.
	spoil func(p []byte)
	// hold is called before a block is sent, and ended when all were acknowledged.
	hold  func(client netip.AddrPort, block int)
	ended func(client netip.AddrPort)

	mu   sync.Mutex
	sent map[netip.AddrPort]int // datagrams to each client
}

// send sends a client a datagram, unless that gets lost.
func (s *server) send(conn *net.UDPConn, to netip.AddrPort, p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lose == nil || !s.lose(s.sent[to]) {
		conn.Write(p)
	}
	s.sent[to]++
}

// serve serves until the test ends.
func (s *server) serve(t *testing.T) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	s.sent = map[netip.AddrPort]int{}
	var running sync.WaitGroup
	running.Go(func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			words := strings.Split(string(buf[2:n]), "\x00")
			running.Go(func() {
				if err := s.transfer(from, words); err != nil {
					t.Errorf("%v: %v", from, err)
				}
			})
		}
	})
	t.Cleanup(func() { conn.Close(); running.Wait() })
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// transfer sends the file to a client that asked in so many words.
func (s *server) transfer(to netip.AddrPort, words []string) error {
	conn, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}, net.UDPAddrFromAddrPort(to))
	if err != nil {
		return err
	}
	defer conn.Close()
	send := func(p []byte) { s.send(conn, to, p) }
	if words[0] != "file" || words[1] != "octet" {
		send([]byte("\x00\x05\x00\x01File not found\x00"))
		return nil
	}
	options := map[string]string{}
	for i := 2; i+1 < len(words); i += 2 {
		options[words[i]] = words[i+1]
	}
	if options["tsize"] != "0" {
		return fmt.Errorf("tsize is asked for by %q", options["tsize"])
	}
	options["tsize"] = strconv.Itoa(len(s.content))
	if s.grant != nil {
		s.grant(options)
	}
	size, _ := strconv.Atoi(options["blksize"])
	window, _ := strconv.Atoi(options["windowsize"])
	size, window = max(size, 1), max(window, 1)
	oack := []byte{0, opOptions}
	for name, value := range options {
		oack = append(oack, name+"\x00"+value+"\x00"...)
	}
	last := len(s.content)/size + 1 // a number of a block
	block := func(n int) []byte {
		p := binary.BigEndian.AppendUint16([]byte{0, opData}, uint16(n))
		p = append(p, s.content[(n-1)*size:min(n*size, len(s.content))]...)
		if s.spoil != nil {
			s.spoil(p)
		}
		return p
	}
	acked := -1
	for tries := 0; acked < last; {
		if acked < 0 {
			send(oack)
		}
		for n := acked + 1; acked >= 0 && n <= min(acked+window, last); n++ {
			if s.hold != nil {
				s.hold(to, n)
			}
			send(block(n))
		}
		conn.SetReadDeadline(time.Now().Add(3 * patience))
		buf := make([]byte, 600)
		n, err := conn.Read(buf)
		if errors.Is(err, unix.ECONNREFUSED) {
			return nil // the client is gone, as it is when it fetches by another transfer
		}
		if err != nil {
			if tries++; tries > maxTries {
				return err
			}
			continue
		}
		if n < 4 || buf[1] != opAck {
			return nil // the client gives up
		}
		was := max(acked, 0)
		acked = was + int(int16(binary.BigEndian.Uint16(buf[2:])-uint16(was)))
	}
	if s.ended != nil {
		s.ended(to)
	}
	return nil
}
