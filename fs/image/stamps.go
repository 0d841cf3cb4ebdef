package image

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-billy/v5"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/durable"
	"github.com/rootnfsd/rootnfsd/fs/source"
)

// A stamps file is what a seal leaves for the next one of the same directory, so
// that it need not read again what has not changed: a header, and a stamp for
// each object of the version, by inode number. It can be lost, damaged or out of
// date: it counts only while the very index that it belongs to is there, and then
// every stamp is true of that index for ever.
//
//	0    magic
//	8    digests of the canonical and of the derived part of the index
//	72   SHA-256 of the era (see source.CtimeKeeper)
//	104  SHA-256 of all else in the file
//	136  name of the version, padded with zeros to 80 bytes
//	216  the stamps
const (
	stampsMagic  = "rnfsstm\x01"
	stampsHeader = 216
	stampsSumOff = 104
	stampsSuffix = ".stamps"
	stampSize    = 32
)

// stamp says which object of the host an object of a version was, and as of
// when. One of zeros vouches for nothing.
//
//	0   device, 64 bits
//	8   inode, 64 bits
//	16  ctime: seconds, 64 bits
//	24  ctime: nanoseconds
//	28  1
type stamp [stampSize]byte

func stampOf(m *source.Meta) (s stamp) {
	le.PutUint64(s[0:], m.Dev)
	le.PutUint64(s[8:], m.Ino)
	le.PutUint64(s[16:], uint64(m.Ctime.Sec))
	le.PutUint32(s[24:], m.Ctime.Nsec)
	s[28] = 1
	return s
}

// stampsHead is the header of a stamps file.
type stampsHead struct {
	digest, derived, era Digest
	sum                  Digest
	version              string
}

// marshal returns the header in the two parts that sum is taken of.
func (h *stampsHead) marshal() (before, after []byte) {
	before = append(make([]byte, 0, stampsSumOff), stampsMagic...)
	before = append(before, h.digest[:]...)
	before = append(before, h.derived[:]...)
	before = append(before, h.era[:]...)
	after = make([]byte, stampsHeader-stampsSumOff-digestSize)
	copy(after, h.version)
	return before, after
}

func parseStampsHead(b []byte) (*stampsHead, error) {
	if len(b) < stampsHeader || string(b[:len(stampsMagic)]) != stampsMagic {
		return nil, errors.New("not a stamps file of this release")
	}
	h := &stampsHead{digest: Digest(b[8:40]), derived: Digest(b[40:72]), era: Digest(b[72:104]), sum: Digest(b[104:136])}
	h.version = string(bytes.TrimRight(b[136:stampsHeader], "\x00"))
	return h, validVersion(h.version)
}

// clock is by what a seal tells whether an object may still be changing, or
// might change without its ctime showing it.
type clock struct {
	begun time.Time     // when the seal began
	wall  time.Time     // the same, by the clock that ctimes are of
	dev   uint64        // whose ctimes are known to be good
	lag   time.Duration // see source.CtimeKeeper
	era   Digest
	ok    bool // without it nothing is settled
}

func newClock(src billy.Filesystem) clock {
	keeper, ok := src.(source.CtimeKeeper)
	if !ok {
		return clock{}
	}
	info, err := src.Lstat("/")
	if err != nil || source.MetaOf(info) == nil {
		return clock{}
	}
	era, lag, ok := keeper.CtimeRule()
	now := time.Now()
	return clock{begun: now, wall: now.Round(0), dev: source.MetaOf(info).Dev, lag: lag, era: sha256.Sum256([]byte(era)), ok: ok}
}

// settled reports whether a change of the object that was not seen will show in
// its ctime. One that lies in the future, as after a clock was set back, is not.
func (c *clock) settled(m *source.Meta) bool {
	return c.ok && m.Dev == c.dev && !m.MountPoint && time.Unix(m.Ctime.Sec, int64(m.Ctime.Nsec)).Add(c.lag).Before(c.wall)
}

// setBack reports whether the clock was set back since the seal began, so that
// a change that was made meanwhile may look like an old one.
func (c *clock) setBack() bool {
	return time.Since(c.wall) < time.Since(c.begun)-time.Second
}

