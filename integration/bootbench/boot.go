package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rootnfsd/rootnfsd/bench"
	"github.com/rootnfsd/rootnfsd/bench/storm"
	"github.com/rootnfsd/rootnfsd/integration/lab"
)

// bootLimit is how long a boot may take. It takes half a minute on an idle machine.
const bootLimit = 5 * time.Minute

// boot boots a node once, from a server of its own, and returns what it took and
// the recording of its calls.
func (b *bootbench) boot(ctx context.Context, v variant) (run bench.Run, recording string, err error) {
	ctx, cancel := context.WithTimeout(ctx, bootLimit)
	defer cancel()
	net, err := lab.NewNet()
	if err != nil {
		return run, "", err
	}
	defer func() { err = errors.Join(err, net.Close()) }()
	recording = filepath.Join(b.dir, v.name+".trace")
	if err := os.RemoveAll(recording); err != nil {
		return run, "", err
	}
	daemon, err := lab.Serve(ctx, net, filepath.Join(b.dir, "log"), b.rootnfsd, "--export="+b.golden.Store, "--allow=192.0.2.0/24", "--record="+recording)
	if err != nil {
		return run, "", err
	}
	run.Wall, err = b.bootNode(ctx, net, v)
	daemon.Stop()
	if err != nil {
		return run, "", fmt.Errorf("%w\n%s", err, daemon.Log())
	}
	trace, err := storm.Load(recording)
	if err != nil {
		return run, "", err
	}
	run.Calls, run.Bytes = uint64(len(trace.Calls)), b.bytes(trace)
	return run, recording, nil
}

// bootNode boots a node to the end and returns how long that took.
func (b *bootbench) bootNode(ctx context.Context, net *lab.Net, v variant) (time.Duration, error) {
	m, err := net.Node(1)
	if err != nil {
		return 0, err
	}
	m.Append = strings.Replace(m.Append, ","+bare+" ", ","+v.options+" ", 1)
	if !strings.Contains(m.Append, ","+v.options+" ") {
		return 0, fmt.Errorf("no place for options in %q", m.Append)
	}
	m.Console = filepath.Join(b.dir, "console")
	if m, err = b.golden.Boot("v1", m); err != nil {
		return 0, err
	}
	start := time.Now()
	node, err := lab.Start(m)
	if err != nil {
		return 0, err
	}
	defer node.Stop()
	if err := node.Wait(ctx); err != nil {
		return 0, fmt.Errorf("%w\n%s", err, node.Console(20))
	}
	return time.Since(start), nil
}

// bytes is how much content the READs of a trace brought: what was asked for, as
// far as the files go.
func (b *bootbench) bytes(t *storm.Trace) (sum uint64) {
	for _, c := range t.Calls {
		if c.Proc != storm.Read {
			continue
		}
		info, err := os.Lstat(filepath.Join(b.golden.Tree("v1"), c.Path))
		if err != nil {
			continue
		}
		size := uint64(info.Size())
		sum += min(uint64(c.Count), size-min(size, c.Offset))
	}
	return sum
}
