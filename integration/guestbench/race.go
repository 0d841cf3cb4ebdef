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
	raced, err := b.racing(ctx, fmt.Sprintf("--duration %v", b.duration), raceLimit(b.runs, b.duration))
	if err != nil {
		return err
	}
	b.report.Servers["guest"] = fmt.Sprintf("QEMU without KVM (TCG), %d processors, %d MiB, Linux %s; server, client and the tree on ext4 in the page cache are all in it",
		raced.Machine.Cores, raced.Machine.Memory>>20, raced.Machine.Kernel)
	return nil
}

// countedDuration is how long a run takes by a clock that counts instructions, which
// is about a fifth of what it takes here.
const countedDuration = 200 * time.Millisecond

// raceCounted is raceInside by the clock of a guest that counts instructions.
func (b *guestbench) raceCounted(ctx context.Context) error {
	raced, err := b.racing(ctx, fmt.Sprintf("--bench counted --one --duration %v", min(b.duration, countedDuration)), raceLimit(b.runs, 10*countedDuration))
	if err != nil {
		return err
	}
	b.report.Servers["counted"] = fmt.Sprintf("the same guest with %d processor, whose clock advances by a nanosecond for each instruction (-icount shift=0)", raced.Machine.Cores)
	return nil
}

// racing races in the guest and adds the results to the report.
func (b *guestbench) racing(ctx context.Context, how string, limit time.Duration) (*bench.Report, error) {
	// What is to be reported goes through the console, because the channel to the
	// guest is taken until the script ends.
	script := fmt.Sprintf("/data/inside --rootnfsd /data/rootnfsd --export /data/images --version %s --runs %d %s 2>/dev/console", version, b.runs, how)
	watching, stop := context.WithCancel(ctx)
	defer stop()
	go b.watch(watching)
	out, err := b.inGuest(ctx, limit, script)
	if err != nil {
		return nil, err
	}
	raced := new(bench.Report)
	if err := json.Unmarshal([]byte(out), raced); err != nil {
		return nil, fmt.Errorf("the race in the guest has printed no report: %w\n%.500s", err, out)
	}
	maps.Copy(b.report.Servers, raced.Servers)
	b.report.Results = append(b.report.Results, raced.Results...)
	return raced, nil
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
