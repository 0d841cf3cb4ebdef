package relay

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rootnfsd/rootnfsd/bench/udp"
)

// Bounds of what clients can make a relay of datagrams hold. Beyond them datagrams are
// lost, as in any network.
const (
	maxFlows    = 4096    // ports of clients
	maxPorts    = 8       // ports of the server that one of them talks with
	maxUnderway = 1 << 14 // datagrams
	flowIdle    = time.Minute
)

// Datagrams forwards datagrams to one server, as TFTP needs it: a server answers a
// request from a port that it chooses for the transfer (RFC 1350, section 4). For each
// of those the client is shown a port of the relay.
type Datagrams struct {
	target   netip.AddrPort
	idle     time.Duration // after which a flow is forgotten
	most     int           // flows
	line     *line[*datagram]
	underway atomic.Int64 // datagrams

	// Of the goroutine that serves.
	poll    *udp.Poll
	ends    []*end // by their keys; nil where one is closed
	free    []int32
	flows   map[netip.AddrPort]*flow // by the client
	scratch [udp.MaxDatagram]byte
}

// flow is what one port of a client exchanges with the server.
type flow struct {
	client   netip.AddrPort
	up       *end                    // where the server sees the client
	ports    map[netip.AddrPort]*end // where the client sees a port of the server
	last     time.Time               // that something came
	underway atomic.Int64            // datagrams; none is under way when its sockets are closed
}

// end is a socket. That which clients send their requests to has no flow, and that
// which stands for a client no server.
type end struct {
	socket *udp.Socket
	key    int32
	flow   *flow
	server netip.AddrPort
}

// datagram is one under way.
type datagram struct {
	relay *Datagrams
	flow  *flow
	out   *udp.Socket
	to    netip.AddrPort // zero where out is connected
	data  []byte
}

var datagrams = sync.Pool{New: func() any { return new(datagram) }}

// deliver sends it. A network loses what cannot be sent.
func (d *datagram) deliver() {
	if d.to.IsValid() {
		d.out.SendTo(d.data, d.to)
	} else {
		d.out.Send(d.data)
	}
	d.flow.underway.Add(-1)
	d.relay.underway.Add(-1)
	d.flow, d.out = nil, nil
	datagrams.Put(d)
}

// NewDatagrams returns a relay to the server at host:port that adds rtt to each round
// trip. It lasts until the process ends.
func NewDatagrams(target string, rtt time.Duration) (*Datagrams, error) {
	addr, err := net.ResolveUDPAddr("udp4", target)
	if err != nil {
		return nil, err
	}
	at := addr.AddrPort()
	l, err := newLine[*datagram](rtt / 2)
	if err != nil {
		return nil, err
	}
	return &Datagrams{target: netip.AddrPortFrom(at.Addr().Unmap(), at.Port()), idle: flowIdle, most: maxFlows, line: l}, nil
}

// attention is how often a relay of datagrams looks whether it is to end.
const attention = 100 * time.Millisecond

// Serve forwards what comes to a socket, which it closes, until ctx ends. A relay can
// serve once. It returns early only if it can wait for nothing more.
func (r *Datagrams) Serve(ctx context.Context, socket *udp.Socket) (err error) {
	local, err := socket.Local()
	if err == nil {
		r.poll, err = udp.NewPoll()
	}
	if err != nil {
		socket.Close()
		return err
	}
	r.flows = map[netip.AddrPort]*flow{}
	defer r.close()
	if _, err := r.open(&end{socket: socket}); err != nil {
		return err
	}
	for swept := time.Now(); ctx.Err() == nil; {
		ready, err := r.poll.Wait(min(r.idle, attention))
		if err != nil {
			return err
		}
		now := time.Now()
		for _, key := range ready {
			r.receive(r.ends[key], local, now)
		}
		if now.Sub(swept) >= min(r.idle, time.Second) {
			swept = now
			r.sweep(now)
		}
	}
	return nil
}

// open makes the relay wait for a socket, which it closes if it cannot.
func (r *Datagrams) open(e *end) (*end, error) {
	e.key = int32(len(r.ends))
	if n := len(r.free); n > 0 {
		e.key, r.free = r.free[n-1], r.free[:n-1]
	} else {
		r.ends = append(r.ends, nil)
	}
	r.ends[e.key] = e
	if err := r.poll.Add(e.socket, e.key); err != nil {
		r.shut(e)
		return nil, err
	}
	return e, nil
}

