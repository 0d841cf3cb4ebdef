package nfs

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// dupClock is a dupCache whose time a test decides.
func dupClock(limit int) (d *dupCache, advance func(time.Duration)) {
	now := time.Unix(1_700_000_000, 0)
	d = newDupCache(limit)
	d.now = func() time.Time { return now }
	return d, func(by time.Duration) { now = now.Add(by) }
}

func requestOf(client byte, xid uint32) request {
	return request{client: netip.AddrFrom4([4]byte{192, 0, 2, client}), xid: xid, proc: 8, length: 4, sum: 1}
}

// answer begins a request and finishes it with a reply of n bytes, or returns the
// reply that was kept.
func (d *dupCache) answer(t *testing.T, key request, n int) (kept []byte) {
	t.Helper()
	fresh, reply := d.begin(key, &conn{})
	if reply != nil {
		return reply
	}
	if fresh == nil {
		t.Fatalf("%v is taken to be on its way", key)
	}
	defer fresh.abandon()
	fresh.finish(bytes.Repeat([]byte{byte(key.xid)}, n))
	return nil
}

// check holds what the cache says of itself against what it has.
func (d *dupCache) check(t *testing.T) {
	t.Helper()
	sum := 0
	for addr, c := range d.clients {
		of := 0
		for _, r := range c.done {
			of += r.size()
			if c.requests[r.key] != r {
				t.Errorf("%v: a reply that cannot be found", addr)
			}
		}
		if of != c.bytes || len(c.requests) == 0 || c.addr != addr {
			t.Errorf("%v: %d bytes, says %d; %d requests", addr, of, c.bytes, len(c.requests))
		}
		sum += of
	}
	if sum != d.bytes || sum > d.limit {
		t.Errorf("%d bytes, says %d; the limit is %d", sum, d.bytes, d.limit)
	}
}

func TestDupCacheKeepsReplies(t *testing.T) {
	d, _ := dupClock(1 << 20)
	key := requestOf(1, 7)
	if d.answer(t, key, 100) != nil {
		t.Fatal("a request is known before it was made")
	}
	if kept := d.answer(t, key, 50); !bytes.Equal(kept, bytes.Repeat([]byte{7}, 100)) {
		t.Errorf("kept %q", kept)
	}
	for name, other := range map[string]request{
		"xid":       requestOf(1, 8),
		"client":    requestOf(2, 7),
		"procedure": {client: key.client, xid: 7, proc: 9, length: 4, sum: 1},
		"flavor":    {client: key.client, xid: 7, proc: 8, flavor: 1, length: 4, sum: 1},
		"user":      {client: key.client, xid: 7, proc: 8, uid: 1, length: 4, sum: 1},
		"group":     {client: key.client, xid: 7, proc: 8, gid: 1, length: 4, sum: 1},
		"length":    {client: key.client, xid: 7, proc: 8, length: 5, sum: 1},
		"sum":       {client: key.client, xid: 7, proc: 8, length: 4, sum: 2},
	} {
		if d.answer(t, other, 10) != nil {
			t.Errorf("a request with another %s is taken for the same", name)
		}
	}
	d.check(t)
}

func TestDupCacheInProgress(t *testing.T) {
	d, _ := dupClock(1 << 20)
	key := requestOf(1, 7)
	first, second := &conn{}, &conn{}
	fresh, _ := d.begin(key, first)
	if again, reply := d.begin(key, first); again != nil || reply != nil {
		t.Error("the same request over the same connection is not dropped")
	}
	waiting := make(chan []byte)
	go func() {
		_, reply := d.begin(key, second)
		waiting <- reply
	}()
	fresh.finish([]byte("reply"))
	fresh.abandon()
	if reply := <-waiting; string(reply) != "reply" {
		t.Errorf("over another connection: %q, want the reply to the first", reply)
	}
	if _, reply := d.begin(key, first); string(reply) != "reply" {
		t.Errorf("over the same connection, when it was answered: %q", reply)
	}
	d.check(t)
}