// recollection is the version that a tree was sealed as last, and its stamps. A
// nil recollection remembers nothing.
type recollection struct {
	*Version
	stamps []byte // mapped
}

// storedFile is a file whose content is in the store.
type storedFile struct {
	digest  Digest
	extents []storedExtent
	used    uint64 // the sum of its chunks
}

type storedExtent struct {
	extent
	in *pack
}

// stampsPath is where the stamps of a directory are: by which directory it is,
// not by the version's name, since the next seal may give it another.
func (s *Store) stampsPath(root *source.Meta) string {
	return filepath.Join(s.versionsDir(), fmt.Sprintf("%x-%x%s", root.Dev, root.Ino, stampsSuffix))
}

// recall returns what the last seal of the tree remembers, nil if nothing that
// can be used. The version need not be the one that is sealed now.
func (s *Store) recall(src billy.Filesystem, c *clock) *recollection {
	info, err := src.Lstat("/")
	if err != nil || !c.ok {
		return nil
	}
	r, err := s.openStamps(s.stampsPath(source.MetaOf(info)), c)
	if err != nil {
		return nil // whatever it is: reading the tree costs nothing but time
	}
	return r
}

func (s *Store) openStamps(path string, c *clock) (_ *recollection, err error) {
	m, err := mapWhole(path)
	if err != nil {
		return nil, err
	}
	r := new(recollection)
	runtime.AddCleanup(r, mapping.unmap, m)
	h, err := r.parse(m.data)
	if err != nil {
		return nil, err
	}
	if h.era != c.era {
		return nil, errors.New("the stamps are of another era")
	}
	if r.Version, err = s.OpenDigest(h.version, h.digest); err != nil {
		return nil, err
	}
	if r.index.derived != h.derived || uint64(len(r.stamps)) != r.index.counts[secInodes]*stampSize {
		return nil, errors.New("the stamps are of another index")
	}
	return r, nil
}

// parse checks the stamps file in b.
func (r *recollection) parse(b []byte) (h *stampsHead, err error) {
	defer guard(debug.SetPanicOnFault(true), &err)
	if h, err = parseStampsHead(b); err != nil {
		return nil, err
	}
	r.stamps = b[stampsHeader:]
	sum := sha256.New()
	sum.Write(b[:stampsSumOff])
	sum.Write(b[stampsSumOff+digestSize:])
	if Digest(sum.Sum(nil)) != h.sum {
		return nil, errors.New("the stamps are damaged")
	}
	return h, nil
}

// is reports whether the version is the one of that name whose index has this
// header, and was good when it was opened, which is when the seal began.
func (r *recollection) is(name string, h *header) bool {
	return r != nil && r.name == name && r.index.header == *h && len(r.Problems()) == 0
}

// listed is a directory as it was sealed last.
type listed struct {
	*recollection
	dir  *dirRecord // nil if there was none
	next uint32     // of its entries
}

// list returns the directory id, 0 being none.
func (r *recollection) list(id fs.NodeID) (l listed) {
	if r == nil || id == 0 {
		return listed{}
	}
	var err error
	defer r.guard(debug.SetPanicOnFault(true), &err)
	if _, d, err := r.index.dir(id); err == nil {
		l = listed{recollection: r, dir: d}
	}
	return l
}

// find returns the object that had this name, 0 if none had. It is asked for names
// in their order, so that it goes through those of the directory once: two million
// look-ups would miss the processor's caches five times each.
func (l *listed) find(name string) (id fs.NodeID) {
	if l.dir == nil {
		return 0
	}
	var err error
	defer l.guard(debug.SetPanicOnFault(true), &err)
	for ; l.next < l.dir.count(); l.next++ {
		e, have, err := l.index.dirent(l.dir, l.next)
		if err != nil || string(have) > name {
			return 0
		}
		if string(have) == name {
			return fs.NodeID(e.inode())
		}
	}
	return 0
}

