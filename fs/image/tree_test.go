package image_test

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/fstest"
	"github.com/rootnfsd/rootnfsd/fs/source"
)

func TestTree(t *testing.T) {
	dir, sample := sampleDir(t)
	s := newStore(t)
	sealDir(t, s, "v1", dir)
	fstest.TestTree(t, open(t, s, "v1"), sample)
}

// TestInodeNumbers are what the package documents: 1 to n, level by level, each
// directory by name, a hard link where its first name is.
func TestInodeNumbers(t *testing.T) {
	dir := writeFiles(t, map[string]string{"b/x": "1", "b/a": "2", "a/z": "3", "c": "4"})
	if err := os.Link(filepath.Join(dir, "b/a"), filepath.Join(dir, "a/0")); err != nil {
		t.Fatal(err)
	}
	s := newStore(t)
	sealDir(t, s, "v1", dir)
	v := open(t, s, "v1")
	for i, path := range []string{"a", "b", "c", "a/0", "a/z", "b/x"} {
		if id := lookup(t, v, path); id != fs.NodeID(i+2) {
			t.Errorf("%s has inode %d, want %d", path, id, i+2)
		}
	}
	if id := lookup(t, v, "b/a"); id != 5 {
		t.Errorf("b/a has inode %d, want that of a/0, 5", id)
	}
}

