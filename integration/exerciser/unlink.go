package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// unlink removes files that are open and goes on to use them. NFS has no such
// thing: the kernel gives them a name that begins with .nfs until they are closed.
func unlink(flags *flag.FlagSet, args []string) error {
	dir := flags.String("dir", ".", "an empty directory")
	rounds := flags.Int("rounds", 20, "how many files")
	flags.Parse(args)
	for i := range *rounds {
		if err := unlinkOne(*dir, filepath.Join(*dir, fmt.Sprint(i))); err != nil {
			return fmt.Errorf("file %d: %w", i, err)
		}
	}
	return nil
}

func unlinkOne(dir, path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	data := make([]byte, 100_000)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	half := len(data) / 2
	if _, err := f.Write(data[:half]); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	names, err := namesIn(dir)
	if err != nil || len(names) != 1 || !strings.HasPrefix(names[0], ".nfs") {
		return fmt.Errorf("while it is open the directory holds %q, %v; want one name that begins with .nfs", names, err)
	}
	if _, err := f.Write(data[half:]); err != nil {
		return err
	}
	if err := dropCache(f); err != nil {
		return err
	}
	got := make([]byte, len(data))
	if _, err := f.ReadAt(got, 0); err != nil || string(got) != string(data) {
		return fmt.Errorf("what was written is not there any more: %v", err)
	}
	if err := f.Close(); err != nil {
		return err
	}
	// The kernel removes it in the background.
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		names, err := namesIn(dir)
		if err != nil || len(names) == 0 {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("long after it was closed the directory holds %q", names)
		}
	}
}
