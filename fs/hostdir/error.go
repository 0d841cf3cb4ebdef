package hostdir

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs"
)

// done returns the error of what follows a change: a client that is told to ask
// again would find the change made, and take it for somebody else's.
func done(err error) error {
	if err != nil && failure(err) == fs.ErrWouldBlock {
		return fs.ErrIO
	}
	return err
}

// failure returns the kind of an error of the host. What means that the host is
// short of something for the moment is ErrWouldBlock: the client asks again.
func failure(err error) error {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return err
	}
	switch errno {
	case unix.EPERM:
		return fs.ErrPermission
	case unix.ENOENT:
		return fs.ErrNotExist
	case unix.EACCES, unix.EBUSY, unix.ETXTBSY: // a mount point, a program that runs
		return fs.ErrAccess
	case unix.EEXIST:
		return fs.ErrExist
	case unix.ENOTDIR:
		return fs.ErrNotDir
	case unix.EISDIR:
		return fs.ErrIsDir
	case unix.EINVAL, unix.ELOOP:
		return fs.ErrInvalid
	case unix.EROFS:
		return fs.ErrReadOnly
	case unix.ENAMETOOLONG:
		return fs.ErrNameTooLong
	case unix.ESTALE:
		return fs.ErrStale
	case unix.EOPNOTSUPP, unix.ENOSYS:
		return fs.ErrNotSupported
	case unix.EXDEV:
		return fs.ErrXDev
	case unix.ENOTEMPTY:
		return fs.ErrNotEmpty
	case unix.ENOSPC:
		return fs.ErrNoSpace
	case unix.EDQUOT:
		return fs.ErrQuota
	case unix.EFBIG:
		return fs.ErrTooLarge
	case unix.EMLINK:
		return fs.ErrTooManyLinks
	case unix.EAGAIN, unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOBUFS:
		return fs.ErrWouldBlock
	default:
		return fs.ErrIO
	}
}
