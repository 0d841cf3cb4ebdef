package image

import (
	"bytes"
	"os"
	"testing"

	"github.com/rootnfsd/rootnfsd/fs/durable"
)

// TestPackWriterFinds gives a pack thousands of chunks, among them some whose
// digests begin alike.
func TestPackWriterFinds(t *testing.T) {
	s := lockedStore(t)
	w, err := newPackWriter(s, false)
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	const n = 5000
	digest := func(i int) *Digest {
		d := Digest{2: byte(i >> 8), 7: byte(i), 30: byte(i % 3), 31: 1}
		if i%4 == 0 {
			d = Digest{31: byte(i), 30: byte(i >> 8)}
		}
		if i%100 == 1 { // more than there are slots for behind where they belong
			d = Digest{255, 255, 255, 255, 30: byte(i >> 8), 31: byte(i)}
		}
		return &d
	}
	for i := range n {
		if _, ok, err := w.find(digest(i)); ok || err != nil {
			t.Fatalf("chunk %d is found before it was added: %v", i, err)
		}
		if number, err := w.add(digest(i), []byte{1}, false); int(number) != i || err != nil {
			t.Fatalf("chunk %d has number %d, %v", i, number, err)
		}
	}
	for i := range n {
		if number, ok, err := w.find(digest(i)); int(number) != i || !ok || err != nil {
			t.Errorf("chunk %d: %d, %v, %v", i, number, ok, err)
		}
	}
	d, err := w.finish()
	if err != nil {
		t.Fatal(err)
	}
	if err := durable.Commit(w.f, packPath(s.packsDir(), d)); err != nil {
		t.Fatal(err)
	}
	p, err := openPack(s.packsDir(), d)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if number, ok := p.find(digest(i)); int(number) != i || !ok {
			t.Errorf("in the pack chunk %d is %d, %v", i, number, ok)
		}
	}
	if b, err := os.ReadFile(p.path); err != nil || !bytes.Equal(b[packHeader:][:n], bytes.Repeat([]byte{1}, n)) {
		t.Errorf("other content, %v", err)
	}
}
