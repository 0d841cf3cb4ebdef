package peer

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Meter reads what a process has used. It is zero where the kernel does not tell,
// because the process has ended or belongs to somebody else.
type Meter int // the process's id

// CPU is the time on processors of all its threads, those that ended included.
// It has the resolution of the scheduler's clock, where /proc/PID/stat has 10 ms.
func (m Meter) CPU() time.Duration {
	// The clock of a process, as clock_getcpuclockid(3) makes its number:
	// CPUCLOCK_SCHED of the process, not of a thread.
	const cpuclockSched = 2
	const maxPID = 1 << 22 // PID_MAX_LIMIT
	if m <= 0 || m > maxPID {
		return 0 // the number would be that of another clock
	}
	clock := int32(^int(m))<<3 | cpuclockSched
	var t unix.Timespec
	if unix.ClockGettime(clock, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// Resident is the anonymous memory that is resident, in bytes: what the process
// has for itself. Pages of files that it maps are not in it, because the kernel
// may take those back at any time, as it may the rest of the page cache.
func (m Meter) Resident() uint64 { return m.field("status", "RssAnon:") << 10 }

// Mapped is the memory of mapped files that is resident, in bytes.
func (m Meter) Mapped() uint64 { return m.field("status", "RssFile:") << 10 }

// DiskRead is how many bytes it had read from disks.
func (m Meter) DiskRead() uint64 { return m.field("io", "read_bytes:") }

// field is a number in one of the process's files in /proc.
func (m Meter) field(file, name string) uint64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", int(m), file))
	if err != nil {
		return 0
	}
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		value, ok := bytes.CutPrefix(lines.Bytes(), []byte(name))
		if !ok {
			continue
		}
		n, _ := strconv.ParseUint(string(bytes.TrimSuffix(bytes.TrimSpace(value), []byte(" kB"))), 10, 64)
		return n
	}
	return 0
}
