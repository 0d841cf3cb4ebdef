package bench

import (
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// FileSystem says which file system a directory is on: its type, and of an ext4 whether
// it has a journal, by which it is told what a flush takes along.
func FileSystem(dir string) string {
	var st unix.Stat_t
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || unix.Stat(dir, &st) != nil {
		return "unknown"
	}
	device := fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	for line := range strings.Lines(string(mounts)) {
		mount, file, _ := strings.Cut(line, " - ") // proc_pid_mountinfo(5)
		at, what := strings.Fields(mount), strings.Fields(file)
		if len(at) < 5 || len(what) < 1 || at[2] != device {
			continue
		}
		if what[0] == "ext4" {
			return what[0] + journal(device)
		}
		return what[0]
	}
	return "unknown"
}

func journal(device string) string {
	block, err := os.Readlink("/sys/dev/block/" + device)
	if err != nil {
		return ""
	}
	task, err := os.ReadFile(path.Join("/sys/fs/ext4", path.Base(block), "journal_task"))
	switch {
	case err != nil:
		return ""
	case strings.HasPrefix(string(task), "<none>"):
		return " without a journal"
	}
	return " with a journal"
}
