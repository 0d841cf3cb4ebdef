package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"golang.org/x/term"

	"github.com/rootnfsd/rootnfsd/bench"
)

// status shows what is being done: in one line on a terminal, line by line in a log.
// Several goroutines may use it.
type status struct {
	begun    time.Time
	terminal bool

	mu   sync.Mutex // guards last
	last string
}

func newStatus() *status {
	return &status{begun: time.Now(), terminal: term.IsTerminal(int(os.Stderr.Fd()))}
}

const clearLine = "\r\x1b[K"

func (s *status) show(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	elapsed := time.Since(s.begun).Round(time.Second)
	switch {
	case s.terminal:
		fmt.Fprintf(os.Stderr, "%s%6s  %s", clearLine, elapsed, what)
	case what != s.last:
		fmt.Fprintf(os.Stderr, "%6s  %s\n", elapsed, what)
	}
	s.last = what
}

// clear takes the line away.
func (s *status) clear() {
	if s.terminal {
		fmt.Fprint(os.Stderr, clearLine)
	}
}

// lastLine is the last line of a text that is not empty.
func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return strings.TrimSpace(text[strings.LastIndexByte(text, '\n')+1:])
}

// writeTable prints the medians of a report.
func writeTable(w io.Writer, r *bench.Report) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "work\tserver\tconnections\tcalls/s\tMB/s\tCPU/call\t")
	for _, x := range r.Results {
		median := func(f bench.Figure) float64 { return bench.Summarize(x.Runs, f).Median }
		cpu := time.Duration(median(bench.CPUPerCall) * float64(time.Second)).Round(100 * time.Nanosecond)
		fmt.Fprintf(tw, "%s\t%s\t%d x %d\t%.0f\t%.1f\t%v\t\n", x.Work, x.Server, x.Connections, x.InFlight,
			median(bench.CallsPerSecond), median(bench.BytesPerSecond)/1e6, cpu)
	}
	return tw.Flush()
}
