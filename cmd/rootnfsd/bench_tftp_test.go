package main

import (
	"strings"
	"testing"
	"time"

	"github.com/rootnfsd/rootnfsd/bench"
)

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int{
		"1": 1, "5000": 5000, "3KiB": 3072, "30 MiB": 30 << 20, "1GiB": 1 << 30, "1073741824": 1 << 30,
		"": -1, "0": -1, "-1": -1, "MiB": -1, "2GiB": -1, "1025MiB": -1, "30MB": -1, "99999999999999999999": -1, "9007199254740993KiB": -1,
	} {
		got, err := parseSize(s)
		if (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("%q: %d, %v; want %d", s, got, err, want)
		}
	}
}

// TestTFTPTable tells one setting after the other, with rootnfsd beside the others.
func TestTFTPTable(t *testing.T) {
	report := new(bench.Report)
	add := func(server string, rtt, wall, cpu time.Duration, share float64) {
		report.Add(bench.Case{Bench: "tftp", Work: "blocks of 1024", Server: server, Nodes: 64, RTT: rtt},
			bench.Run{Wall: wall, CPU: cpu, Bytes: 4 << 20, LeastShare: share, Resent: 2})
	}
	add("rootnfsd", 0, time.Second, 40*time.Millisecond, 0.97)
	add("rootnfsd", 0, time.Second, 40*time.Millisecond, 0.91)
	add("dnsmasq", 0, 2*time.Second, 160*time.Millisecond, 0.5)
	add("dnsmasq", time.Millisecond, 2*time.Second, 160*time.Millisecond, 0)
	var b strings.Builder
	if err := tftpTable(&b, report); err != nil {
		t.Fatal(err)
	}
	var got [][]string
	for line := range strings.Lines(b.String()) {
		got = append(got, strings.Fields(line))
	}
	for i, want := range []string{
		"WORK RTT CLIENTS SERVER", "0s 64 rootnfsd 1.00 s", "dnsmasq 2.00 s", "1ms 64 dnsmasq",
	} {
		if row := strings.Join(got[i], " "); !strings.Contains(row, want) {
			t.Errorf("row %d is %q; want %q in it", i, row, want)
		}
	}
	for i, want := range []string{1: "10.0 ms", 2: "40.0 ms"} { // for each MiB
		if row := strings.Join(got[i], " "); !strings.Contains(row, want) {
			t.Errorf("row %d is %q; want %q in it", i, row, want)
		}
	}
	if row := strings.Join(got[1], " "); !strings.Contains(row, " 91% ") || !strings.HasSuffix(row, " 4 0") {
		t.Errorf("the row of rootnfsd is %q; want the least share of all runs, and the datagrams that were sent again", row)
	}
	if row := strings.Join(got[2], " "); !strings.HasSuffix(row, "1/2.00 1/4.00") {
		t.Errorf("the row of dnsmasq is %q; want the ratios at its end", row)
	}
}
