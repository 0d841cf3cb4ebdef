package image

import (
	"bufio"
	"context"
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

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/durable"
)

// A pack that is half garbage is rewritten: what is needed of it, and of all
// others like it, goes into a new pack; then each index that refers to one of
// them is replaced by one that refers to the new pack; then they are deleted. So
// at any moment an index and the packs that it refers to are there, and a crash
// leaves packs that nobody refers to, which the next Remove or Compact deletes.
//
// The canonical part of an index stays as it is, and with it the version's
// digest. Versions that are open hold the old packs open and go on. One that is
// being opened may find that a pack is gone, and then finds another index: see
// Open.

// CompactOptions say how to compact.
type CompactOptions struct {
	DryRun bool // only tell what would be done
	// Without names versions that a dry run takes for removed.
	Without []string
	// Progress, if not nil, is called a few times in a second, by one goroutine.
	Progress func(Progress)
}

// Compaction tells what a compaction did.
type Compaction struct {
	Removed   int    // packs that nobody needed
	Rewritten int    // packs of which at least half was not needed
	Freed     uint64 // bytes that all packs together became less
	Garbage   uint64 // bytes that nobody needs in the packs that are left
	// Kept says why packs were not rewritten that should have been; it is nil if
	// all were.
	Kept error
}

// Compact deletes packs that no version needs, and rewrites those of which at
// least half is not needed. It may be called while a server has them open.
//
// It does nothing, with an error, if it cannot be told what a version needs.
// Whatever the error, and wherever the process is killed, no version loses
// anything.
func (s *Store) Compact(ctx context.Context, opts CompactOptions) (Compaction, error) {
	if opts.DryRun {
		plan, err := s.planCompaction(opts.Without)
		return plan.forecast(), err
	}
	unlock, err := s.waitLock(ctx)
	if err != nil {
		return Compaction{}, fmt.Errorf("compact: %w", err)
	}
	defer unlock()
	s.atStep("locked")
	plan, err := s.planCompaction(nil)
	if err != nil {
		return Compaction{}, err
	}
	c := Compaction{Garbage: plan.garbage}
	if c.Freed, err = s.deletePacks(plan.unused); err != nil { // first, to make room
		return c, err
	}
	c.Removed = len(plan.unused)
	if err := s.rewrite(ctx, plan.sparse, opts.Progress, &c); err != nil {
		return c, s.explainSpace(err)
	}
	return c, s.forget(nil)
}

// compaction is what there is to be done.
type compaction struct {
	unused  []Digest // packs that nobody needs
	freed   uint64   // bytes of their files
	sparse  []*sparsePack
	garbage uint64 // bytes in the packs that stay as they are
}

// sparsePack is a pack of which at least half is garbage.
type sparsePack struct {
	*pack
	live    chunkBits
	needed  uint64   // bytes of chunks
	garbage uint64   // the others
	moved   []uint32 // the numbers in the new pack of the chunks that are live
}

// planCompaction looks at all packs, as if some versions were not there.
func (s *Store) planCompaction(without []string) (compaction, error) {
	var plan compaction
	// Packs first: one that is new by the time that versions are listed is in use.
	digests, err := s.packs.list()
	if err != nil {
		return plan, err
	}
	u, err := s.usage(without)
	if err != nil {
		return plan, fmt.Errorf("no pack is touched, for it cannot be told what is needed: %w", err)
	}
	for _, d := range digests {
		use := u.packs[d]
		if use == nil {
			stat, err := os.Stat(packPath(s.packsDir(), d))
			if err != nil {
				return plan, err
			}
			plan.unused = append(plan.unused, d)
			plan.freed += uint64(stat.Size())
			continue
		}
		if use.pack == nil {
			continue // it is damaged: for Verify to tell, and for a seal to mend
		}
		p, err := use.weigh()
		switch {
		case err != nil:
			continue // as above
		case p.garbage > 0 && p.garbage >= p.needed:
			plan.sparse = append(plan.sparse, p)
		default:
			plan.garbage += p.garbage
		}
	}
	return plan, nil
}

// weigh tells how much of a pack is needed. It is ErrIO if the table of the pack
// is nonsense.
func (p *packUse) weigh() (_ *sparsePack, err error) {
	defer guard(debug.SetPanicOnFault(true), &err)
	s := &sparsePack{pack: p.pack, live: make(chunkBits, (len(p.users)+63)/64)}
	for i, users := range p.users {
		_, n, err := p.place(uint64(i))
		if err != nil {
			return nil, err
		}
		if users == 0 {
			s.garbage += n
			continue
		}
		s.needed += n
		s.live.addRun(uint32(i), 1)
	}
	return s, nil
}

