package nfs

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"
	gonfs "github.com/willscott/go-nfs"
)

// A client that has not got a reply sends the call again, over a new connection
// if the old one was cut. The first call may have been carried out all the same;
// to carry out the second would then fail what has succeeded: the file that was
// to be made exists, the one to be removed is gone. So replies to calls that must
// not be carried out twice are kept for a while, and sent again instead.
//
// Calls are the same if they come from the same address (not port: a client may
// reconnect from another one), with the same xid, procedure, flavor, user, group and arguments.
// The rest of the credentials does not count, as clients put the time into it, and of the
// arguments of a WRITE only the first KiB.
//
// WRITE is among these calls, in a cache of its own because there are so many: one
// that is still under way when the client sends it again must be over before the
// second is answered, or it would overwrite what the client writes after that.

const (
	// dupAge is how long a reply is kept, as in the kernel (RC_EXPIRE in
	// fs/nfsd/nfscache.c): longer than clients wait before they send again.
	dupAge = 120 * time.Second
	// maxDupReply is the largest reply that is kept. Those of RFC 1813 are half
	// as large.
	maxDupReply = 1 << 10
	// dupOverhead is about what remembering a call takes besides its reply: 370 bytes of the
	// heap were counted for each of 100,000, on a machine of 64 bits.
	dupOverhead = 384
	// dupPrefix is how many bytes of the arguments of a WRITE count. The kernel looks at
	// 256 of them (RC_CSUMLEN in fs/nfsd/cache.h).
	dupPrefix = 1 << 10
)

// request is what calls are told apart by.
type request struct {
	client           netip.Addr
	xid              uint32
	proc             uint32
	flavor, uid, gid uint32
	length           int
	sum              uint64
}

// request returns what the call in hand, with those arguments, is known by. Of a WRITE
// that is what it begins with: to be taken for another one it must have its xid, write as
// much to the same place of the same file, and differ only behind that.
//
// With XXH64 a WRITE of 4 KiB takes 2 % less CPU than with hash/maphash, and 11 % less than
// with XXH3 (zeebo/xxh3), which runs on AVX-512, which may be why (medians of 32 to 56 runs
// in turn, bench homes, 1x1, when all of the data counted).
func (c *call) request(args []byte) request {
	h, cred := &c.header, &c.header.Cred
	if h.Proc == uint32(gonfs.NFSProcedureWrite) {
		args = args[:min(len(args), dupPrefix)] // there may be no more (piped.go)
	}
	return request{
		client: c.remote.Addr(), xid: h.XID, proc: h.Proc,
		flavor: cred.Flavor, uid: cred.UID, gid: cred.GID,
		length: len(args), sum: xxhash.Sum64(args),
	}
}

// dupCache remembers requests. The bytes that it takes are bounded, and a client
// that makes many pushes out its own before those of others.
type dupCache struct {
	limit int
	now   func() time.Time

	mu      sync.Mutex // guards the rest, and all clients and requests
	bytes   int
	clients map[netip.Addr]*dupClient
	swept   time.Time
}

// dupClient is the requests of one client.
type dupClient struct {
	addr     netip.Addr
	requests map[request]*dupRequest
	done     []*dupRequest // the oldest first
	bytes    int           // of done
}

// dupRequest is one request. What comes after ended is guarded by the cache's mu
// until ended is closed, and does not change any more then.
type dupRequest struct {
	cache  *dupCache
	client *dupClient
	key    request
	ended  chan struct{} // closed when there is a reply, or will be none
	from   *conn         // where the reply will go, until it has ended
	reply  []byte
	at     time.Time // when it ended
}

func newDupCache(limit int) *dupCache {
	return &dupCache{limit: limit, now: time.Now, clients: map[netip.Addr]*dupClient{}}
}

// begin looks up a request that came over a connection. The results say what to
// do: carry out what is fresh, and then finish or abandon it; send the reply, less
// its mark, that the same request got before; or, if both are nil, nothing, as the
// reply is on its way over that very connection. If it is on its way over another
// one, which the client may have given up, begin waits for it.
func (d *dupCache) begin(key request, on *conn) (fresh *dupRequest, reply []byte) {
	for {
		fresh, known := d.findOrAdd(key, on)
		if fresh != nil || known == nil {
			return fresh, nil
		}
		<-known.ended
		if known.reply != nil {
			return nil, known.reply
		}
	}
}