// TestDupCacheAbandoned: a request that came to no reply, or to one too large to
// be kept, is fresh for whoever waited for it.
func TestDupCacheAbandoned(t *testing.T) {
	for _, size := range []int{-1, maxDupReply + 1} {
		d, _ := dupClock(1 << 20)
		key := requestOf(1, 7)
		fresh, _ := d.begin(key, &conn{})
		waiting := make(chan *dupRequest)
		go func() {
			again, _ := d.begin(key, &conn{})
			waiting <- again
		}()
		if size > 0 {
			fresh.finish(make([]byte, size))
		}
		fresh.abandon()
		again := <-waiting
		if again == nil {
			t.Fatal("not fresh")
		}
		again.abandon()
		if len(d.clients) != 0 || d.bytes != 0 {
			t.Errorf("%d clients and %d bytes are left", len(d.clients), d.bytes)
		}
	}
}

func TestDupCacheForgetsWhatIsOld(t *testing.T) {
	d, advance := dupClock(1 << 20)
	d.answer(t, requestOf(1, 1), 10)
	d.answer(t, requestOf(2, 1), 10)
	advance(dupAge / 2)
	d.answer(t, requestOf(1, 2), 10)
	advance(dupAge/2 + time.Second)
	if d.answer(t, requestOf(1, 1), 10) != nil {
		t.Error("a reply is kept for too long")
	}
	if d.answer(t, requestOf(1, 2), 10) == nil {
		t.Error("a reply is not kept for long enough")
	}
	if len(d.clients) != 1 {
		t.Errorf("%d clients; the one that was silent should be forgotten", len(d.clients))
	}
	d.check(t)
}

// TestDupCacheIsFair floods it from one client: what others have stays.
func TestDupCacheIsFair(t *testing.T) {
	const clients, each, reply = 8, 4, 200
	d, _ := dupClock(2 * clients * each * (reply + dupOverhead))
	for i := range clients {
		for xid := range each {
			d.answer(t, requestOf(byte(i), uint32(xid)), reply)
		}
	}
	for xid := range 1000 {
		d.answer(t, requestOf(99, uint32(xid)), reply)
		if xid%100 == 0 {
			d.check(t)
		}
	}
	d.check(t)
	for i := range clients {
		for xid := range each {
			if d.answer(t, requestOf(byte(i), uint32(xid)), reply) == nil {
				t.Errorf("client %d lost request %d to a client that makes many", i, xid)
			}
		}
	}
	if d.answer(t, requestOf(99, 999), reply) == nil {
		t.Error("the client that makes many has not even its last one kept")
	}
}

// TestDupCacheLater: a reply that says to ask again later is not kept.
func TestDupCacheLater(t *testing.T) {
	d, _ := dupClock(1 << 20)
	key := requestOf(1, 1)
	fresh, _ := d.begin(key, nil)
	fresh.finish(append(make([]byte, 24), 0, 0, 0x27, 0x18)) // NFS3ERR_JUKEBOX
	fresh.abandon()
	if fresh, reply := d.begin(key, nil); fresh == nil || reply != nil {
		t.Errorf("asked again: %x", reply)
	}
}

// TestDupCacheShares fills it from many: a newcomer takes from who has most.
func TestDupCacheShares(t *testing.T) {
	d, _ := dupClock(100 * (100 + dupOverhead))
	for xid := range 200 {
		d.answer(t, requestOf(1, uint32(xid)), 100)
	}
	for xid := range 50 {
		for client := range 3 {
			d.answer(t, requestOf(byte(2+client), uint32(xid)), 100)
		}
	}
	d.check(t)
	shares := ""
	for i := range 4 {
		shares += fmt.Sprint(len(d.clients[requestOf(byte(1+i), 0).client].done), " ")
	}
	if shares != "25 25 25 25 " {
		t.Errorf("shares %s", shares)
	}
}
