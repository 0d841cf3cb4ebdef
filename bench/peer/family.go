package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Family reads what a server has used with all processes that it has made: some make one
// for each client.
type Family struct {
	Meter // the first process
	group *controlGroup
}

// CPU is the time on processors of all of them, those that have ended included. It is
// zero for a server that makes processes where there are no control groups to count
// them: nobody else is told the time of children that a process does not wait for.
func (f Family) CPU() time.Duration {
	if f.group == nil {
		return f.Meter.CPU()
	}
	return f.group.cpu()
}

// Resident is the anonymous memory that is resident of those that run, in bytes.
func (f Family) Resident() uint64 {
	resident := f.Meter.Resident()
	for _, child := range f.children() {
		resident += child.Resident()
	}
	return resident
}

// settleLimit is how long children may take to end when their clients have all that they
// wanted.
const settleLimit = 5 * time.Second

// Settle waits until the children have ended, so that CPU tells all, or until it is clear
// that they will not end soon.
func (f Family) Settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	for len(f.children()) > 0 && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
}

func (f Family) children() []Meter {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", int(f.Meter), int(f.Meter)))
	if err != nil {
		return nil
	}
	var children []Meter
	for _, pid := range numbers(b) {
		children = append(children, Meter(pid))
	}
	return children
}

func numbers(b []byte) (all []int) {
	for _, field := range strings.Fields(string(b)) {
		if n, err := strconv.Atoi(field); err == nil {
			all = append(all, n)
		}
	}
	return all
}

// controlGroup counts what processes use that were put into it, and all that they make:
// cgroups(7). The zero controlGroup, where there are none, counts nothing.
type controlGroup struct {
	dir  string
	file string // in dir, that tells the time
}

const (
	controlGroups = "/sys/fs/cgroup"
	usageV2       = "cpu.stat"
	usageV1       = "cpuacct.usage"
)

// newControlGroup makes a group below the one that this process is in.
func newControlGroup() (*controlGroup, error) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return new(controlGroup), err
	}
	failed := errors.New("there are none that count processor time")
	for _, parent := range controlGroupParents(string(text)) {
		dir, err := os.MkdirTemp(parent.dir, "rootnfsd-bench")
		if err != nil {
			failed = err
			continue
		}
		g := &controlGroup{dir, parent.file}
		if _, err := g.read(); err == nil {
			return g, nil
		}
		os.Remove(dir)
	}
	return new(controlGroup), failed
}

// controlGroupParents returns the groups below which one may be made, by what
// /proc/self/cgroup says: lines of an identifier, controllers and a path, with colons
// between.
func controlGroupParents(text string) (parents []controlGroup) {
	for line := range strings.Lines(text) {
		field := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(field) < 3 {
			continue
		}
		controllers, path := field[1], filepath.Join("/", field[2])
		switch {
		case controllers == "": // version 2
			parents = append(parents, controlGroup{filepath.Join(controlGroups, path), usageV2})
		case slices.Contains(strings.Split(controllers, ","), "cpuacct"):
			parents = append(parents, controlGroup{filepath.Join(controlGroups, "cpuacct", path), usageV1})
		}
	}
	return parents
}

// add puts a process into the group.
func (g *controlGroup) add(pid int) error {
	if g.dir == "" {
		return nil
	}
	return os.WriteFile(filepath.Join(g.dir, "cgroup.procs"), strconv.AppendInt(nil, int64(pid), 10), 0)
}

func (g *controlGroup) cpu() time.Duration {
	used, _ := g.read()
	return used
}

func (g *controlGroup) read() (time.Duration, error) {
	b, err := os.ReadFile(filepath.Join(g.dir, g.file))
	if err != nil {
		return 0, err
	}
	unit := time.Nanosecond
	if g.file == usageV2 {
		const name = "usage_usec "
		_, rest, ok := bytes.Cut(append([]byte{'\n'}, b...), []byte("\n"+name))
		if !ok {
			return 0, fmt.Errorf("%s says nothing of %s", g.file, name)
		}
		b, _, _ = bytes.Cut(rest, []byte{'\n'})
		unit = time.Microsecond
	}
	n, err := strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 64)
	return time.Duration(n) * unit, err
}

// remove ends what is still in the group, and removes it.
func (g *controlGroup) remove() {
	if g.dir == "" {
		return
	}
	for deadline := time.Now().Add(stopLimit); os.Remove(g.dir) != nil && time.Now().Before(deadline); {
		b, _ := os.ReadFile(filepath.Join(g.dir, "cgroup.procs"))
		for _, pid := range numbers(b) {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(time.Millisecond)
	}
}
