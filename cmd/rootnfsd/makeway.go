package main

import (
	"os"
	"strconv"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
)

// niceness is what commands run with that work through a whole version: beside a
// server that has both processors busy they get a tenth of one.
const niceness = 10

// makingWay has a command leave the processors to the server, which may be busy
// with nodes that boot.
func makingWay(cmd *cli.Command) *cli.Command {
	cmd.Before = func(*cli.Context) error {
		makeWay()
		return nil
	}
	return cmd
}

// makeWay sets the niceness of all threads. In Linux each has its own, and a new one
// that of the thread which made it, so it looks again whether one was made meanwhile.
func makeWay() {
	for range 2 {
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return // nobody needs it for what the command does
		}
		for _, t := range threads {
			id, err := strconv.Atoi(t.Name())
			if err != nil {
				continue
			}
			// The system call gives 20 less the niceness. Who is as nice already stays so.
			if now, err := unix.Getpriority(unix.PRIO_PROCESS, id); err == nil && 20-now < niceness {
				_ = unix.Setpriority(unix.PRIO_PROCESS, id, niceness)
			}
		}
	}
}
