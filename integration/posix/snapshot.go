package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// object is what can be seen of a file without opening it. Times are in
// nanoseconds.
type object struct {
	Mode, UID, GID      uint32
	Links, Rdev         uint64
	Size                int64 // 0 of directories, which each file system sees in its own way
	Text                string
	Atime, Mtime, Ctime int64
}

// snapshot is all that is in a directory, by path.
type snapshot map[string]object

// takeSnapshot looks at as much of the working directory as the user may see,
// and tells if that is all.
func takeSnapshot() (s snapshot, all bool) {
	s, all = make(snapshot), true
	filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		var st unix.Stat_t
		if errors.Join(err, unix.Lstat(path, &st)) != nil {
			all = false
			return nil
		}
		o := object{
			Mode: st.Mode, UID: st.Uid, GID: st.Gid, Links: uint64(st.Nlink), Rdev: uint64(st.Rdev), Size: st.Size,
			Atime: st.Atim.Nano(), Mtime: st.Mtim.Nano(), Ctime: st.Ctim.Nano(),
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			o.Size = 0
		case unix.S_IFLNK:
			o.Text, _ = os.Readlink(path)
		}
		s[sillyName(path)] = o
		return nil
	})
	return s, all
}

// sillyName leaves out the number in the name that a client gives to a file that
// is removed while it is open.
func sillyName(path string) string {
	if strings.HasPrefix(filepath.Base(path), ".nfs") {
		return filepath.Join(filepath.Dir(path), ".nfs")
	}
	return path
}

// latest is the time of the last change.
func (s snapshot) latest() int64 {
	var latest int64
	for _, o := range s {
		latest = max(latest, o.Ctime)
	}
	return latest
}

// changes tells what became of the objects of s.
func (s snapshot) changes(is snapshot) string {
	all := maps.Clone(s)
	maps.Copy(all, is)
	var b strings.Builder
	for _, path := range slices.Sorted(maps.Keys(all)) {
		before, was := s[path]
		now, still := is[path]
		switch {
		case !still:
			fmt.Fprintf(&b, "; -%s", short(path))
		case !was:
			fmt.Fprintf(&b, "; +%s %s%s", short(path), now.describe(), now.given())
		case now != before:
			if text := now.differences(before); text != "" {
				fmt.Fprintf(&b, "; %s%s", short(path), text)
			}
		}
	}
	return b.String()
}

func (o object) describe() string {
	text := fmt.Sprintf("%o %d:%d %d", o.Mode, o.UID, o.GID, o.Links)
	switch o.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		text += fmt.Sprintf(" %d", o.Size)
	case unix.S_IFLNK:
		text += fmt.Sprintf(" %d %q", o.Size, short(o.Text))
	case unix.S_IFCHR, unix.S_IFBLK:
		text += fmt.Sprintf(" %d,%d", unix.Major(o.Rdev), unix.Minor(o.Rdev))
	}
	return text
}

// differences tells how o differs from what it was. Of times that nobody has
// given only the change counts, and of the time of the last access not even that:
// when it is written down is a matter of mount options.
func (o object) differences(was object) string {
	text := ""
	if now := o.describe(); now != was.describe() {
		text = " " + now
	}
	if o.Mtime != was.Mtime {
		text += " mtime"
	}
	if o.Ctime != was.Ctime {
		text += " ctime"
	}
	if given := o.given(); given != was.given() {
		text += given
	}
	return text
}

// given tells the times that somebody has set: those long ago. The last access
// to directories and symlinks was that of takeSnapshot.
func (o object) given() string {
	const longAgo = 1.5e18
	text := ""
	kind := o.Mode & unix.S_IFMT
	if o.Atime < longAgo && kind != unix.S_IFDIR && kind != unix.S_IFLNK {
		text += fmt.Sprintf(" atime=%d", o.Atime)
	}
	if o.Mtime < longAgo {
		text += fmt.Sprintf(" mtime=%d", o.Mtime)
	}
	return text
}

// short keeps long names from filling the screen.
func short(text string) string {
	if len(text) > 60 {
		return fmt.Sprintf("%s(%d)", text[:10], len(text))
	}
	return text
}
