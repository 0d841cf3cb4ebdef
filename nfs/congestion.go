package nfs

import (
	"net"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// lossBased are the congestion control algorithms to prefer to one that paces,
// the best first. The second needs no privilege on any kernel.
var lossBased = [...]string{"cubic", "reno"}

// avoidPacing makes connections that ln accepts use a congestion control that
// does not pace, if the system's default is BBR. That one is made for long ways
// with other people's traffic; between a server and its nodes its timers only
// cost: a READ of 128 KiB took 74 us of the server's CPU with it and 37 us with
// cubic, one of 1 MiB 421 us and 228 us (bench race, loopback, 2 cores). Any
// other choice of the administrator's is left alone. It returns what was replaced
// by what, or nothing.
func avoidPacing(ln net.Listener) (before, now string) {
	sc, ok := ln.(syscall.Conn)
	if !ok {
		return "", ""
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return "", ""
	}
	// An error leaves the system's choice, which works.
	_ = raw.Control(func(fd uintptr) {
		current, err := unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION)
		if err != nil || !paces(current) {
			return
		}
		for _, name := range lossBased {
			if unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, name) == nil {
				before, now = current, name // connections inherit it (tcp_ca_openreq_child)
				return
			}
		}
	})
	return before, now
}

func paces(algorithm string) bool { return strings.HasPrefix(algorithm, "bbr") }
