package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"github.com/rootnfsd/rootnfsd/bench"
)

// raceInside has rootnfsd race the kernel's server, all in the guest.
func (b *guestbench) raceInside(ctx context.Context) error {
	// What is to be reported goes through the console, because the channel to the
	// guest is taken until the script ends.
	script := fmt.Sprintf("/data/inside --rootnfsd /data/rootnfsd --export /data/images --version %s --runs %d --duration %v 2>/dev/console",
		version, b.runs, b.duration)
	watching, stop := context.WithCancel(ctx)
	defer stop()
	go b.watch(watching)
	out, err := b.inGuest(ctx, raceLimit(b.runs, b.duration), script)
	if err != nil {
		return err
	}
	var raced bench.Report
	if err := json.Unmarshal([]byte(out), &raced); err != nil {
		return fmt.Errorf("the race in the guest has printed no report: %w\n%.500s", err, out)
	}
	maps.Copy(b.report.Servers, raced.Servers)
	b.report.Servers["guest"] = fmt.Sprintf("QEMU without KVM (TCG), %d processors, %d MiB, Linux %s; server, client and the tree on ext4 in the page cache are all in it",
		raced.Machine.Cores, raced.Machine.Memory>>20, raced.Machine.Kernel)
	b.report.Results = append(b.report.Results, raced.Results...)
	return nil
}

// raceLimit is far more than a race takes: it has some 16 works of 2 servers, and
// warms up first.
func raceLimit(runs int, duration time.Duration) time.Duration {
	return 10*time.Minute + time.Duration(runs)*32*(4*duration+5*time.Second)
}

// watch shows the last line of the guest's console until ctx ends.
func (b *guestbench) watch(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
			b.status.show("in the guest: " + lastLine(b.guest.Console(2)))
		}
	}
}
