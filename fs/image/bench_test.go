package image_test

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/fstest"
	"github.com/rootnfsd/rootnfsd/fs/image"
)

// manyObjects seals a tree of n objects: directories of a hundred small files.
func manyObjects(b *testing.B, n int) *image.Store {
	b.Helper()
	s, _ := manyObjectsIn(b, n)
	return s
}

// manyObjectsIn is manyObjects, and also returns the tree.
func manyObjectsIn(b *testing.B, n int) (s *image.Store, dir string) {
	b.Helper()
	dir = ramDir(b)
	for made := 1; made < n; {
		sub := fmt.Sprintf("%s/dir-%05d", dir, made/101)
		if err := os.Mkdir(sub, 0o755); err != nil {
			b.Fatal(err)
		}
		made++
		for i := 0; i < 100 && made < n; i++ {
			if err := os.WriteFile(fmt.Sprintf("%s/file-%d.conf", sub, i), fmt.Appendf(nil, "%d", made), 0o644); err != nil {
				b.Fatal(err)
			}
			made++
		}
	}
	s, err := image.OpenStore(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	if r := sealDir(b, s, "v1", dir); r.Objects != uint64(n) {
		b.Fatalf("%d objects, want %d", r.Objects, n)
	}
	return s, dir
}

func BenchmarkOpen200k(b *testing.B) {
	s := manyObjects(b, 200_000)
	for b.Loop() {
		open(b, s, "v1")
	}
}

// BenchmarkLookup looks up names all over trees of different sizes: the cost
// must not grow with them.
func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{10_000, 200_000} {
		s := manyObjects(b, n)
		v := open(b, s, "v1")
		var dirs []fs.NodeID
		entries := make([]fs.DirEntry, 5000)
		k, _, err := v.ReadDir(root, 1, 2, entries)
		if err != nil {
			b.Fatal(err)
		}
		for _, e := range entries[:k-1] { // the last directory is not full
			dirs = append(dirs, e.ID)
		}
		name, miss := fs.Name("file-42.conf"), fs.Name("libc.so.6")
		b.Run(fmt.Sprintf("hit/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, err := v.Lookup(root, dirs[i*7919%len(dirs)], name); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("miss/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, err := v.Lookup(root, dirs[i*7919%len(dirs)], miss); err != fs.ErrNotExist {
					b.Fatal(err)
				}
			}
		})
		// As many objects as a boot wants, from all over the tree.
		b.Run(fmt.Sprintf("in-use/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			var names []fs.Name
			for i := range 100 {
				names = append(names, fs.Name(fmt.Sprintf("file-%d.conf", i)))
			}
			const few = 98 // directories
			for i := 0; b.Loop(); i++ {
				k := i * 7919 % (few * len(names))
				if _, err := v.Lookup(root, dirs[k/len(names)*len(dirs)/few], names[k%len(names)]); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("getattr/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			var a fs.Attr
			for i := 0; b.Loop(); i++ {
				if err := v.Getattr(fs.NodeID(i*7919%n+1), &a); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkReadDir(b *testing.B) {
	s := manyObjects(b, 10_000)
	v := open(b, s, "v1")
	entries := make([]fs.DirEntry, 200)
	dir := lookup(b, v, "dir-00003")
	b.ReportAllocs()
	for b.Loop() {
		if n, _, err := v.ReadDir(root, dir, 0, entries); n != 102 || err != nil {
			b.Fatal(n, err)
		}
	}
}

// BenchmarkRead reads a file of 8 MiB, which is verified, in pieces of size.
func BenchmarkRead(b *testing.B) {
	const length = 8 << 20
	dir := b.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), fstest.Bytes(length), 0o644); err != nil {
		b.Fatal(err)
	}
	s, err := image.OpenStore(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	sealDir(b, s, "v1", dir)
	v := open(b, s, "v1")
	id := lookup(b, v, "f")
	buf, spans := make([]byte, length), make([]fs.Span, 16)
	if _, _, err := v.Read(root, id, 0, buf, false); err != nil {
		b.Fatal(err)
	}
	for _, size := range []int{4 << 10, 128 << 10, 1 << 20} {
		offset := func(i int) uint64 { return uint64(i * size % length) }
		b.Run(fmt.Sprintf("copy/%dk", size>>10), func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if n, _, err := v.Read(root, id, offset(i), buf[:size], true); n != size || err != nil {
					b.Fatal(n, err)
				}
			}
		})
		b.Run(fmt.Sprintf("spans/%dk", size>>10), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if n, _, err := v.Spans(root, id, offset(i), uint32(size), spans, true); n != 1 || err != nil {
					b.Fatal(n, err)
				}
			}
		})
	}
}

// BenchmarkReadCold reads content that was never verified.
func BenchmarkReadCold(b *testing.B) {
	const length = 32 << 20
	dir := b.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), fstest.Bytes(length), 0o644); err != nil {
		b.Fatal(err)
	}
	store := b.TempDir()
	s := reopen(b, store)
	sealDir(b, s, "v1", dir)
	buf := make([]byte, 1<<20)
	b.SetBytes(length)
	for b.Loop() {
		v := open(b, reopen(b, store), "v1")
		id := lookup(b, v, "f")
		for off := uint64(0); off < length; off += uint64(len(buf)) {
			if _, _, err := v.Read(root, id, off, buf, false); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkReadColdTogether has 64 readers, as many as the server lets wait for
// the disk, read content at the same time that is there and was never verified.
func BenchmarkReadColdTogether(b *testing.B) {
	const length, piece = 32 << 20, 128 << 10
	dir := b.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), fstest.Bytes(length), 0o644); err != nil {
		b.Fatal(err)
	}
	store := b.TempDir()
	s := reopen(b, store)
	sealDir(b, s, "v1", dir)
	b.SetBytes(length)
	b.ReportAllocs()
	for b.Loop() {
		chill(b, packs(b, s)[0])
		v := open(b, reopen(b, store), "v1")
		id := lookup(b, v, "f")
		var all sync.WaitGroup
		for range 64 {
			all.Go(func() {
				buf := make([]byte, piece)
				for off := uint64(0); off < length; off += piece {
					if _, _, err := v.Read(root, id, off, buf, false); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		all.Wait()
	}
}

// BenchmarkSeal seals 4000 small files and one of 64 MiB into an empty store.
func BenchmarkSeal(b *testing.B) {
	const small, large = 4000, 64 << 20
	dir := b.TempDir()
	for i := range small {
		write(b, fmt.Sprintf("%s/%02d/%d", dir, i%50, i), string(fstest.Bytes(1000+i)))
	}
	if err := os.WriteFile(dir+"/large", fstest.Bytes(large), 0o644); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(large + small*(1000+small/2))
	for b.Loop() {
		s, err := image.OpenStore(b.TempDir())
		if err != nil {
			b.Fatal(err)
		}
		sealDir(b, s, "v1", dir)
	}
}
