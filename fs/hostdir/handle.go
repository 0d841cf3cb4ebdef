package hostdir

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs"
)

// A fs.Handle holds the type of the file system's own handle in the first byte
// and the handle behind it: 8 bytes of ext4, 12 of XFS and tmpfs, 20 of btrfs.
// They name an inode and its generation, not a path.
//
// File systems without handles (a container's overlay, FUSE) get one made of
// the inode's number and birth.
const (
	inodeHandle    = 0xff // the type that no file system uses (FILEID_INVALID)
	inodeHandleLen = 1 + 8 + 8 + 4
)

// handleOf returns the handle of what is behind fd.
func handleOf(fd int) (fs.Handle, error) {
	var raw fileHandle
	switch err := nameToHandle(fd, nil, &raw); err {
	case nil:
		if h, ok := raw.handle(); ok {
			return h, nil
		}
	case unix.EOPNOTSUPP, unix.EOVERFLOW, unix.EPERM, unix.ENOSYS: // EPERM is a container's filter of system calls
	default:
		return fs.Handle{}, failure(err)
	}
	return inodeHandleOf(fd)
}

func inodeHandleOf(fd int) (fs.Handle, error) {
	var st unix.Statx_t
	if err := statx(fd, &st); err != nil {
		return fs.Handle{}, failure(err)
	}
	h := fs.Handle{Len: inodeHandleLen}
	h.Bytes[0] = inodeHandle
	binary.LittleEndian.PutUint64(h.Bytes[1:], st.Ino)
	binary.LittleEndian.PutUint64(h.Bytes[9:], uint64(st.Btime.Sec))
	binary.LittleEndian.PutUint32(h.Bytes[17:], st.Btime.Nsec)
	return h, nil
}

// handle returns f as a fs.Handle, unless its type does not fit.
func (f *fileHandle) handle() (h fs.Handle, ok bool) {
	if f.kind <= 0 || f.kind >= inodeHandle || int(f.size) > len(f.bytes) {
		return fs.Handle{}, false
	}
	h.Len = uint8(1 + f.size)
	h.Bytes[0] = byte(f.kind)
	copy(h.Bytes[1:], f.bytes[:f.size])
	return h, true
}

// parse is the opposite of handle. It fails for what no file system of this
// machine gave out.
func (f *fileHandle) parse(h *fs.Handle) bool {
	if h.Len < 2 || int(h.Len) > len(h.Bytes) || h.Bytes[0] == 0 || h.Bytes[0] == inodeHandle {
		return false
	}
	f.kind = int32(h.Bytes[0])
	f.size = uint32(copy(f.bytes[:], h.Bytes[1:h.Len]))
	return true
}
