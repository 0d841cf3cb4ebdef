package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/rootnfsd/rootnfsd/bench"
	"github.com/rootnfsd/rootnfsd/bench/peer"
	"github.com/rootnfsd/rootnfsd/bench/relay"
	"github.com/rootnfsd/rootnfsd/bench/tftp"
)

// tftpPeerNames are the servers that can be measured, in the order in which they are
// shown.
var tftpPeerNames = []string{"rootnfsd", "dnsmasq", "tftpd-hpa", "pin-tftp"}

func benchTFTPCommand() *cli.Command {
	return &cli.Command{
		Name:  "tftp",
		Usage: "measure giving out boot files, beside dnsmasq and tftpd-hpa",
		Description: `A file is put into a store and promoted, and served over TFTP by rootnfsd and, from a
directory, by dnsmasq, by tftpd-hpa and by pin/tftp, a library of Go. All clients fetch
it at once, one block after the other as a Raspberry Pi does, and compare every byte;
with windows of several blocks only where the server grants them. The servers take
turns, several times; shown are the medians.

LEAST SHARE is how much of the file the client had that had least of it when the first
had all, beside an even share. The CPU of tftpd-hpa, which makes a process for each
client, is counted by a control group (cgroup), where those can be made.

dnsmasq and tftpd-hpa need root and their packages (apt-get install dnsmasq-base
tftpd-hpa); they are left out without. As root all is done in a network namespace, in
which port 69 is free.

Examples:
   rootnfsd bench tftp --size 5MiB --runs 3             a first impression
   rootnfsd bench tftp --rtt 0,1ms --json tftp.json
   rootnfsd bench tftp --file initrd.img --clients 64 --options 1468x1,1468x16
   rootnfsd bench tftp --servers rootnfsd,dnsmasq --clients 1`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "file", Usage: "serve what is in `FILE` (default: random bytes)"},
			&cli.StringFlag{Name: "size", Value: "30MiB", Usage: "serve `SIZE` of random bytes"},
			&cli.StringFlag{Name: "servers", Value: strings.Join(tftpPeerNames, ","), Usage: "measure these: `NAME,…`"},
			&cli.StringFlag{Name: "clients", Value: "1,64", Usage: "how many fetch it at once: `N,…`"},
			&cli.StringFlag{Name: "options", Value: "1024x1,1468x16", Usage: "sizes of blocks, and how many are sent before one is acknowledged: `BYTESxN,…`"},
			&cli.StringFlag{Name: "rtt", Value: "0", Usage: "add each `TIME,…` to round trips, by a relay"},
			&cli.IntFlag{Name: "runs", Value: 5, Usage: "repeat everything `N` times"},
			&cli.DurationFlag{Name: "limit", Value: 10 * time.Minute, Usage: "give up on a server that needs more than `TIME` for a run"},
			&cli.StringFlag{Name: "json", Usage: "write the results to `FILE`, - being standard output"},
		},
		Action: benchTFTP,
	}
}

func benchTFTP(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	plan, err := tftpPlan(c)
	if err != nil {
		return err
	}
	names := splitCommas([]string{c.String("servers")})
	for _, name := range names {
		if !slices.Contains(tftpPeerNames, name) {
			return usageError(c, "--servers %s: there are %s", name, strings.Join(tftpPeerNames, ", "))
		}
	}
	ran, err := peer.InEmptyNetwork()
	if ran {
		return err
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "What listens on this machine stays in the way: %v\n", err)
	}
	ctx, stop := signal.NotifyContext(c.Context, os.Interrupt, syscall.SIGTERM)
	defer stop()
	line := newStatusLine()
	plan.Progress = func(done, total int, next string) { line.show(fmt.Sprintf("%d of %d: %s", done, total, next)) }
	plan.Note = line.print
	// Servers that are not root when they read the file must get at it.
	tree, err := os.MkdirTemp("", "rootnfsd-tftp")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tree)
	boot := filepath.Join(tree, peer.BootDir)
	if err := errors.Join(os.Chmod(tree, 0o755), os.MkdirAll(boot, 0o755), os.WriteFile(filepath.Join(boot, peer.BootFile), plan.Content, 0o644)); err != nil {
		return err
	}
	s := &tftpServers{tree: tree, about: map[string]string{}}
	defer s.stop()
	for _, name := range names {
		line.show("starting " + name)
		if err := s.start(ctx, name, plan); err != nil {
			return err
		}
	}
	report := &bench.Report{Date: time.Now().UTC(), Machine: bench.ThisMachine(), Servers: s.about}
	err = plan.Run(ctx, s.targets, report)
	line.clear()
	return errors.Join(publish(c, report, err, writeServers, tftpTable), wrong(report, true))
}

