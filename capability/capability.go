// Package capability changes which capabilities (capabilities(7)) threads act with.
package capability

import (
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Set is what capset(2) takes: the capabilities that a thread acts with (effective), those
// that it may (permitted), and those that it hands on (inheritable), 64 bits of each in two
// halves.
type Set [2]unix.CapUserData

// OfThread returns the set of the calling thread. A goroutine is to be locked to its thread
// if those of the process differ.
func OfThread() (Set, error) {
	var s Set
	hdr := header()
	if err := unix.Capget(&hdr, &s[0]); err != nil {
		return s, fmt.Errorf("capget: %w", err)
	}
	return s, nil
}

func header() unix.CapUserHeader {
	return unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
}

// Has reports whether a thread acts with a capability, such as unix.CAP_SETUID.
func (s *Set) Has(capability uint) bool {
	return s[capability/32].Effective&(1<<(capability%32)) != 0
}

// With returns s with one more to act with, if it is permitted.
func (s Set) With(capability uint) Set {
	half := &s[capability/32]
	half.Effective |= half.Permitted & (1 << (capability % 32))
	return s
}

// Without returns s without those to act with that are in mask, which has a bit for each.
func (s Set) Without(mask uint64) Set {
	s[0].Effective &^= uint32(mask)
	s[1].Effective &^= uint32(mask >> 32)
	return s
}

// Enter has the calling thread act with s, and reports whether it does. A goroutine must be
// locked to its thread. It costs about 2 microseconds.
func (s Set) Enter() bool {
	hdr := header()
	_, _, errno := unix.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&hdr)), uintptr(unsafe.Pointer(&s)), 0)
	return errno == 0
}

// LayDown has all threads of the process act without a capability from now on; it stays
// permitted. No thread may have a set of its own meanwhile, and none wait for a disk, as all
// stop until each has done it: it is for the start of a program. With cgo, as under the race
// detector, it cannot be done, and nothing changes.
func LayDown(capability uint) error {
	s, err := OfThread()
	if err != nil || !s.Has(capability) {
		return err
	}
	hdr := header()
	s = s.Without(1 << capability)
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&hdr)), uintptr(unsafe.Pointer(&s)), 0)
	if errno != 0 {
		return fmt.Errorf("capset: %w", errno)
	}
	return nil
}

// Acting runs do on a thread that acts with a capability as well, if it is permitted.
func Acting(capability uint, do func()) {
	runtime.LockOSThread()
	s, err := OfThread()
	if with := s.With(capability); err == nil && with != s && with.Enter() {
		defer func() {
			if s.Enter() {
				runtime.UnlockOSThread()
			} // or it ends with the goroutine
		}()
	} else {
		defer runtime.UnlockOSThread()
	}
	do()
}
