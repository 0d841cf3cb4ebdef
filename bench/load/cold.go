package load

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const dropCaches = "/proc/sys/vm/drop_caches"

// CanDropCaches reports whether the page cache can be dropped here, which is for
// root.
func CanDropCaches() bool { return unix.Access(dropCaches, unix.W_OK) == nil }

// DropCaches makes the kernel forget the content of all files, and what it knows of
// them. Pages that a process has mapped stay.
func DropCaches() error {
	unix.Sync() // what is dirty cannot be dropped
	if err := os.WriteFile(dropCaches, []byte("3\n"), 0); err != nil {
		return fmt.Errorf("drop the page cache: %w", err)
	}
	return nil
}
