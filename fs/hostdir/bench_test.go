package hostdir

import (
	"fmt"
	"testing"

	"github.com/rootnfsd/rootnfsd/fs"
)

func BenchmarkGetattr(b *testing.B) {
	w := newWorld(b)
	h := w.create(root, "f", 0o644)
	var a fs.Attr
	b.ReportAllocs()
	for b.Loop() {
		if err := w.Getattr(h, &a); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	w := newWorld(b)
	w.create(root, "f", 0o644)
	var a fs.Attr
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.Lookup(alice, w.Root(), fs.Name("f"), &a); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	for _, size := range []int{4 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size>>10, "KiB"), func(b *testing.B) {
			w := newWorld(b)
			h := w.create(alice, "f", 0o644)
			p := make([]byte, size)
			w.write(alice, h, 0, string(p), fs.Unstable)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := w.Read(bob, h, 0, p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkWrite(b *testing.B) {
	for _, size := range []int{4 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size>>10, "KiB"), func(b *testing.B) {
			w := newWorld(b)
			h := w.create(alice, "f", 0o644)
			p := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := w.Write(alice, h, 0, p, fs.Unstable); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkCreateRemove has many at it at once, as a client that untars is, so
// that flushes are shared.
func BenchmarkCreateRemove(b *testing.B) {
	w := newWorld(b)
	d := w.mkdir(alice, "d", 0o755)
	b.SetParallelism(8)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		var a fs.Attr
		name := fs.Name(fmt.Sprintf("%p", pb))
		for pb.Next() {
			if _, _, err := w.Create(alice, d, name, fs.Guarded, &fs.SetAttr{Mode: ptr(uint32(0o644))}, fs.Verifier{}, &a); err != nil {
				b.Fatal(err)
			}
			if _, err := w.Remove(alice, d, name); err != nil {
				b.Fatal(err)
			}
		}
	})
}
