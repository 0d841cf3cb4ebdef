package hostdir

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs"
)

// Create implements fs.WritableTree.
func (t *Tree) Create(c *fs.Cred, dir fs.Handle, name fs.Name, how fs.Create, s *fs.SetAttr, verf fs.Verifier, a *fs.Attr) (fs.Handle, fs.Change, error) {
	open, more := opener(openNew), s
	if how == fs.Exclusive {
		s = verfAttr(verf)
		open, more = exclusive(s), nil // it gives the file its times
	}
	for range maxCreates {
		h, change, err := t.create(c, dir, name, more, a, open)
		if how == fs.Guarded || !errors.Is(err, fs.ErrExist) {
			return h, change, err
		}
		h, err = t.existing(c, dir, name, how, s, a)
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrStale) {
			return h, change, err
		}
		// It was removed meanwhile, of which who creates wants to know nothing.
	}
	return fs.Handle{}, fs.Change{}, fs.ErrWouldBlock
}

// maxCreates is how often a file is created anew while others remove it.
const maxCreates = 16

// verfAttr returns the attributes that keep the verifier of an exclusive create
// in the new file, as nfsd keeps it: in the times, where a restart does not lose
// it, as 31 bits of each half, which every file system can hold. The client sets
// the times next.
func verfAttr(verf fs.Verifier) *fs.SetAttr {
	half := func(b []byte) *fs.SetTime {
		return &fs.SetTime{Time: fs.Time{Sec: int64(binary.BigEndian.Uint32(b) & 0x7fffffff)}}
	}
	return &fs.SetAttr{Atime: half(verf[4:]), Mtime: half(verf[:4])}
}

// opener makes a file, whose name must be free, for writing.
type opener func(dir int, name fs.Name, s *fs.SetAttr) (fd int, err error)

// openNew is an opener.
func openNew(dir int, name fs.Name, s *fs.SetAttr) (int, error) {
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	return openat(dir, string(name), flags, modeOf(s))
}

// exclusive returns an opener for a file that has the times of verf as soon as it has
// a name. If the server were killed between the two, the client would find the name
// taken when it makes the same call again.
func exclusive(verf *fs.SetAttr) opener {
	times, _ := timesOf(verf)
	return func(dir int, name fs.Name, s *fs.SetAttr) (int, error) {
		fd, err := openat(dir, ".", unix.O_WRONLY|unix.O_TMPFILE|unix.O_CLOEXEC, modeOf(s))
		if err != nil { // the file system cannot do it, or this says what is wrong
			if fd, err = openNew(dir, name, s); err != nil {
				return -1, err
			}
			if err = utimens(fd, &times); err == nil {
				err = retry(func() error { return unix.Fsync(fd) }) // the times came after the name
			}
			return fd, done(err)
		}
		if err = utimens(fd, &times); err == nil {
			err = unix.Linkat(unix.AT_FDCWD, procPath(fd), dir, string(name), unix.AT_SYMLINK_FOLLOW)
		}
		if err != nil {
			unix.Close(fd)
			return -1, err
		}
		return fd, nil
	}
}

// openat is openat(2), made again when a signal ends it.
func openat(dir int, path string, flags int, mode uint32) (fd int, err error) {
	err = retry(func() error {
		fd, err = unix.Openat(dir, path, flags, mode)
		return err
	})
	return fd, err
}

// create makes a file, whose name must be free, by open.
func (t *Tree) create(c *fs.Cred, dir fs.Handle, name fs.Name, s *fs.SetAttr, a *fs.Attr, open opener) (fs.Handle, fs.Change, error) {
	m, err := t.make(c, dir, name, s, a, func(dir int) (fd int, err error) {
		fd, err = open(dir, name, s)
		if err != nil || s == nil || s.Size == nil {
			return fd, err
		}
		return fd, done(retry(func() error { return unix.Ftruncate(fd, int64(*s.Size)) }))
	})
	if err == nil {
		t.keep(&object{key: key{t, m.handle}, fd: m.fd, kind: a.Kind, reader: -1, writer: m.fd, ours: a.Ctime})
	}
	return m.handle, m.change, err
}

// keep keeps a new object open by the descriptor that it was made with: it will be
// asked for next.
func (t *Tree) keep(o *object) {
	if t.host.objects.Add(o.key, o) {
		t.put(o)
		return
	}
	// Somebody has looked it up meanwhile.
	if known, err := t.get(o.key.handle); err == nil {
		known.born(o.ours)
		t.put(known)
	}
	unix.Close(o.fd)
}

