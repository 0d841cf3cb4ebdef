//go:build arm || 386

package hostdir

import "golang.org/x/sys/unix"

// The calls of these names proper take 32-bit times and 16-bit users.
const (
	sysUtimensat = unix.SYS_UTIMENSAT_TIME64
	sysSetgroups = unix.SYS_SETGROUPS32
	sysSetfsuid  = unix.SYS_SETFSUID32
	sysSetfsgid  = unix.SYS_SETFSGID32
)
