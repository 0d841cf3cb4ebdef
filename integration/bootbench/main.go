// Bootbench boots a diskless Debian node in QEMU with the client options that
// people start from, and with those that rootnfsd prints, alternating. It tells
// how long the boots took and what they asked the server for, and keeps the calls
// of one boot of each as a trace that rootnfsd bench storm replays.
//
// It needs root; all that it starts is gone when it ends, but for the golden roots
// in .cache.
package main

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/rootnfsd/rootnfsd/bench"
	"github.com/rootnfsd/rootnfsd/bench/storm"
	"github.com/rootnfsd/rootnfsd/integration/lab"
)

// variant is a set of client options that is compared.
type variant struct {
	name    string // of the trace
	options string // as in nfsroot=
}

// bare are the options of nfsroot= that lab gives its nodes.
const bare = "v3,tcp,ro"

var variants = []variant{
	{"debian-boot-bare", bare},
	{"debian-boot", "v3,tcp,nolock,ro,nocto,acregmin=86400,acregmax=86400,acdirmin=86400,acdirmax=86400,rsize=1048576"},
}

func main() {
	runs := flag.Int("runs", 3, "boot `N` times with each set of options")
	jsonFile := flag.String("json", "", "write the results to `FILE`")
	traceDir := flag.String("trace-dir", "", "keep the calls of the last boot of each set in `DIR`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *runs, *jsonFile, *traceDir); err != nil {
		fmt.Fprintln(os.Stderr, "bootbench:", err)
		os.Exit(1)
	}
}

// bootbench is what all boots share.
type bootbench struct {
	dir      string // for logs, recordings and the program
	rootnfsd string // the program
	golden   *lab.Golden
}

func run(ctx context.Context, runs int, jsonFile, traceDir string) (err error) {
	if err := lab.Missing("ip", "mmdebstrap", "qemu-system-x86_64"); err != nil {
		return err
	}
	b := &bootbench{}
	if b.dir, err = os.MkdirTemp("", "bootbench"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	if b.rootnfsd, err = lab.Build(b.dir); err != nil {
		return err
	}
	if b.golden, err = lab.OpenGolden(); err != nil {
		return err
	}
	defer b.golden.Close()
	if _, err := b.command(ctx, "promote", "v1", "--export="+b.golden.Store); err != nil {
		return err
	}
	report, recordings, err := b.bootAll(ctx, runs)
	if err != nil {
		return err
	}
	if err := show(recordings); err != nil {
		return err
	}
	if jsonFile != "" {
		if err := report.Save(jsonFile); err != nil {
			return err
		}
	}
	return keep(recordings, traceDir)
}

// bootAll boots with all options in turn, several times, and returns the last
// recording of each.
func (b *bootbench) bootAll(ctx context.Context, runs int) (*bench.Report, []string, error) {
	version, err := b.command(ctx, "--version")
	if err != nil {
		return nil, nil, err
	}
	report := &bench.Report{
		Date:    time.Now().UTC(),
		Machine: bench.ThisMachine(),
		Servers: map[string]string{"rootnfsd": strings.TrimSpace(version) + ", recording; the node is emulated by QEMU without KVM"},
	}
	recordings := make([]string, len(variants))
	for i := range runs {
		for k, v := range variants {
			run, recording, err := b.boot(ctx, v)
			if err != nil {
				return nil, nil, fmt.Errorf("boot with %s: %w", v.options, err)
			}
			fmt.Printf("boot %d of %d: %.1f s, %d calls, %.1f MB with %s\n", i+1, runs, run.Wall.Seconds(), run.Calls, float64(run.Bytes)/1e6, v.options)
			report.Add(bench.Case{Bench: "boot", Work: v.options, Server: "rootnfsd", Nodes: 1}, run)
			recordings[k] = recording
		}
	}
	return report, recordings, nil
}

// command runs rootnfsd and returns what it printed.
func (b *bootbench) command(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, b.rootnfsd, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("rootnfsd %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// show prints how often each procedure was called.
func show(recordings []string) error {
	counts := map[storm.Proc][]int{}
	for i, file := range recordings {
		t, err := storm.Load(file)
		if err != nil {
			return err
		}
		for _, c := range t.Calls {
			if counts[c.Proc] == nil {
				counts[c.Proc] = make([]int, len(recordings))
			}
			counts[c.Proc][i]++
		}
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "\t")
	for _, v := range variants {
		fmt.Fprint(w, v.name, "\t")
	}
	fmt.Fprintln(w)
	for _, proc := range slices.Sorted(maps.Keys(counts)) {
		fmt.Fprint(w, proc, "\t")
		for _, n := range counts[proc] {
			fmt.Fprint(w, n, "\t")
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

// keep copies recordings to a directory, if one is named.
func keep(recordings []string, dir string) error {
	if dir == "" {
		return nil
	}
	for _, file := range recordings {
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(file)), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}
