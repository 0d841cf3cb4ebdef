package store

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/bench"
	"github.com/rootnfsd/rootnfsd/bench/peer"
)

// sampling is how often it is looked how much memory a program has.
const sampling = 5 * time.Millisecond

// run runs a program to its end, and returns the time, the processor time and the
// most anonymous memory that it took.
func run(ctx context.Context, name string, args ...string) (bench.Run, error) {
	return runTo(ctx, nil, name, args...)
}

// runTo is run with a file as the standard output, if it is not nil.
func runTo(ctx context.Context, to *os.File, name string, args ...string) (bench.Run, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if to != nil {
		cmd.Stdout = to
	}
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		return bench.Run{}, err
	}
	ended := make(chan struct{})
	peak := make(chan uint64)
	go func() { peak <- watch(peer.Meter(cmd.Process.Pid), ended) }()
	err := cmd.Wait()
	r := bench.Run{Wall: time.Since(begun)}
	close(ended)
	r.Resident = <-peak
	if err != nil {
		return r, fmt.Errorf("%s: %w: %s", strings.Join(append([]string{filepath.Base(name)}, args...), " "), err, bytes.TrimSpace(out.Bytes()))
	}
	r.CPU = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return r, nil
}

// watch returns the most memory that a process had until it ended.
func watch(m peer.Meter, ended <-chan struct{}) (most uint64) {
	tick := time.NewTicker(sampling)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			most = max(most, m.Resident())
		case <-ended:
			return most
		}
	}
}

// syncDisk writes what is dirty of the file system that path is on, so that
// nobody pays for what others wrote.
func syncDisk(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return unix.Syncfs(int(d.Fd()))
}

// remove removes a tree and writes the removal to disk.
func remove(path string) error {
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	return syncDisk(filepath.Dir(path))
}

// diskOf says on what disk a directory is, which is that of temporary files if it is
// empty.
func diskOf(dir string) string {
	return firstLine("findmnt", "-n", "-o", "SOURCE,FSTYPE,OPTIONS", "-T", cmp.Or(dir, os.TempDir()))
}

// firstLine returns the first line that a program prints.
func firstLine(name string, args ...string) string {
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line
}
