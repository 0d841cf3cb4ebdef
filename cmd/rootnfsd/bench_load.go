package main

import (
	"fmt"
	"math"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/rootnfsd/rootnfsd/bench"
	"github.com/rootnfsd/rootnfsd/bench/load"
	"github.com/rootnfsd/rootnfsd/bench/peer"
	"github.com/rootnfsd/rootnfsd/bench/rpc"
)

func benchLoadCommand() *cli.Command {
	return &cli.Command{
		Name:  "load",
		Usage: "measure any NFS server, and the network on the way to it",
		Description: `Mounts a path of a server (NFS version 3 over TCP), lists all that is there, and
calls for it at random and as a whole: what bench race does, over a network and
to one server. It only reads. The kernel's own server wants callers with ports
below 1024 unless it exports with the option insecure: see --reserved-port.

Examples:
   rootnfsd bench load --target 192.168.1.10 --quick
   rootnfsd bench load --target 127.0.0.1:12049 --path /images@v1 --pid $(pidof rootnfsd)
   rootnfsd bench load --target nas --path /export/root --work "READ 1 MiB" --connections 1
   rootnfsd bench load --target nas --path /srv/nfs/root --reserved-port --connections 1,16`,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "target", Required: true, Usage: "the server: `HOST[:PORT]`"},
			&cli.StringFlag{Name: "path", Value: "/", Usage: "mount `PATH`"},
			&cli.UintFlag{Name: "mount-port", Usage: "MOUNT is at `PORT` (default: where NFS is, or where the port mapper says)"},
			&cli.BoolFlag{Name: "reserved-port", Usage: "call from ports below 1024, as root can"},
			&cli.IntFlag{Name: "pid", Usage: "the server is process `PID` of this machine: measure its CPU and memory"},
		}, planFlags(3)...),
		Action: benchLoad,
	}
}

func benchLoad(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	plan, err := planOf(c)
	if err != nil {
		return err
	}
	if plan.Cold && !c.IsSet("cold") {
		plan.Cold = false // it is the server's cache that matters
	}
	t, err := targetOf(c)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(c.Context, os.Interrupt, syscall.SIGTERM)
	defer stop()
	line := newStatusLine()
	showPlan(plan, line)
	line.show("listing " + t.Path + " of " + t.Name)
	if err := t.Survey(ctx); err != nil {
		return err
	}
	about := fmt.Sprintf("%s of %s, %s", t.Path, t.Addr, plural(t.Objects(), "object"))
	report := &bench.Report{Date: time.Now().UTC(), Machine: bench.ThisMachine(), Servers: map[string]string{t.Name: about}}
	err = plan.Run(ctx, []*load.Target{t}, "load", report)
	line.clear()
	return publish(c, report, err, writeServers, loadTable)
}

// targetOf finds the server that the flags name.
func targetOf(c *cli.Context) (*load.Target, error) {
	t := &load.Target{
		Name:    c.String("target"),
		Path:    c.String("path"),
		Options: rpc.Options{Reserved: c.Bool("reserved-port")},
	}
	host, port, err := splitTarget(t.Name)
	if err != nil {
		return nil, err
	}
	mountPort := c.Uint("mount-port")
	if mountPort > math.MaxUint16 {
		return nil, usageError(c, "--mount-port %d: there is no such port", mountPort)
	}
	if pid := c.Int("pid"); pid != 0 {
		meter := peer.Meter(pid)
		if meter.CPU() == 0 {
			return nil, fmt.Errorf("--pid %d: there is no such process", pid)
		}
		t.Meter = meter
	}
	return t, t.Find(host, port, uint16(mountPort))
}

// splitTarget takes HOST or HOST:PORT apart. The port is 0 if there is none.
func splitTarget(s string) (host string, port uint16, err error) {
	host, digits, err := net.SplitHostPort(s)
	if err != nil {
		return s, 0, nil // a name, or an address, which for version 6 has colons
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	if err != nil || n == 0 {
		return "", 0, fmt.Errorf("--target %s: want HOST or HOST:PORT", s)
	}
	return host, uint16(n), nil
}
