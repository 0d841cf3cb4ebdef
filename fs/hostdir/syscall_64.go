//go:build amd64 || arm64 || loong64 || riscv64 || s390x

package hostdir

import "golang.org/x/sys/unix"

const (
	sysUtimensat = unix.SYS_UTIMENSAT
	sysSetgroups = unix.SYS_SETGROUPS
	sysSetfsuid  = unix.SYS_SETFSUID
	sysSetfsgid  = unix.SYS_SETFSGID
)
