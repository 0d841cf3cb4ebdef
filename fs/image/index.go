package image

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"sync"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/source"
)

// index is an index file mapped into memory. Its digests were right when it was
// opened, but nobody vouches for who made it: every accessor checks each
// reference that it follows and answers ErrIO to one that leads nowhere.
//
// Accessors return pointers into the mapping, which lasts as long as the index:
// who uses one keeps the index alive until it is done.
type index struct {
	header
	sections [numSections][]byte
	counts   [numSections]uint64 // of their records
}

// openIndex opens an index file and verifies the whole of it, which also brings
// it into memory.
func openIndex(path string) (*index, error) {
	m, err := mapWhole(path)
	if err != nil {
		return nil, err
	}
	x, err := parseIndex(m.data)
	if err != nil {
		m.unmap()
		return nil, err
	}
	runtime.AddCleanup(x, mapping.unmap, m)
	return x, nil
}

// parseIndex verifies the index file in b and cuts it into sections.
func parseIndex(b []byte) (_ *index, err error) {
	defer guard(debug.SetPanicOnFault(true), &err)
	h, err := parseHeader(b, int64(len(b)))
	if err != nil {
		return nil, err
	}
	x := &index{header: *h}
	rest := b[headerSize:]
	for i, n := range x.lengths {
		x.sections[i], rest = rest[:n], rest[padded(n):]
		x.counts[i] = x.count(i)
	}
	canonical, derived := partDigests(h, b)
	if canonical != h.digest {
		return nil, errors.New("the index is damaged: its content is not what its digest says")
	}
	if derived != h.derived {
		return nil, errors.New("the index is damaged: where content lies is not what its digest says")
	}
	return x, nil
}

// partDigests computes the digests of the two parts of the index file b, side
// by side: this is most of the time that it takes to open a version.
func partDigests(h *header, b []byte) (canonical, derived Digest) {
	split := headerSize + h.canonicalSize()
	var wg sync.WaitGroup
	var fault error
	wg.Go(func() {
		defer guard(debug.SetPanicOnFault(true), &fault)
		derived = sha256.Sum256(b[split:])
	})
	hash := sha256.New()
	hash.Write(h.canonicalPrefix())
	hash.Write(b[headerSize:split])
	hash.Sum(canonical[:0])
	wg.Wait()
	return canonical, derived
}

// readHeader reads only the header of an index file.
func readHeader(path string) (*header, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	stat, err := f.Stat()
	if err != nil {
		return nil, err
	}
	var b [headerSize]byte
	if _, err := io.ReadFull(f, b[:]); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = errNoIndex
		}
		return nil, err
	}
	return parseHeader(b[:], stat.Size())
}

// record returns record i of a section, or nil.
func (x *index) record(section int, i uint64) []byte {
	if i >= x.counts[section] {
		return nil
	}
	size := recordSizes[section]
	return x.sections[section][i*size:][:size]
}

// span returns n bytes at off of a section, or nil.
func (x *index) span(section int, off, n uint64) []byte {
	b := x.sections[section]
	if off > uint64(len(b)) || n > uint64(len(b))-off {
		return nil
	}
	return b[off:][:n:n]
}

// inode returns the record of an object: ErrStale if there is none.
func (x *index) inode(id fs.NodeID) (*inode, error) {
	r := x.record(secInodes, uint64(id)-1)
	if r == nil {
		return nil, fs.ErrStale
	}
	return (*inode)(r), nil
}

// dir returns both records of a directory.
func (x *index) dir(id fs.NodeID) (*inode, *dirRecord, error) {
	n, err := x.inode(id)
	if err != nil {
		return nil, nil, err
	}
	if n.kind() != fs.Directory {
		return nil, nil, fs.ErrNotDir
	}
	r := x.record(secDirs, n.ref())
	if r == nil {
		return nil, nil, fs.ErrIO
	}
	return n, (*dirRecord)(r), nil
}

// dirent returns entry i of a directory, and its name.
func (x *index) dirent(d *dirRecord, i uint32) (*dirent, []byte, error) {
	r := x.record(secDirents, uint64(d.first())+uint64(i))
	if r == nil {
		return nil, nil, fs.ErrIO
	}
	e := (*dirent)(r)
	name := x.span(secNames, e.nameOff(), e.nameLen())
	if len(name) == 0 || e.inode() == 0 {
		return nil, nil, fs.ErrIO
	}
	return e, name, nil
}

// whole reports whether a name or text, which is going to be handed out, can be
// read. It reads from every page, so that a fault is the guard's and not that of
// who gets it, and looks at the last byte, since what is behind the end of a file
// that was cut short reads as zeros up to the end of the page. That a file is cut
// short while somebody holds b, nothing can be done about.
func whole(b []byte) bool {
	const page = 4096 // or a multiple of it
	for i := 0; i < len(b); i += page {
		if b[i] == 0 {
			return false
		}
	}
	return len(b) == 0 || b[len(b)-1] != 0
}

