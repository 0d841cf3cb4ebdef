package fs

import "errors"

// Error is the kind of a failure, in the terms of errno(3). Trees return the
// kinds below, bare or wrapped with %w; callers tell them apart with errors.Is
// or, where a number is needed, with KindOf. An Error is one byte, so that
// returning one as error allocates nothing.
type Error uint8

// The kinds of failure. They are few on purpose: one for each thing that a
// client or an operator can do something different about.
const (
	_               Error = iota
	ErrPermission         // the caller is not the owner (EPERM)
	ErrNotExist           // no such name (ENOENT)
	ErrIO                 // the content cannot be read, or is damaged (EIO)
	ErrAccess             // the mode forbids it (EACCES)
	ErrExist              // the name is taken (EEXIST)
	ErrNotDir             // not a directory (ENOTDIR)
	ErrIsDir              // a directory (EISDIR)
	ErrInvalid            // an argument makes no sense for this object (EINVAL)
	ErrReadOnly           // the tree cannot be changed (EROFS)
	ErrNameTooLong        // a name of more than MaxName bytes (ENAMETOOLONG)
	ErrStale              // the object, or its whole tree, is gone (ESTALE)
	ErrBadHandle          // not a handle of this server (NFS3ERR_BADHANDLE)
	ErrNotSupported       // this tree has no such operation (EOPNOTSUPP)
	ErrWouldBlock         // the answer is not in memory and the caller asked not to wait (EAGAIN)
	ErrNotEmpty           // a directory that still has names in it (ENOTEMPTY)
	ErrTooLarge           // beyond what a file can hold (EFBIG)
	ErrNoSpace            // the file system is full (ENOSPC)
	ErrQuota              // the owner's share of it is used up (EDQUOT)
	ErrTooManyLinks       // the object can have no further name (EMLINK)
	ErrXDev               // the two objects are in different trees (EXDEV)
	ErrNotSync            // the object is not what a guard says (NFS3ERR_NOT_SYNC)
	ErrBadType            // the host cannot make an object of that kind (NFS3ERR_BADTYPE)
	numErrors
)

var errorNames = [numErrors]string{
	ErrPermission:   "operation not permitted",
	ErrNotExist:     "no such file or directory",
	ErrIO:           "input/output error",
	ErrAccess:       "permission denied",
	ErrExist:        "file exists",
	ErrNotDir:       "not a directory",
	ErrIsDir:        "is a directory",
	ErrInvalid:      "invalid argument",
	ErrReadOnly:     "read-only file system",
	ErrNameTooLong:  "file name too long",
	ErrStale:        "stale file handle",
	ErrBadHandle:    "illegal file handle",
	ErrNotSupported: "operation not supported",
	ErrWouldBlock:   "resource temporarily unavailable",
	ErrNotEmpty:     "directory not empty",
	ErrTooLarge:     "file too large",
	ErrNoSpace:      "no space left on device",
	ErrQuota:        "disk quota exceeded",
	ErrTooManyLinks: "too many links",
	ErrXDev:         "invalid cross-device link",
	ErrNotSync:      "attributes are not what the caller expects",
	ErrBadType:      "type not supported by the file system",
}

// Error returns the kind in the words of strerror(3).
func (e Error) Error() string {
	if int(e) < len(errorNames) && errorNames[e] != "" {
		return errorNames[e]
	}
	return "unknown error"
}

// KindOf returns the kind that err wraps, or ErrIO for an error of no kind:
// whatever went wrong that nobody foresaw is reported to a client as EIO. It
// returns 0 for nil.
func KindOf(err error) Error {
	if err == nil {
		return 0
	}
	if e, ok := err.(Error); ok { // the hot path: ENOENT on every library search
		return e
	}
	var e Error
	if errors.As(err, &e) {
		return e
	}
	return ErrIO
}
