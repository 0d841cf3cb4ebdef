package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"math"
	"os"
	"runtime"
	"slices"

	"github.com/go-git/go-billy/v5"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/durable"
	"github.com/rootnfsd/rootnfsd/fs/source"
)

// builder makes an index and a pack of a source. Three parts work side by side:
// the walker, on a goroutine of its own, numbers the objects and writes what
// concerns names; workers read files and hash their chunks (prepare); add, in
// the order of the walk, puts new chunks into the pack and writes what concerns
// objects and content.
type builder struct {
	store    *Store
	src      billy.Filesystem
	xattrs   func(path string) ([]source.Xattr, error)
	sections [numSections]*spool // secSlots and secPacks have none
	walker   walker
	meter    *meter
	buffers  buffers
	batches  pool[batch]
	dry      bool     // nothing is to be stored
	discard  bool     // nor to be read again
	catalog  *catalog // objects of the source whose content is in the store already

	clock  clock
	last   *recollection // nil if everything is to be read
	stamps *spool
	fresh  bool // some stamps are not those of last

	files   uint64
	extents uint64
	bytes   uint64 // of content

	old        []*pack          // those that the store has
	pack       *packWriter      // of the content that it has not; nil if there is none so far
	packDigest Digest           // of pack, when it is finished
	places     map[*pack]uint32 // in secPacks; nil stands for the new pack
	packOrder  []*pack          // by place
	fileHash   hash.Hash
}

// depth is how many batches may be under way between the walker and add. Each holds
// a block of content at most. With eight times as many a seal of a Debian root on two
// processors took half as much memory again, and no less time.
var depth = 2 * runtime.GOMAXPROCS(0)

func newBuilder(s *Store, src billy.Filesystem, c clock, last *recollection) (_ *builder, err error) {
	b := &builder{
		store: s, src: src, xattrs: xattrReader(src), clock: c, last: last,
		places: make(map[*pack]uint32), fileHash: sha256.New(),
		buffers: make(buffers, 2*depth), batches: make(pool[batch], 2*depth),
	}
	var problems []error
	if b.old, problems, err = s.packs.all(); err != nil {
		return nil, err
	}
	for i := range b.sections {
		if i == secSlots || i == secPacks {
			continue
		}
		if b.sections[i], err = newSpool(s); err != nil {
			b.close()
			return nil, err
		}
	}
	for _, other := range []**spool{&b.stamps, &b.walker.hashes} {
		if *other, err = newSpool(s); err != nil {
			b.close()
			return nil, err
		}
	}
	if b.walker.queue, err = newQueue(s); err != nil {
		b.close()
		return nil, err
	}
	b.walker = walker{
		hashes: b.walker.hashes, queue: b.walker.queue, src: src, last: last, links: newLinks(s), batches: b.batches,
		dirs: b.sections[secDirs], dirents: b.sections[secDirents], names: b.sections[secNames],
	}
	for _, err := range problems {
		b.warn(fmt.Sprintf("what was in a damaged pack is stored again: %v", err))
	}
	return b, nil
}

// spools returns all spools that there are.
func (b *builder) spools() []*spool {
	all := append(b.sections[:], b.stamps, b.walker.hashes, b.walker.queue.spool)
	return slices.DeleteFunc(all, func(s *spool) bool { return s == nil })
}

// close removes all temporary files that did not become permanent.
func (b *builder) close() {
	for _, s := range b.spools() {
		s.close()
	}
	if b.walker.links != nil {
		b.walker.links.close()
	}
	if b.pack != nil {
		b.pack.close()
		if b.pack.f == nil {
			return
		}
		_ = durable.Discard(b.pack.f) // what it leaves is removed by the next who takes the lock
	}
}

// warn adds to what Seal reports. It is not for while the walker runs.
func (b *builder) warn(text string) { b.walker.warnings = append(b.walker.warnings, text) }

func (b *builder) newBytes() uint64 {
	if b.pack == nil {
		return 0
	}
	return b.pack.bytes
}

