package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
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
	"github.com/rootnfsd/rootnfsd/bench/rpc"
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
			&cli.StringFlag{Name: "target", Usage: "the server: `HOST[:PORT]`; without a port, its port mapper is asked"},
			&cli.StringFlag{Name: "path", Value: "/", Usage: "mount `PATH`"},
			&cli.StringFlag{Name: "nodes", Usage: "how many nodes: `N[,N…]` (default: 256; to compare, 1,16,64,256,1024)"},
			&cli.IntFlag{Name: "runs", Usage: "repeat `N` times (default: 1; to compare, 5)"},
			&cli.BoolFlag{Name: "think", Usage: "let nodes wait as long as the recorded one did (default: as fast as possible)"},
			&cli.DurationFlag{Name: "ramp", Usage: "spread the starts of the nodes over `TIME`"},
			&cli.IntFlag{Name: "connections-per-node", Value: 1, Usage: "spread the calls of a node over `N` connections, as nconnect does"},
			&cli.IntFlag{Name: "pid", Usage: "meter the server's process `PID`, which is on this machine"},
			&cli.BoolFlag{Name: "compare", Usage: "start the servers here, and run them side by side"},
			exportFlag(), configFlag(),
			&cli.StringFlag{Name: "servers", Value: "rootnfsd,ganesha,go-nfs,limit", Usage: "compare these: `NAME,…`"},
			&cli.DurationFlag{Name: "rtt", Usage: "add `TIME` to each round trip, by a relay"},
			&cli.StringFlag{Name: "json", Usage: "write the results to `FILE`, - being standard output"},
		},
		Action: benchStorm,
	}
}

func benchRelayCommand() *cli.Command {
	return &cli.Command{
		Name:  relay.Command[1],
		Usage: "forward TCP connections with a delay",
		Description: `For machines whose kernel has no netem.

Example:
   rootnfsd bench relay --listen :12049 --target server:2049 --rtt 1ms`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "listen", Value: "127.0.0.1:0", Usage: "accept connections at `ADDR`"},
			&cli.StringFlag{Name: "target", Required: true, Usage: "forward them to `HOST:PORT`"},
			&cli.DurationFlag{Name: "rtt", Value: time.Millisecond, Usage: "add `TIME` to each round trip, half of it each way"},
		},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			return relay.Main(c.String("listen"), c.String("target"), c.Duration("rtt"))
		},
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
	ctx, stop := signal.NotifyContext(c.Context, os.Interrupt, syscall.SIGTERM)
	defer stop()
	s := &stormBench{cli: c, about: map[string]string{}}
	defer s.stop()
	if c.Bool("compare") {
		err = s.enterPeers(ctx)
	} else {
		err = s.enterTarget()
	}
	if err != nil {
		return err
	}
	report := &bench.Report{Date: time.Now().UTC(), Machine: bench.ThisMachine(), Servers: s.about}
	line := newStatusLine()
	contest.Say, contest.Warn = line.show, line.print
	err = contest.Run(ctx, s.entrants, report)
	line.clear()
	if err != nil {
		return err
	}
	return s.publish(report)
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
	target, mount, err := findPorts(s.cli.String("target"))
	if err != nil {
		return err
	}
	name := s.cli.String("target")
	s.about[name] = "a server that ran already"
	return s.enter(&storm.Entrant{
		Name: name, Meter: peer.Meter(s.cli.Int("pid")),
		Addr: target, MountAddr: mount, MountPath: s.cli.String("path"),
	})
}