// forecast is about what carrying out the plan comes to.
func (plan *compaction) forecast() Compaction {
	c := Compaction{Removed: len(plan.unused), Rewritten: len(plan.sparse), Freed: plan.freed, Garbage: plan.garbage}
	for _, p := range plan.sparse {
		c.Freed += p.garbage
	}
	return c
}

// rewrite makes one new pack of the needed chunks of others, and adds to c what
// came of it.
func (s *Store) rewrite(ctx context.Context, sparse []*sparsePack, progress func(Progress), c *Compaction) error {
	var digest Digest
	var grown uint64
	for {
		if len(sparse) == 0 {
			return nil
		}
		var bad *badPackError
		var err error
		digest, grown, err = s.gather(ctx, sparse, progress)
		if !errors.As(err, &bad) {
			if err != nil {
				return err
			}
			break
		}
		// Nothing must be lost that a backup of the pack could mend.
		c.Kept = errors.Join(c.Kept, err)
		c.Garbage += bad.pack.garbage
		sparse = slices.DeleteFunc(sparse, func(p *sparsePack) bool { return p == bad.pack })
	}
	s.atStep("pack published")
	moved := make(map[Digest]*sparsePack)
	var old []Digest
	for _, p := range sparse {
		if p.digest != digest { // which it would be only if it had no garbage
			moved[p.digest] = p
			old = append(old, p.digest)
		}
	}
	names, err := s.versionNames()
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := s.relocate(name, moved, digest); err != nil {
			return errVersion(name, err)
		}
	}
	freed, err := s.deletePacks(old)
	c.Rewritten = len(old)
	c.Freed += freed - min(grown, freed)
	return err
}

// badPackError is the error for a pack that cannot be rewritten.
type badPackError struct {
	pack *sparsePack
	err  error
}

func (e *badPackError) Error() string {
	return fmt.Sprintf("pack %s is left as it is: %v (rootnfsd verify tells what is damaged)", e.pack.path, e.err)
}

func (e *badPackError) Unwrap() error { return e.err }

// gather writes and publishes a pack of the needed chunks of others. Their order
// stays, so that a run of chunks stays one.
func (s *Store) gather(ctx context.Context, sparse []*sparsePack, progress func(Progress)) (digest Digest, size uint64, err error) {
	w, err := newPackWriter(s, false)
	if err != nil {
		return digest, 0, err
	}
	defer w.close()
	defer func() { err = errors.Join(err, durable.Discard(w.f)) }()
	var todo totals
	for _, p := range sparse {
		todo.bytes += p.needed
	}
	m := newMeter(progress, todo)
	for _, p := range sparse {
		if err := p.copyTo(ctx, w, m); err != nil {
			return digest, 0, err
		}
	}
	if digest, err = w.finish(); err != nil {
		return digest, 0, err
	}
	stat, err := w.f.Stat()
	if err != nil {
		return digest, 0, err
	}
	m.finish()
	s.atStep("pack written")
	return digest, uint64(stat.Size()), durable.Commit(w.f, packPath(s.packsDir(), digest))
}

// copyTo copies what is needed into the new pack, each chunk held against its
// digest.
func (p *sparsePack) copyTo(ctx context.Context, w *packWriter, m *meter) (err error) {
	defer guard(debug.SetPanicOnFault(true), &err)
	p.moved = make([]uint32, p.count)
	buf := make([]byte, chunkSize)
	p.live.each(func(i uint32) {
		if err != nil {
			return
		}
		if err = ctx.Err(); err != nil {
			return
		}
		off, n, bad := p.place(uint64(i))
		if bad == nil {
			bad = p.readChunk(i, buf[:n], off)
		}
		if bad != nil {
			err = &badPackError{p, bad}
			return
		}
		digest := *p.chunkDigest(i)
		p.moved[i], err = w.add(&digest, buf[:n], off%packAlign == 0)
		m.add(0, n)
	})
	return err
}

