// Package bench holds what measurements of rootnfsd and of its peers are told
// in: the packages below it make them, and package report shows them. None of
// them knows more of rootnfsd than its command line and its protocols.
package bench

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Report is what one run of the bench found out.
type Report struct {
	Date    time.Time `json:"date"`
	Machine Machine   `json:"machine"`
	// Servers says what each server is: version, configuration, what differs
	// from its defaults.
	Servers map[string]string `json:"servers"`
	Results []Result          `json:"results"`
}

// Result is one piece of work on one server, several times.
type Result struct {
	Case
	Runs []Run `json:"runs"`
}

// Case is what was measured. Results of the same Case but for the Server are
// compared with each other.
type Case struct {
	Bench  string `json:"bench"` // race, storm, homes, tftp, guest, counted, store, import, rollout
	Work   string `json:"work"`  // GETATTR, READ 4 KiB, seal, ...
	Server string `json:"server"`

	// What does not apply is zero.
	Connections int           `json:"connections,omitempty"`
	InFlight    int           `json:"in_flight,omitempty"` // calls on each connection
	Nodes       int           `json:"nodes,omitempty"`
	Cold        bool          `json:"cold,omitempty"` // the page cache was dropped first
	RTT         time.Duration `json:"rtt_ns,omitempty"`
	Objects     int           `json:"objects,omitempty"` // in the tree
}

// Run is one measurement. What was not measured is zero.
type Run struct {
	Wall     time.Duration `json:"wall_ns"`
	Calls    uint64        `json:"calls,omitempty"`
	Bytes    uint64        `json:"bytes,omitempty"`           // of file content
	Errors   uint64        `json:"errors,omitempty"`          // failed calls, broken connections
	CPU      time.Duration `json:"cpu_ns,omitempty"`          // of the server alone
	Resident uint64        `json:"resident_bytes,omitempty"`  // of the server, the most
	DiskRead uint64        `json:"disk_read_bytes,omitempty"` // by the server

	// Latency of calls.
	P50  time.Duration `json:"p50_ns,omitempty"`
	P99  time.Duration `json:"p99_ns,omitempty"`
	P999 time.Duration `json:"p999_ns,omitempty"`
	Max  time.Duration `json:"max_ns,omitempty"`

	// How long the nodes of a storm took to boot, or clients to fetch a file, each from
	// its own start.
	NodeP50 time.Duration `json:"node_p50_ns,omitempty"`
	NodeMax time.Duration `json:"node_max_ns,omitempty"`

	// LeastShare is what the client got that got least, divided by an even share: when the
	// first had all of a file, and so all had wanted as much as they could get.
	LeastShare float64 `json:"least_share,omitempty"`
	Resent     uint64  `json:"resent,omitempty"` // datagrams that clients had to send again
}

// SetLatency fills in the latency of calls from a histogram of nanoseconds.
func (r *Run) SetLatency(h *hdrhistogram.Histogram) {
	at := func(percent float64) time.Duration { return time.Duration(h.ValueAtPercentile(percent)) }
	r.P50, r.P99, r.P999, r.Max = at(50), at(99), at(99.9), time.Duration(h.Max())
}

// A Figure is one number that can be read off a Run. Zero means that there is
// none.
type Figure func(Run) float64

// CallsPerSecond is the throughput in calls.
func CallsPerSecond(r Run) float64 { return ratio(float64(r.Calls), r.Wall.Seconds()) }

// BytesPerSecond is the throughput in bytes of file content.
func BytesPerSecond(r Run) float64 { return ratio(float64(r.Bytes), r.Wall.Seconds()) }

// CPUPerCall is in seconds.
func CPUPerCall(r Run) float64 { return ratio(r.CPU.Seconds(), float64(r.Calls)) }

// CPUPerGB is in seconds for 10^9 bytes of file content.
func CPUPerGB(r Run) float64 { return ratio(r.CPU.Seconds(), float64(r.Bytes)/1e9) }

// LeastShare is what the client got that got least, as part of an even share.
func LeastShare(r Run) float64 { return r.LeastShare }

// Seconds is how long the run took.
func Seconds(r Run) float64 { return r.Wall.Seconds() }

func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// Summary is the median of a figure over several runs, and the least and the
// most of it.
type Summary struct {
	Median, Min, Max float64
}

// Summarize sums up the runs that have the figure.
func Summarize(runs []Run, f Figure) Summary {
	var v []float64
	for _, r := range runs {
		if x := f(r); x != 0 {
			v = append(v, x)
		}
	}
	if len(v) == 0 {
		return Summary{}
	}
	slices.Sort(v)
	n := len(v)
	return Summary{Median: (v[(n-1)/2] + v[n/2]) / 2, Min: v[0], Max: v[n-1]}
}

// Add files a run under its case.
func (r *Report) Add(c Case, run Run) {
	i := slices.IndexFunc(r.Results, func(x Result) bool { return x.Case == c })
	if i < 0 {
		i = len(r.Results)
		r.Results = append(r.Results, Result{Case: c})
	}
	r.Results[i].Runs = append(r.Results[i].Runs, run)
}

// Load reads a report that Save has written.
func Load(path string) (*Report, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := new(Report)
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// Save writes the report as JSON.
func (r *Report) Save(path string) error {
	b, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