// tftpPlan reads the flags.
func tftpPlan(c *cli.Context) (*tftp.Plan, error) {
	p := &tftp.Plan{File: peer.BootFile, Runs: c.Int("runs"), Limit: c.Duration("limit")}
	var err error
	if file := c.String("file"); file != "" {
		if p.Content, err = os.ReadFile(file); err != nil {
			return nil, err
		}
	} else {
		n, err := parseSize(c.String("size"))
		if err != nil {
			return nil, usageError(c, "--size %v", err)
		}
		p.Content = make([]byte, n)
		rand.Read(p.Content)
	}
	if p.Clients, err = numbers(c.String("clients")); err != nil {
		return nil, usageError(c, "--clients %v", err)
	}
	for _, text := range splitCommas([]string{c.String("options")}) {
		var o tftp.Options
		if n, err := fmt.Sscanf(text+" ", "%dx%d ", &o.BlockSize, &o.Window); n != 2 || err != nil {
			return nil, usageError(c, "--options %s: want bytes x blocks, as 1024x1", text)
		}
		p.Options = append(p.Options, o)
	}
	for _, text := range splitCommas([]string{c.String("rtt")}) {
		rtt, err := time.ParseDuration(text)
		if err != nil {
			return nil, usageError(c, "--rtt %s: want times as 0 or 1ms", text)
		}
		p.RTT = append(p.RTT, rtt)
	}
	if err := p.Check(); err != nil {
		return nil, usageError(c, "%v", err)
	}
	return p, nil
}

// maxBootFile bounds what is made up in memory.
const maxBootFile = 1 << 30

// parseSize reads a number of bytes, as 5000, 300KiB or 30MiB.
func parseSize(s string) (int, error) {
	number, unit := s, 1
	for suffix, bytes := range map[string]int{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
		if rest, ok := strings.CutSuffix(s, suffix); ok {
			number, unit = strings.TrimSpace(rest), bytes
		}
	}
	n, err := strconv.Atoi(number)
	if err != nil || n < 1 || n > maxBootFile/unit {
		return 0, fmt.Errorf("%s: want a size from 1 to 1GiB, as 30MiB", s)
	}
	return n * unit, nil
}

// tftpServers are servers of the boot files in a tree.
type tftpServers struct {
	tree    string
	targets []*tftp.Target
	about   map[string]string // what each is, for a report
	stops   []func()
}

func (s *tftpServers) stop() {
	for _, f := range slices.Backward(s.stops) {
		f()
	}
}

