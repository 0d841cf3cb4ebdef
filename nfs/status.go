package nfs

import (
	gonfs "github.com/willscott/go-nfs"

	"github.com/rootnfsd/rootnfsd/fs"
)

// nfsStatus is the one place where an error becomes a status of NFS (RFC 1813,
// section 2.6). An error of no known kind is an I/O error, as fs.KindOf has it.
func nfsStatus(err error) gonfs.NFSStatus {
	switch fs.KindOf(err) {
	case 0:
		return gonfs.NFSStatusOk
	case fs.ErrPermission:
		return gonfs.NFSStatusPerm
	case fs.ErrNotExist:
		return gonfs.NFSStatusNoEnt
	case fs.ErrAccess:
		return gonfs.NFSStatusAccess
	case fs.ErrExist:
		return gonfs.NFSStatusExist
	case fs.ErrNotDir:
		return gonfs.NFSStatusNotDir
	case fs.ErrIsDir:
		return gonfs.NFSStatusIsDir
	case fs.ErrInvalid:
		return gonfs.NFSStatusInval
	case fs.ErrReadOnly:
		return gonfs.NFSStatusROFS
	case fs.ErrNameTooLong:
		return gonfs.NFSStatusNameTooLong
	case fs.ErrStale:
		return gonfs.NFSStatusStale
	case fs.ErrBadHandle:
		return gonfs.NFSStatusBadHandle
	case fs.ErrNotSupported:
		return gonfs.NFSStatusNotSupp
	case fs.ErrWouldBlock:
		return gonfs.NFSStatusJukebox
	case fs.ErrNotEmpty:
		return gonfs.NFSStatusNotEmpty
	case fs.ErrTooLarge:
		return gonfs.NFSStatusFBig
	case fs.ErrNoSpace:
		return gonfs.NFSStatusNoSPC
	case fs.ErrQuota:
		return gonfs.NFSStatusDQuot
	case fs.ErrTooManyLinks:
		return gonfs.NFSStatusMlink
	case fs.ErrXDev:
		return gonfs.NFSStatusXDev
	case fs.ErrNotSync:
		return gonfs.NFSStatusNotSync
	case fs.ErrBadType:
		return gonfs.NFSStatusBadType
	default:
		return gonfs.NFSStatusIO
	}
}

// mountStatus is the status of MOUNT (RFC 1813, section 5.1.5), which has a part
// of NFS's under the same numbers.
func mountStatus(err error) gonfs.MountStatus {
	switch s := gonfs.MountStatus(nfsStatus(err)); s {
	case gonfs.MountStatusOk, gonfs.MountStatusErrPerm, gonfs.MountStatusErrNoEnt, gonfs.MountStatusErrIO,
		gonfs.MountStatusErrAcces, gonfs.MountStatusErrNotDir, gonfs.MountStatusErrInval,
		gonfs.MountStatusErrNameTooLong, gonfs.MountStatusErrNotSupp:
		return s
	default:
		return gonfs.MountStatusErrServerFault
	}
}
