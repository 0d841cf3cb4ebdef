package lab

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// ServerAddress is the address of the server on the bridge of a Net.
const ServerAddress = "192.0.2.1"

// Net is a network namespace with loopback and a bridge at ServerAddress/24.
// Its ports are all free, also those that the machine itself uses, and what
// runs in it reaches nothing outside.
type Net struct {
	name string
}

var nets atomic.Int64

// NewNet makes a network; Close removes it.
func NewNet() (*Net, error) {
	n := &Net{name: fmt.Sprintf("rootnfsd-lab-%d-%d", os.Getpid(), nets.Add(1))}
	if err := run(exec.Command("ip", "netns", "add", n.name)); err != nil {
		return nil, err
	}
	for _, args := range []string{
		"link set lo up",
		"link add br0 type bridge",
		"address add " + ServerAddress + "/24 dev br0",
		"link set br0 up",
	} {
		if err := n.ip(args); err != nil {
			n.Close()
			return nil, err
		}
	}
	return n, nil
}

// Close removes the network. Processes that still run in it keep it alive, out of reach.
func (n *Net) Close() error {
	return run(exec.Command("ip", "netns", "delete", n.name))
}

// Command is exec.Command for a program that runs in this network and dies with this process.
func (n *Net) Command(program string, args ...string) *exec.Cmd {
	return dieWithUs(exec.Command("ip", append([]string{"netns", "exec", n.name, program}, args...)...))
}

// Node returns a machine on the bridge with the address NodeAddress(number),
// and a command line to boot from /images of the server. The number, 1 to 9,
// can be had once.
func (n *Net) Node(number int) (Machine, error) {
	tap := fmt.Sprintf("tap%d", number)
	if err := n.ip("tuntap add " + tap + " mode tap"); err != nil {
		return Machine{}, err
	}
	if err := n.ip("link set " + tap + " master br0 up"); err != nil {
		return Machine{}, err
	}
	line := fmt.Sprintf("root=/dev/nfs rw nfsroot=%s:/images,v3,tcp,ro modules-load=overlay overlayroot=tmpfs"+
		" ip=%s::%[1]s:255.255.255.0:node%[3]d::off console=ttyS0", ServerAddress, NodeAddress(number), number)
	return Machine{Net: n, Number: number, Append: line}, nil
}

// NodeAddress is the address of a machine that Node returned.
func NodeAddress(number int) string { return fmt.Sprintf("192.0.2.1%d", number) }

// Host returns a network that is one machine's, on the bridge with an address and a MAC address; Close unplugs it.
func (n *Net) Host(address, mac string) (*Net, error) {
	number := nets.Add(1)
	h := &Net{name: fmt.Sprintf("rootnfsd-lab-%d-%d", os.Getpid(), number)}
	if err := run(exec.Command("ip", "netns", "add", h.name)); err != nil {
		return nil, err
	}
	plug := fmt.Sprintf("host%d", number)
	err := n.ip("link add " + plug + " type veth peer name eth0 address " + mac + " netns " + h.name)
	if err == nil {
		err = n.ip("link set " + plug + " master br0 up")
	}
	for _, args := range []string{"address add " + address + "/24 dev eth0", "link set eth0 up"} {
		if err == nil {
			err = h.ip(args)
		}
	}
	if err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, nil
}

// openSockets opens the ports of an NFS server in this network.
func (n *Net) openSockets() (files []*os.File, err error) {
	err = n.Enter(func() error {
		for _, port := range []string{":2049", ":111"} {
			ln, err := net.Listen("tcp", port)
			if err != nil {
				return err
			}
			defer ln.Close()
			pc, err := net.ListenPacket("udp", port)
			if err != nil {
				return err
			}
			defer pc.Close()
			for _, s := range []interface{ File() (*os.File, error) }{ln.(*net.TCPListener), pc.(*net.UDPConn)} {
				f, err := s.File()
				if err != nil {
					return err
				}
				files = append(files, f)
			}
		}
		return nil
	})
	return files, err
}

// Enter calls f in this network: what sockets f opens are there for good.
func (n *Net) Enter(f func() error) error {
	done := make(chan error)
	go func() { done <- n.visit(f) }()
	return <-done
}

// visit takes the thread that it runs on to this network and back. A thread that
// could not go back would end with the goroutine, and take with it the processes
// that dieWithUs ties to the thread that started them.
func (n *Net) visit(f func() error) error {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer home.Close()
	ns, err := os.Open("/run/netns/" + n.name)
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return err
	}
	err = f()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		return errors.Join(err, back)
	}
	runtime.UnlockOSThread()
	return err
}

func (n *Net) ip(args string) error {
	return run(exec.Command("ip", append([]string{"-n", n.name}, strings.Fields(args)...)...))
}
