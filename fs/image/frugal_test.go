package image

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs/fstest"
	"github.com/rootnfsd/rootnfsd/fs/source"
)

// TestCheckLeavesMemoryAsItWas checks a pack of which a part is in memory.
func TestCheckLeavesMemoryAsItWas(t *testing.T) {
	const length = 64 << 20
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), fstest.Bytes(length), 0o644); err != nil {
		t.Fatal(err)
	}
	src, err := source.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	s, err := OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Seal(t.Context(), "v1", src, SealOptions{}); err != nil {
		t.Fatal(err)
	}
	v, err := s.Open("v1")
	if err != nil {
		t.Fatal(err)
	}
	p := v.packs[0].pack
	chunksInMemory := func(from, to uint64) (n int) {
		for off := from; off < to; off += chunkSize {
			if p.inMemory(off, 1) {
				n++
			}
		}
		return n
	}
	if err := unix.Fadvise(p.fd, 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
	if n := chunksInMemory(packHeader, p.dataEnd); n > 1 {
		t.Skipf("%d chunks stay in memory", n)
	}
	const hotLen = 3 << 20
	hot, _, err := p.place(320)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Fadvise(p.fd, 0, 0, unix.FADV_RANDOM); err != nil { // no reading ahead here
		t.Fatal(err)
	}
	if err := readFull(p.fd, make([]byte, hotLen), int64(hot)); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fadvise(p.fd, 0, 0, unix.FADV_NORMAL); err != nil {
		t.Fatal(err)
	}
	for _, frugal := range []bool{true, false} {
		if bad, err := p.check(t.Context(), newMeter(nil, totals{}), frugal); len(bad) > 0 || err != nil {
			t.Fatalf("check: %v, %v", bad, err)
		}
		if n := chunksInMemory(hot, hot+hotLen); n != hotLen/chunkSize {
			t.Errorf("frugal %v: of %d chunks that were in memory %d are left", frugal, hotLen/chunkSize, n)
		}
		others := chunksInMemory(packHeader, hot) + chunksInMemory(hot+hotLen, p.dataEnd)
		if most := 5 << 20 / chunkSize; frugal && others > most || !frugal && others < most {
			t.Errorf("frugal %v: %d chunks more are in memory than were", frugal, others)
		}
	}
}
