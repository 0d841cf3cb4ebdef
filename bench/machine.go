package bench

import (
	"os"
	"regexp"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Machine is where measurements were made.
type Machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Memory uint64 `json:"memory_bytes"`
	Kernel string `json:"kernel"`
	System string `json:"system"` // the distribution
	Go     string `json:"go"`
}

// ThisMachine describes the machine that the program runs on.
func ThisMachine() Machine {
	m := Machine{
		CPU:    field("/proc/cpuinfo", `(?m)^model name\s*:\s*(.+)$`),
		Cores:  runtime.NumCPU(),
		System: field("/etc/os-release", `(?m)^PRETTY_NAME="?([^"\n]+)`),
		Go:     runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH,
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	var s unix.Sysinfo_t
	if unix.Sysinfo(&s) == nil {
		m.Memory = uint64(s.Totalram) * uint64(s.Unit)
	}
	return m
}

// field is what the pattern's group finds in a file, or "unknown".
func field(path, pattern string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return "unknown"
	}
	found := regexp.MustCompile(pattern).FindSubmatch(b)
	if found == nil {
		return "unknown"
	}
	return strings.TrimSpace(string(found[1]))
}
