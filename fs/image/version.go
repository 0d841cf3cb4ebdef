package image

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/rootnfsd/rootnfsd/fs"
)

// Version is one sealed version, opened: an immutable tree. What it tells of
// objects and names it tells from memory, without a lock, a system call or an
// allocation; see Read for content. It stays usable after the version was
// removed from its store, and is closed by the garbage collector.
type Version struct {
	name  string
	fsid  uint64
	index *index
	packs []versionPack // by place in secPacks
}

var _ fs.Spanner = (*Version)(nil)

// versionPack is a pack that a version refers to, or why it cannot be read.
type versionPack struct {
	*pack
	err error
}

// Open opens a version for reading. The error wraps os.ErrNotExist if there is
// none of that name. That a pack is missing or damaged is not an error: the
// files that lie elsewhere can be read. That one is out of reach for now, as for
// want of memory or of file descriptors, is an error, and may pass.
func (s *Store) Open(name string) (*Version, error) {
	if err := validVersion(name); err != nil {
		return nil, err
	}
	for {
		v, err := s.open(name)
		if err != nil || !v.lacksPack() || !s.moved(v) {
			return v, err
		}
	}
}

// lacksPack reports whether a pack is not there that the version refers to.
func (v *Version) lacksPack() bool {
	for _, p := range v.packs {
		if p.err != nil && errors.Is(p.err, os.ErrNotExist) {
			return true
		}
	}
	return false
}

// moved reports whether the content of a version has moved to other packs since
// its index was opened. A compaction deletes a pack after it has replaced the
// indexes that refer to it, so who misses one finds the new index.
func (s *Store) moved(v *Version) bool {
	h, err := readHeader(s.indexPath(v.name))
	return err == nil && h.derived != v.index.derived
}

// open is Open of what the index says just now.
func (s *Store) open(name string) (_ *Version, err error) {
	x, err := openIndex(s.indexPath(name))
	if err != nil {
		return nil, errVersion(name, err)
	}
	s.atStep("index opened")
	v := newVersion(name, x)
	defer v.guard(debug.SetPanicOnFault(true), &err)
	for i := range v.packs {
		p, err := s.packs.get(x.packDigest(uint64(i)))
		if err != nil && !isLost(err) {
			return nil, errVersion(name, err)
		}
		v.packs[i] = versionPack{p, err}
	}
	return v, nil
}

// OpenDigest opens the version of that name that has this digest, also if the
// name stands for another one by now and the version lives on as superseded. The
// error wraps fs.ErrStale if the store does not have it any more.
func (s *Store) OpenDigest(name string, d Digest) (*Version, error) {
	var unread error
	for _, n := range namesOf(name, d) {
		v, err := s.Open(n)
		switch {
		case err == nil && v.index.digest == d:
			return v, nil
		case err != nil && !isMissing(err) && unread == nil:
			unread = err // it may be the one
		}
	}
	if unread != nil {
		return nil, unread
	}
	return nil, fmt.Errorf("version %s with digest %s is not in the store any more: %w", name, d.Short(), fs.ErrStale)
}

func newVersion(name string, x *index) *Version {
	// Clients take a zero FSID for none.
	fsid := max(1, binary.BigEndian.Uint64(x.digest[:]))
	return &Version{name: name, fsid: fsid, index: x, packs: make([]versionPack, x.counts[secPacks])}
}

// Info describes the version.
func (v *Version) Info() Info { return v.index.info(v.name) }

// Problems returns an error for each pack that could not be opened: the files
// whose content is in it cannot be read.
func (v *Version) Problems() []error {
	var errs []error
	for _, p := range v.packs {
		if p.err != nil {
			errs = append(errs, errVersion(v.name, p.err))
		}
	}
	return errs
}

// FSID implements fs.Tree: the first eight bytes of the digest.
func (v *Version) FSID() uint64 { return v.fsid }

// Root implements fs.Tree.
func (v *Version) Root() fs.NodeID { return 1 }

// Statfs implements fs.Tree.
func (v *Version) Statfs() fs.Statfs {
	return fs.Statfs{Bytes: v.index.bytes, Files: v.index.counts[secInodes]}
}

// The methods below read the mapped index. Each defers v.guard, which turns a
// fault into ErrIO and keeps the mapping while the method runs.

func (v *Version) guard(old bool, err *error) {
	debug.SetPanicOnFault(old)
	if isFault(recover()) {
		*err = fs.ErrIO
	}
	runtime.KeepAlive(v)
}

// guardContent is guard for what reads the piece p of the file id.
func (v *Version) guardContent(old bool, id fs.NodeID, p *piece, err *error) {
	debug.SetPanicOnFault(old)
	if isFault(recover()) {
		*err = v.contentError(id, p, fs.ErrIO)
	}
	runtime.KeepAlive(v)
}

