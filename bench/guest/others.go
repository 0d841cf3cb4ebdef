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
// resolution of 10 ms and is 0 where the kernel does not tell.
func (Others) CPU() time.Duration {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	all, err := busy(string(stat))
	var own unix.Rusage
	if err != nil || unix.Getrusage(unix.RUSAGE_SELF, &own) != nil {
		return 0
	}
	return all - time.Duration(own.Utime.Nano()+own.Stime.Nano())
}

// Resident is 0: it cannot be told what memory is the server's.
func (Others) Resident() uint64 { return 0 }

// DiskRead is 0, too.
func (Others) DiskRead() uint64 { return 0 }

// Columns of /proc/stat: see proc(5). What guests of this machine use is in user
// already, and what a host took away is nobody's work.
const (
	statIdle  = 3
	statWait  = 4
	statSteal = 7
)

// tick is the unit of /proc/stat, USER_HZ, which is the same on all
// architectures of Linux that Go knows.
const tick = 10 * time.Millisecond

var errStat = errors.New("/proc/stat: not as expected")

// busy adds up what the processors did, from the text of /proc/stat.
func busy(stat string) (time.Duration, error) {
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	if len(fields) < 1+statSteal || fields[0] != "cpu" {
		return 0, errStat
	}
	var sum uint64
	for i, f := range fields[1 : 1+statSteal] {
		n, err := strconv.ParseUint(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%w: %w", errStat, err)
		}
		if i != statIdle && i != statWait {
			sum += n
		}
	}
	return time.Duration(sum) * tick, nil
}
