package main

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// files has several processes each exercise a file of its own.
func files(flags *flag.FlagSet, args []string) error {
	dir := flags.String("dir", ".", "where the files are made")
	processes := flags.Int("processes", 4, "how many")
	ops := flags.Int("ops", 0, "operations of each process; 0 is no limit")
	duration := flags.Duration("time", time.Minute, "how long it takes at most")
	seed := flags.Uint64("seed", 0, "of the first process; 0 is a random one")
	restarts := flags.Bool("restarts", false, "the server may be stopped meanwhile")
	flags.Parse(args)
	if *seed == 0 {
		*seed = rand.Uint64N(1 << 32)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	failed := make([]error, *processes)
	var running sync.WaitGroup
	for i := range failed {
		cmd := exec.Command(self, "file", "-path", filepath.Join(*dir, fmt.Sprint("file", i)),
			"-ops", fmt.Sprint(*ops), "-time", duration.String(), "-seed", fmt.Sprint(*seed+uint64(i)), "-restarts="+strconv.FormatBool(*restarts))
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		running.Go(func() { failed[i] = cmd.Run() })
	}
	running.Wait()
	return errors.Join(failed...)
}

// file exercises one file.
func file(flags *flag.FlagSet, args []string) error {
	path := flags.String("path", "file", "the file, which is made anew")
	ops := flags.Int("ops", 0, "operations; 0 is no limit")
	duration := flags.Duration("time", time.Minute, "how long it takes at most")
	seed := flags.Uint64("seed", 1, "what the operations follow from")
	restarts := flags.Bool("restarts", false, "the server may be stopped meanwhile")
	flags.Parse(args)
	fmt.Printf("seed %d\n", *seed)
	e, err := newExerciser(*path, *seed)
	if err != nil {
		return err
	}
	defer e.close()
	e.restarts = *restarts
	for end := time.Now().Add(*duration); time.Now().Before(end) && (*ops == 0 || e.done < *ops); {
		if err := e.step(); err != nil {
			return err
		}
	}
	if err := e.finish(); err != nil {
		return err
	}
	fmt.Printf("seed %d: %d operations\n", *seed, e.done)
	return nil
}
