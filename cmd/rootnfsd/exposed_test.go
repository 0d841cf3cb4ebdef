package main

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestExposed(t *testing.T) {
	top, err := os.MkdirTemp("/var/tmp", "exposed-") // not below a directory of 0700
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(top)
	var mount unix.Statfs_t
	if err := unix.Statfs(top, &mount); err != nil || mount.Flags&unix.ST_NOSUID != 0 && mount.Flags&unix.ST_NODEV != 0 {
		t.Skip("it is mounted nosuid,nodev")
	}
	dir := filepath.Join(top, "home")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[os.FileMode]bool{0o700: false, 0o755: true} {
		if err := os.Chmod(top, mode); err != nil {
			t.Fatal(err)
		}
		if got, err := exposed(dir); err != nil || got != want {
			t.Errorf("in a directory of mode %o: %v, %v; want %v", mode, got, err, want)
		}
	}
}

func TestLockHomes(t *testing.T) {
	dir := t.TempDir()
	unlock, err := lockHomes(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockHomes(dir); err == nil {
		t.Error("two servers have the same homes")
	}
	unlock()
	again, err := lockHomes(dir)
	if err != nil {
		t.Fatal(err)
	}
	again()
}
