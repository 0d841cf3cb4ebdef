package lab

import (
	"bufio"
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// maxOutput bounds what a guest may answer to one script, in bytes.
const maxOutput = 64 << 20

// Machine is what a guest is made of.
type Machine struct {
	Net     *Net
	Number  int    // of Net.Node; 0 is QEMU's user-mode network, where UserServer is Net's loopback
	Kernel  string // file; empty for a machine whose firmware, iPXE, boots what DHCP says
	Initrd  string // file; may be empty
	Append  string // the kernel's command line
	Console string // file that the console's text is appended to

	// What most guests do without.
	CPUs   int // 0 is one
	Memory int // in MiB; 0 is 1024
	// CountInstructions makes the guest's clock advance by a nanosecond for each
	// instruction of its one processor, however long they take here. What is measured by
	// it does not depend on what else this machine does, or on what emulation is bad at.
	CountInstructions bool
	Disks             []string // images of disks, vda and so on; what is written to them is lost
	KeptDisks         []string // more of them, on which it stays
}

// UserServer is the address of the server for a guest on the user-mode network.
const UserServer = "192.0.2.2"

// Guest is a node that QEMU emulates, without KVM. One goroutine at a time may use it.
type Guest struct {
	machine Machine
	qemu    *exec.Cmd
	exited  chan struct{} // closed when qemu has ended
	control net.Conn
	answers *bufio.Reader
}

// Start powers a machine on; Stop powers it off.
func Start(m Machine) (*Guest, error) {
	g := &Guest{machine: m}
	return g, g.start()
}

func (g *Guest) start() error {
	ours, theirs, err := socketPair()
	if err != nil {
		return err
	}
	defer theirs.Close()
	console, err := os.OpenFile(g.machine.Console, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		ours.Close()
		return err
	}
	defer console.Close()
	g.qemu = g.machine.Net.Command("qemu-system-x86_64", g.machine.arguments()...)
	g.qemu.Stdout, g.qemu.Stderr = console, console
	g.qemu.ExtraFiles = []*os.File{theirs}
	if err := g.qemu.Start(); err != nil {
		ours.Close()
		return err
	}
	g.control, g.answers = ours, bufio.NewReader(ours)
	g.exited = make(chan struct{})
	go func(qemu *exec.Cmd, exited chan struct{}) {
		qemu.Wait()
		close(exited)
	}(g.qemu, g.exited)
	return nil
}

// arguments are those of QEMU; file descriptor 3 is the control channel.
func (m Machine) arguments() []string {
	accel := []string{"-accel", "tcg,thread=multi"}
	if m.CountInstructions {
		accel = []string{"-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"}
	}
	args := append(accel,
		"-smp", strconv.Itoa(max(m.CPUs, 1)), "-m", strconv.Itoa(cmp.Or(m.Memory, 1024)),
		"-nodefaults", "-display", "none", "-no-reboot",
		"-serial", "stdio",
		"-device", "virtio-serial",
		"-chardev", "socket,id=control,fd=3",
		"-device", "virtserialport,chardev=control,name=lab.control",
	)
	device := "virtio-net-pci,netdev=net"
	if m.Kernel == "" {
		args = append(args, "-boot", "n")
	} else {
		args = append(args, "-kernel", m.Kernel, "-append", m.Append)
		device += ",romfile=" // no firmware for the card, which takes a second to find out that it is not needed
	}
	if m.Initrd != "" {
		args = append(args, "-initrd", m.Initrd)
	}
	for _, disk := range m.Disks {
		args = append(args, "-drive", "if=virtio,format=raw,snapshot=on,file="+disk)
	}
	for _, disk := range m.KeptDisks {
		args = append(args, "-drive", "if=virtio,format=raw,file="+disk)
	}
	if m.Number == 0 {
		return append(args, "-device", device, "-netdev", "user,id=net,net=192.0.2.0/24,host="+UserServer)
	}
	return append(args,
		"-device", fmt.Sprintf("%s,mac=52:54:00:00:00:%02x", device, m.Number),
		"-netdev", fmt.Sprintf("tap,id=net,script=no,downscript=no,ifname=tap%d", m.Number))
}

// Machine is what the guest runs on.
func (g *Guest) Machine() Machine { return g.machine }

// Wait returns when the guest has booted to the end with every service in order.
func (g *Guest) Wait(ctx context.Context) error {
	_, err := g.Run(ctx, "systemctl is-system-running --wait || { systemctl --failed --no-legend; exit 1; }")
	return err
}

// Run runs a shell script as root in the guest and returns what it wrote, to
// standard output and error together. An exit status other than 0 is an error,
// also when the output matters. After any other error the guest can only be
// stopped.
func (g *Guest) Run(ctx context.Context, script string) (string, error) {
	if deadline, ok := ctx.Deadline(); ok {
		g.control.SetDeadline(deadline)
	}
	stop := context.AfterFunc(ctx, func() { g.control.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	status, output, err := g.exchange(script)
	switch {
	case ctx.Err() != nil:
		return "", fmt.Errorf("guest did not answer %q: %w", script, ctx.Err())
	case err != nil:
		return "", fmt.Errorf("guest did not answer %q: %w", script, err)
	case status != 0:
		return output, fmt.Errorf("in the guest, %q: exit status %d\n%s", script, status, output)
	}
	return output, nil
}

// exchange speaks the protocol of recipe/control.sh.
func (g *Guest) exchange(script string) (status int, output string, err error) {
	line := base64.StdEncoding.EncodeToString([]byte(script)) + "\n"
	if _, err := io.WriteString(g.control, line); err != nil {
		return 0, "", err
	}
	header, err := g.answers.ReadString('\n')
	if err != nil {
		return 0, "", err
	}
	var size int
	if _, err := fmt.Sscanf(header, "%d %d\n", &status, &size); err != nil {
		return 0, "", fmt.Errorf("header %q: %w", header, err)
	}
	if size < 0 || size > maxOutput {
		return 0, "", fmt.Errorf("%d bytes of output", size)
	}
	b := make([]byte, size)
	_, err = io.ReadFull(g.answers, b)
	return status, string(b), err
}

// Reboot shuts the guest down in good order and powers it on again. The
// machine may be another now, as when a boot server hands out a new kernel.
func (g *Guest) Reboot(ctx context.Context, m Machine) error {
	g.Run(ctx, "systemctl reboot") // the answer may be lost in the shutdown
	select {
	case <-g.exited:
	case <-ctx.Done():
		return fmt.Errorf("guest did not shut down: %w", ctx.Err())
	}
	g.control.Close()
	g.machine = m
	return g.start()
}

// Stop pulls the plug and returns when the guest is gone.
func (g *Guest) Stop() {
	g.qemu.Process.Kill()
	<-g.exited
	g.control.Close()
}

// Console is the last lines that the guest wrote to its console.
func (g *Guest) Console(lines int) string {
	b, err := os.ReadFile(g.machine.Console)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.ReplaceAll(string(b), "\r", ""), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// socketPair is a connection for this process and the other end as a file for a child.
func socketPair() (net.Conn, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "control"), os.NewFile(uintptr(fds[1]), "control")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return conn, theirs, nil
}
