package hostdir

import (
	"math"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/pagecache"
)

// Read implements fs.WritableTree.
func (t *Tree) Read(c *fs.Cred, h fs.Handle, off uint64, p []byte) (n int, eof bool, err error) {
	return t.read(c, h, off, len(p), nil, func(fd, from, to int) (int, error) {
		return unix.Pread(fd, p[from:to], int64(off)+int64(from))
	})
}

// ReadNow implements fs.WritableTree.
func (t *Tree) ReadNow(c *fs.Cred, h fs.Handle, off uint64, p []byte, a *fs.Attr) (n int, eof bool, err error) {
	return t.read(c, h, off, len(p), a, func(fd, from, to int) (int, error) {
		n, err := pagecache.Read(fd, p[from:to], int64(off)+int64(from))
		if err == unix.EOPNOTSUPP {
			err = unix.EAGAIN // it may have to wait
		}
		return n, err
	})
}

// Splice implements fs.WritableTree.
func (t *Tree) Splice(c *fs.Cred, h fs.Handle, off uint64, n, pipe int, a *fs.Attr) (moved int, eof bool, err error) {
	moved, eof, err = t.read(c, h, off, n, a, func(fd, from, to int) (int, error) {
		at := int64(off) + int64(from)
		// What has no room in the pipe is not waited for: nobody empties it.
		moved, err := unix.Splice(fd, &at, pipe, nil, to-from, unix.SPLICE_F_NONBLOCK)
		return int(moved), err
	})
	if moved > 0 {
		return moved, eof, nil // who asks for the rest is told why there is none
	}
	return 0, eof, err
}

// read reads at most want bytes of a file from off on by a function that reads some of
// those from one to another of them.
func (t *Tree) read(c *fs.Cred, h fs.Handle, off uint64, want int, a *fs.Attr, some func(fd, from, to int) (int, error)) (n int, eof bool, err error) {
	var st unix.Statx_t
	o, err := t.getFile(h, &st)
	if err != nil {
		return 0, false, err
	}
	defer t.put(o)
	if a != nil {
		t.fill(a, &st)
	}
	if err := o.check(c, &st, fs.MayRead); err != nil {
		return 0, false, err
	}
	if off >= st.Size { // offsets beyond 2^63 among them
		return 0, true, nil
	}
	fd, err := o.read()
	if err != nil {
		return 0, false, err
	}
	want = int(min(uint64(want), st.Size-off))
	for n < want {
		got, err := some(fd, n, want)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return n, false, failure(err)
		}
		if got == 0 {
			return n, true, nil
		}
		n += got
	}
	return n, off+uint64(n) >= st.Size, nil
}

// Write implements fs.WritableTree.
func (t *Tree) Write(c *fs.Cred, h fs.Handle, off uint64, p []byte, how fs.Stability) (fs.Change, fs.Verifier, error) {
	verf := t.verifier()
	o, err := t.get(h)
	if err != nil {
		return fs.Change{}, verf, err
	}
	defer t.put(o)
	for range maxRewrites {
		// The Verifier from before the write: if another comes to be while it is
		// under way, its content may be what was lost.
		verf = t.verifier()
		change, err := o.pwrite(c, off, len(p), func(fd int) error { return pwriteAll(fd, p, int64(off)) })
		if err == nil && how != fs.Unstable {
			err = o.sync(how)
		}
		if err != nil || how == fs.Unstable || t.verifier() == verf {
			return change, verf, err
		}
	}
	return fs.Change{}, verf, fs.ErrIO
}

// maxRewrites is how often content is written while the host fails to bring
// other files of the tree to the disk.
const maxRewrites = 4

// WriteSpliced implements fs.WritableTree.
func (t *Tree) WriteSpliced(c *fs.Cred, h fs.Handle, off uint64, n, pipe int) (fs.Change, fs.Verifier, error) {
	verf := t.verifier() // from before the write, as in Write
	o, err := t.get(h)
	if err != nil {
		return fs.Change{}, verf, err
	}
	defer t.put(o)
	change, err := o.pwrite(c, off, n, func(fd int) error { return spliceAll(fd, pipe, n, int64(off)) })
	return change, verf, err
}

// pwrite writes n bytes at off by a function, if c may, with the rights of c to take space,
// which are not those of root.
func (o *object) pwrite(c *fs.Cred, off uint64, n int, all func(fd int) error) (change fs.Change, err error) {
	if err := o.wantFile(); err != nil {
		return change, err
	}
	if off > math.MaxInt64 || uint64(n) > math.MaxInt64-off {
		return change, fs.ErrTooLarge
	}
	o.change.Lock()
	defer o.change.Unlock()
	var st unix.Statx_t
	if err := o.stat(&st); err != nil {
		return change, err
	}
	if err := o.check(c, &st, fs.MayWrite); err != nil {
		return change, err
	}
	fd, err := o.write()
	if err != nil {
		return change, err
	}
	change.Before = o.before(&st)
	as := o.key.tree.asUser
	if st.Mode&unix.S_ISGID != 0 {
		as = o.key.tree.as // whether the write clears it is also up to the groups
	}
	err = as(c, func() error { return all(fd) })
	written := uint64(n)
	if err != nil {
		written = 0 // as far as is known
	}
	o.wrote(off, written)
	o.changed(&change)
	return change, failure(err)
}

// piece is how much is written by one system call, in bytes. The kernel makes folios of the
// page cache as large as what is written, and ext4 looks at all blocks of one for each write
// to it: a write of 4 KiB to a file that came in pieces of 1 MiB takes 17 to 30 us, of 512
// KiB 10 to 20, of 256 KiB 6 to 14 (6.18). To write 1 MiB takes 4 to 12 % more of the
// server's CPU in pieces of 256 KiB, and no more in pieces of 512 (bench homes).
const piece = 512 << 10

// inPiece returns how many of n bytes at off are in its piece.
func inPiece(n int, off int64) int { return min(n, piece-int(off%piece)) }

func pwriteAll(fd int, p []byte, off int64) error {
	for len(p) > 0 {
		n, err := unix.Pwrite(fd, p[:inPiece(len(p), off)], off)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return unix.EIO
		}
		p = p[n:]
		off += int64(n)
	}
	return nil
}

// spliceAll writes n bytes out of a pipe.
func spliceAll(fd, pipe, n int, off int64) error {
	for left := n; left > 0; {
		moved, err := unix.Splice(pipe, nil, fd, &off, inPiece(left, off), unix.SPLICE_F_NONBLOCK)
		switch {
		case moved > 0:
			left -= int(moved)
		case err == unix.EINTR:
		case err == nil, err == unix.EINVAL && left < n: // who is told EINVAL takes all to be left
			return unix.EIO
		default:
			return err
		}
	}
	return nil
}

// Commit implements fs.WritableTree. It needs no rights: the content is the
// file's already.
func (t *Tree) Commit(c *fs.Cred, h fs.Handle) (change fs.Change, verf fs.Verifier, err error) {
	var st unix.Statx_t
	o, err := t.getFile(h, &st)
	if err != nil {
		return change, t.verifier(), err
	}
	defer t.put(o)
	// With its attributes, as the client that wrote has it from fsync(2) (RFC
	// 1813, section 3.3.21).
	if err := o.sync(fs.FileSync); err != nil {
		return change, t.verifier(), err
	}
	verf = t.verifier()
	if err := o.stat(&st); err != nil {
		return change, verf, err
	}
	t.fill(&change.After, &st)
	change.HasAfter = true
	return change, verf, nil
}
