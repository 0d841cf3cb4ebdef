package hostdir

import (
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs"
)

// object is what a handle stands for, while it is in use and a little longer.
type object struct {
	key  key
	fd   int // O_PATH, or the one that the object was made with
	kind fs.Kind

	// change is held while the object is changed, so that the attributes from
	// before and after are those of one change. Of two directories, the one
	// with the lesser handle is locked first.
	change sync.Mutex
	ours   fs.Time   // ctime that the last change here left behind; under change
	alone  time.Time // since when nobody else was seen to change it; under change
	seen   fs.Time   // ctime from before the change that is under way; under change
	blur   fs.Time   // ctime that more than one change left behind; under change

	flush rounds // brings it to the disk

	mu     sync.Mutex // guards the fields below; held while a file is opened
	reader int        // descriptors, or -1
	writer int
	dirty  bool // written to without a flush since
	run    run  // what is written to it one after the other
	inside time.Time
	grants [4]grant
	oldest int
}

// grant is what the kernel said of a caller's rights.
type grant struct {
	uid, gid uint32
	groups   []uint32
	has      fs.Perm
	mode     uint16 // of the object, with its owner and group
	owner    uint32
	group    uint32
	until    time.Time
}

// trust is for how long a check serves again that another program on the host
// could make out of date without changing owner or mode.
const trust = time.Second

// tick is more than the clock of the kernel's timestamps takes to move. A change
// that leaves an older ctime alone changed nothing.
const tick = 100 * time.Millisecond

// left notes the ctime that a change left behind. The caller holds change.
func (o *object) left(ctime fs.Time, now time.Time) {
	o.ours = ctime
	if ctime == o.seen && now.Sub(time.Unix(ctime.Sec, int64(ctime.Nsec))) < tick {
		o.blur = ctime
	}
}

// get returns the object of a handle. Who gets one puts it.
func (t *Tree) get(h fs.Handle) (*object, error) {
	o, err := t.host.objects.Get(key{t, h})
	if err != nil {
		return nil, err
	}
	if err := o.checkInside(); err != nil {
		t.put(o)
		return nil, err
	}
	return o, nil
}

func (t *Tree) put(o *object) { t.host.objects.Put(o.key) }

// getDir is get for a directory.
func (t *Tree) getDir(h fs.Handle) (*object, error) {
	o, err := t.get(h)
	if err != nil {
		return nil, err
	}
	if o.kind != fs.Directory {
		t.put(o)
		return nil, fs.ErrNotDir
	}
	return o, nil
}

// statDir is getDir that fills in the attributes.
func (t *Tree) statDir(h fs.Handle, st *unix.Statx_t) (*object, error) {
	o, err := t.getDir(h)
	if err != nil {
		return nil, err
	}
	if err := o.stat(st); err != nil {
		t.put(o)
		return nil, err
	}
	return o, nil
}

// getFile is get for a regular file, of which it fills in the attributes.
func (t *Tree) getFile(h fs.Handle, st *unix.Statx_t) (*object, error) {
	o, err := t.get(h)
	if err != nil {
		return nil, err
	}
	if err = o.wantFile(); err == nil {
		err = o.stat(st)
	}
	if err != nil {
		t.put(o)
		return nil, err
	}
	return o, nil
}

// wantFile fails for what is not a regular file.
func (o *object) wantFile() error {
	switch o.kind {
	case fs.Regular:
		return nil
	case fs.Directory:
		return fs.ErrIsDir
	default:
		return fs.ErrInvalid
	}
}

// openObject finds the object of a key.
func openObject(k key) (*object, error) {
	fd, err := k.tree.open(&k.handle)
	if err != nil {
		return nil, err
	}
	var st unix.Statx_t
	if err := statx(fd, &st); err != nil {
		unix.Close(fd)
		return nil, failure(err)
	}
	return &object{key: k, fd: fd, kind: kindOf(st.Mode), reader: -1, writer: -1}, nil
}

// open opens what h names as O_PATH.
func (t *Tree) open(h *fs.Handle) (int, error) {
	defer runtime.KeepAlive(t)
	if t.paths != nil {
		return t.paths.open(t, h)
	}
	var raw fileHandle
	if !raw.parse(h) {
		return -1, fs.ErrBadHandle
	}
	fd, err := openByHandle(t.fd, &raw)
	switch err {
	case nil:
		return fd, nil
	case unix.EINVAL, unix.EOVERFLOW, unix.ENOENT: // not of this file system, or gone
		return -1, fs.ErrStale
	default:
		return -1, failure(err)
	}
}

// close ends the use of an object. What was written to it has to be brought to
// the disk first, unless it is deleted: that the kernel failed to is told to
// those only who have the file open.
func (o *object) close() {
	var st unix.Statx_t
	if o.dirty && (o.key.tree.statx(o.fd, &st) != nil || st.Nlink != 0) {
		o.sync(fs.DataSync)
	}
	for _, fd := range []int{o.reader, o.writer} {
		if fd >= 0 && fd != o.fd {
			unix.Close(fd)
		}
	}
	unix.Close(o.fd)
}

// stat fills in the attributes. An object without a name is as good as gone:
// NFS cannot hold on to one, and its inode will be another's.
func (o *object) stat(st *unix.Statx_t) error {
	if err := o.key.tree.statx(o.fd, st); err != nil {
		return failure(err)
	}
	if st.Nlink == 0 {
		o.key.tree.host.objects.Drop(o.key)
		return fs.ErrStale
	}
	return nil
}

