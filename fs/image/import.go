package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/go-git/go-billy/v5"

	"github.com/rootnfsd/rootnfsd/fs/durable"
	"github.com/rootnfsd/rootnfsd/fs/source"
)

// ImportOptions say how to import. The zero value is right unless there is a reason.
type ImportOptions struct {
	// DryRun says what would come of it, and stores nothing.
	DryRun bool
	// MaxBytes is how large the files may be in all, holes counted; 0 is no limit.
	MaxBytes uint64
	// Progress, if not nil, is called a few times in a second, by one goroutine.
	// There are no totals.
	Progress func(Progress)
	// Amend, if not nil, is called with the tree when all of it has come, to be read
	// until Import returns. What Amend returns becomes the version instead: an object
	// in it has the content and the extended attributes of the one with the same device
	// and number (source.Meta), if there is one.
	Amend func(billy.Filesystem) (billy.Filesystem, error)
}

// Import makes version name of the tree that fill puts into the Sink, as Seal does
// of a directory: the same tree has the same digest. Content goes into the store as
// it comes, in one pass; the index is built when fill has returned. Fill runs on a
// goroutine of its own.
//
// What can be relied on is what Seal says. Content that fill put and that was
// replaced or removed later takes place in the store until a Compact.
func (s *Store) Import(ctx context.Context, name string, fill func(source.Sink) error, opts ImportOptions) (SealResult, error) {
	if err := ValidName(name); err != nil {
		return SealResult{}, err
	}
	unlock, err := s.lock(ctx)
	if err != nil {
		return SealResult{}, fmt.Errorf("import %s: %w", name, err)
	}
	defer unlock()
	s.atStep("locked")
	result, err := s.fill(ctx, name, fill, opts)
	if err != nil {
		return SealResult{}, fmt.Errorf("import %s: %w", name, s.explainSpace(err))
	}
	return result, nil
}

// fill is Import with the lock held.
func (s *Store) fill(ctx context.Context, name string, fill func(source.Sink) error, opts ImportOptions) (SealResult, error) {
	most := opts.MaxBytes
	if most == 0 {
		most = math.MaxUint64
	}
	c, err := newCatalog(s, most)
	if err != nil {
		return SealResult{}, err
	}
	defer c.close()
	b, err := newBuilder(s, c, clock{}, nil)
	if err != nil {
		return SealResult{}, err
	}
	defer b.close()
	b.dry, b.discard, b.catalog = opts.DryRun, opts.DryRun && opts.Amend == nil, c
	b.meter = newMeter(opts.Progress, totals{})
	s.atStep("begun")
	if c.content, err = newReceiver(b); err != nil {
		return SealResult{}, err
	}
	defer c.content.close()
	if err := c.content.receive(ctx, func() error { return fill(c) }); err != nil {
		return SealResult{}, err
	}
	s.atStep("received")
	if opts.Amend != nil {
		if err := b.amend(opts.Amend); err != nil {
			return SealResult{}, err
		}
		s.atStep("amended")
	}
	b.meter = newMeter(nil, totals{})
	if err := b.build(ctx); err != nil {
		return SealResult{}, err
	}
	if err := b.dropUnused(); err != nil {
		return SealResult{}, err
	}
	s.atStep("read")
	return s.conclude(name, b)
}

// amend makes another tree the source, which is made of the catalog.
func (b *builder) amend(change func(billy.Filesystem) (billy.Filesystem, error)) error {
	if b.pack != nil {
		if err := b.pack.flush(); err != nil {
			return err
		}
	}
	src, err := change(b.catalog)
	if err != nil {
		return err
	}
	b.src, b.walker.src, b.xattrs = src, src, xattrReader(src)
	return nil
}

// dropUnused discards the new pack if all that came into it was replaced later.
func (b *builder) dropUnused() error {
	if _, used := b.places[nil]; used || b.pack == nil {
		return nil
	}
	w := b.pack
	b.pack = nil
	w.close()
	if w.f == nil {
		return nil
	}
	return durable.Discard(w.f)
}

// receiver takes the content of files as it comes: it is cut into chunks as a seal
// does it, and what is said of each file is kept for the index.
type receiver struct {
	b      *builder
	heads  *spool // a head for each content, by number
	places *spool // the extents, by content
	packs  []*pack
	byPack map[*pack]uint32
	parcel *parcel // not sent yet
	send   func(*parcel) error
	files  uint64
	pool   pool[parcel]
	file   *content // that is arriving at the other end
}

// head is the record of a content.
//
//	0   digest
//	32  bytes used, 64 bits
//	40  first of its extents, 64 bits
//	48  number of them
type head [56]byte

// parcel is parts of files on their way by a worker, who hashes them, into the pack.
type parcel struct {
	buf     *[blockSize]byte
	used    int
	parts   []part
	objects uint64 // of any kind that came since the last parcel
}

// part is a chunk of a file, or no more than its end.
type part struct {
	chunk
	size uint64 // of the file, in its first part
	// The first and the last of a file, which may be one.
	first, last bool
	zero        bool
}

