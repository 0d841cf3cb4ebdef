package nfs

import (
	"net/netip"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// What a client can cause to be logged once it can cause a million times. So
// each client gets so many lines a minute of each kind; what was left out is
// counted in the next one that is not. One client that goes wild hides nothing
// of the others.
const (
	linesPerMinute = 10
	mostThrottled  = 4096 // clients and kinds of lines that are remembered
)

// throttled returns a logger that does so.
func throttled(log *zap.Logger) *zap.Logger {
	seen, err := lru.New[lineKind, *lineCount](mostThrottled)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return log.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
		return throttle{core, seen}
	}))
}

type lineKind struct {
	message string
	client  netip.Addr
}

// lineCount counts the lines of one kind in one minute.
type lineCount struct {
	mu      sync.Mutex // guards the fields below
	began   time.Time
	n       int
	dropped int // since the last line that was written
}

// next counts a line and reports whether to write it, and how many were dropped
// before it.
func (l *lineCount) next(now time.Time) (write bool, dropped int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.began) >= time.Minute {
		l.began, l.n = now, 0
	}
	if l.n++; l.n > linesPerMinute {
		l.dropped++
		return false, 0
	}
	dropped, l.dropped = l.dropped, 0
	return true, dropped
}

// throttle is a zapcore.Core in front of another one.
type throttle struct {
	zapcore.Core
	seen *lru.Cache[lineKind, *lineCount]
}

// With implements zapcore.Core.
func (t throttle) With(fields []zapcore.Field) zapcore.Core {
	return throttle{t.Core.With(fields), t.seen}
}

// Check implements zapcore.Core.
func (t throttle) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if t.Enabled(e.Level) {
		return ce.AddCore(e, t)
	}
	return ce
}

// Write implements zapcore.Core.
func (t throttle) Write(e zapcore.Entry, fields []zapcore.Field) error {
	kind := lineKind{e.Message, clientOf(fields)}
	count := &lineCount{}
	if known, ok, _ := t.seen.PeekOrAdd(kind, count); ok {
		count = known
		t.seen.Get(kind) // it is in use: do not forget it
	}
	write, dropped := count.next(e.Time)
	if !write {
		return nil
	}
	if dropped > 0 {
		fields = append(fields, zap.Int("more like this, not shown", dropped))
	}
	return t.Core.Write(e, fields)
}

// clientOf finds who a line is about.
func clientOf(fields []zapcore.Field) netip.Addr {
	for _, f := range fields {
		switch client := f.Interface.(type) {
		case netip.AddrPort:
			return client.Addr()
		case netip.Addr:
			return client
		}
	}
	return netip.Addr{}
}
