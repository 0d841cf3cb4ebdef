package hostdir

import (
	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs"
)

// fill makes a of what the host tells.
func (t *Tree) fill(a *fs.Attr, st *unix.Statx_t) {
	*a = fs.Attr{
		Kind:   kindOf(st.Mode),
		Mode:   uint32(st.Mode) & 0o7777,
		Nlink:  st.Nlink,
		UID:    st.Uid,
		GID:    st.Gid,
		Size:   st.Size,
		Used:   st.Blocks * 512,
		Major:  st.Rdev_major,
		Minor:  st.Rdev_minor,
		FSID:   t.fsid,
		FileID: fileID(st.Ino),
		Atime:  timeOf(st.Atime),
		Mtime:  timeOf(st.Mtime),
		Ctime:  timeOf(st.Ctime),
	}
}

// fileID returns the number of an inode as clients see it: below 2^32, for
// programs with a 32-bit ino_t. Inode numbers beyond that, as XFS has on large
// disks, are folded. Two objects may then share one; clients tell objects apart
// by handle, so all that suffers is who looks for hard links by number.
func fileID(ino uint64) uint64 {
	if ino>>32 == 0 {
		return ino
	}
	folded := uint32(ino) ^ uint32(ino>>32)*0x9e3779b1 // spreads the few high bits
	return uint64(max(folded, 2))
}

func timeOf(t unix.StatxTimestamp) fs.Time { return fs.Time{Sec: t.Sec, Nsec: t.Nsec} }

func kindOf(mode uint16) fs.Kind {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return fs.Regular
	case unix.S_IFDIR:
		return fs.Directory
	case unix.S_IFBLK:
		return fs.BlockDevice
	case unix.S_IFCHR:
		return fs.CharDevice
	case unix.S_IFLNK:
		return fs.Symlink
	case unix.S_IFSOCK:
		return fs.Socket
	case unix.S_IFIFO:
		return fs.FIFO
	}
	return 0
}
