package exports

import (
	"runtime"

	"golang.org/x/sys/unix"
)

const (
	leastNice = 19
	// Of ioprio_set(2).
	ioprioWhoProcess = 1
	ioprioIdle       = 3 << 13
)

// behind runs do behind all others that want the processor or the disk, and
// returns when it is done. What do starts on goroutines of its own is not behind.
func behind(do func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Nothing unlocks it, so the thread ends with the goroutine: without a
		// privilege no thread gets its priority back.
		runtime.LockOSThread()
		// Linux has both for each thread. Where they cannot be set, do is done anyway.
		_ = unix.Setpriority(unix.PRIO_PROCESS, 0, leastNice)
		_, _, _ = unix.RawSyscall(unix.SYS_IOPRIO_SET, ioprioWhoProcess, 0, ioprioIdle)
		do()
	}()
	<-done
}
