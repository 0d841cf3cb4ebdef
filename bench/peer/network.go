package peer

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const congestionFile = "/proc/sys/net/ipv4/tcp_congestion_control"

// OwnNetwork is the variable of the environment that is set where the program runs in a
// network of its own.
const OwnNetwork = "ROOTNFSD_BENCH_NETWORK"

// Congestion returns the congestion control that TCP has by default here.
func Congestion() string {
	b, err := os.ReadFile(congestionFile)
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(b))
}

// InOwnNetwork runs this same program again, with the same arguments, in a network
// namespace of its own, where TCP has another default of congestion control than the
// system, the first of some that the kernel lets a namespace have: a server that takes
// what it is given must not lose to one that chooses. It reports whether it did, and
// with what error the program ended. It does not where the system has one of them
// anyway, or where the program runs there already, which it then makes ready. It needs
// root.
func InOwnNetwork(congestion []string) (ran bool, err error) {
	if os.Getenv(OwnNetwork) != "" {
		return false, errors.Join(raiseLoopback(), setCongestion(congestion))
	}
	if slices.Contains(congestion, Congestion()) {
		return false, nil
	}
	return rerun()
}

// InEmptyNetwork is InOwnNetwork wherever the program runs as root, so that each port of
// loopback is free; it leaves TCP alone.
func InEmptyNetwork() (ran bool, err error) {
	if os.Getenv(OwnNetwork) != "" {
		return false, raiseLoopback()
	}
	return rerun()
}

// rerun runs this program again in a network of its own, unless it is not root's.
func rerun() (ran bool, err error) {
	if os.Geteuid() != 0 {
		return false, errors.New("a network of its own needs root")
	}
	program, err := os.Executable()
	if err != nil {
		return false, err
	}
	cmd := exec.Command(program, os.Args[1:]...)
	cmd.Env = append(os.Environ(), OwnNetwork+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: syscall.SIGTERM}
	runtime.LockOSThread() // the one whose end is the parent's death, see spawn
	defer runtime.UnlockOSThread()
	signal.Ignore(os.Interrupt) // the terminal sends it to both, and the other one ends in its own time
	defer signal.Reset(os.Interrupt)
	return true, cmd.Run()
}

// setCongestion sets the first of the names that is allowed: outside the first
// namespace some need a module, or an administrator's consent.
func setCongestion(names []string) (err error) {
	for _, name := range names {
		if err = os.WriteFile(congestionFile, []byte(name), 0); err == nil {
			return nil
		}
	}
	return err
}

// raiseLoopback makes loopback work in a new network. It gets an address beside its
// own, because getaddrinfo, which ganesha asks what 127.0.0.1 is, knows no addresses
// where there is no other one (AI_ADDRCONFIG).
func raiseLoopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	up, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	up.SetUint16(unix.IFF_UP | unix.IFF_LOOPBACK)
	alias, err := unix.NewIfreq("lo:1")
	if err != nil {
		return err
	}
	documentation := net.IPv4(192, 0, 2, 1) // RFC 5737
	if err := alias.SetInet4Addr(documentation.To4()); err != nil {
		return err
	}
	if err := errors.Join(unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, up), unix.IoctlIfreq(fd, unix.SIOCSIFADDR, alias)); err != nil {
		return fmt.Errorf("raise the loopback interface: %w", err)
	}
	return nil
}
