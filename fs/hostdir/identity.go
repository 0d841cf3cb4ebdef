package hostdir

import (
	"fmt"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/capability"
	"github.com/rootnfsd/rootnfsd/fs"
)

// identity is what the kernel asks for when a thread opens or changes a file.
type identity struct {
	uid, gid int
	groups   []uint32
	caps     capability.Set
}

// overrides are the capabilities that go beyond the rights of a user: those
// that setfsuid(2) drops, and that to exceed quotas and use the reserve of a
// file system, which it does not. nfsd drops the same (CAP_NFSD_SET in
// include/linux/capability.h).
const overrides = 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_DAC_READ_SEARCH |
	1<<unix.CAP_FOWNER | 1<<unix.CAP_FSETID | 1<<unix.CAP_LINUX_IMMUTABLE | 1<<unix.CAP_MKNOD |
	1<<unix.CAP_SYS_RESOURCE | 1<<unix.CAP_MAC_OVERRIDE

// actor lets threads take on the identity of callers, and give it up again.
//
// The calls below are raw ones on purpose: they change the one thread that a
// goroutine is locked to, where those of package syscall change all threads.
type actor struct {
	self identity
	// able says that the process may take on other identities. If not,
	// everything happens as the one user that it runs as.
	able bool
	// What a thread acts with for root, who is not squashed, and for users; nil is what it
	// has when it is theirs. Where setfsuid(2) drops all that users must not have, as
	// without CAP_SYS_RESOURCE, to become one and to give it up takes 4 microseconds, else 8.
	roots, users *capability.Set
	slots        chan struct{} // bounds the threads that act for callers
}

// noSetuidFixup is SECBIT_NO_SETUID_FIXUP of include/uapi/linux/securebits.h:
// with it setfsuid(2) drops nothing.
const noSetuidFixup = 1 << 2

// newActor finds out what the process may do, if it is to act for others.
func newActor(threads int, single bool) (*actor, error) {
	a := &actor{slots: make(chan struct{}, threads)}
	a.self.uid, a.self.gid = unix.Geteuid(), unix.Getegid()
	groups, err := unix.Getgroups()
	if err != nil {
		return nil, fmt.Errorf("getgroups: %w", err)
	}
	for _, g := range groups {
		a.self.groups = append(a.self.groups, uint32(g))
	}
	caps := &a.self.caps
	if *caps, err = capability.OfThread(); err != nil {
		return nil, err
	}
	a.able = !single && caps.Has(unix.CAP_SETUID) && caps.Has(unix.CAP_SETGID)
	// A server that is not root itself has another set, too, when it was root for a call.
	if roots := caps.With(unix.CAP_SYS_RESOURCE); roots != *caps || a.self.uid != 0 {
		a.roots = &roots
	}
	bits, err := unix.PrctlRetInt(unix.PR_GET_SECUREBITS, 0, 0, 0, 0)
	if err != nil {
		return nil, fmt.Errorf("prctl: %w", err)
	}
	if a.self.uid != 0 || caps.Has(unix.CAP_SYS_RESOURCE) || bits&noSetuidFixup != 0 {
		users := caps.Without(overrides)
		a.users = &users
	}
	return a, nil
}

// uid returns the user that the kernel gets to see for c.
func (a *actor) uid(c *fs.Cred) uint32 {
	if !a.able {
		return uint32(a.self.uid)
	}
	return c.UID
}

// as runs do on a thread with the identity of c.
func (a *actor) as(c *fs.Cred, do func() error) error {
	return a.run(&identity{uid: int(c.UID), gid: int(c.GID), groups: c.Groups}, do)
}

// asUser is as with the user alone and the server's groups, which is half the
// cost: for calls in which no group has a say.
func (a *actor) asUser(c *fs.Cred, do func() error) error {
	return a.run(&identity{uid: int(c.UID), gid: a.self.gid, groups: a.self.groups}, do)
}

func (a *actor) run(id *identity, do func() error) error {
	if !a.able {
		return do()
	}
	a.slots <- struct{}{}
	defer func() { <-a.slots }()
	runtime.LockOSThread()
	defer a.leave(id)
	if !a.become(id) {
		return fs.ErrAccess // no such user here, as in a container with few of them
	}
	return do()
}

// become gives the thread the identity id. The user comes last: with it go the
// privileges that the rest needs.
func (a *actor) become(id *identity) bool {
	if !slices.Equal(id.groups, a.self.groups) && !setgroups(id.groups) {
		return false
	}
	if id.gid != a.self.gid && !setID(sysSetfsgid, id.gid) {
		return false
	}
	if id.uid != a.self.uid && !setID(sysSetfsuid, id.uid) {
		return false
	}
	caps := a.caps(id)
	return caps == nil || caps.Enter()
}

// caps returns what to act with as id, or nil for what a thread has when it is id's.
func (a *actor) caps(id *identity) *capability.Set {
	if id.uid == 0 {
		return a.roots
	}
	return a.users
}

// leave gives the thread the server's identity again, and back to the runtime.
// A thread with which that cannot be done must not run anything else: it stays
// locked to its goroutine, and ends with it.
func (a *actor) leave(id *identity) {
	self := &a.self
	ok := id.uid == self.uid || setID(sysSetfsuid, self.uid)
	ok = ok && (a.caps(id) == nil || self.caps.Enter())
	ok = ok && (id.gid == self.gid || setID(sysSetfsgid, self.gid))
	ok = ok && (slices.Equal(id.groups, self.groups) || setgroups(self.groups))
	if !ok {
		panic("hostdir: a thread cannot give up the identity of a caller")
	}
	runtime.UnlockOSThread()
}

// setID changes the file system user or group. The kernel does not say whether
// it did but in the answer to the next call, for which an impossible id serves.
func setID(call uintptr, id int) bool {
	if uint32(id) == ^uint32(0) {
		return false
	}
	_, _, _ = unix.RawSyscall(call, uintptr(id), 0, 0)
	now, _, _ := unix.RawSyscall(call, ^uintptr(0), 0, 0)
	return uint32(now) == uint32(id)
}

func setgroups(groups []uint32) bool {
	_, _, errno := unix.RawSyscall(sysSetgroups, uintptr(len(groups)), uintptr(unsafe.Pointer(unsafe.SliceData(groups))), 0)
	return errno == 0
}
