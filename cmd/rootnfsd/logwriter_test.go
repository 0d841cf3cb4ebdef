package main

import (
	"io"
	"strings"
	"testing"
	"testing/synctest"
)

// TestSlowLogReader: nobody waits for whoever reads the log, and what was left out is said.
func TestSlowLogReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, to := io.Pipe() // of which nothing is read at first
		w := newLogWriter(to)
		const more = 100
		for range mostLines + 1 + more {
			w.Write([]byte("line\n"))
			synctest.Wait() // the first one is on its way
		}
		w.Sync() // gives up
		go func() {
			w.Write([]byte("last\n"))
			w.Sync()
			to.Close()
			close(w.queue)
		}()
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		if n := strings.Count(string(text), "line\n"); n < mostLines {
			t.Errorf("%d lines are written; want %d and more", n, mostLines)
		}
		if !strings.Contains(string(text), "rootnfsd: 10") || !strings.Contains(string(text), "lines of the log left out") {
			t.Errorf("it is not said how many were left out: %q ... %q", lines[:3], lines[len(lines)-3:])
		}
	})
}
