package main

import (
	"bytes"
	"cmp"
	"context"
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
	"github.com/rootnfsd/rootnfsd/bench/load"
	"github.com/rootnfsd/rootnfsd/bench/peer"
	"github.com/rootnfsd/rootnfsd/bench/relay"
	"github.com/rootnfsd/rootnfsd/bench/storm"
	"github.com/rootnfsd/rootnfsd/bench/traces"
)

func benchStormCommand() *cli.Command {
	return &cli.Command{
		Name:  "storm",
		Usage: "replay the boot of a node as many nodes at once",
		Description: `Every node mounts and makes the calls of a recorded boot, by default of a Debian
root that is part of this program; calls about files that the server does not
have are left out, and counted. rootnfsd serve --record makes recordings.

On loopback every node has an address of its own.

Examples:
   rootnfsd bench storm --target server --nodes 64         how a server stands 64 nodes
   rootnfsd bench storm --target server --path /srv/root --nodes 64 --think
                                                           as slow as real nodes are
   rootnfsd bench storm --trace my.trace --target 127.0.0.1:2049 --nodes 256 --pid 4711
   rootnfsd bench storm --compare --export images/         rootnfsd, nfs-ganesha and what is possible
   rootnfsd bench storm --compare --export images/ --rtt 1ms --nodes 1,256 --json storm.json`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "trace", Usage: "replay the recording in `FILE` (default: a Debian boot)"},
			&cli.StringFlag{Name: "client", Usage: "replay what the client at `ADDR` did (default: the one that did most)"},
			&cli.StringFlag{Name: "target", Usage: "the server: `HOST[:PORT]`"},
			&cli.StringFlag{Name: "path", Value: "/", Usage: "mount `PATH`"},
			&cli.UintFlag{Name: "mount-port", Usage: "MOUNT is at `PORT` (default: where NFS is, or where the port mapper says)"},
			&cli.BoolFlag{Name: "reserved-port", Usage: "call from ports below 1024, as root can"},
			&cli.IntFlag{Name: "pid", Usage: "the server is process `PID` of this machine: measure its CPU and memory"},
			&cli.StringFlag{Name: "nodes", Usage: "how many nodes: `N[,N…]` (default: 256; to compare, 1,16,64,256,1024)"},
			&cli.IntFlag{Name: "runs", Usage: "repeat `N` times (default: 1; to compare, 5)"},
			&cli.BoolFlag{Name: "think", Usage: "let nodes wait as long as the recorded one did (default: as fast as possible)"},
			&cli.DurationFlag{Name: "ramp", Usage: "spread the starts of the nodes over `TIME`"},
			&cli.IntFlag{Name: "connections-per-node", Value: 1, Usage: "spread the calls of a node over `N` connections, as nconnect does"},
			&cli.BoolFlag{Name: "compare", Usage: "start the servers here, and run them side by side"},
			exportFlag(), configFlag(), serversFlag(), congestionFlag(),
			&cli.BoolFlag{Name: "cold", Usage: "drop the page cache of this machine before each run, for which root is needed"},
			&cli.DurationFlag{Name: "rtt", Usage: "add `TIME` to each round trip, by a relay"},
			&cli.StringFlag{Name: "json", Usage: "write the results to `FILE`, - being standard output"},
		},
		Action: benchStorm,
	}
}

func benchStorm(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	if c.Bool("compare") == c.IsSet("target") {
		return usageError(c, "want either --target HOST or --compare")
	}
	contest, err := newContest(c)
	if err != nil {
		return err
	}
	if c.Bool("compare") {
		if ran, err := inOwnNetwork(c); ran {
			return err
		}
	}
	ctx, stop := signal.NotifyContext(c.Context, os.Interrupt, syscall.SIGTERM)
	defer stop()
	line := newStatusLine()
	contest.Say, contest.Warn = line.show, line.print
	s := &stormBench{cli: c, about: map[string]string{}}
	defer s.stop()
	if c.Bool("compare") {
		err = s.enterPeers(ctx, line.print)
	} else {
		err = s.enterTarget()
	}
	if err != nil {
		return err
	}
	report := &bench.Report{Date: time.Now().UTC(), Machine: bench.ThisMachine(), Servers: s.about}
	err = contest.Run(ctx, s.entrants, report)
	line.clear()
	return errors.Join(publish(c, report, err, writeServers, stormTable), wrong(report, c.Bool("compare")))
}