func newReceiver(b *builder) (_ *receiver, err error) {
	r := &receiver{b: b, byPack: make(map[*pack]uint32), pool: make(pool[parcel], 2*depth)}
	if r.heads, err = newSpool(b.store); err != nil {
		return nil, err
	}
	if r.places, err = newSpool(b.store); err != nil {
		r.heads.close()
		return nil, err
	}
	return r, nil
}

func (r *receiver) close() {
	r.heads.close()
	r.places.close()
}

// receive takes what fill keeps.
func (r *receiver) receive(ctx context.Context, fill func() error) error {
	produce := func(send func(*parcel) error) error {
		r.send, r.parcel = send, r.pool.get()
		if err := fill(); err != nil {
			return err
		}
		return r.flush()
	}
	if err := ordered(ctx, depth, produce, (*parcel).hash, r.add); err != nil {
		return err
	}
	return errors.Join(r.heads.finish(), r.places.finish())
}

// flush sends the parcel and begins another one.
func (r *receiver) flush() error {
	if err := r.send(r.parcel); err != nil {
		return err
	}
	r.parcel = r.pool.get()
	return nil
}

// keep stores a file of size bytes and returns the number of its content.
func (r *receiver) keep(size uint64, from io.Reader) (uint64, error) {
	for number, left := uint64(0), size; ; number++ {
		n := int(min(left, chunkSize))
		if r.parcel.used+n > blockSize || len(r.parcel.parts) == batchSize {
			if err := r.flush(); err != nil {
				return 0, err
			}
		}
		left -= uint64(n)
		p := part{chunk: chunk{number: number}, first: number == 0, last: left == 0, size: size}
		if n > 0 {
			p.data = r.parcel.room(n, r.b.buffers)
			if _, err := io.ReadFull(from, p.data); err != nil {
				if err == io.EOF {
					err = io.ErrUnexpectedEOF
				}
				return 0, err
			}
		}
		r.parcel.parts = append(r.parcel.parts, p)
		if p.last {
			r.files++
			return r.files - 1, nil
		}
	}
}

// room returns memory for n bytes of content.
func (p *parcel) room(n int, from buffers) []byte {
	if p.buf == nil {
		p.buf = from.get()
	}
	p.used += n
	return p.buf[p.used-n : p.used]
}

// hash hashes what is in a parcel. Many run at once.
func (p *parcel) hash() error {
	for i := range p.parts {
		c := &p.parts[i]
		if c.zero = isZero(c.data); !c.zero {
			c.sum()
		}
	}
	return nil
}

// add adds what is in a parcel, which comes in the order in which it was sent.
func (r *receiver) add(p *parcel) error {
	var bytes uint64
	for i := range p.parts {
		bytes += uint64(len(p.parts[i].data))
		if err := r.addPart(&p.parts[i]); err != nil {
			return err
		}
	}
	r.b.meter.add(p.objects, bytes)
	if p.buf != nil {
		r.b.buffers.put(p.buf)
	}
	clear(p.parts)
	*p = parcel{parts: p.parts[:0]}
	r.pool.put(p)
	return nil
}

func (r *receiver) addPart(p *part) error {
	if p.first {
		r.file = &content{aligned: p.size > chunkSize, record: r.addExtent}
		r.b.beginFile(p.size)
	}
	if !p.zero {
		if err := r.b.addChunk(r.file, &p.chunk); err != nil {
			return err
		}
	}
	if !p.last {
		return nil
	}
	r.b.flushExtent(r.file)
	var h head
	r.b.fileHash.Sum(h[:0])
	le.PutUint64(h[32:], r.file.used)
	le.PutUint64(h[40:], r.places.n/extentSize-uint64(r.file.count))
	le.PutUint32(h[48:], r.file.count)
	r.heads.write(h[:])
	return nil
}

// addExtent writes the extent that was growing.
func (r *receiver) addExtent(c *content) {
	place, ok := r.byPack[c.pack]
	if !ok {
		place = uint32(len(r.packs))
		r.byPack[c.pack] = place
		r.packs = append(r.packs, c.pack)
	}
	var e extent
	e.set(c.chunk, c.chunks, place, c.first)
	r.places.write(e[:])
}

// stored returns a content that was kept, its extents being in t. It is for after
// receive; many may call it at once.
func (r *receiver) stored(number uint64, t *batch) (s storedFile, err error) {
	var h head
	if _, err := r.heads.f.ReadAt(h[:], int64(number)*int64(len(h))); err != nil {
		return s, err
	}
	s.digest, s.used = Digest(h[:digestSize]), le.Uint64(h[32:])
	first := len(t.extents)
	from := io.NewSectionReader(r.places.f, int64(le.Uint64(h[40:])*extentSize), int64(le.Uint32(h[48:]))*extentSize)
	for range le.Uint32(h[48:]) {
		var e extent
		if _, err := io.ReadFull(from, e[:]); err != nil {
			return s, err
		}
		t.extents = append(t.extents, storedExtent{e, r.packs[e.pack()]})
	}
	s.extents = t.extents[first:]
	return s, nil
}
