package report_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rootnfsd/rootnfsd/bench"
	"github.com/rootnfsd/rootnfsd/bench/report"
)

func TestGoals(t *testing.T) {
	race := func(server, work string, cpu time.Duration) bench.Result {
		return result(bench.Case{Bench: "race", Work: work, Server: server, Connections: 4, InFlight: 16},
			bench.Run{Wall: time.Second, Calls: 1000, CPU: 1000 * cpu})
	}
	guest := func(server string, connections int, calls uint64) bench.Result {
		return result(bench.Case{Bench: "guest", Work: "GETATTR", Server: server, Connections: connections, InFlight: 16},
			bench.Run{Wall: time.Second, Calls: calls})
	}
	storm := func(server string, nodes int, run bench.Run) bench.Result {
		return result(bench.Case{Bench: "storm", Work: "debian", Server: server, Nodes: nodes}, run)
	}
	lookup := func(objects int, cpu time.Duration) bench.Result {
		return result(bench.Case{Bench: "store", Work: "LOOKUP", Server: "rootnfsd", Objects: objects},
			bench.Run{Wall: time.Second, Calls: 1, CPU: cpu})
	}
	home := func(server string, connections int, calls uint64, cpu time.Duration) bench.Result {
		return result(bench.Case{Bench: "homes", Work: "untar", Server: server, Connections: connections, InFlight: 1},
			bench.Run{Wall: time.Second, Calls: calls, CPU: time.Duration(calls) * cpu})
	}
	boot := func(server string, nodes int, runs ...bench.Run) bench.Result {
		return result(bench.Case{Bench: "tftp", Work: "blocks of 1024", Server: server, Nodes: nodes}, runs...)
	}
	cold := func(r bench.Result) bench.Result { r.Cold = true; return r }
	busy := func(r bench.Result) bench.Result { r.Connections, r.InFlight = 64, 1; return r }
	nconnect := func(n int, r bench.Result) bench.Result { r.Connections = n; return r }
	many := func(n int, r bench.Result) bench.Result { r.Runs = slices.Repeat(r.Runs, n); return r }
	delayed := func(r bench.Result) bench.Result { r.RTT = time.Millisecond; return r }

	const (
		getattr  = "CPU of a GETATTR, 4 connections"
		inGuest  = "GETATTRs a second, in a guest"
		boot256  = "time to boot 256 nodes"
		failures = "failed calls while 1024 nodes boot"
		tail     = "p99 of the calls while 1024"
		memory   = "memory while 1024 nodes boot"
		flat     = "cost of a LOOKUP of any object"
		inHome   = "unpacking a source tree into a home"
		share    = "the least of 64 shares of a boot file, near"
		shareFar = "the least of 64 shares of a boot file, 1 ms away"
	)
	for _, c := range []struct {
		what    string
		goal    string // how its row begins
		results []bench.Result
		want    string // in that row
	}{
		{"nothing", getattr, nil, "| not measured |"},
		{"no peer", getattr, []bench.Result{race("rootnfsd", "GETATTR", 1)}, "| not measured |"},
		{"a peer alone", getattr, []bench.Result{race("nfs-ganesha", "GETATTR", 1)}, "| not measured |"},
		{"other work", getattr, []bench.Result{race("rootnfsd", "GETATTR", 1000), race("nfs-ganesha", "LOOKUP", 13000)}, "| not measured |"},
		{"a cold cache", getattr, []bench.Result{cold(race("rootnfsd", "GETATTR", 1000)), cold(race("nfs-ganesha", "GETATTR", 13000))}, "| not measured |"},
		{"a thirteenth", getattr, []bench.Result{race("rootnfsd", "GETATTR", 1000), race("nfs-ganesha", "GETATTR", 13000)}, "| 1.00\u00a0µs | 13.0\u00a0µs | 1/13.0 | **reached**"},
		{"an eleventh", getattr, []bench.Result{race("rootnfsd", "GETATTR", 1000), race("nfs-ganesha", "GETATTR", 11000)}, "1/11.0 | **missed**"},
		{"more than the peer", getattr, []bench.Result{race("rootnfsd", "GETATTR", 2000), race("nfs-ganesha", "GETATTR", 1000)}, "2.00× | **missed**"},

		{"twice as fast", inGuest, []bench.Result{guest("rootnfsd", 4, 2000), guest("knfsd", 4, 1000)}, "2.00× | **reached**"},
		{"less", inGuest, []bench.Result{guest("rootnfsd", 4, 1900), guest("knfsd", 4, 1000)}, "1.90× | **missed**"},
		{"another setting", inGuest, []bench.Result{guest("rootnfsd", 64, 2000), guest("knfsd", 64, 1000)}, "| not measured |"},

		{"slower", boot256, []bench.Result{storm("rootnfsd", 256, bench.Run{Wall: 119}), storm("limit", 256, bench.Run{Wall: 100})}, "1.19× | **reached**"},
		{"too slow", boot256, []bench.Result{storm("rootnfsd", 256, bench.Run{Wall: 121}), storm("limit", 256, bench.Run{Wall: 100})}, "1.21× | **missed**"},
		{"other numbers of nodes", boot256, []bench.Result{storm("rootnfsd", 64, bench.Run{Wall: 1}), storm("limit", 64, bench.Run{Wall: 1})}, "| not measured |"},
		{"the worst setting counts", boot256, []bench.Result{
			nconnect(1, storm("rootnfsd", 256, bench.Run{Wall: 110})), nconnect(1, storm("limit", 256, bench.Run{Wall: 100})),
			nconnect(4, storm("rootnfsd", 256, bench.Run{Wall: 150})), nconnect(4, storm("limit", 256, bench.Run{Wall: 100})),
			nconnect(8, storm("rootnfsd", 256, bench.Run{Wall: 120})), nconnect(8, storm("limit", 256, bench.Run{Wall: 100})),
		}, "(worst: 4 connections, 256 nodes) | at most 1.2× of limit | 150\u00a0ns | 100.0\u00a0ns | 1.50× | **missed**"},
		{"with CPU", boot256, []bench.Result{storm("rootnfsd", 256, bench.Run{Wall: 119, CPU: 15}), storm("limit", 256, bench.Run{Wall: 100, CPU: 10})}, "1.19× (CPU 1.50×) | **reached**"},
		{"errors of ours", boot256, []bench.Result{storm("rootnfsd", 256, bench.Run{Wall: 50, Errors: 2}), storm("limit", 256, bench.Run{Wall: 100})}, "(2 errors) | 100.0\u00a0ns | 0.500× | **missed**"},
		{"a faster peer with errors", boot256, []bench.Result{storm("rootnfsd", 256, bench.Run{Wall: 121}), storm("limit", 256, bench.Run{Wall: 100, Errors: 1})}, "(1 error) | 1.21× | not measured"},
		{"few runs", boot256, []bench.Result{storm("rootnfsd", 256, bench.Run{Wall: 119}), storm("limit", 256, bench.Run{Wall: 100})}, "[1 of 5 runs]"},
		{"enough runs", boot256, []bench.Result{many(5, storm("rootnfsd", 256, bench.Run{Wall: 119})), many(6, storm("limit", 256, bench.Run{Wall: 100}))}, "nodes | at most"},
		{"with a delay", boot256, []bench.Result{delayed(storm("rootnfsd", 256, bench.Run{Wall: 1})), delayed(storm("limit", 256, bench.Run{Wall: 1}))}, "| not measured |"},

		{"faster", inHome, []bench.Result{home("rootnfsd", 1, 1500, 1000), home("nfs-ganesha", 1, 1000, 1000)}, "1.50×, CPU 1.00× | **reached**"},
		{"cheaper", inHome, []bench.Result{home("rootnfsd", 1, 1000, 1000), home("nfs-ganesha", 1, 1000, 1500)}, "| 1,000/s, 1.00\u00a0µs | 1,000/s, 1.50\u00a0µs | 1.00×, CPU 1/1.50 | **reached**"},
		{"neither", inHome, []bench.Result{home("rootnfsd", 1, 1400, 1000), home("nfs-ganesha", 1, 1000, 1400)}, "1.40×, CPU 1/1.40 | **missed**"},
		{"in one setting only", inHome, []bench.Result{
			home("rootnfsd", 1, 1500, 1000), home("nfs-ganesha", 1, 1000, 1000), home("rootnfsd", 4, 1000, 1000), home("nfs-ganesha", 4, 1000, 1000),
		}, "(worst: 4 × 1)"},
		{"against one that loses changes", inHome, []bench.Result{home("rootnfsd", 1, 1500, 1000), home("nfs-ganesha, not synced", 1, 1000, 1000)}, "| not measured |"},
		{"with errors", inHome, []bench.Result{
			many(5, result(bench.Case{Bench: "homes", Work: "untar", Server: "rootnfsd", Connections: 1, InFlight: 1}, bench.Run{Wall: time.Second, Calls: 9000, CPU: 1000, Errors: 1})),
			home("nfs-ganesha", 1, 1000, 1000),
		}, "**missed**"},

		{"even shares", share, []bench.Result{boot("rootnfsd", 64, bench.Run{LeastShare: 0.95}, bench.Run{LeastShare: 0.9})}, "| at least 90\u00a0% | 90.0\u00a0% |  |  | **reached**"},
		{"one run with a small share", share, []bench.Result{boot("rootnfsd", 64, bench.Run{LeastShare: 0.95}, bench.Run{LeastShare: 0.89}, bench.Run{LeastShare: 1})}, "89.0\u00a0% |  |  | **missed**"},
		{"a share that is nothing", share, []bench.Result{boot("rootnfsd", 64, bench.Run{Errors: 64})}, "**missed**"},
		{"shares of others", share, []bench.Result{boot("dnsmasq", 64, bench.Run{LeastShare: 0.95})}, "| not measured |"},
		{"shares of few", share, []bench.Result{boot("rootnfsd", 16, bench.Run{LeastShare: 0.95})}, "| not measured |"},
		{"shares near", shareFar, []bench.Result{boot("rootnfsd", 64, bench.Run{LeastShare: 0.95})}, "| not measured |"},
		{"shares far away", shareFar, []bench.Result{delayed(boot("rootnfsd", 64, bench.Run{LeastShare: 0.95}))}, "| 95.0\u00a0% |  |  | **reached**"},

		{"no storm", failures, nil, "| not measured |"},
		{"no errors", failures, []bench.Result{storm("rootnfsd", 1024, bench.Run{Wall: 1, Calls: 5000})}, "0 of 5,000 |  |  | **reached**"},
		{"errors", failures, []bench.Result{storm("rootnfsd", 1024, bench.Run{Wall: 1, Calls: 5000, Errors: 1})}, "1 of 5,000 |  |  | **missed**"},
		{"errors of others", failures, []bench.Result{
			storm("rootnfsd", 1024, bench.Run{Wall: 1, Calls: 5000}),
			storm("nfs-ganesha", 1024, bench.Run{Wall: 1, Calls: 5000, Errors: 1}),
		}, "**reached**"},
		{"a short tail", tail, []bench.Result{storm("rootnfsd", 1024, bench.Run{P50: 10, P99: 39})}, "3.90× |  |  | **reached**"},
		{"a long tail", tail, []bench.Result{storm("rootnfsd", 1024, bench.Run{P50: 10, P99: 40})}, "4.00× |  |  | **missed**"},
		{"one run takes too much memory", memory, []bench.Result{
			result(bench.Case{Bench: "storm", Server: "rootnfsd", Nodes: 1024}, bench.Run{Resident: 1}, bench.Run{Resident: 70 << 20}, bench.Run{Resident: 1}),
		}, "70.0\u00a0MiB |  |  | **missed**"},

		{"much memory with 1024 connections", "memory with 1024", []bench.Result{
			result(bench.Case{Bench: "race", Work: "GETATTR", Server: "rootnfsd", Connections: 1024}, bench.Run{Resident: 1}),
			result(bench.Case{Bench: "race", Work: "READ 1 MiB", Server: "rootnfsd", Connections: 1024}, bench.Run{Resident: 70 << 20}),
		}, "70.0\u00a0MiB |  |  | **missed**"},

		{"flat", flat, []bench.Result{lookup(10_001, 1000), lookup(200_000, 950), lookup(2_000_010, 1040)}, "950\u00a0ns to 1.04\u00a0µs |  | 1.09× | **reached**"},
		{"it grows", flat, []bench.Result{lookup(10_000, 1000), lookup(200_000, 1200), lookup(2_000_000, 1050)}, "1.20× | **missed**"},
		{"in each setting for itself", flat, []bench.Result{
			lookup(10_000, 1000), lookup(2_000_000, 1000), busy(lookup(10_000, 2000)), busy(lookup(2_000_000, 2100)),
		}, "(worst: 64 × 1) | within 10 % | 2.00\u00a0µs to 2.10\u00a0µs |  | 1.05× | **reached**"},
		{"the largest trees are missing", flat, []bench.Result{lookup(10_000, 1000), lookup(200_000, 1000)}, "| not measured |"},
		{"the smallest trees are missing", flat, []bench.Result{lookup(200_000, 1000), lookup(2_000_000, 1000)}, "| not measured |"},
	} {
		row := goalRow(t, report.New(reportOf(c.results...)), c.goal)
		if !strings.Contains(row, c.want) {
			t.Errorf("%s: want %s in\n%s", c.what, c.want, row)
		}
	}
}

