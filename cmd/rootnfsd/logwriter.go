package main

import (
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// logWriter writes log lines to where they go from a goroutine of its own, so that no node waits for whoever reads them, or does
// not. What does not fit into its queue is left out, which is said in its place.
type logWriter struct {
	to    io.Writer
	queue chan any // a line, or a chan struct{} that is closed when all before it is written
	lost  atomic.Int64
}

const (
	// mostLines is how many lines wait to be written.
	mostLines = 4096
	// syncWait is how long the end of the program waits for them.
	syncWait = time.Second
)

func newLogWriter(to io.Writer) *logWriter {
	w := &logWriter{to: to, queue: make(chan any, mostLines)}
	go w.run()
	return w
}

func (w *logWriter) run() {
	for next := range w.queue {
		if n := w.lost.Swap(0); n > 0 {
			fmt.Fprintf(w.to, "rootnfsd: %s of the log left out: whoever reads it is too slow\n", plural(int(n), "line"))
		}
		switch next := next.(type) {
		case []byte:
			w.to.Write(next) // that it cannot be written, there is nowhere to say
		case chan struct{}:
			close(next)
		}
	}
}

// Write implements io.Writer. It never waits.
func (w *logWriter) Write(p []byte) (int, error) {
	select {
	case w.queue <- append([]byte(nil), p...):
	default:
		w.lost.Add(1)
	}
	return len(p), nil
}

// Sync implements zapcore.WriteSyncer: it waits, but not for long, until what was written before is where it goes.
func (w *logWriter) Sync() error {
	late := time.NewTimer(syncWait)
	defer late.Stop()
	done := make(chan struct{})
	select {
	case w.queue <- done:
	case <-late.C:
		return nil
	}
	select {
	case <-done:
	case <-late.C:
	}
	return nil
}
