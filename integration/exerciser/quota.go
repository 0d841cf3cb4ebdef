package main

import (
	"flag"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// diskQuota is struct if_dqblk (include/uapi/linux/quota.h).
type diskQuota struct {
	spaceHard, spaceSoft, spaceNow uint64 // the limits in KiB
	filesHard, filesSoft, filesNow uint64
	spaceTime, filesTime           uint64
	valid                          uint32
}

// quota limits the space of a user (quotactl(2)).
func quota(flags *flag.FlagSet, args []string) error {
	device := flags.String("device", "", "the device that holds the file system")
	uid := flags.Int("uid", 1000, "the user")
	kib := flags.Uint64("kib", 0, "what the user may have")
	flags.Parse(args)
	const (
		setQuota   = 0x800008 << 8 // QCMD(Q_SETQUOTA, USRQUOTA)
		spaceLimit = 1             // QIF_BLIMITS
	)
	path, err := unix.BytePtrFromString(*device)
	if err != nil {
		return err
	}
	q := diskQuota{spaceHard: *kib, spaceSoft: *kib, valid: spaceLimit}
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL, setQuota, uintptr(unsafe.Pointer(path)), uintptr(*uid), uintptr(unsafe.Pointer(&q)), 0, 0)
	if errno != 0 {
		return fmt.Errorf("quotactl %s: %w", *device, errno)
	}
	return nil
}
