package image

import (
	"bufio"
	"os"
	"strconv"
	"strings"
)

// spareMemory is how many bytes may be brought into memory without taking it
// from those who use it: half of what the kernel says can be had
// (proc_meminfo(5), MemAvailable), since the pages of running nodes are part of that.
func spareMemory() uint64 { return availableMemory() / 2 }

// availableMemory returns a modest guess where the kernel does not tell.
func availableMemory() uint64 {
	const guess = 128 << 20
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return guess
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), "MemAvailable:"); ok {
			if kib, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 54); err == nil {
				return kib << 10
			}
		}
	}
	return guess
}
