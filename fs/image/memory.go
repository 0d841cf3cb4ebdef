package image

import (
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// spareMemory is how many bytes may be brought into memory without taking it
// from those who use it: half of what the kernel says can be had, since the
// pages of running nodes are part of that. There may be a limit to what this
// process can have of it.
func spareMemory() uint64 {
	return min(availableMemory(), groupMemory("/sys/fs/cgroup", "/proc/self/cgroup")) / 2
}

// availableMemory is that of the machine (proc_meminfo(5)). It returns a modest
// guess where the kernel does not tell.
func availableMemory() uint64 {
	const guess = 128 << 20
	if kib, ok := numberIn("/proc/meminfo", "MemAvailable:"); ok && kib < 1<<54 {
		return kib << 10
	}
	return guess
}

// groupMemory is what the control group of the process (version 2), and those
// that it is in, leave of their limits, the greatest number if there are none.
// The page cache counts as used in a group, and most of it can be had: what was
// not used lately, as MemAvailable has it.
func groupMemory(mount, self string) uint64 {
	available := uint64(math.MaxUint64)
	b, err := os.ReadFile(self)
	if err != nil {
		return available
	}
	for line := range strings.Lines(string(b)) {
		group, ok := strings.CutPrefix(line, "0::")
		if !ok {
			continue
		}
		for path := filepath.Join("/", strings.TrimSpace(group)); ; path = filepath.Dir(path) {
			available = min(available, memoryLeft(filepath.Join(mount, path)))
			if path == "/" {
				break
			}
		}
	}
	return available
}

// memoryLeft is what the limit of one group leaves.
func memoryLeft(group string) uint64 {
	limit, limited := numberIn(filepath.Join(group, "memory.max"), "") // or the word max
	used, known := numberIn(filepath.Join(group, "memory.current"), "")
	if !limited || !known {
		return math.MaxUint64
	}
	idle, _ := numberIn(filepath.Join(group, "memory.stat"), "inactive_file ")
	used -= min(idle, used)
	return limit - min(used, limit)
}

// numberIn returns the number behind a prefix of a line in a file of the kernel's.
func numberIn(path, prefix string) (uint64, bool) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, prefix); ok {
			n, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}
