package tftp

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rootnfsd/rootnfsd/bench"
	"github.com/rootnfsd/rootnfsd/bench/benchtest"
	"github.com/rootnfsd/rootnfsd/bench/peer"
	"github.com/rootnfsd/rootnfsd/bench/relay"
)

func testPlan(content []byte) *Plan {
	return &Plan{
		File: "file", Content: content,
		Options: []Options{{1024, 1}, {1468, 4}}, Clients: []int{1, 3}, RTT: []time.Duration{0},
		Runs: 2, Limit: time.Minute,
		Progress: func(int, int, string) {}, Note: func(string) {},
	}
}

// TestPlan runs small servers, one of which grants no windows, and one that fails.
func TestPlan(t *testing.T) {
	content := random(20_000)
	plan := testPlan(content)
	var notes []string
	plan.Note = func(s string) { notes = append(notes, s) }
	done := 0
	plan.Progress = func(n, total int, _ string) {
		if n > total {
			t.Errorf("run %d of %d", n, total)
		}
		done = n
	}
	plain := func(options map[string]string) { delete(options, "windowsize") }
	var targets []*Target
	for name, s := range map[string]*server{
		"all": {content: content}, "plain": {content: content, grant: plain}, "wrong": {content: random(19_999)},
	} {
		targets = append(targets, &Target{Name: name, Addr: s.serve(t), Family: peer.Family{Meter: peer.Meter(os.Getpid())}})
	}
	var report bench.Report
	if err := plan.Run(t.Context(), targets, &report); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, x := range report.Results {
		got = append(got, fmt.Sprintf("%s: %s, %d", x.Server, x.Work, x.Nodes))
		for _, r := range x.Runs {
			if r.Errors != 0 || r.Bytes != uint64(x.Nodes*len(content)) || r.Resident == 0 {
				t.Errorf("%+v: %+v", x.Case, r)
			}
		}
		if len(x.Runs) != plan.Runs || x.Bench != "tftp" {
			t.Errorf("%+v has %d runs", x.Case, len(x.Runs))
		}
	}
	slices.Sort(got)
	want := []string{
		"all: blocks of 1024, 1", "all: blocks of 1024, 3", "all: blocks of 1468, windows of 4, 1", "all: blocks of 1468, windows of 4, 3",
		"plain: blocks of 1024, 1", "plain: blocks of 1024, 3",
	}
	if !slices.Equal(got, want) {
		t.Errorf("measured were %q; want %q", got, want)
	}
	slices.Sort(notes)
	if len(notes) != 3 || !strings.HasPrefix(notes[0], "plain is left out of blocks of 1468, windows of 4: it grants no windows") {
		t.Errorf("notes are %q", notes)
	}
	if done != 11 {
		t.Errorf("the last run was %d; want 11, counted from 0", done)
	}
}

// TestLeftOut has a server fail once it is measured: it is not asked again.
func TestLeftOut(t *testing.T) {
	content := random(5000)
	var asked atomic.Int32
	broken := &server{content: content, grant: func(options map[string]string) {
		if asked.Add(1) > 1 { // but for the warming up
			options["tsize"] = "1"
		}
	}}
	plan := testPlan(content)
	plan.Options, plan.Clients, plan.Runs = plan.Options[:1], []int{1}, 3
	notes := 0
	plan.Note = func(string) { notes++ }
	var report bench.Report
	target := &Target{Name: "broken", Addr: broken.serve(t), Family: peer.Family{Meter: peer.Meter(os.Getpid())}}
	if err := plan.Run(t.Context(), []*Target{target}, &report); err != nil {
		t.Fatal(err)
	}
	if len(report.Results) != 1 || len(report.Results[0].Runs) != 1 || report.Results[0].Runs[0].Errors != 1 || notes != 1 {
		t.Errorf("%d notes, and %+v; want one run that failed", notes, report.Results)
	}
}