func (r *Datagrams) shut(e *end) {
	e.socket.Close()
	r.ends[e.key] = nil
	r.free = append(r.free, e.key)
}

// receive takes one datagram and puts it on the line.
func (r *Datagrams) receive(e *end, local netip.AddrPort, now time.Time) {
	n, from, err := e.socket.ReceiveFrom(r.scratch[:])
	if err != nil {
		return // the client or the server is gone, which the other one will notice
	}
	data := r.scratch[:n]
	switch {
	case e.flow == nil:
		if f := r.flowOf(from); f != nil {
			r.put(f, f.up.socket, r.target, data, now)
		}
	case !e.server.IsValid():
		if from.Addr() != r.target.Addr() {
			return // somebody else
		}
		if port := r.portOf(e.flow, from, local); port != nil {
			r.put(e.flow, port.socket, netip.AddrPort{}, data, now)
		}
	default:
		r.put(e.flow, e.flow.up.socket, e.server, data, now)
	}
}

func (r *Datagrams) put(f *flow, out *udp.Socket, to netip.AddrPort, data []byte, now time.Time) {
	if r.underway.Load() >= maxUnderway {
		return
	}
	f.last = now
	f.underway.Add(1)
	r.underway.Add(1)
	d := datagrams.Get().(*datagram)
	d.relay, d.flow, d.out, d.to = r, f, out, to
	d.data = append(d.data[:0], data...)
	r.line.put(d)
}

// flowOf returns the flow of a client, or nil if there is no place for one more.
func (r *Datagrams) flowOf(client netip.AddrPort) *flow {
	if f := r.flows[client]; f != nil {
		return f
	}
	if len(r.flows) >= r.most {
		return nil
	}
	// On loopback the server is called from the client's own address, so that it can
	// still tell many clients apart.
	from := netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	if client.Addr().IsLoopback() && r.target.Addr().IsLoopback() {
		from = netip.AddrPortFrom(client.Addr(), 0)
	}
	f := &flow{client: client, ports: map[netip.AddrPort]*end{}}
	socket, err := udp.Listen(from)
	if err != nil {
		return nil
	}
	if f.up, err = r.open(&end{socket: socket, flow: f}); err != nil {
		return nil
	}
	r.flows[client] = f
	return f
}

// portOf returns the end where a client sees a port of the server, or nil if there is
// no place for one more.
func (r *Datagrams) portOf(f *flow, server, local netip.AddrPort) *end {
	if port := f.ports[server]; port != nil {
		return port
	}
	if len(f.ports) >= maxPorts {
		return nil
	}
	socket, err := udp.Listen(netip.AddrPortFrom(local.Addr(), 0))
	if err != nil {
		return nil
	}
	if err := socket.Connect(f.client); err != nil {
		socket.Close()
		return nil
	}
	port, err := r.open(&end{socket: socket, flow: f, server: server})
	if err != nil {
		return nil
	}
	f.ports[server] = port
	return port
}

// sweep forgets flows that have been idle, and closes their sockets.
func (r *Datagrams) sweep(now time.Time) {
	for client, f := range r.flows {
		if now.Sub(f.last) < r.idle || f.underway.Load() > 0 {
			continue
		}
		r.shut(f.up)
		for _, port := range f.ports {
			r.shut(port)
		}
		delete(r.flows, client)
	}
}

// close closes all sockets when nothing is under way to them any more.
func (r *Datagrams) close() {
	for r.underway.Load() > 0 {
		time.Sleep(time.Millisecond)
	}
	for _, e := range r.ends {
		if e != nil {
			e.socket.Close()
		}
	}
	r.poll.Close()
}

// listenDatagrams opens a socket at host:port.
func listenDatagrams(listen string) (*udp.Socket, netip.AddrPort, error) {
	addr, err := net.ResolveUDPAddr("udp4", listen)
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	ip, ok := netip.AddrFromSlice(addr.IP.To4())
	if !ok {
		ip = netip.IPv4Unspecified() // no host was given
	}
	socket, err := udp.Listen(netip.AddrPortFrom(ip, uint16(addr.Port)))
	if err != nil {
		return nil, netip.AddrPort{}, fmt.Errorf("listen at %s: %w", listen, err)
	}
	local, err := socket.Local()
	return socket, local, err
}