// relocate replaces the index of a version by one that finds in the new pack
// what was in those that moved there. That of a version that needs none of them
// stays.
func (s *Store) relocate(name string, moved map[Digest]*sparsePack, to Digest) (err error) {
	x, err := openIndex(s.indexPath(name))
	if err != nil {
		return err
	}
	v := newVersion(name, x)
	defer v.guard(debug.SetPanicOnFault(true), &err)
	from := make([]*sparsePack, x.counts[secPacks]) // by place; nil for what stays
	concerned := false
	for i := range from {
		from[i] = moved[x.packDigest(uint64(i))]
		concerned = concerned || from[i] != nil
	}
	if !concerned {
		return nil
	}
	f, err := durable.CreateTemp(s.versionsDir(), 0o444)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, durable.Discard(f)) }()
	if err := x.writeRelocated(frugal{s, f}, from, to); err != nil {
		return err
	}
	// The old index is good. It is not given up for one that is not.
	fresh, err := openIndex(f.Name())
	if err != nil {
		return err
	}
	if fresh.digest != x.digest {
		return errors.New("rewriting its index made another version of it")
	}
	if err := durable.Commit(f, s.indexPath(name)); err != nil {
		return err
	}
	s.atStep("index published")
	// Without it the next seal reads all of the tree again, and that is all.
	err = s.restamp(x.digest, x.derived, fresh.derived)
	s.atStep("stamps published")
	return err
}

// restamp makes the stamps that belong to an index belong to the one that has
// replaced it: all that they say of objects is true of that one as well.
func (s *Store) restamp(digest, was, is Digest) error {
	entries, err := os.ReadDir(s.versionsDir())
	for _, e := range entries {
		if err != nil {
			break
		}
		if strings.HasSuffix(e.Name(), stampsSuffix) {
			err = s.restampFile(filepath.Join(s.versionsDir(), e.Name()), digest, was, is)
		}
	}
	return err
}

func (s *Store) restampFile(path string, digest, was, is Digest) error {
	m, err := mapWhole(path)
	if err != nil {
		return err
	}
	r := new(recollection)
	runtime.AddCleanup(r, mapping.unmap, m)
	defer runtime.KeepAlive(r)
	h, err := r.parse(m.data)
	if err != nil || h.digest != digest || h.derived != was {
		return nil // of another index, or good for nothing
	}
	h.derived = is
	before, after := h.marshal()
	sum := sha256.New()
	for _, part := range [][]byte{before, after, r.stamps} {
		sum.Write(part)
	}
	return durable.ReplaceFile(path, 0o400, func(w io.Writer) error {
		_, err := w.Write(slices.Concat(before, sum.Sum(nil), after, r.stamps))
		return err
	})
}

// writeRelocated writes the index with the places of chunks changed. As the
// order of chunks stays, so does the number of extents; what a place stands for
// changes, and the number of the first chunk. Several places may then stand for
// the new pack.
func (x *index) writeRelocated(to io.Writer, from []*sparsePack, digest Digest) error {
	w := bufio.NewWriterSize(to, 1<<20)
	derived := sha256.New()
	h := x.header
	// The header comes first, and has the digest of what comes behind it.
	write := func(w io.Writer) error {
		for i := numCanonical; i < numSections; i++ {
			var err error
			switch i {
			case secExtents:
				err = x.writeExtents(w, from)
			case secPacks:
				err = x.writePacks(w, from, digest)
			default:
				_, err = w.Write(x.sections[i])
			}
			if err != nil {
				return err
			}
			if _, err := w.Write(make([]byte, padded(x.lengths[i])-x.lengths[i])); err != nil {
				return err
			}
		}
		return nil
	}
	if err := write(derived); err != nil {
		return err
	}
	derived.Sum(h.derived[:0])
	_, _ = w.Write(h.marshal()) // an error shows at Flush
	for i := range numCanonical {
		_, _ = w.Write(x.sections[i])
		_, _ = w.Write(make([]byte, padded(x.lengths[i])-x.lengths[i]))
	}
	return errors.Join(write(w), w.Flush())
}

func (x *index) writeExtents(w io.Writer, from []*sparsePack) error {
	const batch = 1024
	buf := make([]byte, 0, batch*extentSize)
	for i := range x.counts[secExtents] {
		e := *(*extent)(x.record(secExtents, i))
		if uint64(e.pack()) >= uint64(len(from)) {
			return fs.ErrIO
		}
		if p := from[e.pack()]; p != nil {
			if uint64(e.first())+uint64(e.count()) > uint64(len(p.moved)) {
				return fs.ErrIO
			}
			e.set(e.chunk(), e.count(), e.pack(), p.moved[e.first()])
		}
		if buf = append(buf, e[:]...); len(buf) == cap(buf) || i+1 == x.counts[secExtents] {
			if _, err := w.Write(buf); err != nil {
				return err
			}
			buf = buf[:0]
		}
	}
	return nil
}

func (x *index) writePacks(w io.Writer, from []*sparsePack, digest Digest) error {
	for i, p := range from {
		d := digest
		if p == nil {
			d = x.packDigest(uint64(i))
		}
		if _, err := w.Write(d[:]); err != nil {
			return err
		}
	}
	return nil
}
