package tftp

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
)

// errNoWindow says that a server does not grant a window, as many do not.
var errNoWindow = errors.New("it grants no windows (RFC 7440)")

// transfer is the fetching of a file, by a client that knows what is in it. It knows
// nothing of sockets and clocks.
type transfer struct {
	asked   Options
	content []byte // what the file should be; not changed

	begun   bool   // the server has answered
	window  int    // DATA to an ACK
	next    uint16 // the block that comes next
	came    int    // bytes of content
	blocks  int    // DATA that were taken
	unacked int    // of them since the last ACK
	gap     bool   // a block was lost, and the server was told
	done    bool
	refused bool // the server said so, or gave up
}

// take takes a datagram of the server and appends the answer to it, if there is one. An
// error is the end of the transfer. news says that it has got on.
func (t *transfer) take(p, to []byte) (answer []byte, news bool, err error) {
	if len(p) < headSize || p[0] != 0 {
		return to, false, errors.New("a datagram that makes no sense")
	}
	switch p[1] {
	case opData:
		if !t.begun {
			return to, false, fmt.Errorf("it grants no options, of which blksize %d was asked for", t.asked.BlockSize)
		}
		return t.data(p, to)
	case opOptions:
		if t.begun { // again: what it was answered got lost
			if t.next == 1 && t.came == 0 {
				return appendAck(to, 0), false, nil
			}
			return to, false, nil
		}
		if err := t.options(p); err != nil {
			return to, false, err
		}
		return appendAck(to, 0), true, nil
	case opError:
		t.refused = true
		return to, false, parseError(p)
	}
	return to, false, fmt.Errorf("a datagram of the kind %d", p[1])
}

// options takes what the server grants.
func (t *transfer) options(p []byte) error {
	g, err := parseOptions(p)
	switch {
	case err != nil:
		return err
	case g.blockSize != t.asked.BlockSize:
		return fmt.Errorf("it grants blocks of %d bytes where %d were asked for", cmp.Or(g.blockSize, plainBlock), t.asked.BlockSize)
	case t.asked.Window > 1 && g.window == 0:
		return errNoWindow
	case g.window > t.asked.Window:
		return fmt.Errorf("it grants windows of %d where %d were asked for", g.window, t.asked.Window)
	case g.hasSize && g.size != int64(len(t.content)):
		return fmt.Errorf("it says that the file has %d bytes; it has %d", g.size, len(t.content))
	}
	t.begun, t.window, t.next = true, max(g.window, 1), 1
	return nil
}

func (t *transfer) data(p, to []byte) (answer []byte, news bool, err error) {
	if block := binary.BigEndian.Uint16(p[2:]); block != t.next {
		return t.outOfOrder(block, to), false, nil
	}
	p = p[headSize:]
	left := t.content[t.came:]
	last := len(left) < t.asked.BlockSize
	if want := min(len(left), t.asked.BlockSize); len(p) != want || !bytes.Equal(p, left[:want]) {
		return to, false, fmt.Errorf("from byte %d on the content is not that of the file", t.came)
	}
	t.next++
	t.came += len(p)
	t.blocks++
	t.unacked++
	t.gap = false
	t.done = last
	if last || t.unacked == t.window {
		to = t.ack(to)
	}
	return to, true, nil
}

// outOfOrder answers a block that was not expected. In lock-step it was sent again
// because its ACK was lost, or it is of no interest. In a window, of which one was lost,
// the server is told once what was the last in order (RFC 7440, section 4).
func (t *transfer) outOfOrder(block uint16, to []byte) []byte {
	switch {
	case t.window == 1 && block == t.next-1:
		return t.ack(to)
	case t.window > 1 && !t.gap:
		t.gap = true
		return t.ack(to)
	}
	return to
}

// ack acknowledges what has come in order.
func (t *transfer) ack(to []byte) []byte {
	t.unacked = 0
	return appendAck(to, t.next-1)
}
