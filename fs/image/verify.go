package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs"
)

// Damage is one finding of Verify.
type Damage struct {
	Version string
	Path    string // the file; empty if the version as a whole is concerned
	Err     error
}

// Verify reads all content of the versions named (of all, if none is) and holds
// it against its digests: each byte once, however many versions share it. It
// returns what it found, a file with several names under each; the error is for
// what kept it from looking.
func (s *Store) Verify(ctx context.Context, names []string, progress func(Progress)) ([]Damage, error) {
	versions, damage, err := s.openAll(names)
	if err != nil {
		return nil, err
	}
	packs := packsOf(versions)
	var todo totals
	for _, p := range packs {
		todo.bytes += p.dataEnd
	}
	for _, v := range versions {
		todo.objects += v.index.counts[secDirents] + 1
	}
	m := newMeter(progress, todo)
	bad := make(map[*pack]map[uint32]error)
	frugal := todo.bytes > spareMemory()
	for _, p := range packs {
		if bad[p], err = p.check(ctx, m, frugal); err != nil {
			return nil, err
		}
	}
	for _, v := range versions {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		damage = append(damage, v.check(bad, m)...)
	}
	m.finish()
	return damage, nil
}

// openAll opens the versions named, or all. Those that cannot be opened are
// damage, one that is not there an error.
func (s *Store) openAll(names []string) (versions []*Version, damage []Damage, err error) {
	if len(names) == 0 {
		if names, err = s.versionNames(); err != nil {
			return nil, nil, err
		}
	}
	for _, name := range names {
		v, err := s.Open(name)
		switch {
		case err == nil:
			versions = append(versions, v)
		case isMissing(err), errors.Is(err, os.ErrPermission):
			return nil, nil, err
		default:
			damage = append(damage, Damage{Version: name, Err: err})
		}
	}
	return versions, damage, nil
}

// packsOf returns the packs of the versions, those that could be opened, each
// once.
func packsOf(versions []*Version) []*pack {
	var packs []*pack
	seen := make(map[*pack]bool)
	for _, v := range versions {
		for _, p := range v.packs {
			if p.pack != nil && !seen[p.pack] {
				seen[p.pack] = true
				packs = append(packs, p.pack)
			}
		}
	}
	return packs
}

// checkRun is how many chunks a worker checks at a time.
const checkRun = 64

// chunkRun is a run of chunks to be checked.
type chunkRun struct {
	from, to uint32
	bytes    uint64
	bad      map[uint32]error
}

// check reads all chunks of a pack and returns what is wrong with the bad ones.
// If frugal is set it leaves in memory only what was there before: reading more
// than fits pushes out what running nodes use, all of it. In a control group of
// 150 MB, reading 500 MB left nothing of 60 MB that had been read twice; so
// restrained, it leaves all of it.
func (p *pack) check(ctx context.Context, m *meter, frugal bool) (map[uint32]error, error) {
	bad := make(map[uint32]error)
	forget := func(*chunkRun) {}
	if frugal {
		forget = p.forgetter()
	}
	produce := func(emit func(*chunkRun) error) error {
		for from := uint64(0); from < uint64(p.count); from += checkRun {
			to := min(from+checkRun, uint64(p.count))
			if err := emit(&chunkRun{from: uint32(from), to: uint32(to)}); err != nil {
				return err
			}
		}
		return nil
	}
	consume := func(r *chunkRun) error {
		for i, err := range r.bad {
			bad[i] = err
		}
		m.add(0, r.bytes)
		forget(r)
		return nil
	}
	err := ordered(ctx, 2*runtime.GOMAXPROCS(0), produce, p.checkRun, consume)
	return bad, err
}

// forgetter looks what of a pack is in memory, and returns a function that takes
// from it what was brought there since with a run of chunks. It is called for
// the runs in their order.
func (p *pack) forgetter() func(*chunkRun) {
	needed := make([]bool, p.count)
	for i := range needed {
		off, n, err := p.place(uint64(i))
		needed[i] = err != nil || p.inMemory(off, n)
	}
	first := uint32(0) // of those up to the end of the run that nobody needs
	return func(r *chunkRun) {
		for i := r.from; i < r.to; i++ {
			if needed[i] {
				first = i + 1
			} else if i+1 == r.to || needed[i+1] {
				// Not just from r.from on: the kernel keeps a large folio that
				// only a part of is named.
				p.forget(max(first, i-min(i, 2*checkRun)), i)
			}
		}
	}
}