// existing answers a create of a name that is taken.
func (t *Tree) existing(c *fs.Cred, dir fs.Handle, name fs.Name, how fs.Create, s *fs.SetAttr, a *fs.Attr) (fs.Handle, error) {
	h, err := t.Lookup(c, dir, name, a)
	if err != nil {
		return h, err
	}
	if a.Kind != fs.Regular {
		return fs.Handle{}, fs.ErrExist
	}
	if how == fs.Exclusive && (a.Size != 0 || a.Mtime != s.Mtime.Time || a.Atime != s.Atime.Time) {
		return fs.Handle{}, fs.ErrExist
	}
	if how == fs.Unchecked && s != nil && s.Size != nil {
		change, err := t.Setattr(c, h, &fs.SetAttr{Size: s.Size}, nil)
		if err != nil {
			return fs.Handle{}, err
		}
		*a = change.After
	}
	if err := t.syncFound(dir, h, a); err != nil {
		return fs.Handle{}, err
	}
	return h, nil
}

// syncFound brings to the disk a file that a create has found: it may have been
// made just now, by a call that has not returned, or that a server which was
// killed did not answer. A file with content is further than that, but for its
// name.
func (t *Tree) syncFound(dir, file fs.Handle, a *fs.Attr) error {
	if a.Size == 0 {
		if err := t.syncHandle(file); err != nil {
			return err
		}
	}
	return t.syncHandle(dir)
}

func (t *Tree) syncHandle(h fs.Handle) error {
	o, err := t.get(h)
	if err != nil {
		return err
	}
	defer t.put(o)
	return o.sync(fs.FileSync)
}

// Mkdir implements fs.WritableTree.
func (t *Tree) Mkdir(c *fs.Cred, dir fs.Handle, name fs.Name, s *fs.SetAttr, a *fs.Attr) (fs.Handle, fs.Change, error) {
	m, err := t.makeOther(c, dir, name, s, a, func(dir int) error {
		return unix.Mkdirat(dir, string(name), modeOf(s))
	})
	if err == nil {
		t.keep(&object{key: key{t, m.handle}, fd: m.fd, kind: a.Kind, reader: -1, writer: -1, ours: a.Ctime})
	}
	return m.handle, m.change, err
}

// Symlink implements fs.WritableTree.
func (t *Tree) Symlink(c *fs.Cred, dir fs.Handle, name fs.Name, text []byte, s *fs.SetAttr, a *fs.Attr) (fs.Handle, fs.Change, error) {
	if s != nil { // a symlink has no mode of its own
		bare := *s
		bare.Mode = nil
		s = &bare
	}
	return t.makeClosed(c, dir, name, s, a, func(dir int) error {
		return unix.Symlinkat(string(text), dir, string(name))
	})
}

// Mknod implements fs.WritableTree.
func (t *Tree) Mknod(c *fs.Cred, dir fs.Handle, name fs.Name, kind fs.Kind, major, minor uint32, s *fs.SetAttr, a *fs.Attr) (fs.Handle, fs.Change, error) {
	bits, ok := map[fs.Kind]uint32{
		fs.BlockDevice: unix.S_IFBLK, fs.CharDevice: unix.S_IFCHR, fs.FIFO: unix.S_IFIFO, fs.Socket: unix.S_IFSOCK,
	}[kind]
	if !ok {
		return fs.Handle{}, fs.Change{}, fs.ErrBadType
	}
	rdev := 0
	if kind == fs.BlockDevice || kind == fs.CharDevice {
		if major >= 1<<12 || minor >= 1<<20 { // what Linux has room for
			return fs.Handle{}, fs.Change{}, fs.ErrInvalid
		}
		rdev = int(unix.Mkdev(major, minor))
	}
	return t.makeClosed(c, dir, name, s, a, func(dir int) error {
		return unix.Mknodat(dir, string(name), bits|modeOf(s), rdev)
	})
}

// modeOf returns the mode to make an object with. Without one it is nobody's
// until its owner sets it, which follows an exclusive create at once.
func modeOf(s *fs.SetAttr) uint32 {
	if s == nil || s.Mode == nil {
		return 0
	}
	return *s.Mode
}

// made is a new object.
type made struct {
	fd     int // -1 after an error
	handle fs.Handle
	change fs.Change // of its directory
}

// makeClosed is makeOther for what nobody needs open.
func (t *Tree) makeClosed(c *fs.Cred, dir fs.Handle, name fs.Name, s *fs.SetAttr, a *fs.Attr, mk func(dir int) error) (fs.Handle, fs.Change, error) {
	m, err := t.makeOther(c, dir, name, s, a, mk)
	if err == nil {
		unix.Close(m.fd)
	}
	return m.handle, m.change, err
}

