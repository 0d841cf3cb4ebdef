package main

import (
	"fmt"
	"os"
	"time"
)

// patience is how long a step may take before it shows that it is alive.
const patience = 2 * time.Second

// step runs f under a title and shows how long it has been at it: in place on
// a terminal, else only how long it took.
func step(title string, f func() error) error {
	start := time.Now()
	seconds := func() int { return int(time.Since(start).Seconds()) }
	done := make(chan error, 1)
	go func() { done <- f() }()
	fmt.Printf("%s ...", title)
	for {
		select {
		case err := <-done:
			if err != nil {
				fmt.Println(" failed")
				return err
			}
			if isTerminal() {
				fmt.Print("\r", title, " ...")
			}
			fmt.Printf(" done in %d s\n", seconds())
			return nil
		case <-time.After(patience):
			if isTerminal() {
				fmt.Printf("\r%s ... %d s", title, seconds())
			}
		}
	}
}

func isTerminal() bool {
	info, err := os.Stdout.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
