package hostdir

import (
	"bytes"
	"encoding/binary"
	"math"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs"
)

// Lookup implements fs.WritableTree.
func (t *Tree) Lookup(c *fs.Cred, dir fs.Handle, name fs.Name, a *fs.Attr) (fs.Handle, error) {
	var st unix.Statx_t
	d, err := t.statDir(dir, &st)
	if err != nil {
		return fs.Handle{}, err
	}
	defer t.put(d)
	if err := d.check(c, &st, fs.MayExec); err != nil {
		return fs.Handle{}, err
	}
	if name.IsDot() || name.IsDotDot() && deviceOf(&st) == t.dev {
		t.fill(a, &st)
		return dir, nil
	}
	h, err := t.child(d, name, a)
	if err == nil && name.IsDotDot() {
		err = t.Getattr(h, a) // which fails if that leads out of the tree
	}
	if err != nil {
		return fs.Handle{}, err
	}
	return h, nil
}

// child returns what has the given name in d, which is open to the caller.
func (t *Tree) child(d *object, name fs.Name, a *fs.Attr) (fs.Handle, error) {
	fd, err := openChild(d.fd, name)
	if err == unix.EXDEV {
		return fs.Handle{}, fs.ErrAccess // something is mounted there, which is not part of the tree
	}
	if err != nil {
		return fs.Handle{}, failure(err)
	}
	defer unix.Close(fd)
	var st unix.Statx_t
	if err := t.statx(fd, &st); err != nil {
		return fs.Handle{}, failure(err)
	}
	if st.Dev_major != t.dev.major || st.Dev_minor != t.dev.minor {
		return fs.Handle{}, fs.ErrAccess // a subvolume of btrfs, with inode numbers of its own
	}
	h, err := handleOf(fd)
	if err != nil {
		return fs.Handle{}, err
	}
	if !name.IsDotDot() {
		t.learn(h, d.key.handle, name)
	}
	t.fill(a, &st)
	return h, nil
}

// Readlink implements fs.WritableTree.
func (t *Tree) Readlink(c *fs.Cred, h fs.Handle, b []byte) ([]byte, error) {
	o, err := t.get(h)
	if err != nil {
		return b, err
	}
	defer t.put(o)
	if o.kind != fs.Symlink {
		return b, fs.ErrInvalid
	}
	var st unix.Statx_t
	if err := o.stat(&st); err != nil {
		return b, err
	}
	var text [unix.PathMax]byte
	n, err := unix.Readlinkat(o.fd, "", text[:])
	if err != nil {
		return b, failure(err)
	}
	return append(b, text[:n]...), nil
}

// direntSize is about what an entry takes of the host's listing.
const direntSize = 48

var listings = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// ReadDir implements fs.WritableTree. Cookies are the host's own (d_off), which
// stay good while names come and go.
func (t *Tree) ReadDir(c *fs.Cred, dir fs.Handle, cookie uint64, plus bool, entries []fs.HostEntry) (n int, eof bool, err error) {
	var st unix.Statx_t
	d, err := t.statDir(dir, &st)
	if err != nil {
		return 0, false, err
	}
	defer t.put(d)
	if err := d.check(c, &st, fs.MayRead); err != nil {
		return 0, false, err
	}
	if plus {
		has, err := d.rights(c, &st)
		if err != nil {
			return 0, false, err
		}
		plus = has&fs.MayExec != 0
	}
	fd, err := reopen(d.fd, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return 0, false, failure(err)
	}
	defer unix.Close(fd)
	if cookie > math.MaxInt64 {
		return 0, false, fs.ErrInvalid
	}
	if cookie != 0 {
		if _, err := unix.Seek(fd, int64(cookie), unix.SEEK_SET); err != nil {
			return 0, false, failure(err)
		}
	}
	n, eof, err = list(fd, entries)
	if err != nil {
		return 0, false, err
	}
	for i := range entries[:n] {
		t.complete(d, &st, &entries[i], plus)
	}
	return n, eof, nil
}

// list fills entries with what follows in the directory.
func list(fd int, entries []fs.HostEntry) (n int, eof bool, err error) {
	buf := listings.Get().(*[64 << 10]byte)
	defer listings.Put(buf)
	for n < len(entries) {
		some := buf[:min(len(buf), max(1024, direntSize*(len(entries)-n)))]
		got := 0
		err := retry(func() (err error) {
			got, err = unix.Getdents(fd, some)
			return err
		})
		if err != nil {
			return n, false, failure(err)
		}
		if got == 0 {
			return n, true, nil
		}
		for some = some[:got]; len(some) > 0 && n < len(entries); n++ {
			var ok bool
			if some, ok = entryOf(some, &entries[n]); !ok {
				return n, false, fs.ErrIO
			}
		}
	}
	return n, false, nil
}

// entryOf takes the first struct linux_dirent64 from b and returns the rest.
func entryOf(b []byte, e *fs.HostEntry) (rest []byte, ok bool) {
	const header = 8 + 8 + 2 + 1 // d_ino, d_off, d_reclen, d_type
	if len(b) < header {
		return nil, false
	}
	size := int(binary.NativeEndian.Uint16(b[16:]))
	if size < header || size > len(b) {
		return nil, false
	}
	name, _, ok := bytes.Cut(b[header:size], []byte{0})
	if !ok || len(name) == 0 || len(name) > fs.MaxName {
		return nil, false
	}
	*e = fs.HostEntry{
		FileID: fileID(binary.NativeEndian.Uint64(b)),
		Cookie: binary.NativeEndian.Uint64(b[8:]),
		Name:   append(e.Name[:0], name...),
	}
	return b[size:], true
}

// complete fills in what the listing of d does not tell. What lies above the
// root is not told of.
func (t *Tree) complete(d *object, st *unix.Statx_t, e *fs.HostEntry, plus bool) {
	name := fs.Name(e.Name)
	up := name.IsDotDot()
	self := name.IsDot() || up && deviceOf(st) == t.dev
	switch {
	case self:
		e.FileID = fileID(st.Ino)
		if plus {
			e.Handle = d.key.handle
			t.fill(&e.Attr, st)
		}
	case plus && !up:
		if h, err := t.child(d, name, &e.Attr); err == nil {
			e.Handle = h
		} else {
			e.Attr = fs.Attr{}
		}
	}
}