// Getattr implements fs.Tree.
func (v *Version) Getattr(id fs.NodeID, a *fs.Attr) (err error) {
	defer v.guard(debug.SetPanicOnFault(true), &err)
	n, err := v.index.inode(id)
	if err != nil {
		return err
	}
	a.FSID = v.fsid
	return v.index.attr(id, n, a)
}

// Lookup implements fs.Tree.
func (v *Version) Lookup(c *fs.Cred, dir fs.NodeID, name fs.Name) (_ fs.NodeID, err error) {
	defer v.guard(debug.SetPanicOnFault(true), &err)
	n, d, err := v.index.dir(dir)
	switch {
	case err != nil:
		return 0, err
	case n.granted(c)&fs.MayExec == 0:
		return 0, fs.ErrAccess
	case name.IsDot():
		return dir, nil
	case name.IsDotDot():
		return fs.NodeID(d.parent()), nil
	}
	return v.index.lookup(dir, d, name)
}

// Readlink implements fs.Tree.
func (v *Version) Readlink(id fs.NodeID) (_ []byte, err error) {
	defer v.guard(debug.SetPanicOnFault(true), &err)
	n, err := v.index.inode(id)
	if err != nil {
		return nil, err
	}
	return v.index.text(n)
}

var dot, dotDot = []byte("."), []byte("..")

// Cookies: "." has 1, ".." 2, and the entry at place i 3+i.
const firstCookie = 3

// ReadDir implements fs.Tree.
func (v *Version) ReadDir(c *fs.Cred, dir fs.NodeID, cookie uint64, entries []fs.DirEntry) (_ int, eof bool, err error) {
	defer v.guard(debug.SetPanicOnFault(true), &err)
	n, d, err := v.index.dir(dir)
	if err != nil {
		return 0, false, err
	}
	if n.granted(c)&fs.MayRead == 0 {
		return 0, false, fs.ErrAccess
	}
	last := uint64(d.count()) + firstCookie - 1
	if cookie > last {
		return 0, false, fs.ErrInvalid
	}
	i := 0
	for ; i < len(entries) && cookie < last; i++ {
		cookie++
		if err := v.entry(dir, d, cookie, &entries[i]); err != nil {
			return 0, false, err
		}
	}
	return i, cookie == last, nil
}

// entry fills e with the entry that has a cookie.
func (v *Version) entry(dir fs.NodeID, d *dirRecord, cookie uint64, e *fs.DirEntry) error {
	*e = fs.DirEntry{ID: dir, Cookie: cookie, Kind: fs.Directory, Name: dot}
	switch {
	case cookie == firstCookie-1:
		e.ID, e.Name = fs.NodeID(d.parent()), dotDot
	case cookie >= firstCookie:
		r, name, err := v.index.dirent(d, uint32(cookie-firstCookie))
		if err != nil {
			return err
		}
		if !whole(name) {
			return fs.ErrIO
		}
		e.ID, e.Kind, e.Name = fs.NodeID(r.inode()), r.kind(), name
	}
	e.FileID = uint64(e.ID)
	return nil
}

// readable returns the file id for c to read.
func (v *Version) readable(c *fs.Cred, id fs.NodeID) (file, error) {
	n, err := v.index.inode(id)
	if err != nil {
		return file{}, err
	}
	switch n.kind() {
	case fs.Regular:
	case fs.Directory:
		return file{}, fs.ErrIsDir
	default:
		return file{}, fs.ErrInvalid
	}
	if !fs.CanRead(&fs.Attr{Kind: fs.Regular, Mode: n.mode(), UID: n.uid(), GID: n.gid()}, c) {
		return file{}, fs.ErrAccess
	}
	return v.index.fileOf(n)
}

// contentError is the error for content that cannot be read. Those which say
// nothing about the content, ErrWouldBlock, it returns as they are.
func (v *Version) contentError(id fs.NodeID, p *piece, err error) error {
	if err == fs.ErrWouldBlock {
		return err
	}
	e := &contentError{version: v, id: id, err: err}
	if p.pack != nil && p.pack.pack != nil {
		e.pack = p.pack.path
	}
	return e
}

// contentError says which file cannot be read, where its bytes should be, and
// why. It looks for the path only when it is printed, because that takes time
// and a client may ask for a bad file again and again.
type contentError struct {
	version *Version
	id      fs.NodeID
	pack    string // empty if err names it
	err     error
}

func (e *contentError) Error() string {
	var where string
	if e.pack != "" {
		where = " in " + e.pack
	}
	return fmt.Sprintf("version %s: cannot read %q%s: %v", e.version.name, e.version.pathOf(e.id), where, e.err)
}

// Unwrap makes every such error an ErrIO.
func (e *contentError) Unwrap() []error { return []error{fs.ErrIO, e.err} }