// known reports whether a request has come before, and returns the reply that it got,
// less its mark, if it has ended.
func (d *dupCache) known(key request) (reply []byte, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	client := d.clients[key.client]
	if client == nil {
		return nil, false
	}
	d.expire(client)
	r := client.requests[key]
	if r == nil {
		return nil, false
	}
	return r.reply, true
}

// findOrAdd returns the request that is known, if its reply is not on its way over
// the connection, or one that is fresh.
func (d *dupCache) findOrAdd(key request, on *conn) (fresh, known *dupRequest) {
	d.mu.Lock()
	defer d.mu.Unlock()
	client := d.client(key.client)
	if r := client.requests[key]; r != nil {
		if r.from == on {
			return nil, nil
		}
		return nil, r
	}
	r := &dupRequest{cache: d, client: client, key: key, ended: make(chan struct{}), from: on}
	client.requests[key] = r
	return r, nil
}

// client returns the requests of a client, without those that are too old. The
// caller holds mu.
func (d *dupCache) client(addr netip.Addr) *dupClient {
	if c := d.clients[addr]; c != nil {
		d.expire(c)
	}
	c := d.clients[addr]
	if c == nil {
		c = &dupClient{addr: addr, requests: map[request]*dupRequest{}}
		d.clients[addr] = c
	}
	return c
}

// finish remembers the reply, unless it is too large or says to ask again later:
// then the request is one to abandon.
func (r *dupRequest) finish(reply []byte) {
	if len(reply) > maxDupReply || saysLater(reply) {
		return
	}
	d := r.cache
	d.mu.Lock()
	defer d.mu.Unlock()
	r.reply, r.at, r.from = bytes.Clone(reply), d.now(), nil
	close(r.ended)
	r.client.done = append(r.client.done, r)
	r.client.bytes += r.size()
	d.bytes += r.size()
	d.sweep()
	d.shrink(r.client)
}

// saysLater reports whether a reply is one of JUKEBOX: the call was not carried out.
func saysLater(reply []byte) bool {
	const header = 24 // of a call that was accepted, less its mark
	return len(reply) >= header+4 && binary.BigEndian.Uint32(reply[header:]) == uint32(gonfs.NFSStatusJukebox)
}

// abandon forgets a request that has not finished.
func (r *dupRequest) abandon() {
	d := r.cache
	d.mu.Lock()
	defer d.mu.Unlock()
	if r.reply == nil {
		close(r.ended)
		d.forget(r)
	}
}

func (r *dupRequest) size() int { return len(r.reply) + dupOverhead }

// sweep forgets, now and then, what is too old. The caller holds mu.
func (d *dupCache) sweep() {
	now := d.now()
	if now.Sub(d.swept) < dupAge {
		return
	}
	d.swept = now
	for _, c := range d.clients {
		d.expire(c)
	}
}

// expire forgets those requests of a client that are too old. The caller holds mu.
func (d *dupCache) expire(c *dupClient) {
	now := d.now()
	for len(c.done) > 0 && now.Sub(c.done[0].at) > dupAge {
		d.forgetOldest(c)
	}
}

// shrink forgets requests until the rest is within the limit: those of the client
// that has just added one if it has more than its share, else of the one that has
// most. The caller holds mu.
func (d *dupCache) shrink(adding *dupClient) {
	for d.bytes > d.limit {
		victim := adding
		if victim.bytes <= d.limit/len(d.clients) {
			for _, c := range d.clients {
				if c.bytes > victim.bytes {
					victim = c
				}
			}
		}
		d.forgetOldest(victim)
	}
}

// forgetOldest forgets the request of a client that has been done for longest. The
// caller holds mu.
func (d *dupCache) forgetOldest(c *dupClient) {
	r := c.done[0]
	c.done[0] = nil
	c.done = c.done[1:]
	c.bytes -= r.size()
	d.bytes -= r.size()
	d.forget(r)
}

// forget forgets a request, and its client if that has no other. The caller holds mu.
func (d *dupCache) forget(r *dupRequest) {
	delete(r.client.requests, r.key)
	if len(r.client.requests) == 0 {
		delete(d.clients, r.client.addr)
	}
}
