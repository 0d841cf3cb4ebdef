// Guestbench measures in a guest of QEMU what needs a kernel with NFS in it:
// rootnfsd races the kernel's own server there, and fio reads from mounts of
// rootnfsd, of nfs-ganesha and of the kernel's server.
//
// It needs root; all that it starts is gone when it ends, but for the guest's root
// in .cache. There is no KVM: figures are to be compared with each other only.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/rootnfsd/rootnfsd/bench"
	"github.com/rootnfsd/rootnfsd/bench/fio"
	"github.com/rootnfsd/rootnfsd/integration/lab"
)

func main() {
	var o options
	flag.StringVar(&o.json, "json", "", "write the results to `FILE`")
	flag.IntVar(&o.runs, "runs", 5, "repeat everything `N` times")
	flag.DurationVar(&o.duration, "duration", time.Second, "`TIME` of each run, where it is not the work that ends it")
	flag.BoolVar(&o.race, "race", true, "race rootnfsd and the kernel's server")
	flag.BoolVar(&o.counted, "counted", true, "race them by a clock that counts instructions")
	flag.BoolVar(&o.fio, "fio", true, "read from mounts by fio")
	quick := flag.Bool("quick", false, "a first impression: 1 run of 200 ms")
	flag.Parse()
	if *quick {
		o.runs, o.duration = 1, 200*time.Millisecond
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "guestbench:", err)
		os.Exit(1)
	}
}

type options struct {
	json               string // file
	runs               int
	duration           time.Duration
	race, counted, fio bool
}

// Limits of what the guest is waited for. It is emulated, and the machine may be busy.
const (
	bootLimit   = 8 * time.Minute
	scriptLimit = 2 * time.Minute
)

// guestbench is what all measurements share.
type guestbench struct {
	options
	dir      string // for all that is made
	rootnfsd string // the program
	bench    *lab.Workbench
	net      *lab.Net
	guest    *lab.Guest
	status   *status
	report   *bench.Report
}

// version is what the guest's root is sealed as.
const version = "v1"

func run(ctx context.Context, o options) (err error) {
	if err := lab.Missing("ip", "mmdebstrap", "mke2fs", "qemu-system-x86_64"); err != nil {
		return err
	}
	b := &guestbench{options: o, status: newStatus(), report: &bench.Report{
		Date: time.Now().UTC(), Machine: bench.ThisMachine(), Servers: map[string]string{},
	}}
	defer b.status.clear()
	if b.dir, err = os.MkdirTemp("", "guestbench"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	data, err := b.prepare(ctx)
	if err != nil {
		return err
	}
	if b.net, err = lab.NewNet(); err != nil {
		return err
	}
	defer b.net.Close()
	if b.race || b.fio {
		err = b.within(ctx, 1, lab.Machine{CPUs: 2}, data, b.measure)
	}
	if b.counted && err == nil {
		err = b.within(ctx, 2, lab.Machine{CountInstructions: true}, data, b.raceCounted)
	}
	return errors.Join(err, b.publish())
}

// publish shows what was measured, even where an error has put an end to it.
func (b *guestbench) publish() error {
	b.status.clear()
	var err error
	if b.json != "" {
		err = b.report.Save(b.json)
	}
	return errors.Join(err, writeTable(os.Stdout, b.report))
}

// prepare makes what the guest needs, and returns the image of its data disk: the
// programs, the job files and a store with a version of the guest's own root.
func (b *guestbench) prepare(ctx context.Context) (image string, err error) {
	disk := filepath.Join(b.dir, "data")
	jobs, store := filepath.Join(disk, "fio"), filepath.Join(disk, "images")
	for _, dir := range []string{jobs, store} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return "", err
		}
	}
	b.status.show("building rootnfsd")
	if b.rootnfsd, err = lab.Build(disk); err != nil {
		return "", err
	}
	if _, err = lab.BuildProgram(disk, "./integration/guestbench/inside"); err != nil {
		return "", err
	}
	if err := os.CopyFS(jobs, fio.Files); err != nil {
		return "", err
	}
	b.status.show("making the guest's root (a minute, the first time)")
	if b.bench, err = lab.OpenWorkbench(); err != nil {
		return "", err
	}
	b.status.show("sealing the guest's root")
	seal := exec.CommandContext(ctx, b.rootnfsd, "seal", version, "--from", b.bench.Tree, "--export", store)
	if out, err := seal.CombinedOutput(); err != nil {
		return "", fmt.Errorf("rootnfsd seal: %w\n%s", err, out)
	}
	b.status.show("making the guest's data disk")
	image = filepath.Join(b.dir, "data.img")
	return image, lab.MakeDisk(image, disk)
}

// within measures in a guest with the processors of a machine and the image of a data
// disk, which has this number on the bridge of the network.
func (b *guestbench) within(ctx context.Context, number int, like lab.Machine, data string, measure func(context.Context) error) error {
	m, err := b.net.Node(number)
	if err != nil {
		return err
	}
	if m, err = b.bench.Boot(m, data); err != nil {
		return err
	}
	m.CPUs, m.CountInstructions = like.CPUs, like.CountInstructions
	m.Memory = 3072 // for the tree twice: on the disk, and in packs
	m.Console = filepath.Join(b.dir, fmt.Sprintf("console-%d", number))
	b.status.show("booting the guest")
	if b.guest, err = lab.Start(m); err != nil {
		return err
	}
	defer b.guest.Stop()
	booting, cancel := context.WithTimeout(ctx, bootLimit)
	defer cancel()
	_, err = b.guest.Run(booting, "ip address add "+lab.NodeAddress(number)+"/24 dev eth0 && lab-knfsd")
	if err == nil {
		err = measure(ctx)
	}
	if err != nil {
		return fmt.Errorf("%w\nThe guest's console ends so:\n%s", err, b.guest.Console(20))
	}
	return nil
}

func (b *guestbench) measure(ctx context.Context) error {
	if b.race {
		if err := b.raceInside(ctx); err != nil {
			return err
		}
	}
	if b.fio {
		return b.readMounts(ctx)
	}
	return nil
}

// inGuest runs a script in the guest.
func (b *guestbench) inGuest(ctx context.Context, limit time.Duration, script string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return b.guest.Run(ctx, script)
}
