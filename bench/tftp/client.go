package tftp

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/bench/udp"
)

const (
	patience = time.Second // for an answer, before a client says again what it said last
	maxTries = 5
)

// client is a transfer over a socket.
type client struct {
	transfer
	socket *udp.Socket
	server netip.AddrPort

	connected bool   // with the port that the server chose for the transfer
	said      []byte // the last datagram that was sent
	at        time.Time
	awaiting  bool // nothing has come in answer to it
	tries     int  // how often it was sent
	resent    uint64
	latency   func(time.Duration)
	took      time.Duration // since it began, when it has ended
	ended     bool
}

// newClient makes a client that calls from an address, which has its socket to itself.
func newClient(from netip.Addr, server netip.AddrPort, content []byte, o Options, latency func(time.Duration)) (*client, error) {
	socket, err := udp.Listen(netip.AddrPortFrom(from, 0))
	if err != nil {
		return nil, err
	}
	return &client{transfer: transfer{asked: o, content: content}, socket: socket, server: server, latency: latency}, nil
}

// begin sends the request.
func (c *client) begin(file string, now time.Time) error {
	c.said = appendRequest(c.said[:0], file, c.asked)
	c.at, c.awaiting, c.tries = now, true, 1
	return c.say()
}

// say sends what is to be said. What the socket has no room for is as good as lost.
func (c *client) say() error {
	var err error
	if c.connected {
		err = c.socket.Send(c.said)
	} else {
		err = c.socket.SendTo(c.said, c.server)
	}
	if errors.Is(err, udp.ErrNothing) {
		return nil
	}
	return err
}

// serve takes what has arrived. An error is the end of the transfer.
func (c *client) serve(buf []byte, now time.Time) error {
	// In lock-step there is never more than one. Else the loop comes again soon enough.
	for i := range c.asked.Window {
		if i > 0 {
			now = time.Now()
		}
		n, err := c.receive(buf)
		if errors.Is(err, udp.ErrNothing) {
			return nil
		}
		if err != nil {
			return err
		}
		if n == 0 {
			continue // from somebody else
		}
		if err := c.answer(buf[:n], now); err != nil || c.done {
			return err
		}
	}
	return nil
}

func (c *client) receive(buf []byte) (int, error) {
	if c.connected {
		n, err := c.socket.Receive(buf)
		if errors.Is(err, unix.ECONNREFUSED) {
			return 0, errors.New("the server has closed the transfer's port")
		}
		return n, err
	}
	n, from, err := c.socket.ReceiveFrom(buf)
	if err != nil || from.Addr() != c.server.Addr() {
		return 0, err
	}
	// The server answers from a port of its choice (RFC 1350, section 4).
	c.connected = true
	return n, c.socket.Connect(from)
}

// answer says what is to be said to a datagram.
func (c *client) answer(p []byte, now time.Time) error {
	var room [headSize]byte
	answer, news, err := c.take(p, room[:0])
	if err != nil {
		return err
	}
	if news {
		if c.awaiting {
			c.latency(now.Sub(c.at))
		}
		c.awaiting, c.at, c.tries = false, now, 1
	}
	if len(answer) == 0 {
		return nil
	}
	c.said = append(c.said[:0], answer...)
	c.at, c.awaiting = now, true
	if !news {
		c.resent++
	}
	return c.say()
}

// giveUp tells the server that nothing more is wanted, and why, if it does not know.
func (c *client) giveUp(why error) {
	if !c.refused {
		c.said = appendError(c.said[:0], why.Error())
		c.say() // it is over in any case
	}
}

// remind says again what got no answer in time.
func (c *client) remind(now time.Time) error {
	if now.Sub(c.at) < patience {
		return nil
	}
	if c.tries++; c.tries > maxTries {
		return fmt.Errorf("no answer %d times", maxTries)
	}
	c.at, c.awaiting = now, true
	c.resent++
	if c.begun {
		c.said = c.ack(c.said[:0])
	}
	return c.say()
}
