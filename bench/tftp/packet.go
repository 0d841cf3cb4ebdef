package tftp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Opcodes (RFC 1350, section 5; RFC 2347).
const (
	opRequest = 1
	opData    = 3
	opAck     = 4
	opError   = 5
	opOptions = 6
)

const (
	headSize      = 4   // bytes of a DATA before the content
	maxOptions    = 512 // bytes of an OACK: as a request (RFC 2347)
	plainBlock    = 512
	minBlockSize  = 8 // RFC 2348
	maxBlockSize  = 65464
	maxWindowSize = 65535 // RFC 7440
)

// Options are what a client asks for, besides the size of the file.
type Options struct {
	BlockSize int // bytes of content in a datagram
	Window    int // datagrams that go unacknowledged; 1 is lock-step, for which nothing is asked
}

// String is what they are called in results.
func (o Options) String() string {
	if o.Window == 1 {
		return fmt.Sprintf("blocks of %d", o.BlockSize)
	}
	return fmt.Sprintf("blocks of %d, windows of %d", o.BlockSize, o.Window)
}

// Check refuses options that no server may grant.
func (o Options) Check() error {
	switch {
	case o.BlockSize < minBlockSize || o.BlockSize > maxBlockSize:
		return fmt.Errorf("a block of %d bytes: want %d to %d", o.BlockSize, minBlockSize, maxBlockSize)
	case o.Window < 1 || o.Window > maxWindowSize:
		return fmt.Errorf("a window of %d blocks: want 1 to %d", o.Window, maxWindowSize)
	}
	return nil
}

// appendRequest appends the request to read a file: tsize is asked for, as firmware does
// (RFC 2349), and windowsize only where there is to be one.
func appendRequest(b []byte, file string, o Options) []byte {
	b = append(b, 0, opRequest)
	for _, word := range []string{file, "octet", "tsize", "0", "blksize", strconv.Itoa(o.BlockSize)} {
		b = append(append(b, word...), 0)
	}
	if o.Window > 1 {
		b = append(b, "windowsize\x00"+strconv.Itoa(o.Window)+"\x00"...)
	}
	return b
}

func appendAck(b []byte, block uint16) []byte {
	return binary.BigEndian.AppendUint16(append(b, 0, opAck), block)
}

// appendError appends an ERROR of code 0, of which the text tells all.
func appendError(b []byte, text string) []byte {
	return append(append(append(b, 0, opError, 0, 0), text...), 0)
}

// granted is what a server says in an OACK. What it does not mention is zero.
type granted struct {
	blockSize, window int
	size              int64 // of the file
	hasSize           bool
}

var errOptions = errors.New("its OACK makes no sense")

// parseOptions decodes an OACK (RFC 2347): names and values, of which case does not
// matter in names. Options that nobody asked for are an error.
func parseOptions(p []byte) (g granted, err error) {
	if len(p) < 2 || len(p) > maxOptions || p[0] != 0 || p[1] != opOptions {
		return g, errOptions
	}
	for rest := p[2:]; len(rest) > 0; {
		var name, value []byte
		var ok bool
		if name, rest, ok = bytes.Cut(rest, []byte{0}); !ok {
			return g, errOptions
		}
		if value, rest, ok = bytes.Cut(rest, []byte{0}); !ok {
			return g, errOptions
		}
		n, err := strconv.ParseUint(string(value), 10, 63)
		if err != nil {
			return g, errOptions
		}
		switch strings.ToLower(string(name)) {
		case "blksize":
			if n < minBlockSize || n > maxBlockSize {
				return g, errOptions
			}
			g.blockSize = int(n)
		case "windowsize":
			if n < 1 || n > maxWindowSize {
				return g, errOptions
			}
			g.window = int(n)
		case "tsize":
			g.size, g.hasSize = int64(n), true
		default:
			return g, fmt.Errorf("%w: nobody asked for %.20q", errOptions, name)
		}
	}
	return g, nil
}

// parseError returns the text of an ERROR.
func parseError(p []byte) error {
	text, _, _ := bytes.Cut(p[headSize:], []byte{0})
	return fmt.Errorf("it says %.100q (code %d)", text, binary.BigEndian.Uint16(p[2:]))
}