// checkInside fails for a directory that is not below the root of its tree:
// one that an administrator moved out of it, such as into the home of another
// node. For a file that cannot be told, because inodes do not know their
// directories; but nobody gets the handle of a file except by its directory.
func (o *object) checkInside() error {
	t := o.key.tree
	if o.kind != fs.Directory || t.paths != nil {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	if now.Before(o.inside) {
		return nil
	}
	if err := t.contains(o.fd); err != nil {
		return err
	}
	o.inside = now.Add(trust)
	return nil
}

// maxDepth is how far a directory may be from the root.
const maxDepth = 4096

// contains fails unless the way up from the directory behind fd leads through the root.
func (t *Tree) contains(dir int) error {
	up := dir
	defer func() {
		if up != dir {
			unix.Close(up)
		}
	}()
	var last device
	for range maxDepth {
		var st unix.Statx_t
		if err := t.statx(up, &st); err != nil {
			return failure(err)
		}
		at := deviceOf(&st)
		if at == t.dev {
			return nil
		}
		if at == last || at.major != t.dev.major || at.minor != t.dev.minor || st.Nlink == 0 {
			break // the top of the file system, or beyond
		}
		last = at
		parent, err := unix.Openat(up, "..", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err == unix.ENOENT {
			break // beyond what a bind mount shows (path_connected in fs/namei.c)
		}
		if err != nil {
			return failure(err)
		}
		if up != dir {
			unix.Close(up)
		}
		up = parent
	}
	return fs.ErrStale
}

// rights returns what the kernel lets c do with the object, whose attributes are st.
func (o *object) rights(c *fs.Cred, st *unix.Statx_t) (fs.Perm, error) {
	now := time.Now()
	if has, ok := o.granted(c, st, now); ok {
		return has, nil
	}
	var has fs.Perm
	err := o.key.tree.as(c, func() error {
		for _, right := range []fs.Perm{fs.MayRead, fs.MayWrite, fs.MayExec} {
			switch err := mayAccess(o.fd, right); err {
			case nil:
				has |= right
			case unix.EACCES, unix.EPERM, unix.EROFS, unix.ETXTBSY:
			default:
				return failure(err)
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.grants[o.oldest] = grant{
		uid: c.UID, gid: c.GID, groups: slices.Clone(c.Groups), has: has,
		mode: st.Mode, owner: st.Uid, group: st.Gid, until: now.Add(trust),
	}
	o.oldest = (o.oldest + 1) % len(o.grants)
	return has, nil
}

// granted returns what is known of the rights of c.
func (o *object) granted(c *fs.Cred, st *unix.Statx_t, now time.Time) (fs.Perm, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range o.grants {
		g := &o.grants[i]
		if now.Before(g.until) && g.uid == c.UID && g.gid == c.GID && slices.Equal(g.groups, c.Groups) &&
			g.mode == st.Mode && g.owner == st.Uid && g.group == st.Gid {
			return g.has, true
		}
	}
	return 0, false
}

// check fails unless c has the rights. The owner of a file has those to read
// and write it whatever the mode says, and who may execute it may read it: in
// NFSv3 there is no open at which they had them (fs.CanRead).
func (o *object) check(c *fs.Cred, st *unix.Statx_t, want fs.Perm) error {
	const owners = fs.MayRead | fs.MayWrite
	if o.kind == fs.Regular && want&^owners == 0 && o.key.tree.host.actor.uid(c) == st.Uid {
		return nil // whatever the kernel says
	}
	has, err := o.rights(c, st)
	if err != nil {
		return err
	}
	if o.kind == fs.Regular {
		if has&fs.MayExec != 0 {
			has |= fs.MayRead
		}
		if o.key.tree.host.actor.uid(c) == st.Uid {
			has |= owners
		}
	}
	if has&want != want {
		return fs.ErrAccess
	}
	return nil
}

// read returns a descriptor to read from, made by the server's own rights.
func (o *object) read() (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.reader < 0 {
		fd, err := reopen(o.fd, unix.O_RDONLY)
		if err != nil {
			return -1, failure(err)
		}
		o.reader = fd
	}
	return o.reader, nil
}

// write returns the descriptor that all writes to the file go through, so that
// it is told of every failure to bring them to the disk.
func (o *object) write() (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.writer < 0 {
		fd, err := reopen(o.fd, unix.O_WRONLY)
		if err != nil {
			return -1, failure(err)
		}
		o.writer = fd
	}
	return o.writer, nil
}

// before returns the attributes for the client's cache, from before a change
// that is about to be made. The caller holds change.
//
// Of other programs on the host the lock knows nothing. One that changes the
// object between here and the change itself would go unnoticed by the client,
// so nothing is said of an object that somebody else changed just now. Nor is
// it when the ctime is that of two changes, which a coarse clock may give: a
// client would take the one that it knows for both.
func (o *object) before(st *unix.Statx_t) *fs.BeforeAttr {
	ctime := timeOf(st.Ctime)
	o.seen = ctime
	if ctime != o.ours {
		o.alone = time.Unix(ctime.Sec, int64(ctime.Nsec))
	}
	if time.Since(o.alone) < trust || ctime == o.blur {
		return nil
	}
	return &fs.BeforeAttr{Size: st.Size, Mtime: timeOf(st.Mtime), Ctime: ctime}
}

// born says that the object was made here, and has not been changed since it had that ctime.
func (o *object) born(ctime fs.Time) {
	o.change.Lock()
	defer o.change.Unlock()
	o.ours = ctime
}

// changed completes c with the attributes from after a change. The caller holds change.
func (o *object) changed(c *fs.Change) {
	var st unix.Statx_t
	if err := o.key.tree.statx(o.fd, &st); err != nil {
		return
	}
	o.left(timeOf(st.Ctime), time.Now())
	o.key.tree.fill(&c.After, &st)
	c.HasAfter = true
}
