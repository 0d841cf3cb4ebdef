package hostdir

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/cache"
	"github.com/rootnfsd/rootnfsd/fs"
)

// Options are the limits of a Host. The zero value of each stands for its default.
type Options struct {
	// MaxOpen is how many objects are kept open, each with up to three
	// descriptors. By default it is as many as take half of those that the
	// process may have, and at most 8192.
	MaxOpen int
	// Threads is how many threads act for callers at the same time; 64 by
	// default. One tree gets a quarter of them at most.
	Threads int
	// SingleUser is to act for nobody, but to do everything as the user that
	// the process runs as. Without the privileges of root it cannot be helped.
	SingleUser bool
}

// idle is how long an object stays open that nobody asks for: long enough to
// open it once for a program's run of calls, and short enough that a file
// deleted on the host gives its space back, and a program that was written can
// be run there.
const idle = 2 * time.Second

// Host is what all trees of a server share: the way to act as a caller, and the
// objects that are open.
type Host struct {
	actor   *actor
	objects *cache.Pool[key, *object]
	volumes sync.Map     // of *volume by device, with no inode number
	places  atomic.Int64 // that the trees remember
	stop    chan struct{}
	stopped sync.WaitGroup
}

// key names an object among those of all trees.
type key struct {
	tree   *Tree
	handle fs.Handle
}

// NewHost returns a Host. It sets the process's umask to zero: the modes of
// files are what callers say. The kernel must be Linux 5.8 or later.
func NewHost(opt Options) (*Host, error) {
	if opt.Threads <= 0 {
		opt.Threads = 64
	}
	if opt.MaxOpen <= 0 {
		opt.MaxOpen = defaultMaxOpen()
	}
	a, err := newActor(opt.Threads, opt.SingleUser)
	if err != nil {
		return nil, err
	}
	if err := probe(); err != nil {
		return nil, err
	}
	unix.Umask(0)
	h := &Host{actor: a, stop: make(chan struct{})}
	h.objects = cache.NewPool(opt.MaxOpen, openObject, (*object).close)
	h.stopped.Add(1)
	go h.sweep()
	return h, nil
}

// Close stops what goes on in the background, and closes what is idle after
// bringing it to the disk. The trees of the Host work on.
func (h *Host) Close() {
	close(h.stop)
	h.stopped.Wait()
	h.objects.Sweep()
	h.objects.Sweep()
}

// Privileged reports whether calls run with the rights of their callers. If
// not, all do with those of the user that the process runs as.
func (h *Host) Privileged() bool { return h.actor.able }

// sweep closes what is idle.
func (h *Host) sweep() {
	defer h.stopped.Done()
	tick := time.NewTicker(idle)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			h.objects.Sweep()
		case <-h.stop:
			return
		}
	}
}

func defaultMaxOpen() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		limit.Cur = 1024
	}
	return int(max(16, min(8192, limit.Cur/6)))
}

// probe fails on a kernel that lacks what this package is made of.
func probe() error {
	if err := mayAccess(unix.AT_FDCWD, fs.MayExec); err == unix.ENOSYS {
		return fmt.Errorf("writable trees need Linux 5.8 or later: faccessat2: %w", err)
	}
	fd, err := unix.Openat2(unix.AT_FDCWD, ".", &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC})
	if err == unix.ENOSYS || err == unix.EPERM {
		return fmt.Errorf("writable trees need Linux 5.8 or later: openat2: %w", err)
	}
	if err == nil {
		unix.Close(fd)
	}
	if err := unix.Access("/proc/self/fd", unix.X_OK); err != nil {
		return fmt.Errorf("writable trees need /proc: %w", err)
	}
	return nil
}
