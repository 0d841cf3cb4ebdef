package source

import (
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// CtimeKeeper is a source whose objects may tell by their Ctime whether they
// changed.
type CtimeKeeper interface {
	// CtimeRule says how far that can be relied on. Of two looks at a source in
	// the same era, both later than lag after the Ctime that they saw, the second
	// saw what the first saw if Dev, Ino, Size, Mtime and Ctime are the same. If
	// ok is false nothing can be said.
	CtimeRule() (era string, lag time.Duration, ok bool)
}

var _ CtimeKeeper = (*Dir)(nil)

// minLag is longer than any file system's grain of time and any write(2), whose
// data arrive after the file was given its Ctime.
const minLag = time.Minute

// CtimeRule implements CtimeKeeper. An era is the time between two boots of
// the host: in a crash the data of a file may reach the disk and its Ctime not,
// and device numbers may be dealt out anew. A file that is written through a
// mapping has its Ctime set by the first write to each page only, until the page
// has gone to disk; hence the lag.
func (d *Dir) CtimeRule() (era string, lag time.Duration, ok bool) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil || !d.setsCtime() {
		return "", 0, false
	}
	expire, err := centiseconds("/proc/sys/vm/dirty_expire_centisecs")
	if err != nil {
		return "", 0, false
	}
	period, err := centiseconds("/proc/sys/vm/dirty_writeback_centisecs")
	if err != nil || period == 0 { // then pages may wait forever
		return "", 0, false
	}
	return strings.TrimSpace(string(boot)), max(minLag, 2*(expire+period)), true
}

// setsCtime reports whether the directory is on a file system of which it is
// known that whoever changes a file changes its Ctime, by this host's clock.
// Network file systems have clocks of their own, and a tmpfs does not notice
// writes through a mapping.
func (d *Dir) setsCtime() bool {
	var st unix.Statfs_t
	if unix.Fstatfs(int(d.root.Fd()), &st) != nil {
		return false
	}
	switch uint32(st.Type) {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC:
		return true
	}
	return false
}

// centiseconds reads a setting of the kernel.
func centiseconds(path string) (time.Duration, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32)
	return time.Duration(n) * 10 * time.Millisecond, err
}
