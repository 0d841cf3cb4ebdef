package lab

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
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

func (n *Net) ip(args string) error {
	return run(exec.Command("ip", append([]string{"-n", n.name}, strings.Fields(args)...)...))
}
