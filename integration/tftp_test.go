package integration

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
)

// firmware is that of a node: it asks for boot files over TFTP in the very bytes that were recorded.
type firmware struct {
	t      *testing.T
	server netip.AddrPort
	local  netip.Addr
}

// The operations of TFTP (RFC 1350, section 5; RFC 2347).
const (
	tftpRead = iota + 1
	tftpWrite
	tftpData
	tftpAck
	tftpError
	tftpOptions
)

// ask is a packet that asks for a file.
func ask(op uint16, words ...string) []byte {
	return append(binary.BigEndian.AppendUint16(nil, op), strings.Join(words, "\x00")+"\x00"...)
}

// tftpRefusal is the error that a server answers.
type tftpRefusal struct {
	code    uint16
	message string
}

func (e *tftpRefusal) Error() string { return fmt.Sprintf("error %d: %s", e.code, e.message) }

// refusal returns the code of the error that a server answers, or -1 for another error.
func refusal(err error) int {
	var e *tftpRefusal
	if errors.As(err, &e) {
		return int(e.code)
	}
	return -1
}

// errAborted is the end of a transfer that the node itself gave up.
var errAborted = errors.New("aborted")

// transfer is how a node fetches one file.
type transfer struct {
	packet []byte
	block  int  // bytes in a block
	abort  bool // when the options are answered, as one does who wanted to know the size
	retry  bool // it asks twice, and acknowledges everything twice, as one does whose first packet was slow
}

// fetch carries a transfer out.
func (f *firmware) fetch(x transfer) (content []byte, err error) {
	f.t.Helper()
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(f.local, 0)))
	if err != nil {
		f.t.Fatal(err)
	}
	defer conn.Close()
	send := func(to netip.AddrPort, packet []byte) {
		for range map[bool]int{false: 1, true: 2}[x.retry] {
			if _, err := conn.WriteToUDPAddrPort(packet, to); err != nil {
				f.t.Fatal(err)
			}
		}
	}
	send(f.server, x.packet)
	var from netip.AddrPort
	for next, buf, tries := uint16(1), make([]byte, 64<<10), 0; ; {
		conn.SetReadDeadline(time.Now().Add(time.Second))
		n, addr, err := conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) && tries < 30 {
			if tries++; !from.IsValid() {
				send(f.server, x.packet) // datagrams get lost
			}
			continue
		}
		if err != nil {
			return content, err
		}
		if !from.IsValid() {
			from = addr
		}
		if n < 4 || addr != from {
			return content, fmt.Errorf("%d bytes from %s, which is not %s", n, addr, from)
		}
		number := binary.BigEndian.Uint16(buf[2:])
		switch op := binary.BigEndian.Uint16(buf); {
		case op == tftpError:
			return content, &tftpRefusal{number, strings.TrimRight(string(buf[4:n]), "\x00")}
		case op == tftpOptions && x.abort:
			send(from, append([]byte{0, tftpError, 0, 0}, "Early terminate\x00"...))
			return nil, errAborted
		case op == tftpOptions:
			words := strings.Split(string(buf[2:n]), "\x00")
			for i := 0; i+1 < len(words); i += 2 {
				if strings.EqualFold(words[i], "blksize") {
					fmt.Sscan(words[i+1], &x.block)
				}
			}
			send(from, []byte{0, tftpAck, 0, 0})
		case op != tftpData:
			return content, fmt.Errorf("operation %d", op)
		case number != next:
			// What was acknowledged already.
		default:
			content = append(content, buf[4:n]...)
			next++
			send(from, binary.BigEndian.AppendUint16([]byte{0, tftpAck}, number))
			if n-4 < x.block {
				return content, nil
			}
		}
	}
}

// step is a line of a recording: what is asked for, with which options, and what becomes of it.
type step struct {
	transfer
	name    string
	missing bool
}

// recording reads how firmware asks: a name and options to a line, then what it does with the answer. A serial
// number stands where SERIAL is.
func recording(t *testing.T, path, serial string) []step {
	t.Helper()
	var steps []step
	for line := range strings.Lines(readFile(t, path)) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] == "#" {
			continue
		}
		s := step{name: strings.Replace(fields[0], "SERIAL", serial, 1), transfer: transfer{block: 512}}
		words := []string{s.name, "octet"}
		for _, f := range fields[1:] {
			switch f {
			case "abort":
				s.abort = true
			case "retry":
				s.retry = true
			case "missing":
				s.missing = true
			default:
				words = append(words, f)
				if words[len(words)-2] == "blksize" {
					fmt.Sscan(f, &s.block)
				}
			}
		}
		s.packet = ask(tftpRead, words...)
		steps = append(steps, s)
	}
	return steps
}