// forget takes chunks, the last of which is last, from memory.
func (p *pack) forget(first, last uint32) {
	from, _, err := p.place(uint64(first))
	to, n, errTo := p.place(uint64(last))
	if err == nil && errTo == nil && to >= from {
		_ = unix.Fadvise(p.fd, int64(from), int64(to+n-from), unix.FADV_DONTNEED) // what stays does no harm but take room
	}
}

func (p *pack) checkRun(r *chunkRun) error {
	r.bad = make(map[uint32]error)
	buf := make([]byte, chunkSize)
	p.expectRun(r)
	for i := r.from; i < r.to; i++ {
		n, err := p.checkChunk(i, buf)
		r.bytes += n
		if err != nil {
			r.bad[i] = err
		}
	}
	return nil
}

// expectRun asks the kernel to begin to read the chunks of a run.
func (p *pack) expectRun(r *chunkRun) {
	var fault error // will be that of reading the chunk
	defer guard(debug.SetPanicOnFault(true), &fault)
	for i := r.from; i < r.to; i++ {
		if off, n, err := p.place(uint64(i)); err == nil {
			p.expect(off, n)
		}
	}
}

func (p *pack) checkChunk(i uint32, buf []byte) (n uint64, err error) {
	defer guard(debug.SetPanicOnFault(true), &err)
	off, n, err := p.place(uint64(i))
	if err != nil {
		return 0, err
	}
	return n, p.readChunk(i, buf[:n], off)
}

// check holds every file of the version against what is known of the packs.
func (v *Version) check(bad map[*pack]map[uint32]error, m *meter) (damage []Damage) {
	err := v.eachName(func(path string, n *inode) {
		m.add(1, 0)
		if n.kind() != fs.Regular {
			return
		}
		if err := v.checkFile(n, bad); err != nil {
			damage = append(damage, Damage{Version: v.name, Path: path, Err: err})
		}
	})
	if err != nil {
		damage = append(damage, Damage{Version: v.name, Err: err})
	}
	return damage
}

// checkFile computes the digest of a file anew from those of its chunks.
func (v *Version) checkFile(n *inode, bad map[*pack]map[uint32]error) (err error) {
	defer v.guard(debug.SetPanicOnFault(true), &err)
	f, err := v.index.fileOf(n)
	if err != nil {
		return err
	}
	hash := sha256.New()
	hash.Write(le.AppendUint64(nil, f.size))
	var end uint64 // of the last extent, in chunks
	for i := range f.numExtents() {
		e := f.extent(i)
		if e.chunk() < end || uint64(e.pack()) >= uint64(len(v.packs)) {
			return errors.New("its extents are nonsense")
		}
		end = e.chunk() + uint64(e.count())
		p := &v.packs[e.pack()]
		if p.err != nil {
			return p.err
		}
		for k := range e.count() {
			number, chunk := e.chunk()+uint64(k), uint64(e.first())+uint64(k)
			if err := p.checkPart(&f, number, chunk, bad[p.pack]); err != nil {
				return err
			}
			hash.Write(appendFileChunk(nil, number, p.chunkDigest(uint32(chunk))))
		}
	}
	want := v.index.record(secFiles, n.ref())
	if want == nil || Digest(hash.Sum(nil)) != Digest(want) {
		return errors.New("its chunks are others than those that were sealed")
	}
	return nil
}

// checkPart checks that a chunk of the pack can be chunk number of a file.
func (p *pack) checkPart(f *file, number, chunk uint64, bad map[uint32]error) error {
	_, length, err := p.place(chunk)
	switch {
	case err != nil || f.size == 0 || number > (f.size-1)/chunkSize || length != f.chunkLen(number):
		return fmt.Errorf("pack %s has no such chunk", p.path)
	case bad[uint32(chunk)] != nil:
		return fmt.Errorf("pack %s: %w", p.path, bad[uint32(chunk)])
	}
	return nil
}
