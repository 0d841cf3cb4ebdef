package image

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"time"

	"github.com/rootnfsd/rootnfsd/fs/durable"
)

// write finishes the pack, if there is one, and writes the index of what was
// built to a temporary file, which is the caller's to commit or discard. H is the
// header that describe has made, and gets what is missing in it.
func (b *builder) write(h *header) (_ *os.File, err error) {
	if b.pack != nil {
		if b.packDigest, err = b.pack.finish(); err != nil {
			return nil, err
		}
	}
	f, err := durable.CreateTemp(b.store.versionsDir(), 0o444)
	if err != nil {
		return nil, err
	}
	if err := b.writeIndex(f, h); err != nil {
		return nil, errors.Join(err, durable.Discard(f))
	}
	return f, nil
}

// describe returns the header of what was built, but for the digest of the derived
// part. So a tree that is unchanged is known by its digest before its index was
// written.
func (b *builder) describe(sealed time.Time) (*header, error) {
	h := b.header(sealed)
	canonical := sha256.New()
	canonical.Write(h.canonicalPrefix())
	if err := b.writePart(canonical, 0, numCanonical); err != nil {
		return nil, err
	}
	canonical.Sum(h.digest[:0])
	return h, nil
}

// header returns the header without any digest.
func (b *builder) header(sealed time.Time) *header {
	h := &header{sealed: sealed.UnixNano(), bytes: b.bytes}
	for i, s := range b.sections {
		if s != nil {
			h.lengths[i] = s.n
		}
	}
	h.lengths[secSlots] = slotsFor(b.walker.hashes.n/slotSize) * slotSize
	h.lengths[secPacks] = uint64(len(b.packOrder)) * digestSize
	return h
}

func (b *builder) writeIndex(f *os.File, h *header) error {
	w := bufio.NewWriterSize(frugal{b.store, f}, fileBuffer)
	if _, err := w.Write(make([]byte, headerSize)); err != nil {
		return err
	}
	if err := b.writePart(w, 0, numCanonical); err != nil {
		return err
	}
	derived := sha256.New()
	if err := b.writePart(io.MultiWriter(w, derived), numCanonical, numSections); err != nil {
		return err
	}
	derived.Sum(h.derived[:0])
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := f.WriteAt(h.marshal(), 0)
	return err
}

// writePart writes the sections from first up to before end.
func (b *builder) writePart(w io.Writer, first, end int) error {
	for i := first; i < end; i++ {
		var err error
		switch i {
		case secSlots:
			err = writeSlots(b.store, w, b.walker.hashes)
		case secPacks:
			err = b.writePacks(w)
		default:
			err = b.sections[i].copyTo(w)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// writePacks writes the digests of the packs by place. There are few, of a
// length that needs no padding.
func (b *builder) writePacks(w io.Writer) error {
	for _, p := range b.packOrder {
		digest := b.packDigest
		if p != nil {
			digest = p.digest
		}
		if _, err := w.Write(digest[:]); err != nil {
			return err
		}
	}
	return nil
}

// writeSlots writes the hash table for the entries that have these hashes.
func writeSlots(s *Store, w io.Writer, hashes *spool) (err error) {
	n := slotsFor(hashes.n / slotSize)
	slots, err := newScratch(s, n*slotSize)
	if err != nil {
		return err
	}
	defer slots.close()
	defer guard(debug.SetPanicOnFault(true), &err)
	r := bufio.NewReader(hashes.reader())
	var h [slotSize]byte
	for i := range uint32(hashes.n / slotSize) {
		if _, err := io.ReadFull(r, h[:]); err != nil {
			return err
		}
		slot := uint64(le.Uint32(h[:])) & (n - 1)
		for le.Uint32(slots.data[slot*slotSize:]) != 0 {
			slot = (slot + 1) & (n - 1)
		}
		le.PutUint32(slots.data[slot*slotSize:], i+1)
	}
	for part := range slices.Chunk(slots.data, 64<<10) {
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	return nil
}