// newContest reads what is to be replayed, and how often.
func newContest(c *cli.Context) (*storm.Contest, error) {
	defaultNodes, defaultRuns := "256", 1
	if c.Bool("compare") {
		defaultNodes, defaultRuns = "1,16,64,256,1024", 5
	}
	work, trace, err := readTrace(c)
	if err != nil {
		return nil, err
	}
	contest := &storm.Contest{Trace: trace, Work: work, Runs: defaultRuns, Connections: c.Int("connections-per-node"), Think: c.Bool("think"), Ramp: c.Duration("ramp")}
	if contest.Think {
		contest.Work += ", thinking"
	}
	if c.IsSet("runs") {
		contest.Runs = c.Int("runs")
	}
	if c.Bool("cold") {
		if !load.CanDropCaches() {
			return nil, errors.New("only root can drop the page cache (--cold)")
		}
		contest.Cold = load.DropCaches
	}
	if contest.Nodes, err = parseCounts(cmp.Or(c.String("nodes"), defaultNodes)); err != nil {
		return nil, usageError(c, "--nodes %v", err)
	}
	if contest.Runs < 1 || contest.Connections < 1 || contest.Connections > maxConnections {
		return nil, usageError(c, "want at least one run, and 1 to %d connections for each node", maxConnections)
	}
	return contest, nil
}

// maxConnections is what nconnect allows (NFS_MAX_CONNECTIONS in fs/nfs/fs_context.c).
const maxConnections = 16

// readTrace returns the calls that are to be replayed, and their name.
func readTrace(c *cli.Context) (name string, t *storm.Trace, err error) {
	name = "debian-boot"
	if file := c.String("trace"); file != "" {
		name = strings.TrimSuffix(filepath.Base(file), ".trace")
		t, err = storm.Load(file)
	} else {
		t, err = storm.Parse(bytes.NewReader(traces.DebianBoot))
	}
	if err != nil {
		return "", nil, err
	}
	clients := t.Clients()
	if len(clients) == 0 {
		return "", nil, errors.New("the trace has no calls")
	}
	client := clients[0]
	if a := c.String("client"); a != "" {
		if client, err = netip.ParseAddr(a); err != nil || !slices.Contains(clients, client) {
			return "", nil, fmt.Errorf("--client %s: the clients of the trace are %v", a, clients)
		}
	}
	return name, t.Of(client), nil
}

// parseCounts reads numbers with commas between them.
func parseCounts(s string) ([]int, error) {
	var counts []int
	for _, f := range splitCommas([]string{s}) {
		n, err := strconv.Atoi(f)
		if err != nil || n < 1 || n > storm.MaxNodes {
			return nil, fmt.Errorf("%s: want numbers from 1 to %d", f, storm.MaxNodes)
		}
		counts = append(counts, n)
	}
	if counts == nil {
		return nil, errors.New("is empty")
	}
	return counts, nil
}

// stormBench is a storm with the servers that it is over.
type stormBench struct {
	cli      *cli.Context
	about    map[string]string // servers
	entrants []*storm.Entrant
	stops    []func()
}

// stop ends what was started.
func (s *stormBench) stop() {
	for _, f := range slices.Backward(s.stops) {
		f()
	}
}

// enterTarget enters a server that runs already.
func (s *stormBench) enterTarget() error {
	t, err := targetOf(s.cli)
	if err != nil {
		return err
	}
	s.about[t.Name] = t.Path + " of " + t.Addr
	return s.enter(&storm.Entrant{Name: t.Name, Addr: t.Addr, MountAddr: t.MountAddr, MountPath: t.Path, Options: t.Options, Meter: t.Meter})
}