// build reads the source.
func (b *builder) build(ctx context.Context) error {
	walk := func(send func(*batch) error) error { return b.walker.walk(ctx, send) }
	add := func(t *batch) error { return b.addAll(ctx, t) }
	if err := ordered(ctx, depth, walk, b.prepareAll, add); err != nil {
		return err
	}
	b.meter.finish()
	for _, s := range b.spools() {
		if err := s.finish(); err != nil {
			return err
		}
	}
	return b.patchLinks()
}

// patchLinks writes the numbers of links that were not known before the end.
func (b *builder) patchLinks() error {
	return b.walker.links.each(func(inode, names uint32) error {
		off := int64(inode-1)*inodeSize + nlinkOffset
		return b.sections[secInodes].patch(le.AppendUint32(nil, names), off)
	})
}

// prepareAll prepares what is in a batch.
func (b *builder) prepareAll(t *batch) error {
	for i := range t.objects {
		if err := b.prepare(t, &t.objects[i]); err != nil {
			return err
		}
	}
	return nil
}

// prepare does what does not depend on other objects. Many run at once.
func (b *builder) prepare(t *batch, o *object) (err error) {
	if o.listed || o.meta.MountPoint {
		return nil
	}
	if b.catalog.has(o.meta) {
		o.recalled = true
		return b.catalog.fill(o, t)
	}
	if b.clock.settled(o.meta) && b.last.fill(o, t) == nil {
		o.recalled = true
		return nil
	}
	if o.meta.Kind == fs.Regular && o.meta.Size <= blockSize {
		return b.withFile(o, func(f billy.File) error { return b.prepareFile(t, o, f) })
	}
	if o.xattrs, err = b.xattrs(o.path()); err != nil {
		return err
	}
	if o.meta.Kind == fs.Symlink {
		o.text, err = b.src.Readlink(o.path())
	}
	return err
}

// prepareFile reads the file o, which is small, and open as f.
func (b *builder) prepareFile(t *batch, o *object, f billy.File) (err error) {
	if x, ok := f.(source.Xattrer); ok {
		o.xattrs, err = x.Xattrs()
	} else {
		o.xattrs, err = b.xattrs(o.path())
	}
	if err != nil {
		return err
	}
	o.block.len = o.meta.Size
	return o.block.read(f, t.buffer(o.block.len, b.buffers))
}

// withFile opens the file o, calls read, and makes sure that it is and stayed
// the one that the walker saw.
func (b *builder) withFile(o *object, read func(billy.File) error) (err error) {
	f, err := b.src.Open(o.path())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := read(f); err != nil {
		if errors.Is(err, errChanged) {
			err = fmt.Errorf("%q %w", o.path(), err)
		}
		return err
	}
	stat := func() (os.FileInfo, error) { return b.src.Lstat(o.path()) }
	if s, ok := f.(source.Stater); ok {
		stat = s.Stat
	}
	return unchanged(&o.entry, stat)
}

// unchanged compares an object with what the walker saw of it.
func unchanged(e *entry, stat func() (os.FileInfo, error)) error {
	info, err := stat()
	if err != nil {
		return err
	}
	if now := source.MetaOf(info); now == nil || !now.Same(e.meta) {
		return fmt.Errorf("%q %w", e.path(), errChanged)
	}
	return nil
}

// addAll adds what is in a batch.
func (b *builder) addAll(ctx context.Context, t *batch) error {
	defer func() {
		if buf := t.reset(); buf != nil {
			b.buffers.put(buf)
		}
		b.batches.put(t)
	}()
	for i := range t.objects {
		if err := b.add(ctx, &t.objects[i]); err != nil {
			return err
		}
	}
	return nil
}

// noID is no user and no group: chown(2) leaves the owner as it is for it, so that nobody
// could make the object.
const noID = math.MaxUint32

