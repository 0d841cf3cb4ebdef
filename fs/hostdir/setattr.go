package hostdir

import (
	"math"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs"
)

// Setattr implements fs.WritableTree.
func (t *Tree) Setattr(c *fs.Cred, h fs.Handle, s *fs.SetAttr, guard *fs.Time) (fs.Change, error) {
	o, err := t.get(h)
	if err != nil {
		return fs.Change{}, err
	}
	defer t.put(o)
	change, err := o.set(c, s, guard)
	if err != nil {
		return change, err
	}
	return change, done(o.sync(fs.FileSync))
}

// set changes attributes, which are not on disk yet when it returns.
func (o *object) set(c *fs.Cred, s *fs.SetAttr, guard *fs.Time) (change fs.Change, err error) {
	o.change.Lock()
	defer o.change.Unlock()
	var st unix.Statx_t
	if err := o.stat(&st); err != nil {
		return change, err
	}
	change.Before = o.before(&st)
	defer o.changed(&change)
	if guard != nil && *guard != timeOf(st.Ctime) {
		return change, fs.ErrNotSync
	}
	if err := o.settable(c, s, &st); err != nil {
		return change, err
	}
	if s.Size != nil {
		if err := o.truncate(c, *s.Size); err != nil {
			return change, err
		}
	}
	return change, o.apply(c, s, &st)
}

// settable finds what is wrong with s before any of it is done, as far as that
// can be told: the kernel gets the attributes one by one.
func (o *object) settable(c *fs.Cred, s *fs.SetAttr, st *unix.Statx_t) error {
	if err := valid(s); err != nil {
		return err
	}
	if s.Size != nil {
		switch o.kind {
		case fs.Regular:
		case fs.Directory:
			return fs.ErrIsDir
		default:
			return fs.ErrInvalid
		}
		if err := o.check(c, st, fs.MayWrite); err != nil {
			return err
		}
	}
	uid := o.key.tree.host.actor.uid(c)
	ownersOnly := s.Mode != nil || s.UID != nil || s.GID != nil || explicit(s.Atime) || explicit(s.Mtime)
	if ownersOnly && uid != 0 && uid != st.Uid {
		return fs.ErrPermission
	}
	if s.UID != nil && uid != 0 && *s.UID != st.Uid {
		return fs.ErrPermission
	}
	return nil
}

// valid fails for values that no object can have.
func valid(s *fs.SetAttr) error {
	const none = ^uint32(0) // chown(2) takes it for "leave alone"
	switch {
	case s.Mode != nil && *s.Mode > 0o7777,
		s.UID != nil && *s.UID == none,
		s.GID != nil && *s.GID == none,
		explicit(s.Atime) && s.Atime.Time.Nsec >= 1e9,
		explicit(s.Mtime) && s.Mtime.Time.Nsec >= 1e9:
		return fs.ErrInvalid
	case s.Size != nil && *s.Size > math.MaxInt64:
		return fs.ErrTooLarge
	}
	return nil
}

func explicit(t *fs.SetTime) bool { return t != nil && !t.Now }

// truncate sets the size of a file for c, who may write to it.
func (o *object) truncate(c *fs.Cred, size uint64) error {
	fd, err := o.write()
	if err != nil {
		return err
	}
	err = o.key.tree.as(c, func() error {
		return retry(func() error { return unix.Ftruncate(fd, int64(size)) })
	})
	o.mu.Lock()
	o.dirty = true // the rest of the last page was cleared
	o.mu.Unlock()
	return failure(err)
}

// apply sets all but the size. The mode comes after the owner, because a change
// of the owner takes the setuid bit away, and the times come last.
func (o *object) apply(c *fs.Cred, s *fs.SetAttr, st *unix.Statx_t) error {
	t := o.key.tree
	times, any := timesOf(s)
	if s.Size != nil && s.Atime == nil && any && s.Mtime.Now {
		any = false // truncate did it
	}
	touches := any && o.touches(c, s, st)
	if s.Mode != nil || s.UID != nil || s.GID != nil || any && !touches {
		as := t.as
		if t.host.actor.uid(c) == st.Uid && s.UID == nil && s.GID == nil && (s.Mode == nil || *s.Mode&unix.S_ISGID == 0) {
			as = t.asUser // the owner, and no group has a say
		}
		err := as(c, func() error {
			err := setOwnerAndMode(o.fd, s)
			if err == nil && any && !touches {
				err = utimens(o.fd, &times)
			}
			return err
		})
		if err != nil {
			return failure(err)
		}
	}
	if !touches {
		return nil
	}
	if err := o.check(c, st, fs.MayWrite); err != nil {
		return err
	}
	return failure(utimens(o.fd, &times))
}

// touches reports whether s sets one time to now for somebody other than the
// owner. NFSv3 lets who may write do that (RFC 1813, section 3.3.2), utimensat(2)
// only for both times at once.
func (o *object) touches(c *fs.Cred, s *fs.SetAttr, st *unix.Statx_t) bool {
	if explicit(s.Atime) || explicit(s.Mtime) || s.Atime != nil && s.Mtime != nil {
		return false
	}
	uid := o.key.tree.host.actor.uid(c)
	return uid != 0 && uid != st.Uid
}

// setOwnerAndMode runs as the caller. fd may be an O_PATH descriptor.
func setOwnerAndMode(fd int, s *fs.SetAttr) error {
	if s.UID != nil || s.GID != nil {
		uid, gid := -1, -1
		if s.UID != nil {
			uid = int(*s.UID)
		}
		if s.GID != nil {
			gid = int(*s.GID)
		}
		if err := unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
	}
	if s.Mode != nil {
		return unix.Chmod(procPath(fd), *s.Mode)
	}
	return nil
}

// timesOf returns the argument of utimensat(2), and whether it changes anything.
func timesOf(s *fs.SetAttr) (times [2]timespec, any bool) {
	for i, t := range []*fs.SetTime{s.Atime, s.Mtime} {
		switch {
		case t == nil:
			times[i].nsec = unix.UTIME_OMIT
		case t.Now:
			times[i].nsec = unix.UTIME_NOW
		default:
			times[i] = timespec{t.Time.Sec, int64(t.Time.Nsec)}
		}
	}
	return times, s.Atime != nil || s.Mtime != nil
}
