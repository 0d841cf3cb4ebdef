package main

import (
	"flag"
	"fmt"
	"os"
)

// fill writes a file until it fails, prints where and why, and removes the file. If
// it does not fail at all, that is an error.
func fill(flags *flag.FlagSet, args []string) error {
	path := flags.String("path", "file", "the file")
	limit := flags.Int("limit", 64<<20, "bytes that are written at most")
	flags.Parse(args)
	f, err := os.Create(*path)
	if err != nil {
		return err
	}
	when, err := fillUp(f, *limit)
	if err == nil {
		return fmt.Errorf("%d bytes were written and nothing was said", *limit)
	}
	fmt.Printf("%s: %v\n", when, err)
	return os.Remove(*path)
}

// fillUp says what failed: write, sync or close.
func fillUp(f *os.File, limit int) (when string, err error) {
	chunk := make([]byte, 1<<20)
	for written := 0; written < limit && err == nil; written += len(chunk) {
		_, err = f.Write(chunk)
	}
	if err != nil {
		f.Close()
		return "write", err
	}
	if err := f.Sync(); err != nil {
		f.Close()
		return "sync", err
	}
	return "close", f.Close()
}