// findPorts returns where NFS and MOUNT are: all on one port, or where the port mapper
// says.
func findPorts(target string) (nfs, mount string, err error) {
	if _, _, err := net.SplitHostPort(target); err == nil {
		return target, target, nil
	}
	var ports [2]string
	for i, p := range []struct{ program, version uint32 }{{rpc.ProgNFS, 3}, {rpc.ProgMount, 3}} {
		port, err := rpc.Port(target, p.program, p.version, rpc.Options{})
		if err != nil {
			return "", "", fmt.Errorf("ask the port mapper of %s: %w; with --target %s:2049 it is not asked", target, err, target)
		}
		ports[i] = net.JoinHostPort(target, strconv.Itoa(int(port)))
	}
	return ports[0], ports[1], nil
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

// goNFSNodes is how many nodes go-nfs is asked to boot: they take it half a second each.
const goNFSNodes = 16

// enterPeers starts servers of the promoted version of a store, and enters them.
func (s *stormBench) enterPeers(ctx context.Context) error {
	store, err := openOneStore(s.cli)
	if err != nil {
		return err
	}
	rollout, err := store.state.Rollout()
	if err != nil {
		return err
	}
	ref, ok := rollout.Promoted()
	if !ok {
		return fmt.Errorf("nothing is promoted in %s: rootnfsd promote VERSION", store.Dir())
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	pack, size, err := largestPack(store.StateDir())
	if err != nil {
		return err
	}
	tree := filepath.Join(store.Dir(), ref.Version)
	var ours *storm.Entrant
	for _, name := range splitCommas([]string{s.cli.String("servers")}) {
		e := &storm.Entrant{}
		var server *peer.Server
		switch name {
		case "rootnfsd":
			server, err = peer.Rootnfsd(ctx, program, store.Dir(), ref.Version)
			ours = e
		case "nfs-ganesha", "ganesha":
			server, err = peer.Ganesha(ctx, tree)
		case "go-nfs":
			server, err = peer.GoNFS(ctx, program, tree)
			e.Most = goNFSNodes
		case "limit":
			if ours == nil {
				return usageError(s.cli, "the limit sends what rootnfsd does: name both, rootnfsd first")
			}
			server, err = peer.Limit(ctx, program, pack)
			e.Like, e.File = ours, size
		default:
			return usageError(s.cli, "no server %q", name)
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s is left out: %v\n", name, err)
			continue
		}
		s.stops = append(s.stops, server.Stop)
		e.Name, e.Addr, e.MountAddr, e.MountPath, e.Meter = server.Name, server.Addr, server.MountAddr, server.MountPath, server.Meter
		s.about[server.Name] = server.About
		if err := s.enter(e); err != nil {
			return err
		}
	}
	return nil
}

// largestPack returns the largest pack of a store, and its size in bytes.
func largestPack(stateDir string) (path string, size uint64, err error) {
	packs, err := filepath.Glob(filepath.Join(stateDir, "packs", "*.pack"))
	if err != nil {
		return "", 0, err
	}
	for _, p := range packs {
		info, err := os.Stat(p)
		if err != nil {
			return "", 0, err
		}
		if uint64(info.Size()) > size {
			path, size = p, uint64(info.Size())
		}
	}
	if path == "" {
		return "", 0, fmt.Errorf("there are no packs in %s", stateDir)
	}
	return path, size, nil
}

// publish shows the results.
func (s *stormBench) publish(report *bench.Report) error {
	file := s.cli.String("json")
	if file == "-" {
		return writeJSON(s.cli.App.Writer, report)
	}
	if file != "" {
		if err := report.Save(file); err != nil {
			return err
		}
	}
	if err := table(s.cli.App.Writer, stormTable(report)); err != nil {
		return err
	}
	for _, r := range report.Results {
		if errorsOf(r.Runs) > 0 {
			return errors.New("there were errors")
		}
	}
	return nil
}

// stormTable has a row for each server and number of nodes: medians, and for the time
// the least and the most.
func stormTable(report *bench.Report) [][]string {
	rows := [][]string{{"NODES", "SERVER", "ALL BOOTED AFTER", "", "A NODE", "SLOWEST", "CALLS/S", "CALL P50", "P99", "P99.9", "MAX", "CPU", "PER CALL", "MEMORY", "ERRORS"}}
	for _, r := range report.Results {
		median := func(f bench.Figure) float64 { return bench.Summarize(r.Runs, f).Median }
		duration := func(f func(bench.Run) time.Duration) string {
			return shortDuration(time.Duration(median(func(run bench.Run) float64 { return float64(f(run)) })))
		}
		wall := bench.Summarize(r.Runs, bench.Seconds)
		rows = append(rows, []string{
			strconv.Itoa(r.Nodes), r.Server,
			fmt.Sprintf("%.3f s", wall.Median), fmt.Sprintf("%.3f–%.3f", wall.Min, wall.Max),
			duration(func(run bench.Run) time.Duration { return run.NodeP50 }),
			duration(func(run bench.Run) time.Duration { return run.NodeMax }),
			fmt.Sprintf("%.0f", median(bench.CallsPerSecond)),
			duration(func(run bench.Run) time.Duration { return run.P50 }),
			duration(func(run bench.Run) time.Duration { return run.P99 }),
			duration(func(run bench.Run) time.Duration { return run.P999 }),
			duration(func(run bench.Run) time.Duration { return run.Max }),
			duration(func(run bench.Run) time.Duration { return run.CPU }),
			shortDuration(time.Duration(median(bench.CPUPerCall) * float64(time.Second))),
			size(uint64(median(func(run bench.Run) float64 { return float64(run.Resident) }))),
			fmt.Sprint(errorsOf(r.Runs)),
		})
	}
	return rows
}

func errorsOf(runs []bench.Run) (sum uint64) {
	for _, r := range runs {
		sum += r.Errors
	}
	return sum
}

// shortDuration writes a time with three digits.
func shortDuration(d time.Duration) string {
	switch {
	case d == 0:
		return "-"
	case d < time.Millisecond:
		return fmt.Sprintf("%.3g µs", float64(d)/float64(time.Microsecond))
	case d < time.Second:
		return fmt.Sprintf("%.3g ms", float64(d)/float64(time.Millisecond))
	default:
		return fmt.Sprintf("%.3g s", d.Seconds())
	}
}