// start starts a server, and relays to it. A peer that is not here, or does not start, is
// left out, with a note.
func (s *tftpServers) start(ctx context.Context, name string, plan *tftp.Plan) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	var server *peer.Server
	switch name {
	case "rootnfsd":
		server, err = peer.RootnfsdTFTP(ctx, program, s.tree)
	case "dnsmasq":
		server, err = peer.Dnsmasq(ctx, s.tree)
	case "tftpd-hpa":
		server, err = peer.TFTPD(ctx, s.tree)
	case "pin-tftp":
		server, err = peer.PinTFTP(ctx, program, s.tree)
	}
	switch {
	case err != nil && name != "rootnfsd" && ctx.Err() == nil:
		plan.Note(fmt.Sprintf("%s is left out: %v", name, err))
		return nil
	case err != nil:
		return err
	}
	s.stops = append(s.stops, server.Stop)
	s.about[server.Name] = server.About
	t := &tftp.Target{Name: server.Name, Addr: server.TFTPAddr, Family: server.Family(), Far: map[time.Duration]netip.AddrPort{}}
	for _, rtt := range plan.RTT {
		if rtt == 0 {
			continue
		}
		p, err := relay.StartDatagrams(program, server.TFTPAddr.String(), rtt)
		if err != nil {
			return err
		}
		s.stops = append(s.stops, p.Stop)
		if t.Far[rtt], err = netip.ParseAddrPort(p.Addr); err != nil {
			return err
		}
	}
	s.targets = append(s.targets, t)
	return nil
}

// tftpTable shows medians, of the time the least and the most, and how rootnfsd stands to
// the others.
func tftpTable(w io.Writer, report *bench.Report) error {
	rows := [][]string{{"WORK", "RTT", "CLIENTS", "SERVER", "ALL HAVE IT", "", "ONE", "SLOWEST", "MB/S", "CPU/MIB", "BLOCK P50", "P99", "LEAST SHARE", "MEMORY", "RESENT", "ERRORS", "TIME", "CPU"}}
	ours := oursOf(report.Results)
	var last bench.Case
	for _, x := range report.Results {
		median := func(f bench.Figure) float64 { return bench.Summarize(x.Runs, f).Median }
		lasted := func(f func(bench.Run) time.Duration) string {
			return short(median(func(r bench.Run) float64 { return f(r).Seconds() }))
		}
		row := make([]string, 3, len(rows[0]))
		if k := withoutServer(x.Case); k != last {
			last = k
			row[0], row[1], row[2] = x.Work, x.RTT.String(), strconv.Itoa(x.Nodes)
		}
		wall := bench.Summarize(x.Runs, bench.Seconds)
		share := "-"
		if s := bench.Summarize(x.Runs, bench.LeastShare); s.Median > 0 {
			share = fmt.Sprintf("%.0f%%", s.Min*100)
		}
		row = append(row, x.Server,
			short(wall.Median), fmt.Sprintf("%s to %s", short(wall.Min), short(wall.Max)),
			lasted(func(r bench.Run) time.Duration { return r.NodeP50 }),
			lasted(func(r bench.Run) time.Duration { return r.NodeMax }),
			three(median(bench.BytesPerSecond)/1e6),
			short(median(cpuPerMiB)),
			lasted(func(r bench.Run) time.Duration { return r.P50 }),
			lasted(func(r bench.Run) time.Duration { return r.P99 }),
			share,
			memory(median(func(r bench.Run) float64 { return float64(r.Resident) })),
			fmt.Sprint(resentIn(x.Runs)), fmt.Sprint(errorsOf(x.Runs)),
		)
		if us, ok := ours[withoutServer(x.Case)]; ok && x.Server != "rootnfsd" {
			row = append(row, ratio(us, x, bench.Seconds), ratio(us, x, cpuPerMiB))
		}
		rows = append(rows, row)
	}
	if len(rows) == 1 {
		return nil
	}
	if err := table(w, rows); err != nil || len(ours) == 0 || len(ours) == len(report.Results) {
		return err
	}
	_, err := fmt.Fprintln(w, "\nTIME and CPU are rootnfsd's, divided by that of the server in the line. LEAST SHARE is the least of all runs.")
	return err
}

func cpuPerMiB(r bench.Run) float64 { return bench.CPUPerGB(r) * (1 << 20) / 1e9 }

func resentIn(runs []bench.Run) (sum uint64) {
	for _, r := range runs {
		sum += r.Resent
	}
	return sum
}