// add writes the records of an object.
func (b *builder) add(ctx context.Context, o *object) (err error) {
	if o.listed {
		if o.meta.MountPoint {
			return nil
		}
		return unchanged(&o.entry, func() (os.FileInfo, error) { return b.src.Lstat(o.path()) })
	}
	m := o.meta
	if m.UID == noID || m.GID == noID {
		return fmt.Errorf("%q: user %d and group %d: %d is neither", o.path(), m.UID, m.GID, uint32(noID))
	}
	a := fs.Attr{Kind: m.Kind, Mode: m.Mode, Nlink: 1, UID: m.UID, GID: m.GID, Mtime: m.Mtime}
	var ref uint64
	switch m.Kind {
	case fs.Regular:
		ref, a.Size = b.files, m.Size
		a.Used, err = b.addFile(ctx, o)
	case fs.Directory:
		ref, a.Nlink = o.ordinal, 0
	case fs.Symlink:
		ref, a.Size = b.sections[secTexts].n, uint64(len(o.text))
		b.sections[secTexts].writeString(o.text)
	case fs.BlockDevice, fs.CharDevice:
		ref = uint64(m.Major)<<32 | uint64(m.Minor)
	}
	if err != nil {
		return err
	}
	var n inode
	n.set(&a, ref, b.addXattrs(o.xattrs))
	b.sections[secInodes].write(n[:])
	b.addStamp(o)
	if m.Kind != fs.Regular {
		b.meter.add(1, 0)
	}
	return nil
}

// addStamp writes the stamp of an object.
func (b *builder) addStamp(o *object) {
	var s stamp
	if b.clock.settled(o.meta) {
		s = stampOf(o.meta)
		b.fresh = b.fresh || !o.recalled
	}
	b.stamps.write(s[:])
}

// addXattrs writes the extended attributes of an object and returns what its
// inode says of them.
func (b *builder) addXattrs(xattrs []source.Xattr) uint64 {
	if len(xattrs) == 0 {
		return 0
	}
	at := b.sections[secXattrs].n + 1
	b.sections[secXattrs].write(appendXattrs(nil, xattrs))
	return at
}

// content is the content of a file as far as add has seen it.
type content struct {
	used    uint64
	count   uint32 // of extents written
	aligned bool
	// The extent that is growing: chunks of the file and where they are.
	chunk  uint64
	chunks uint32
	pack   *pack
	first  uint32
	// record writes it when it has grown.
	record func(*content)
}

// usedUnit is what the space that a file takes is a multiple of.
const usedUnit = 4096

// addFile writes what concerns the content of a file and returns the bytes that
// it uses.
func (b *builder) addFile(ctx context.Context, o *object) (used uint64, err error) {
	first, before := b.extents, b.meter.now.Bytes
	c := &content{aligned: o.meta.Size > chunkSize, record: b.addExtent}
	digest, err := b.addContent(ctx, c, o)
	if err != nil {
		return 0, err
	}
	b.flushExtent(c)
	b.sections[secFiles].write(digest[:])
	var l location
	l.set(first, c.count)
	b.sections[secLocs].write(l[:])
	b.files++
	b.bytes += c.used
	// What was estimated, so that the sum comes out.
	b.meter.add(1, before+toStore(o.meta)-b.meter.now.Bytes)
	return roundUp(c.used, usedUnit), nil
}

// addContent adds what is in a file and returns its digest.
func (b *builder) addContent(ctx context.Context, c *content, o *object) (digest Digest, err error) {
	if o.recalled {
		b.addStored(c, &o.stored)
		return o.stored.digest, nil
	}
	b.beginFile(o.meta.Size)
	if o.meta.Size <= blockSize {
		err = b.addBlock(c, &o.block)
	} else {
		err = b.addLarge(ctx, c, o)
	}
	b.fileHash.Sum(digest[:0])
	return digest, err
}

// beginFile begins the digest of a file.
func (b *builder) beginFile(size uint64) {
	b.fileHash.Reset()
	b.fileHash.Write(le.AppendUint64(nil, size))
}

