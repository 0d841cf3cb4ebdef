package tftp

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
)

// Operations (RFC 1350, section 5; RFC 2347 for OACK).
const (
	opRead  = 1
	opWrite = 2
	opData  = 3
	opAck   = 4
	opError = 5
	opOack  = 6
)

const (
	// headerSize is what is in front of the content in a DATA packet.
	headerSize = 4
	// maxRequest is the size of the longest request (RFC 2347, "Packet Formats").
	maxRequest = 512
	// Without options a block has defaultBlock bytes (RFC 1350); RFC 2348 allows these.
	minBlock, defaultBlock, maxBlock = 8, 512, 65464
	// maxWindow is how many blocks a client may have in flight. RFC 7440 allows
	// 65535, which no switch could keep; more than 64 cannot go out by one call.
	maxWindow = 64
	// maxTimeout is the longest timeout in seconds (RFC 2349).
	maxTimeout = 255
)

// option is one that the server understands.
type option uint8

const (
	optBlock option = iota
	optSize
	optTimeout
	optWindow
	numOptions
)

var optionNames = [numOptions]string{optBlock: "blksize", optSize: "tsize", optTimeout: "timeout", optWindow: "windowsize"}

// accepted is an option that a client may get.
type accepted struct {
	option option
	name   string // as the client spells it
}

// query is a request that was understood.
type query struct {
	name     string
	netascii bool
	options  []accepted // in the order of the request

	// What the options say, or what counts without them.
	block   int // bytes
	timeout int // seconds, 0 for the server's own
	window  int // blocks
}

// parseRequest takes a request apart. Of what is not a request to read, it
// answers an Error to be sent back, or neither if that deserves no answer.
func parseRequest(p []byte) (*query, *Error) {
	if len(p) < 2 {
		return nil, nil
	}
	switch binary.BigEndian.Uint16(p) {
	case opRead:
	case opWrite:
		return nil, &Error{CodeAccess, "this server is read-only"}
	default:
		return nil, nil // an answer could begin an endless exchange
	}
	if len(p) > maxRequest {
		return nil, &Error{CodeIllegal, "the request is longer than 512 bytes"}
	}
	rest := p[2:]
	name, ok := cutString(&rest)
	if !ok {
		return nil, &Error{CodeIllegal, "the request has no end of the file's name"}
	}
	mode, ok := cutString(&rest)
	switch {
	case !ok:
		return nil, &Error{CodeIllegal, "the request has no mode: ask for octet"}
	case name == "":
		return nil, &Error{CodeIllegal, "the request names no file"}
	}
	q := &query{name: name, block: defaultBlock, window: 1}
	switch strings.ToLower(mode) {
	case "octet":
	case "netascii":
		q.netascii = true
	default:
		return nil, &Error{CodeIllegal, "unknown mode: ask for octet"}
	}
	q.parseOptions(rest)
	return q, nil
}

// cutString takes a string with its NUL from p.
func cutString(p *[]byte) (string, bool) {
	s, rest, ok := bytes.Cut(*p, []byte{0})
	*p = rest
	return string(s), ok
}

// parseOptions takes what it understands of the options. What it does not, it
// leaves out, as RFC 2347 has it: no client should fail to boot for an option.
func (q *query) parseOptions(rest []byte) {
	var seen [numOptions]bool
	for len(rest) > 0 {
		name, _ := cutString(&rest)
		value, ok := cutString(&rest)
		if !ok {
			return
		}
		for o := range numOptions {
			// One may be there only once (RFC 2347): the first counts.
			if strings.EqualFold(name, optionNames[o]) && !seen[o] && q.take(o, value) {
				seen[o] = true
				q.options = append(q.options, accepted{o, name})
			}
		}
	}
}

// take reports whether the value of an option makes sense. Too much of
// something is as much as there can be; only the client's timeout, which the
// server may not change (RFC 2349), is taken or left.
func (q *query) take(o option, value string) bool {
	n, ok := parseNumber(value)
	if !ok {
		return false
	}
	switch o {
	case optBlock:
		if n < minBlock {
			return false
		}
		q.block = int(min(n, maxBlock))
	case optTimeout:
		if n < 1 || n > maxTimeout {
			return false
		}
		q.timeout = int(n)
	case optWindow:
		if n < 1 {
			return false
		}
		q.window = int(min(n, maxWindow))
	}
	return true // tsize asks for a number, and says nothing by its own
}

// parseNumber reads a decimal number. One that is too large is the largest.
func parseNumber(s string) (uint64, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, _ := strconv.ParseUint(s, 10, 64) // the largest number, if that is an error
	return n, true
}

// has reports whether the client gets an option.
func (q *query) has(o option) bool {
	return slices.ContainsFunc(q.options, func(a accepted) bool { return a.option == o })
}

// appendOack appends the answer to the options of q (RFC 2347) for a file of a
// size, when a block is no more than q asks for.
func (q *query) appendOack(p []byte, size, block int64) []byte {
	p = append(p, 0, opOack)
	for _, a := range q.options {
		var n int64
		switch a.option {
		case optBlock:
			n = block
		case optSize:
			n = size
		case optTimeout:
			n = int64(q.timeout)
		case optWindow:
			n = int64(q.window)
		}
		p = append(append(p, a.name...), 0)
		p = append(strconv.AppendInt(p, n, 10), 0)
	}
	return p
}

// appendError appends an ERROR. What would not be text for the client is cut off.
func appendError(p []byte, e *Error) []byte {
	message, _, _ := strings.Cut(e.Message, "\x00")
	p = append(p, 0, opError, byte(e.Code>>8), byte(e.Code))
	return append(append(p, message[:min(len(message), maxRequest-headerSize-1)]...), 0)
}

// parseReply takes apart what a client sends in the course of a transfer: the
// number is the block of an ACK or the code of an ERROR. The operation is 0 for
// anything else.
func parseReply(p []byte) (op int, number uint16, message []byte) {
	if len(p) < headerSize {
		return 0, 0, nil
	}
	number = binary.BigEndian.Uint16(p[2:])
	switch binary.BigEndian.Uint16(p) {
	case opAck:
		return opAck, number, nil
	case opError:
		message, _, _ = bytes.Cut(p[headerSize:], []byte{0})
		return opError, number, message
	}
	return 0, 0, nil
}

// equal reports whether two requests are the same.
func (q *query) equal(other *query) bool {
	return q.name == other.name && q.netascii == other.netascii && slices.Equal(q.options, other.options) &&
		q.block == other.block && q.timeout == other.timeout && q.window == other.window
}
