package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// holder says which process has a port: "rpcbind (process 612)". Without root
// it sees only the user's own processes and says so.
func holder(network string, port int) string {
	inodes := map[string]bool{}
	for _, suffix := range []string{"", "6"} {
		socketInodes("/proc/net/"+network+suffix, port, inodes)
	}
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, fd := range fds {
		to, err := os.Readlink(fd)
		if err != nil {
			continue
		}
		if inode, ok := strings.CutPrefix(to, "socket:["); ok && inodes[strings.TrimSuffix(inode, "]")] {
			pid := strings.Split(fd, "/")[2]
			name, _ := os.ReadFile("/proc/" + pid + "/comm")
			return fmt.Sprintf("%s (process %s)", strings.TrimSpace(string(name)), pid)
		}
	}
	return "a process that only root can see, or systemd or the kernel itself"
}

// socketInodes adds the inodes of the sockets that wait on a port: listening
// ones for TCP, bound ones for UDP. The columns are those of proc_net_tcp.
func socketInodes(path string, port int, inodes map[string]bool) {
	const listening, bound = "0A", "07"
	f, err := os.Open(path)
	if err != nil {
		return
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		cols := strings.Fields(lines.Text())
		if len(cols) < 10 || (cols[3] != listening && cols[3] != bound) {
			continue
		}
		_, hex, _ := strings.Cut(cols[1], ":")
		if p, err := strconv.ParseUint(hex, 16, 16); err == nil && int(p) == port {
			inodes[cols[9]] = true
		}
	}
}
