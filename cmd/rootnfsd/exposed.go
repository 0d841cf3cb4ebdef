package main

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// exposed reports whether any user of this machine could run what a node left at
// dir: a program that is setuid root because a node's root says so, or a device.
// A directory on the way that others cannot search is in the way, and so are the
// mount options nosuid and nodev together.
func exposed(dir string) (bool, error) {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return false, err
	}
	var mount unix.Statfs_t
	if err := unix.Statfs(dir, &mount); err != nil {
		return false, fmt.Errorf("statfs %s: %w", dir, err)
	}
	const safe = unix.ST_NOSUID | unix.ST_NODEV
	if mount.Flags&safe == safe {
		return false, nil
	}
	for {
		info, err := os.Stat(dir)
		if err != nil || info.Mode().Perm()&0o001 == 0 {
			return false, err
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return true, nil
		}
		dir = parent
	}
}

// lockHomes keeps a second server from the same homes: each would take the other's
// changes for somebody else's, and clean up after it when it starts.
func lockHomes(dir string) (unlock func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		d.Close()
		if err == unix.EWOULDBLOCK {
			return nil, fmt.Errorf("the homes in %s are served already, by another process: stop that one first", dir)
		}
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return func() { d.Close() }, nil
}
