package guest

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Others meters the whole machine but for this process. The kernel's server works
// in threads and interrupts that nobody is charged for, so it is told by what is
// left of the machine's time; for a fair race its rivals are, too.
type Others struct{}

// CPU is the time that the processors have been busy for others. What the network
// does in interrupts of this process is charged to this process. It has a
// resolution of 10 ms for each processor and is 0 where the kernel does not tell.
//
// It is what is left of the clock, and no sum of what the kernel says was done:
// that it counts by its ticks, of which an emulated machine loses many, while it
// tells the time of idleness, and what a process has run, by the clock.
func (Others) CPU() time.Duration {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	cpus, idle, err := idleness(string(stat))
	var clock unix.Timespec
	var own unix.Rusage
	if err = errors.Join(err, unix.ClockGettime(unix.CLOCK_BOOTTIME, &clock), unix.Getrusage(unix.RUSAGE_SELF, &own)); err != nil {
		return 0
	}
	return time.Duration(cpus)*time.Duration(clock.Nano()) - idle - time.Duration(own.Utime.Nano()+own.Stime.Nano())
}

// Resident is 0: it cannot be told what memory is the server's.
func (Others) Resident() uint64 { return 0 }

// DiskRead is 0, too.
func (Others) DiskRead() uint64 { return 0 }

// Columns of /proc/stat in which nothing is done: see proc(5). What a host took
// away is nobody's work.
var idleColumns = [...]int{4, 5, 8} // idle, iowait, steal

// tick is the unit of /proc/stat, USER_HZ, which is the same on all
// architectures of Linux that Go knows.
const tick = 10 * time.Millisecond

var errStat = errors.New("/proc/stat: not as expected")

// idleness takes from the text of /proc/stat how many processors there are, and for
// how long they had nothing to do, all together.
func idleness(stat string) (cpus int, idle time.Duration, err error) {
	for line := range strings.Lines(stat) {
		fields := strings.Fields(line)
		if len(fields) == 0 || !strings.HasPrefix(fields[0], "cpu") || fields[0] == "cpu" {
			continue
		}
		cpus++
		for _, i := range idleColumns {
			if i >= len(fields) {
				return 0, 0, errStat
			}
			n, err := strconv.ParseUint(fields[i], 10, 64)
			if err != nil {
				return 0, 0, fmt.Errorf("%w: %w", errStat, err)
			}
			idle += time.Duration(n) * tick
		}
	}
	if cpus == 0 {
		return 0, 0, errStat
	}
	return cpus, idle, nil
}