// makeOther is make for what is not a file. Its descriptor is an O_PATH one.
func (t *Tree) makeOther(c *fs.Cred, dir fs.Handle, name fs.Name, s *fs.SetAttr, a *fs.Attr, mk func(dir int) error) (made, error) {
	return t.make(c, dir, name, s, a, func(dir int) (int, error) {
		spare, err := unix.FcntlInt(uintptr(dir), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return -1, err // while there is nothing yet that a second try would find
		}
		err = mk(dir)
		unix.Close(spare)
		if err != nil {
			return -1, err
		}
		fd, err := openChild(dir, name)
		return fd, done(err)
	})
}

// make makes an object with the attributes s by calling mk as the caller. mk
// gets the descriptor of the directory and returns one of the object, which is
// the caller's to close.
func (t *Tree) make(c *fs.Cred, dir fs.Handle, name fs.Name, s *fs.SetAttr, a *fs.Attr, mk func(dir int) (int, error)) (made, error) {
	m := made{fd: -1}
	if name.IsDot() || name.IsDotDot() {
		return m, fs.ErrExist
	}
	if s == nil {
		s = &fs.SetAttr{}
	}
	if err := valid(s); err != nil {
		return m, err
	}
	d, err := t.getDir(dir)
	if err != nil {
		return m, err
	}
	defer t.put(d)
	fd, change, err := d.make(c, s, mk)
	m.change = change
	if err == nil {
		m.handle, err = t.settle(d, fd, name, s, a)
		err = done(err)
	}
	if err != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		return made{fd: -1, change: change}, err
	}
	m.fd = fd
	return m, nil
}

// make makes an object in the directory d, which is not on disk yet when it returns.
func (d *object) make(c *fs.Cred, s *fs.SetAttr, mk func(dir int) (int, error)) (fd int, change fs.Change, err error) {
	d.change.Lock()
	defer d.change.Unlock()
	var st unix.Statx_t
	if err := d.stat(&st); err != nil {
		return -1, change, err
	}
	change.Before = d.before(&st)
	fd = -1
	err = d.key.tree.as(c, func() error {
		if fd, err = mk(d.fd); err != nil {
			return err
		}
		return done(dress(d.key.tree.host.actor.uid(c), fd, s))
	})
	d.changed(&change)
	return fd, change, failure(err)
}

// dress gives a new object of uid the attributes that it could not be made with. Only
// root gives objects away; that others ask for an owner is ignored, as nfsd does.
func dress(uid uint32, fd int, s *fs.SetAttr) error {
	if uid == 0 && (s.UID != nil || s.GID != nil) {
		if err := setOwnerAndMode(fd, s); err != nil {
			return err
		}
	}
	if times, any := timesOf(s); any {
		return utimens(fd, &times)
	}
	return nil
}

// settle brings a new object to the disk and tells what it is.
func (t *Tree) settle(d *object, fd int, name fs.Name, s *fs.SetAttr, a *fs.Attr) (fs.Handle, error) {
	var st unix.Statx_t
	if err := t.statx(fd, &st); err != nil {
		return fs.Handle{}, failure(err)
	}
	t.fill(a, &st)
	h, err := handleOf(fd)
	if err != nil {
		return h, err
	}
	t.learn(h, d.key.handle, name)
	dressed := s.UID != nil || s.GID != nil || s.Size != nil || s.Atime != nil || s.Mtime != nil
	switch {
	case t.marker >= 0 && !dressed:
		return h, d.sync(fs.FileSync) // the name and what it names are one change
	case t.marker >= 0:
		return h, t.commit()
	}
	if err := t.syncNew(fd, a.Kind, dressed || t.apart); err != nil {
		t.rotate() // as after any flush that fails
		return h, err
	}
	return h, d.sync(fs.FileSync)
}

// syncNew brings a new object to the disk, where its directory does not take it along. A
// file goes by the descriptor that it was made with: its mode may allow no other. What
// cannot be opened relies on that of the directory, unless it is to be brought there by
// itself: if it was changed after it was made, that may have come too late.
func (t *Tree) syncNew(fd int, kind fs.Kind, itself bool) error {
	sync := func(fd int) error { return retry(func() error { return unix.Fsync(fd) }) }
	switch kind {
	case fs.Regular:
		return failure(sync(fd))
	case fs.Directory:
		if dir, err := reopen(fd, unix.O_RDONLY|unix.O_DIRECTORY); err == nil {
			defer unix.Close(dir)
			return failure(sync(dir))
		}
		itself = true // nobody may open it, or not now
	}
	if !itself {
		return nil
	}
	return failure(t.syncAll())
}
