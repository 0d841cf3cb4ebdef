package hostdir

import (
	"bytes"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs"
)

// Remove implements fs.WritableTree.
func (t *Tree) Remove(c *fs.Cred, dir fs.Handle, name fs.Name) (fs.Change, error) {
	if name.IsDot() || name.IsDotDot() {
		return fs.Change{}, fs.ErrIsDir
	}
	return t.unlink(c, dir, name, 0)
}

// Rmdir implements fs.WritableTree. The errors for "." and ".." are those of
// RFC 1813, section 3.3.13.
func (t *Tree) Rmdir(c *fs.Cred, dir fs.Handle, name fs.Name) (fs.Change, error) {
	switch {
	case name.IsDot():
		return fs.Change{}, fs.ErrInvalid
	case name.IsDotDot():
		return fs.Change{}, fs.ErrExist
	}
	return t.unlink(c, dir, name, unix.AT_REMOVEDIR)
}

func (t *Tree) unlink(c *fs.Cred, dir fs.Handle, name fs.Name, flags int) (change fs.Change, err error) {
	d, err := t.getDir(dir)
	if err != nil {
		return change, err
	}
	defer t.put(d)
	change, victim, err := d.unlink(c, name, flags)
	if err != nil {
		return change, err
	}
	t.close(victim)
	return change, done(d.sync(fs.FileSync))
}

// unlink takes a name away, and returns what it named as far as that is known.
func (d *object) unlink(c *fs.Cred, name fs.Name, flags int) (change fs.Change, victim fs.Handle, err error) {
	d.change.Lock()
	defer d.change.Unlock()
	var st unix.Statx_t
	if err := d.stat(&st); err != nil {
		return change, victim, err
	}
	change.Before = d.before(&st)
	err = d.key.tree.as(c, func() error {
		victim = childHandle(d.fd, name)
		return unix.Unlinkat(d.fd, string(name), flags)
	})
	d.changed(&change)
	return change, victim, failure(err)
}

// childHandle returns the handle of what has the given name, or the zero one.
func childHandle(dir int, name fs.Name) fs.Handle {
	var raw fileHandle
	if nameToHandle(dir, name, &raw) == nil { // without opening it
		if h, ok := raw.handle(); ok {
			return h
		}
	}
	fd, err := openChild(dir, name)
	if err != nil {
		return fs.Handle{}
	}
	defer unix.Close(fd)
	h, err := handleOf(fd)
	if err != nil {
		return fs.Handle{}
	}
	return h
}

// close closes an object that lost a name, so that its space is free when that
// was the last one.
func (t *Tree) close(h fs.Handle) { t.host.objects.Drop(key{t, h}) }

// Rename implements fs.WritableTree.
func (t *Tree) Rename(c *fs.Cred, from fs.Handle, oldName fs.Name, to fs.Handle, newName fs.Name) (fromDir, toDir fs.Change, err error) {
	for _, name := range []fs.Name{oldName, newName} {
		if name.IsDot() || name.IsDotDot() {
			return fromDir, toDir, fs.ErrInvalid
		}
	}
	d, err := t.getDir(from)
	if err != nil {
		return fromDir, toDir, err
	}
	defer t.put(d)
	e, err := t.getDir(to)
	if err != nil {
		return fromDir, toDir, err
	}
	defer t.put(e)
	fromDir, toDir, moved, victim, err := d.rename(c, oldName, e, newName)
	if err != nil {
		return fromDir, toDir, err
	}
	if victim != moved { // else they are two names of one file, and stay
		t.close(victim)
		t.learn(moved, to, newName)
	}
	// The new name first: a file system without a journal may so keep both
	// names after a crash, but not lose both.
	if err := e.sync(fs.FileSync); err != nil {
		return fromDir, toDir, done(err)
	}
	if d == e || t.marker >= 0 { // with a journal they are one change
		return fromDir, toDir, nil
	}
	return fromDir, toDir, done(d.sync(fs.FileSync))
}

func (d *object) rename(c *fs.Cred, oldName fs.Name, e *object, newName fs.Name) (fromDir, toDir fs.Change, moved, victim fs.Handle, err error) {
	unlock := lockBoth(d, e)
	defer unlock()
	for _, dir := range []struct {
		*object
		*fs.Change
	}{{d, &fromDir}, {e, &toDir}} {
		var st unix.Statx_t
		if err := dir.stat(&st); err != nil {
			return fromDir, toDir, moved, victim, err
		}
		dir.Before = dir.before(&st)
	}
	err = d.key.tree.as(c, func() error {
		moved, victim = childHandle(d.fd, oldName), childHandle(e.fd, newName)
		return unix.Renameat(d.fd, string(oldName), e.fd, string(newName))
	})
	d.changed(&fromDir)
	e.changed(&toDir)
	return fromDir, toDir, moved, victim, failure(err)
}

// lockBoth locks two directories, which may be one, for a change.
func lockBoth(d, e *object) (unlock func()) {
	if d == e {
		d.change.Lock()
		return d.change.Unlock
	}
	if compare(&d.key.handle, &e.key.handle) > 0 {
		d, e = e, d
	}
	d.change.Lock()
	e.change.Lock()
	return func() {
		e.change.Unlock()
		d.change.Unlock()
	}
}

func compare(a, b *fs.Handle) int {
	return bytes.Compare(slices.Concat(a.Bytes[:], []byte{a.Len}), slices.Concat(b.Bytes[:], []byte{b.Len}))
}

// Link implements fs.WritableTree.
func (t *Tree) Link(c *fs.Cred, h fs.Handle, dir fs.Handle, name fs.Name, a *fs.Attr) (change fs.Change, err error) {
	if name.IsDot() || name.IsDotDot() {
		return change, fs.ErrExist
	}
	o, err := t.get(h)
	if err != nil {
		return change, err
	}
	defer t.put(o)
	if o.kind == fs.Directory {
		return change, fs.ErrIsDir
	}
	d, err := t.getDir(dir)
	if err != nil {
		return change, err
	}
	defer t.put(d)
	change, err = d.link(c, o, name)
	if err != nil {
		return change, err
	}
	var st unix.Statx_t
	if err := o.stat(&st); err != nil {
		return change, done(err)
	}
	t.fill(a, &st)
	if t.apart { // the link count must not be less than there are names
		if err := o.sync(fs.FileSync); err != nil {
			return change, done(err)
		}
	}
	return change, done(d.sync(fs.FileSync))
}

// link makes name in the directory d one of the object o.
func (d *object) link(c *fs.Cred, o *object, name fs.Name) (change fs.Change, err error) {
	d.change.Lock()
	defer d.change.Unlock()
	o.change.Lock() // its link count changes
	defer o.change.Unlock()
	var st unix.Statx_t
	if err := o.stat(&st); err != nil {
		return change, err
	}
	o.before(&st)
	if err := d.stat(&st); err != nil {
		return change, err
	}
	change.Before = d.before(&st)
	err = d.key.tree.as(c, func() error {
		return unix.Linkat(unix.AT_FDCWD, procPath(o.fd), d.fd, string(name), unix.AT_SYMLINK_FOLLOW)
	})
	d.changed(&change)
	o.changed(new(fs.Change))
	return change, failure(err)
}