// lookup finds a name in the directory id, of which d is the record.
func (x *index) lookup(id fs.NodeID, d *dirRecord, name []byte) (fs.NodeID, error) {
	slots := x.counts[secSlots]
	slot := uint64(hashName(uint32(id), name)) & (slots - 1)
	for range slots { // an index that somebody made up may have no free slot
		place := uint64(le.Uint32(x.record(secSlots, slot)))
		if place == 0 {
			return 0, fs.ErrNotExist
		}
		if i := place - 1 - uint64(d.first()); i < uint64(d.count()) {
			e, have, err := x.dirent(d, uint32(i))
			if err != nil {
				return 0, err
			}
			if string(have) == string(name) {
				return fs.NodeID(e.inode()), nil
			}
		}
		slot = (slot + 1) & (slots - 1)
	}
	return 0, fs.ErrNotExist
}

// attr fills a with the attributes of object id, of which n is the record. It
// leaves FSID alone.
func (x *index) attr(id fs.NodeID, n *inode, a *fs.Attr) error {
	mtime := n.mtime()
	*a = fs.Attr{
		Kind: n.kind(), Mode: n.mode(), Nlink: n.nlink(), UID: n.uid(), GID: n.gid(), Size: n.size(), Used: n.used(),
		FSID: a.FSID, FileID: uint64(id), Mtime: mtime, Atime: mtime, Ctime: mtime,
	}
	switch a.Kind {
	case fs.Directory:
		r := x.record(secDirs, n.ref())
		if r == nil {
			return fs.ErrIO
		}
		d := (*dirRecord)(r)
		a.Nlink, a.Size, a.Used = d.nlink(), d.size(), d.size()
	case fs.BlockDevice, fs.CharDevice:
		a.Major, a.Minor = uint32(n.ref()>>32), uint32(n.ref())
	}
	return nil
}

// granted is fs.Granted of the object.
func (n *inode) granted(c *fs.Cred) fs.Perm {
	return fs.Granted(&fs.Attr{Kind: n.kind(), Mode: n.mode(), UID: n.uid(), GID: n.gid()}, c)
}

// text returns the text of a symlink.
func (x *index) text(n *inode) ([]byte, error) {
	if n.kind() != fs.Symlink {
		return nil, fs.ErrInvalid
	}
	text := x.span(secTexts, n.ref(), n.size())
	if text == nil || !whole(text) {
		return nil, fs.ErrIO
	}
	return text, nil
}

// file is a regular file of an index: where its content lies.
type file struct {
	size    uint64
	extents []byte // its part of secExtents
}

// fileOf returns the file of which n is the record.
func (x *index) fileOf(n *inode) (file, error) {
	r := x.record(secLocs, n.ref())
	if r == nil {
		return file{}, fs.ErrIO
	}
	l := (*location)(r)
	if l.first() > x.counts[secExtents] {
		return file{}, fs.ErrIO
	}
	extents := x.span(secExtents, l.first()*extentSize, uint64(l.count())*extentSize)
	if extents == nil {
		return file{}, fs.ErrIO
	}
	return file{n.size(), extents}, nil
}

func (f *file) numExtents() int { return len(f.extents) / extentSize }

// extent returns extent i of the file.
func (f *file) extent(i int) *extent { return (*extent)(f.extents[i*extentSize:]) }

// seek returns the number of the first extent that ends behind a chunk.
func (f *file) seek(chunk uint64) int {
	lo, hi := 0, f.numExtents()
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		if e := f.extent(mid); e.chunk()+uint64(e.count()) > chunk {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return lo
}

// chunkLen is the length that chunk number has in the file, at least one if
// the chunk is in it at all.
func (f *file) chunkLen(number uint64) uint64 {
	return min(chunkSize, f.size-number*chunkSize)
}

// xattrs returns the extended attributes of an object.
func (x *index) xattrs(n *inode) ([]source.Xattr, error) {
	if n.xattrs() == 0 {
		return nil, nil
	}
	b := x.sections[secXattrs]
	if n.xattrs() > uint64(len(b)) {
		return nil, fs.ErrIO
	}
	return parseXattrs(b[n.xattrs()-1:])
}

// packDigest returns the digest of pack i.
func (x *index) packDigest(i uint64) Digest { return Digest(x.record(secPacks, i)) }

// errVersion says which version an error is about.
func errVersion(name string, err error) error { return fmt.Errorf("version %s: %w", name, err) }

// isMissing reports whether an error of Open says that there is no such version.
func isMissing(err error) bool { return errors.Is(err, os.ErrNotExist) }