// TestLargeDirectory has 200,000 names in one directory. They are those of eight
// files, since making as many files on a disk would take a minute.
func TestLargeDirectory(t *testing.T) {
	const n, objects = 200_000, 8
	dir := ramDir(t)
	name := func(i int) string { return fmt.Sprintf("%s/file-%06d", dir, i) }
	for i := range n {
		var err error
		if i < objects {
			err = os.WriteFile(name(i), nil, 0o644)
		} else {
			err = os.Link(name(i%objects), name(i))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	s := newStore(t)
	if r := sealDir(t, s, "v1", dir); r.Objects != objects+1 {
		t.Fatalf("%d objects, want %d", r.Objects, objects+1)
	}
	v := open(t, s, "v1")
	var seen int
	var cookie uint64
	entries := make([]fs.DirEntry, 1000)
	for eof := false; !eof; {
		var k int
		var err error
		if k, eof, err = v.ReadDir(root, 1, cookie, entries); err != nil {
			t.Fatal(err)
		}
		for _, e := range entries[:k] {
			if id, err := v.Lookup(root, 1, fs.Name(e.Name)); id != e.ID || err != nil {
				t.Fatalf("Lookup of %q: %d, %v, want %d", e.Name, id, err, e.ID)
			}
		}
		seen, cookie = seen+k, entries[k-1].Cookie
	}
	if seen != n+2 {
		t.Errorf("%d entries, want %d", seen, n+2)
	}
}

func TestXattrs(t *testing.T) {
	needRoot(t)
	dir := writeFiles(t, map[string]string{"ping": "x", "plain": "y", "many": "z"})
	// A capability set as setcap(8) writes it: cap_net_raw+ep, revision 2.
	capability := []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	set := func(file, name string, value []byte) {
		t.Helper()
		if err := unix.Setxattr(filepath.Join(dir, file), name, value, 0); err != nil {
			t.Fatal(err)
		}
	}
	set("ping", "security.capability", capability)
	set("many", "user.b", bytes.Repeat([]byte{0, 1}, 500))
	set("many", "user.a", nil)
	set("plain", "trusted.overlay.opaque", []byte("y")) // of this machine, not of the tree
	s := newStore(t)
	sealDir(t, s, "v1", dir)
	view := open(t, s, "v1").Filesystem().(source.XattrReader)
	for path, want := range map[string][]source.Xattr{
		"/ping":  {{Name: "security.capability", Value: capability}},
		"/many":  {{Name: "user.a"}, {Name: "user.b", Value: bytes.Repeat([]byte{0, 1}, 500)}},
		"/plain": nil,
		"/":      nil,
	} {
		got, err := view.Xattrs(path)
		same := slices.EqualFunc(got, want, func(a, b source.Xattr) bool { return a.Name == b.Name && bytes.Equal(a.Value, b.Value) })
		if err != nil || !same {
			t.Errorf("Xattrs of %s: %v, %v, want %v", path, got, err, want)
		}
	}
	before := sealDir(t, s, "v1", dir)
	set("plain", "user.x", []byte("1"))
	if after := sealDir(t, s, "v2", dir); after.Digest == before.Digest {
		t.Error("an attribute more, and the digest is the same")
	}
}

// TestSparseFile seals a file of 16 TiB, or of as much as the file system can,
// with data in three places.
func TestSparseFile(t *testing.T) {
	dir := t.TempDir()
	size := int64(16<<40 - 4096) // the most that ext4 has
	f, err := os.Create(filepath.Join(dir, "huge"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	at := map[int64]string{0: "start", 5<<40 + 77: strings.Repeat("middle", 50_000), size - 3: "end"}
	for off, s := range at {
		if _, err := f.WriteAt([]byte(s), off); err != nil {
			t.Fatal(err)
		}
	}
	s := newStore(t)
	r := sealDir(t, s, "v1", dir)
	if r.NewBytes > 600_000 {
		t.Errorf("sealed %d bytes", r.NewBytes)
	}
	v := open(t, s, "v1")
	id := lookup(t, v, "huge")
	var a fs.Attr
	if err := v.Getattr(id, &a); err != nil || a.Size != uint64(size) || a.Used > 600_000 {
		t.Errorf("size %d, used %d, %v", a.Size, a.Used, err)
	}
	for off, s := range at {
		b := make([]byte, len(s))
		if n, _, err := v.Read(root, id, uint64(off), b, false); string(b[:n]) != s || err != nil {
			t.Errorf("wrong bytes at %d: %d, %v", off, n, err)
		}
	}
	var spans [1]fs.Span
	if n, eof, err := v.Spans(root, id, 8<<40, math.MaxUint32, spans[:], true); n != 1 || eof || err != nil || spans[0] != (fs.Span{Len: math.MaxUint32}) {
		t.Errorf("Spans of a hole: %d, %v, %v, %+v", n, eof, err, spans[0])
	}
	again := seal(t, s, "v2", v.Filesystem())
	if again.Digest != r.Digest {
		t.Error("sealed again from its own view, the digest differs")
	}
}

func TestHotCallsAllocateNothing(t *testing.T) {
	dir, _ := sampleDir(t)
	s := newStore(t)
	sealDir(t, s, "v1", dir)
	v := open(t, s, "v1")
	file, small, link := lookup(t, v, "bin/su"), lookup(t, v, "etc/passwd"), lookup(t, v, "links/absolute")
	names := lookup(t, v, "names")
	c, hit, miss := &fs.Cred{UID: 1000, GID: 7, Groups: []uint32{1, 2}}, fs.Name("etc"), fs.Name("usr")
	buf, entries, spans := make([]byte, 70_000), make([]fs.DirEntry, 30), make([]fs.Span, 8)
	var a fs.Attr
	// Once, so that all content is verified.
	for _, id := range []fs.NodeID{file, small} {
		if _, _, err := v.Read(c, id, 0, buf, false); err != nil {
			t.Fatal(err)
		}
	}
	for what, call := range map[string]func() error{
		"Getattr":      func() error { return v.Getattr(file, &a) },
		"Lookup":       func() error { _, err := v.Lookup(c, 1, hit); return err },
		"Lookup miss":  func() error { _, err := v.Lookup(c, 1, miss); return expect(err, fs.ErrNotExist) },
		"Readlink":     func() error { _, err := v.Readlink(link); return err },
		"ReadDir":      func() error { _, _, err := v.ReadDir(c, names, 0, entries); return err },
		"Read":         func() error { _, _, err := v.Read(c, file, 3, buf, false); return err },
		"Read nowait":  func() error { _, _, err := v.Read(c, file, 3, buf, true); return err },
		"Read small":   func() error { _, _, err := v.Read(c, small, 0, buf[:4096], true); return err },
		"Spans":        func() error { _, _, err := v.Spans(c, file, 0, 1<<20, spans, false); return err },
		"Spans nowait": func() error { _, _, err := v.Spans(c, file, 0, 1<<20, spans, true); return err },
		"Statfs":       func() error { _ = v.Statfs(); return nil },
	} {
		var err error
		if n := testing.AllocsPerRun(100, func() { err = call() }); n != 0 || err != nil {
			t.Errorf("%s: %v allocations, %v", what, n, err)
		}
	}
}

func expect(err, want error) error {
	if err == want {
		return nil
	}
	return fmt.Errorf("got %v, want %w", err, want)
}

// TestNowait: content that was never verified is not answered without waiting,
// and is at once when somebody has waited for it.
func TestNowait(t *testing.T) {
	dir := writeFiles(t, map[string]string{"f": string(fstest.Bytes(320_000))})
	s := newStore(t)
	sealDir(t, s, "v1", dir)
	v := open(t, s, "v1")
	id := lookup(t, v, "f")
	buf, spans := make([]byte, 1000), make([]fs.Span, 4)
	if _, _, err := v.Read(root, id, 70_000, buf, true); err != fs.ErrWouldBlock {
		t.Errorf("Read of cold content: %v, want ErrWouldBlock", err)
	}
	if _, _, err := v.Spans(root, id, 70_000, 1000, spans, true); err != fs.ErrWouldBlock {
		t.Errorf("Spans of cold content: %v, want ErrWouldBlock", err)
	}
	if _, _, err := v.Read(root, id, 70_000, buf, false); err != nil {
		t.Fatal(err)
	}
	if n, _, err := v.Read(root, id, 70_000, buf, true); n != 1000 || err != nil {
		t.Errorf("Read of warm content: %d, %v", n, err)
	}
	if n, _, err := v.Spans(root, id, 70_000, 1000, spans, true); n != 1 || err != nil {
		t.Errorf("Spans of warm content: %d, %v", n, err)
	}
	if _, _, err := v.Read(root, id, 0, buf, true); err != fs.ErrWouldBlock {
		t.Errorf("Read of another chunk: %v, want ErrWouldBlock", err)
	}
}

// TestLargeFileIsOneSpan: nodes read in pieces of up to 1 MiB, each of which
// should be one system call.
func TestLargeFileIsOneSpan(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a"), "unaligned")
	write(t, filepath.Join(dir, "large"), string(fstest.Bytes(3<<20+5)))
	s := newStore(t)
	sealDir(t, s, "v1", dir)
	v := open(t, s, "v1")
	id := lookup(t, v, "large")
	spans := make([]fs.Span, 4)
	n, eof, err := v.Spans(root, id, 0, 4<<20, spans, false)
	if n != 1 || !eof || err != nil || spans[0].Len != 3<<20+5 || spans[0].Off%4096 != 0 {
		t.Errorf("Spans: %d, %v, %v, %+v", n, eof, err, spans[0])
	}
}
