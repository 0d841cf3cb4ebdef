// Demo shows rootnfsd on one machine: it makes two versions of a small Debian
// root, serves them, boots two diskless nodes in QEMU, promotes the second
// version under them and reboots one. It needs root; all that it starts is gone
// when it ends, but for the golden roots in .cache.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/rootnfsd/rootnfsd/integration/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// demo is what the steps share.
type demo struct {
	dir      string // for logs and the program
	rootnfsd string // the program
	golden   *lab.Golden
	net      *lab.Net
	nodes    [2]*lab.Guest
}

func run(ctx context.Context) (err error) {
	if err := lab.Missing("ip", "mmdebstrap", "qemu-system-x86_64"); err != nil {
		return err
	}
	d := &demo{}
	if d.dir, err = os.MkdirTemp("", "rootnfsd-demo"); err != nil {
		return err
	}
	defer os.RemoveAll(d.dir)
	if err := step("Building rootnfsd", func() error {
		d.rootnfsd, err = lab.Build(d.dir)
		return err
	}); err != nil {
		return err
	}
	if err := step("Making the golden Debian roots v1 and v2 (a minute, the first time)", func() error {
		d.golden, err = lab.OpenGolden()
		return err
	}); err != nil {
		return err
	}
	defer d.golden.Close()
	if d.net, err = lab.NewNet(); err != nil {
		return err
	}
	defer d.net.Close()
	return d.play(ctx)
}

// play runs the story that the demo tells.
func (d *demo) play(ctx context.Context) error {
	store := "--export=" + d.golden.Store
	if err := d.command(ctx, "promote", "v1", store); err != nil {
		return err
	}
	serve := []string{store, "--allow=192.0.2.0/24"}
	fmt.Printf("\n$ rootnfsd serve %s %s &\n", serve[0], serve[1])
	daemon, err := lab.Serve(ctx, d.net, filepath.Join(d.dir, "log"), d.rootnfsd, serve...)
	if err != nil {
		return err
	}
	defer daemon.Kill()
	fmt.Println(daemon.Log())

	fmt.Println("\nTwo nodes without disks, emulated by QEMU:")
	defer d.stopNodes()
	if err := d.bootNodes(ctx); err != nil {
		return err
	}
	if err := d.show(ctx); err != nil {
		return err
	}
	if err := d.command(ctx, "promote", "v2", store); err != nil {
		return err
	}
	fmt.Println("\nThe nodes run on as before. The first one reboots:")
	if err := step("Rebooting node 1", func() error { return d.reboot(ctx, 0) }); err != nil {
		return err
	}
	if err := d.show(ctx); err != nil {
		return err
	}
	if err := d.command(ctx, "nodes", store); err != nil {
		return err
	}
	fmt.Println("\nNode 1 runs v2. Node 2 stays on v1, to the byte, until it reboots.")
	return nil
}

// command runs rootnfsd as a user would.
func (d *demo) command(ctx context.Context, args ...string) error {
	fmt.Print("\n$ rootnfsd")
	for _, a := range args {
		fmt.Print(" ", a)
	}
	fmt.Println()
	cmd := exec.CommandContext(ctx, d.rootnfsd, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}

// bootNodes boots both nodes side by side.
func (d *demo) bootNodes(ctx context.Context) error {
	for i := range d.nodes {
		m, err := d.net.Node(i + 1)
		if err != nil {
			return err
		}
		if m, err = d.golden.Boot("v1", m); err != nil {
			return err
		}
		m.Console = filepath.Join(d.dir, fmt.Sprintf("console%d", i+1))
		if d.nodes[i], err = lab.Start(m); err != nil {
			return err
		}
	}
	return step("Booting node 1 and node 2", func() error {
		return errors.Join(d.wait(ctx, 0), d.wait(ctx, 1))
	})
}

// reboot reboots node i into the kernel of v2 and its root.
func (d *demo) reboot(ctx context.Context, i int) error {
	m, err := d.golden.Boot("v2", d.nodes[i].Machine())
	if err != nil {
		return err
	}
	if err := d.nodes[i].Reboot(ctx, m); err != nil {
		return err
	}
	return d.wait(ctx, i)
}

// wait returns when node i is up.
func (d *demo) wait(ctx context.Context, i int) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	if err := d.nodes[i].Wait(ctx); err != nil {
		return fmt.Errorf("node %d: %w\n%s", i+1, err, d.nodes[i].Console(20))
	}
	return nil
}

// show prints what the nodes see as their root.
func (d *demo) show(ctx context.Context) error {
	const script = "findmnt -no FSTYPE /; findmnt -no SOURCE /media/root-ro; cat /etc/version-marker"
	for i, g := range d.nodes {
		out, err := g.Run(ctx, script)
		if err != nil {
			return err
		}
		var fstype, source, version string
		if _, err := fmt.Sscan(out, &fstype, &source, &version); err != nil {
			return fmt.Errorf("node %d answered %q: %w", i+1, out, err)
		}
		fmt.Printf("  node %d (%s): / is an %s in RAM over %s, version %s\n", i+1, lab.NodeAddress(i+1), fstype, source, version)
	}
	return nil
}

func (d *demo) stopNodes() {
	for _, g := range d.nodes {
		if g != nil {
			g.Stop()
		}
	}
}