// enterPeers starts servers of the promoted version of a store, and enters them.
func (s *stormBench) enterPeers(ctx context.Context, note func(string)) error {
	x, err := findContestants(s.cli, "")
	if err != nil {
		return err
	}
	s.stops = append(s.stops, x.stop)
	if err := x.start(ctx, note); err != nil {
		return err
	}
	s.about = x.about()
	s.about["TCP"] = "congestion control " + peer.Congestion() + ", loopback"
	var ours *storm.Entrant
	for _, server := range x.servers {
		e := &storm.Entrant{Name: server.Name, Addr: server.Addr, MountAddr: server.MountAddr, MountPath: server.MountPath, Meter: server.Meter}
		switch server.Name {
		case "rootnfsd":
			ours = e
		case "go-nfs":
			e.Most = goNFSNodes
		case "limit":
			e.Like, e.File = ours, uint64(x.packSize)
		}
		if err := s.enter(e); err != nil {
			return err
		}
	}
	return nil
}

// enter adds a server, behind relays if it is to be further away.
func (s *stormBench) enter(e *storm.Entrant) error {
	if e.RTT = s.cli.Duration("rtt"); e.RTT > 0 {
		nfs, err := s.relay(e.Addr, e.RTT)
		if err != nil {
			return err
		}
		mount := nfs
		if e.MountAddr != e.Addr {
			if mount, err = s.relay(e.MountAddr, e.RTT); err != nil {
				return err
			}
		}
		e.Addr, e.MountAddr = nfs, mount
	}
	s.entrants = append(s.entrants, e)
	return nil
}

// relay starts a relay and returns where it listens.
func (s *stormBench) relay(target string, rtt time.Duration) (addr string, err error) {
	program, err := os.Executable()
	if err != nil {
		return "", err
	}
	p, err := relay.Start(program, target, rtt)
	if err != nil {
		return "", err
	}
	s.stops = append(s.stops, p.Stop)
	return p.Addr, nil
}

// goNFSNodes is how many nodes go-nfs is asked to boot: they take it half a second
// each.
const goNFSNodes = 16

// wrong says what a script should stop at. Where servers are compared, only the
// errors of rootnfsd are: those of the others are told as all that is measured.
func wrong(report *bench.Report, compared bool) error {
	if len(report.Results) == 0 {
		return errors.New("nothing was measured")
	}
	for _, r := range report.Results {
		if n := errorsOf(r.Runs); n > 0 && (!compared || r.Server == "rootnfsd") {
			return fmt.Errorf("%s: %d errors with %s", r.Server, n, plural(r.Nodes, "node"))
		}
	}
	return nil
}

// stormTable has a row for each server and number of nodes: medians, and of the time
// the least and the most.
func stormTable(w io.Writer, report *bench.Report) error {
	rows := [][]string{{"NODES", "SERVER", "ALL BOOTED", "", "ONE NODE", "SLOWEST", "CALLS/S", "CALL P50", "P99", "P99.9", "MAX", "CPU", "CPU/CALL", "MEMORY", "ERRORS"}}
	for _, r := range report.Results {
		median := func(f bench.Figure) float64 { return bench.Summarize(r.Runs, f).Median }
		lasted := func(f func(bench.Run) time.Duration) string {
			return short(median(func(run bench.Run) float64 { return f(run).Seconds() }))
		}
		wall := bench.Summarize(r.Runs, bench.Seconds)
		rows = append(rows, []string{
			strconv.Itoa(r.Nodes), r.Server,
			fmt.Sprintf("%.3f s", wall.Median), fmt.Sprintf("%.3f to %.3f", wall.Min, wall.Max),
			lasted(func(run bench.Run) time.Duration { return run.NodeP50 }),
			lasted(func(run bench.Run) time.Duration { return run.NodeMax }),
			three(median(bench.CallsPerSecond)),
			lasted(func(run bench.Run) time.Duration { return run.P50 }),
			lasted(func(run bench.Run) time.Duration { return run.P99 }),
			lasted(func(run bench.Run) time.Duration { return run.P999 }),
			lasted(func(run bench.Run) time.Duration { return run.Max }),
			lasted(func(run bench.Run) time.Duration { return run.CPU }),
			short(median(bench.CPUPerCall)),
			memory(median(func(run bench.Run) float64 { return float64(run.Resident) })),
			fmt.Sprint(errorsOf(r.Runs)),
		})
	}
	return table(w, rows)
}

func errorsOf(runs []bench.Run) (sum uint64) {
	for _, r := range runs {
		sum += r.Errors
	}
	return sum
}
