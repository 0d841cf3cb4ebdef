package image

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"runtime/debug"
	"slices"

	"github.com/rootnfsd/rootnfsd/fs"
)

// usage tells which chunks of the packs are needed, by how many versions.
type usage struct {
	store *Store
	packs map[Digest]*packUse // of those that a version refers to
}

// packUse is the use that versions make of a pack.
type packUse struct {
	*pack          // nil if it cannot be read
	users []uint32 // of each chunk
}

// chunkBits is a set of chunks of one pack.
type chunkBits []uint64

// addRun adds n chunks from first on.
func (b chunkBits) addRun(first, n uint32) {
	for i := uint64(first); i < uint64(first)+uint64(n); i++ {
		b[i/64] |= 1 << (i % 64)
	}
}

// each calls do for the chunks in the set, in order.
func (b chunkBits) each(do func(i uint32)) {
	for word, w := range b {
		for ; w != 0; w &= w - 1 {
			do(uint32(word*64 + bits.TrailingZeros64(w)))
		}
	}
}

// usage counts the users of all chunks, as if some versions were not there. A
// version of which that cannot be told is an error: what it needs must not be
// taken for garbage.
func (s *Store) usage(without []string) (*usage, error) {
	names, err := s.versionNames()
	if err != nil {
		return nil, err
	}
	u := &usage{store: s, packs: make(map[Digest]*packUse)}
	for _, name := range names {
		if slices.Contains(without, name) {
			continue
		}
		chunks, err := u.chunksOf(name)
		if errors.Is(err, os.ErrNotExist) { // removed meanwhile
			continue
		}
		if err != nil {
			return nil, err
		}
		for d, set := range chunks {
			users := u.packs[d].users
			set.each(func(i uint32) { users[i]++ })
		}
	}
	return u, nil
}

// chunksOf returns the chunks that a version refers to, by pack. Those of a pack
// that is lost are not known.
func (u *usage) chunksOf(name string) (map[Digest]chunkBits, error) {
	v, err := u.store.Open(name)
	if err != nil {
		return nil, err
	}
	return u.chunksIn(v)
}

// chunksIn is chunksOf of what is open.
func (u *usage) chunksIn(v *Version) (_ map[Digest]chunkBits, err error) {
	defer v.guard(debug.SetPanicOnFault(true), &err)
	chunks := make(map[Digest]chunkBits)
	sets := make([]chunkBits, len(v.packs)) // by place
	for i := range v.packs {
		d := v.index.packDigest(uint64(i))
		p := u.of(d, v.packs[i].pack)
		if chunks[d] == nil {
			chunks[d] = make(chunkBits, (len(p.users)+63)/64)
		}
		sets[i] = chunks[d]
	}
	for i := range v.index.counts[secExtents] {
		e := (*extent)(v.index.record(secExtents, i))
		if uint64(e.pack()) >= uint64(len(v.packs)) {
			return nil, errVersion(v.name, errors.New("its extents are nonsense"))
		}
		p := v.packs[e.pack()].pack
		if p == nil {
			continue
		}
		if uint64(e.first())+uint64(e.count()) > uint64(p.count) {
			return nil, errVersion(v.name, fmt.Errorf("pack %s has not the chunks that it refers to", p.path))
		}
		sets[e.pack()].addRun(e.first(), e.count())
	}
	return chunks, nil
}

// of returns the use of a pack, which is nil if it cannot be read.
func (u *usage) of(d Digest, p *pack) *packUse {
	use := u.packs[d]
	if use == nil {
		use = &packUse{pack: p}
		if p != nil {
			use.users = make([]uint32, p.count)
		}
		u.packs[d] = use
	}
	return use
}

// Frees returns for each of the versions named how many bytes of content nobody
// needs any more when it is removed, after those before it in the list.
func (s *Store) Frees(names []string) ([]uint64, error) {
	u, err := s.usage(nil)
	if err != nil {
		return nil, err
	}
	frees := make([]uint64, len(names))
	for i, name := range names {
		if frees[i], err = u.remove(name); err != nil {
			return nil, err
		}
	}
	return frees, nil
}

// remove takes a version away and returns how many bytes only it needed.
func (u *usage) remove(name string) (freed uint64, err error) {
	chunks, err := u.chunksOf(name)
	if err != nil {
		return 0, err
	}
	defer guard(debug.SetPanicOnFault(true), &err)
	for d, set := range chunks {
		p := u.packs[d]
		set.each(func(i uint32) {
			p.users[i]--
			if p.users[i] > 0 {
				return
			}
			_, n, placeErr := p.place(uint64(i))
			if placeErr != nil {
				err = fs.ErrIO
			}
			freed += n
		})
	}
	return freed, err
}