// TestBootFileGoals holds rootnfsd against both peers, in each place and number of nodes.
func TestBootFileGoals(t *testing.T) {
	boot := func(server string, nodes int, rtt, wall, cpu time.Duration) bench.Result {
		return result(bench.Case{Bench: "tftp", Work: "blocks of 1024", Server: server, Nodes: nodes, RTT: rtt}, bench.Run{Wall: wall, CPU: cpu, Bytes: 1})
	}
	var all []bench.Result
	for _, nodes := range []int{1, 64} {
		for _, rtt := range []time.Duration{0, time.Millisecond} {
			all = append(all, boot("rootnfsd", nodes, rtt, 100, 50), boot("dnsmasq", nodes, rtt, 200, 49), boot("tftpd-hpa", nodes, rtt, 99, 100))
		}
	}
	n := map[string]int{}
	for line := range strings.Lines(results(report.New(reportOf(all...)))) {
		for _, figure := range []string{"time", "CPU"} {
			for _, peer := range []string{"dnsmasq", "tftpd-hpa"} {
				for _, state := range []string{"reached", "missed", "not measured"} {
					if strings.HasPrefix(line, "| "+figure+" for a boot file") && strings.Contains(line, "at most 1× of "+peer) && strings.Contains(line, state) {
						n[figure+" "+peer+" "+state]++
					}
				}
			}
		}
	}
	want := map[string]int{"time dnsmasq reached": 4, "time tftpd-hpa missed": 4, "CPU dnsmasq missed": 4, "CPU tftpd-hpa reached": 4}
	if !maps.Equal(n, want) {
		t.Errorf("the goals are %v; want %v", n, want)
	}
}

// goalRow returns the row of the goals' table that begins with what.
func goalRow(t *testing.T, d *report.Document, what string) string {
	t.Helper()
	var row string
	for line := range strings.Lines(results(d)) {
		if strings.HasPrefix(line, "| "+what) {
			if row != "" {
				t.Fatalf("several goals begin with %q", what)
			}
			row = line
		}
	}
	if row == "" {
		t.Fatalf("no goal begins with %q", what)
	}
	return row
}

// TestTestsExist looks for the tests that make sure of goals.
func TestTestsExist(t *testing.T) {
	files, err := filepath.Glob("../../integration/*_test.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("%q, %v; want the tests of package integration", files, err)
	}
	var source strings.Builder
	for _, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		source.Write(b)
	}
	found := 0
	for _, word := range strings.Split(results(report.New()), "`") {
		if strings.HasPrefix(word, "Test") {
			found++
			if !strings.Contains(source.String(), "\nfunc "+word+"(t *testing.T)") {
				t.Errorf("there is no %s in package integration", word)
			}
		}
	}
	if found == 0 {
		t.Error("no goal names a test")
	}
}