// addStored adds the content of a file where the last seal has put it.
func (b *builder) addStored(c *content, f *storedFile) {
	for i := range f.extents {
		e := &f.extents[i]
		b.flushExtent(c)
		c.chunk, c.chunks, c.pack, c.first = e.chunk(), e.count(), e.in, e.first()
	}
	c.used = f.used
}

// addLarge reads and adds a file of more than one block, block by block.
func (b *builder) addLarge(ctx context.Context, c *content, o *object) error {
	return b.withFile(o, func(f billy.File) error {
		each := func(emit func(*ownBlock) error) error { return eachBlock(f, o.meta.Size, emit) }
		read := func(block *ownBlock) error { return block.read(f, b.buffers) }
		left := toStore(o.meta)
		return ordered(ctx, depth/2, each, read, func(block *ownBlock) error {
			defer block.release(b.buffers)
			done := min(block.len, left)
			left -= done
			b.meter.add(0, done)
			return b.addBlock(c, &block.block)
		})
	})
}

// addBlock adds the chunks of a block to the file c.
func (b *builder) addBlock(c *content, block *block) error {
	for i := range block.chunks {
		if err := b.addChunk(c, &block.chunks[i]); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) addChunk(c *content, ch *chunk) error {
	b.fileHash.Write(appendFileChunk(nil, ch.number, &ch.digest))
	c.used += uint64(len(ch.data))
	pack, number, err := b.locate(c, ch)
	if err != nil {
		return err
	}
	if c.goesOn(pack, number, ch.number) {
		c.chunks++
		return nil
	}
	b.flushExtent(c)
	c.chunk, c.chunks, c.pack, c.first = ch.number, 1, pack, number
	return nil
}

// goesOn reports whether a chunk follows the growing extent in both the file
// and the pack.
func (c *content) goesOn(p *pack, number uint32, inFile uint64) bool {
	return c.chunks > 0 && c.chunks < math.MaxUint32 && c.pack == p &&
		c.first+c.chunks == number && c.chunk+uint64(c.chunks) == inFile
}

// locate returns where a chunk of the file c lies, having put it into the new
// pack (nil) if it was nowhere. It looks first for the chunk behind the last
// one, so that the extents of a file do not depend on which other file happens
// to hold the same chunk.
func (b *builder) locate(c *content, ch *chunk) (*pack, uint32, error) {
	if next := c.first + c.chunks; c.chunks > 0 && c.pack != nil && c.pack.holds(next, ch) {
		return c.pack, next, nil
	}
	if b.pack != nil {
		if number, ok, err := b.pack.find(&ch.digest); ok || err != nil {
			return nil, number, err
		}
	}
	for _, p := range b.old {
		if number, ok := p.find(&ch.digest); ok && p.holds(number, ch) {
			return p, number, nil
		}
	}
	if b.pack == nil {
		w, err := newPackWriter(b.store, b.discard)
		if err != nil {
			return nil, 0, err
		}
		b.pack = w
		b.store.atStep("pack begun")
	}
	number, err := b.pack.add(&ch.digest, ch.data, c.aligned)
	return nil, number, err
}

// appendFileChunk appends what the digest of a file is taken of for a chunk.
func appendFileChunk(b []byte, number uint64, digest *Digest) []byte {
	return append(le.AppendUint64(b, number), digest[:]...)
}

// flushExtent writes the extent that was growing, if there is one.
func (b *builder) flushExtent(c *content) {
	if c.chunks == 0 {
		return
	}
	c.record(c)
	c.count++
	c.chunks = 0
}

// addExtent writes the extent that was growing into the index.
func (b *builder) addExtent(c *content) {
	var e extent
	e.set(c.chunk, c.chunks, b.place(c.pack), c.first)
	b.sections[secExtents].write(e[:])
	b.extents++
}

// place returns the place of a pack in secPacks.
func (b *builder) place(p *pack) uint32 {
	place, ok := b.places[p]
	if !ok {
		place = uint32(len(b.packOrder))
		b.places[p] = place
		b.packOrder = append(b.packOrder, p)
	}
	return place
}
