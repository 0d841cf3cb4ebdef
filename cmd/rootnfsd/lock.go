package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// A store is served by one process at a time: two would both write the record
// of nodes. The lock is of the POSIX kind, because the kernel tells who holds
// one and lets go of it whenever that process ends.

const serveLock = "serve.lock"

func lockForServing(stateDir string) (unlock func(), err error) {
	if err := os.MkdirAll(stateDir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(stateDir, serveLock), os.O_CREATE|os.O_RDWR, 0o644)
	if errors.Is(err, os.ErrPermission) {
		return nil, fmt.Errorf("%w: serve as root, or as the user that sealed the versions", err)
	}
	if err != nil {
		return nil, err
	}
	lock := syscall.Flock_t{Type: syscall.F_WRLCK, Whence: io.SeekStart}
	if err := syscall.FcntlFlock(f.Fd(), syscall.F_SETLK, &lock); err != nil {
		f.Close()
		if err != syscall.EAGAIN && err != syscall.EACCES {
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		return nil, fmt.Errorf("the store %s is served already, by process %d: stop that one first, or use its status", filepath.Dir(stateDir), servedBy(stateDir))
	}
	return func() { f.Close() }, nil
}

// servedBy returns the process that serves the store, 0 if none does.
func servedBy(stateDir string) int {
	f, err := os.Open(filepath.Join(stateDir, serveLock))
	if err != nil {
		return 0
	}
	defer f.Close()
	lock := syscall.Flock_t{Type: syscall.F_WRLCK, Whence: io.SeekStart}
	if err := syscall.FcntlFlock(f.Fd(), syscall.F_GETLK, &lock); err != nil || lock.Type == syscall.F_UNLCK {
		return 0
	}
	return int(lock.Pid)
}
