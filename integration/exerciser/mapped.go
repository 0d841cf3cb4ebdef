package main

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"

	"golang.org/x/sys/unix"
)

// mapped writes a file by mmap, with what follows from a seed, or looks whether
// that is there. What was written another node must see once the file is closed.
func mapped(flags *flag.FlagSet, args []string) error {
	path := flags.String("path", "file", "the file")
	size := flags.Int("size", 1<<20, "its bytes")
	seed := flags.Uint64("seed", 1, "what is in it")
	check := flags.Bool("check", false, "look whether that is in it")
	flags.Parse(args)
	f, err := os.OpenFile(*path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if !*check {
		if err := f.Truncate(int64(*size)); err != nil {
			return err
		}
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() != int64(*size) {
		return fmt.Errorf("the size is %d", info.Size())
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, *size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	content := rand.New(rand.NewPCG(*seed, 0))
	wrong := 0
	for i := range mem {
		b := byte(content.Uint32())
		if *check && mem[i] != b {
			wrong++
		}
		if !*check {
			mem[i] = b
		}
	}
	if wrong > 0 {
		err = fmt.Errorf("%d bytes of %d are others than those of seed %d", wrong, *size, *seed)
	}
	return errors.Join(err, unix.Munmap(mem), f.Close())
}

// dropCache makes the kernel forget what is in a file, which is at the server then.
func dropCache(f *os.File) error {
	return errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
}
