package nfs

import (
	"net/netip"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

func TestThrottle(t *testing.T) {
	core, logs := observer.New(zapcore.InfoLevel)
	now := time.Unix(1_700_000_000, 0)
	log := throttled(zap.New(core, zap.WithClock(stoppedClock{&now})))
	wild, meek := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	for range 100 {
		log.Warn("refused", zap.Stringer("client", netip.AddrPortFrom(wild, 1023)))
	}
	log.Warn("refused", zap.Stringer("client", meek))
	log.Warn("other", zap.Stringer("client", wild))
	if got := logs.Len(); got != linesPerMinute+2 {
		t.Errorf("%d lines; want %d of the wild client, one of the other and one of another kind", got, linesPerMinute)
	}
	logs.TakeAll()
	now = now.Add(time.Minute)
	log.Warn("refused", zap.Stringer("client", wild))
	lines := logs.TakeAll()
	if len(lines) != 1 || lines[0].ContextMap()["more like this, not shown"] != int64(100-linesPerMinute) {
		t.Errorf("a minute later: %v; want a line that counts those left out", lines)
	}
}

type stoppedClock struct{ now *time.Time }

func (c stoppedClock) Now() time.Time                       { return *c.now }
func (c stoppedClock) NewTicker(time.Duration) *time.Ticker { panic("not used") }

// TestStrangersCannotCrowdOut connects from an address that may not mount more
// often than there is room for, and then as somebody else might.
func TestStrangersCannotCrowdOut(t *testing.T) {
	h := start(t, sample(), Limits{Conns: 16})
	stranger := netip.MustParseAddr("203.0.113.1")
	for i := range 16 {
		c := &conn{srv: h.Server, peer: h.exports.Peer(netip.AddrPortFrom(stranger, 1))}
		if got, want := h.register(c), i < 2; got != want {
			t.Errorf("connection %d of a stranger: admitted %v; want %v", i+1, got, want)
		} else if got {
			defer h.forget(c)
		}
	}
	h.dial(t).wantAlive()
}
