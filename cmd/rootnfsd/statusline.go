package main

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/term"
)

// statusLine shows on a terminal, in one line, what is being done. Elsewhere it
// shows nothing.
type statusLine struct {
	mu       sync.Mutex // guards the terminal
	terminal bool
}

func newStatusLine() *statusLine {
	return &statusLine{terminal: term.IsTerminal(int(os.Stderr.Fd()))}
}

const eraseLine = "\r\x1b[K"

// show replaces the line.
func (l *statusLine) show(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.terminal {
		fmt.Fprint(os.Stderr, eraseLine, text)
	}
}

// print writes a line that stays.
func (l *statusLine) print(text string) {
	l.clear()
	fmt.Fprintln(os.Stderr, text)
}

// clear takes the line away.
func (l *statusLine) clear() { l.show("") }
