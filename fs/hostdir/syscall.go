package hostdir

import (
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs"
)

// The wrappers of golang.org/x/sys make a string of each name and a slice of
// each handle; these are called too often for that.

// nothing is the empty path of the calls that work on a descriptor itself.
var nothing = [1]byte{}

// retry repeats a system call that a signal interrupted, of which the Go
// runtime sends its own.
func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

// What statx asks for, and how.
const (
	statxMask  = unix.STATX_BASIC_STATS | unix.STATX_BTIME
	statxFlags = unix.AT_EMPTY_PATH | unix.AT_SYMLINK_NOFOLLOW
)

// statx fills st with what there is to know of the object behind fd.
func statx(fd int, st *unix.Statx_t) error {
	return retry(func() error {
		_, _, errno := unix.Syscall6(unix.SYS_STATX, uintptr(fd), uintptr(unsafe.Pointer(&nothing)),
			statxFlags, statxMask, uintptr(unsafe.Pointer(st)), 0)
		if errno != 0 {
			return errno
		}
		return nil
	})
}

// statxNow is statx for a file system that answers from memory. It goes past the runtime's
// bookkeeping for system calls that may block, and so does not wake the thread that looks
// after those (sysmon): a READ of 4 KiB, one at a time, took 55 us of CPU and takes 36 so
// (bench homes).
func statxNow(fd int, st *unix.Statx_t) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_STATX, uintptr(fd), uintptr(unsafe.Pointer(&nothing)),
		statxFlags, statxMask, uintptr(unsafe.Pointer(st)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// openChild opens what has the given name in dir as O_PATH: a symlink itself,
// and nothing that is mounted there (EXDEV).
func openChild(dir int, name fs.Name) (int, error) {
	if len(name) > fs.MaxName {
		return -1, unix.ENAMETOOLONG
	}
	var path [fs.MaxName + 1]byte
	copy(path[:], name)
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	for {
		fd, _, errno := unix.Syscall6(unix.SYS_OPENAT2, uintptr(dir), uintptr(unsafe.Pointer(&path)),
			uintptr(unsafe.Pointer(&how)), unsafe.Sizeof(how), 0, 0)
		switch errno {
		case 0:
			return int(fd), nil
		case unix.EINTR:
		default:
			return -1, errno
		}
	}
}

// fileHandle is struct file_handle with room for what a fs.Handle can hold.
type fileHandle struct {
	size  uint32
	kind  int32
	bytes [fs.MaxHandle - 1]byte
}

// nameToHandle asks the file system for the handle of what has the given name in dir, a
// symlink itself; without a name, of what is behind dir, which need be no directory.
func nameToHandle(dir int, name fs.Name, h *fileHandle) error {
	if len(name) > fs.MaxName {
		return unix.ENAMETOOLONG
	}
	var path [fs.MaxName + 1]byte
	copy(path[:], name)
	h.size = uint32(len(h.bytes))
	var mount int32
	_, _, errno := unix.Syscall6(unix.SYS_NAME_TO_HANDLE_AT, uintptr(dir), uintptr(unsafe.Pointer(&path)),
		uintptr(unsafe.Pointer(h)), uintptr(unsafe.Pointer(&mount)), unix.AT_EMPTY_PATH, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// openByHandle opens an object as O_PATH. mount is any open file of its file system.
func openByHandle(mount int, h *fileHandle) (int, error) {
	for {
		fd, _, errno := unix.Syscall(unix.SYS_OPEN_BY_HANDLE_AT, uintptr(mount), uintptr(unsafe.Pointer(h)),
			unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC)
		switch errno {
		case 0:
			return int(fd), nil
		case unix.EINTR:
		default:
			return -1, errno
		}
	}
}

// mayAccess asks the kernel whether the thread's identity has a right to what
// is behind fd, which may be an O_PATH one.
func mayAccess(fd int, right fs.Perm) error {
	_, _, errno := unix.Syscall6(unix.SYS_FACCESSAT2, uintptr(fd), uintptr(unsafe.Pointer(&nothing)),
		uintptr(right), unix.AT_EACCESS|unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// timespec is the time that utimensat takes on every architecture.
type timespec struct {
	sec  int64
	nsec int64
}

// utimens sets the times, access first, of what is behind fd, which may be an O_PATH one.
func utimens(fd int, times *[2]timespec) error {
	_, _, errno := unix.Syscall6(sysUtimensat, uintptr(fd), uintptr(unsafe.Pointer(&nothing)),
		uintptr(unsafe.Pointer(times)), unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// xfsUUID asks XFS which file system fd is on (struct xfs_fsop_geom_v1 in
// fs/xfs/libxfs/xfs_fs.h).
func xfsUUID(fd int) ([16]byte, error) {
	const getGeometry = 0x80705864 // XFS_IOC_FSGEOMETRY_V1
	var geometry struct {
		_    [64]byte // sizes
		uuid [16]byte
		_    [32]byte // more of them
	}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), getGeometry, uintptr(unsafe.Pointer(&geometry)))
	if errno != 0 {
		return geometry.uuid, errno
	}
	return geometry.uuid, nil
}

// uuidOf asks for the identity that the file system on disk has (struct fsuuid2
// in include/uapi/linux/fs.h), which Linux 6.9 and later tell.
func uuidOf(fd int) ([16]byte, error) {
	const getUUID = 0x80111500 // FS_IOC_GETFSUUID
	var answer struct {
		size uint8
		uuid [16]byte
	}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), getUUID, uintptr(unsafe.Pointer(&answer)))
	if errno != 0 {
		return answer.uuid, errno
	}
	return answer.uuid, nil
}

// procPath is a name of the object behind fd, for the calls that take no O_PATH
// descriptor. It leads to that object and to no other, whatever was renamed.
func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// reopen opens what is behind the O_PATH descriptor fd, which is known to be a
// regular file or a directory.
func reopen(fd, flags int) (file int, err error) {
	err = retry(func() error {
		file, err = unix.Open(procPath(fd), flags|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		return err
	})
	return file, err
}