func TestCheck(t *testing.T) {
	for name, spoil := range map[string]func(*Plan){
		"no content":     func(p *Plan) { p.Content = nil },
		"no options":     func(p *Plan) { p.Options = nil },
		"no clients":     func(p *Plan) { p.Clients = []int{0} },
		"many clients":   func(p *Plan) { p.Clients = []int{1, maxClients + 1} },
		"no round trips": func(p *Plan) { p.RTT = nil },
		"no runs":        func(p *Plan) { p.Runs = 0 },
		"no time":        func(p *Plan) { p.Limit = 0 },
		"small blocks":   func(p *Plan) { p.Options[0].BlockSize = 7 },
		"no window":      func(p *Plan) { p.Options[0].Window = 0 },
	} {
		p := testPlan(random(1))
		if err := p.Check(); err != nil {
			t.Fatal(err)
		}
		if spoil(p); p.Check() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestRace runs a short race of all servers, near and far.
func TestRace(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and starts servers")
	}
	benchtest.Need(t, errors.Join(peer.MissingDnsmasq(), peer.MissingTFTPD()))
	if !benchtest.InNetwork(t) {
		return
	}
	content := random(300_000)
	program, tree := benchtest.Program(t), benchtest.BootTree(t, string(content))
	const rtt = time.Millisecond
	var targets []*Target
	for _, start := range []func() (*peer.Server, error){
		func() (*peer.Server, error) { return peer.RootnfsdTFTP(t.Context(), program, tree) },
		func() (*peer.Server, error) { return peer.Dnsmasq(t.Context(), tree) },
		func() (*peer.Server, error) { return peer.TFTPD(t.Context(), tree) },
		func() (*peer.Server, error) { return peer.PinTFTP(t.Context(), program, tree) },
	} {
		s, err := start()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Stop)
		p, err := relay.StartDatagrams(program, s.TFTPAddr.String(), rtt)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Stop)
		targets = append(targets, &Target{
			Name: s.Name, Addr: s.TFTPAddr, Family: s.Family(),
			Far: map[time.Duration]netip.AddrPort{rtt: netip.MustParseAddrPort(p.Addr)},
		})
	}
	plan := testPlan(content)
	plan.File, plan.Options, plan.RTT = peer.BootFile, plan.Options[:1], []time.Duration{0, rtt}
	plan.Note = func(s string) { t.Error(s) }
	var report bench.Report
	if err := plan.Run(t.Context(), targets, &report); err != nil {
		t.Fatal(err)
	}
	plan.Options = []Options{{1468, 4}} // which not all grant
	if err := plan.Run(t.Context(), targets[:1], &report); err != nil {
		t.Fatal(err)
	}
	if want := (len(targets) + 1) * len(plan.Clients) * len(plan.RTT); len(report.Results) != want {
		t.Errorf("%d cases were measured; want %d", len(report.Results), want)
	}
	metered := map[string]bool{}
	for _, target := range targets {
		metered[target.Name] = target.Family.CPU() > 0
	}
	for _, x := range report.Results {
		for _, r := range x.Runs {
			const least = 2 * time.Microsecond // to receive, read and send
			trips := r.Calls / uint64(x.Nodes) // of each node
			if x.Work == (Options{1468, 4}).String() {
				trips /= 4
			}
			switch {
			case r.Errors != 0 || r.Bytes != uint64(x.Nodes*len(content)):
				t.Errorf("%+v: it did not work: %+v", x.Case, r)
			case metered[x.Server] && r.CPU < time.Duration(trips)*time.Duration(x.Nodes)*least || r.Resident == 0:
				t.Errorf("%+v: it was not metered: %+v", x.Case, r)
			case r.Wall < time.Duration(trips)*x.RTT:
				t.Errorf("%+v: it was too near: %+v", x.Case, r)
			case (r.LeastShare > 0) != (x.Nodes > 1) || r.LeastShare > 1:
				t.Errorf("%+v: the least share is %v", x.Case, r.LeastShare)
			}
		}
	}
}