// fill fills in what would have to be read of an object. It is an error if the
// object is not the one that it was. Whether its ctime can be trusted is the
// caller's to know.
func (r *recollection) fill(o *object, t *batch) (err error) {
	if r == nil || o.was == 0 {
		return errNotKnown
	}
	defer r.guard(debug.SetPanicOnFault(true), &err)
	n, err := r.index.inode(o.was)
	if err != nil {
		return err
	}
	if !r.vouchesFor(o.was, n, o.meta) {
		return errNotKnown
	}
	if o.xattrs, err = r.index.xattrs(n); err != nil {
		return err
	}
	switch o.meta.Kind {
	case fs.Symlink:
		var text []byte
		text, err = r.index.text(n)
		o.text = string(text)
	case fs.Regular:
		o.stored, err = r.storedFile(n, t)
	}
	return err
}

var errNotKnown = errors.New("not known from the last seal")

// vouchesFor reports whether the object id, of which n is the record, is the one
// that m describes.
func (r *recollection) vouchesFor(id fs.NodeID, n *inode, m *source.Meta) bool {
	s := stampOf(m)
	return bytes.Equal(r.stamps[uint64(id-1)*stampSize:][:stampSize], s[:]) &&
		n.kind() == m.Kind && n.mtime() == m.Mtime && (m.Kind != fs.Regular || n.size() == m.Size)
}

// guard is that of the version, and keeps the stamps, too.
func (r *recollection) guard(old bool, err *error) {
	debug.SetPanicOnFault(old)
	if isFault(recover()) {
		*err = fs.ErrIO
	}
	runtime.KeepAlive(r)
}

// storedFile returns the content of a file, its extents being in t. It is an error
// if the store has not all of it any more.
func (r *recollection) storedFile(n *inode, t *batch) (s storedFile, err error) {
	if err := r.checkFile(n, nil); err != nil {
		return s, err
	}
	f, err := r.index.fileOf(n)
	if err != nil {
		return s, err
	}
	s.digest = Digest(r.index.record(secFiles, n.ref()))
	first := len(t.extents)
	for i := range f.numExtents() {
		e := f.extent(i)
		t.extents = append(t.extents, storedExtent{*e, r.packs[e.pack()].pack})
		s.used += min(f.size, (e.chunk()+uint64(e.count()))*chunkSize) - e.chunk()*chunkSize
	}
	s.extents = t.extents[first:]
	return s, nil
}

// remember leaves stamps for the next seal of the tree. They are those of the
// objects of the version name, whose index has this header.
func (s *Store) remember(name string, b *builder, h *header) error {
	if b.clock.setBack() {
		return nil
	}
	head := &stampsHead{digest: h.digest, derived: h.derived, era: b.clock.era, version: name}
	before, after := head.marshal()
	sum := sha256.New()
	sum.Write(before)
	sum.Write(after)
	if err := b.stamps.copyTo(sum); err != nil {
		return err
	}
	f, err := durable.CreateTemp(s.versionsDir(), 0o400)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(frugal{s, f}, 64<<10)
	_, _ = w.Write(slices.Concat(before, sum.Sum(nil), after)) // an error shows at Flush
	if err := errors.Join(b.stamps.copyTo(w), w.Flush()); err != nil {
		return errors.Join(err, durable.Discard(f))
	}
	if err := durable.Commit(f, s.stampsPath(b.walker.root)); err != nil {
		return err
	}
	return s.forget(&b.clock.era)
}

// forget deletes the stamps files that can be of no use any more: those of
// versions that are gone and, if an era is given, those of others.
func (s *Store) forget(era *Digest) error {
	entries, err := os.ReadDir(s.versionsDir())
	for _, e := range entries {
		path := filepath.Join(s.versionsDir(), e.Name())
		if strings.HasSuffix(path, stampsSuffix) && !s.useful(path, era) {
			err = errors.Join(err, os.Remove(path))
		}
	}
	return err
}

func (s *Store) useful(path string, era *Digest) bool {
	f, err := os.Open(path)
	if err != nil {
		return true
	}
	defer f.Close()
	var b [stampsHeader]byte
	if _, err := io.ReadFull(f, b[:]); err != nil {
		return false
	}
	h, err := parseStampsHead(b[:])
	if err != nil || era != nil && h.era != *era {
		return false
	}
	for _, name := range namesOf(h.version, h.digest) {
		if x, err := readHeader(s.indexPath(name)); err == nil && x.digest == h.digest && x.derived == h.derived {
			return true
		}
	}
	return false
}
