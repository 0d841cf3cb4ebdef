package image

import (
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-git/go-billy/v5"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/fstest"
	"github.com/rootnfsd/rootnfsd/fs/source"
)

// FuzzIndex opens an index of which a part was overwritten, its digests made
// right again, so that the nonsense gets past them, and calls everything on
// every object. Nothing may panic, hang or read outside of the file.
func FuzzIndex(f *testing.F) {
	good, packs := goodIndex(f)
	h, err := parseHeader(good, int64(len(good)))
	if err != nil {
		f.Fatal(err)
	}
	whole, err := parseIndex(good)
	if err != nil {
		f.Fatal(err)
	}
	for i, off := 0, uint64(headerSize); i < numSections; i++ {
		for _, patch := range [][]byte{{0}, {0xff}, {0xff, 0xff, 0xff, 0xff}, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}, {1, 0, 0, 0, 0, 0, 0, 0}} {
			for at := range min(h.lengths[i], 2*recordSizes[i]) {
				f.Add(uint32(off+at), patch)
			}
		}
		off += padded(h.lengths[i])
	}
	for at := range uint32(headerSize) {
		f.Add(at, []byte{0xff})
	}
	f.Fuzz(func(t *testing.T, off uint32, patch []byte) {
		b := append([]byte(nil), good...)
		copy(b[int(off)%len(b):], patch)
		resign(b)
		x, err := parseIndex(b)
		if err != nil {
			return
		}
		v := newVersion("fuzz", x)
		for i := range v.packs {
			v.packs[i].pack, v.packs[i].err = packs.get(x.packDigest(uint64(i)))
		}
		walkAll(v)
		compareAll(v, newVersion("good", whole))
		u := &usage{packs: make(map[Digest]*packUse)}
		_, _ = u.chunksIn(v) // whatever comes of it
	})
}

// compareAll does what goes through whole trees by the records of an index.
func compareAll(v, good *Version) {
	count := func(*Change) error { return nil }
	_ = Diff(v, good, count)
	_ = Diff(good, v, count)
	_, _ = v.NeedsRoot(1)
}

// resign makes the digests of an index right, if it has a header at all.
func resign(b []byte) {
	h := &header{}
	for i := range h.lengths {
		h.lengths[i] = le.Uint64(b[88+8*i:])
	}
	sign := func() {
		sum := sha256.Sum256(b[:headerSize-digestSize])
		copy(b[headerSize-digestSize:], sum[:])
	}
	sign()
	if h, err := parseHeader(b, int64(len(b))); err == nil {
		canonical, derived := partDigests(h, b)
		copy(b[24:], canonical[:])
		copy(b[56:], derived[:])
		sign()
	}
}

// goodIndex returns the index of a tree that has everything, and its packs.
func goodIndex(f *testing.F) ([]byte, *packSet) {
	f.Helper()
	s, err := OpenStore(f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	tree := fstest.Objects{
		{Path: "/", Kind: fs.Directory, Mode: 0o755},
		{Path: "/d", Kind: fs.Directory, Mode: 0o755},
		{Path: "/d/e", Kind: fs.Directory, Mode: 0o755},
		{Path: "/d/e/file", Kind: fs.Regular, Mode: 0o644, Content: fstest.Bytes(200_000)},
		{Path: "/d/holes", Kind: fs.Regular, Mode: 0o644, Content: append(make([]byte, 200_000), 1)},
		{Path: "/d/link", Kind: fs.Symlink, Mode: 0o777, Target: "../small"},
		{Path: "/fifo", Kind: fs.FIFO, Mode: 0o644},
		{Path: "/small", Kind: fs.Regular, Mode: 0o644, Content: []byte("small")},
	}
	dir := filepath.Join(s.Dir(), "v1")
	if err := os.Mkdir(dir, 0o755); err != nil {
		f.Fatal(err)
	}
	for i := range tree {
		tree[i].UID, tree[i].GID = uint32(os.Getuid()), uint32(os.Getgid())
	}
	if err := tree.Create(dir); err != nil {
		f.Fatal(err)
	}
	src, err := source.OpenDir(dir)
	if err != nil {
		f.Fatal(err)
	}
	defer src.Close()
	if _, err := s.Seal(f.Context(), "v1", &withXattrs{src}, SealOptions{}); err != nil {
		f.Fatal(err)
	}
	b, err := os.ReadFile(s.indexPath("v1"))
	if err != nil {
		f.Fatal(err)
	}
	return b, s.packs
}

// withXattrs is a directory in which everything has extended attributes, on
// file systems without them too.
type withXattrs struct{ *source.Dir }

// Open hides that an open file, too, could be asked.
func (x *withXattrs) Open(p string) (billy.File, error) {
	f, err := x.Dir.Open(p)
	if err != nil {
		return nil, err
	}
	return struct{ billy.File }{f}, nil
}

func (withXattrs) Xattrs(string) ([]source.Xattr, error) {
	return []source.Xattr{{Name: "user.a", Value: []byte("1")}, {Name: "user.b"}}, nil
}

// walkAll makes every call on every object.
func walkAll(v *Version) {
	c := &fs.Cred{UID: 5}
	var a fs.Attr
	buf, entries, spans := make([]byte, 70_000), make([]fs.DirEntry, 3), make([]fs.Span, 2)
	for id := range fs.NodeID(v.Statfs().Files + 2) {
		_ = v.Getattr(id, &a)
		_, _ = v.Readlink(id)
		for _, name := range []string{".", "..", "d", "small", "file", "x"} {
			_, _ = v.Lookup(rootCred, id, fs.Name(name))
		}
		for _, cookie := range []uint64{0, 1, 2, 3, 4, 1 << 32, 1<<64 - 1} {
			_, _, _ = v.ReadDir(c, id, cookie, entries)
		}
		for _, off := range []uint64{0, 65536, a.Size - 1, a.Size, 1 << 62, 1<<64 - 1} {
			_, _, err := v.Read(rootCred, id, off, buf, false)
			describe(err)
			_, _, err = v.Read(rootCred, id, off, buf, true)
			describe(err)
			_, _, err = v.Spans(rootCred, id, off, 1<<20, spans, false)
			describe(err)
		}
		_, _ = v.xattrs(id)
		if f, err := v.info(id, "name"); err == nil {
			_ = f.Sys()
		}
		walkData(v, id)
	}
	for _, p := range []string{"/", "/d/e/file", "/d/link", "/d/link/x", "/small"} {
		_, _ = v.Filesystem().Stat(p)
		_, _ = v.Filesystem().ReadDir(p)
	}
	_ = v.check(nil, newMeter(nil, totals{}))
}

// TestSwappedFiles: an index that gives a file the chunks of another, its own
// digests being right, is found out by the digests of the files.
func TestSwappedFiles(t *testing.T) {
	s := crashedStore(t)
	dir := filepath.Join(s.Dir(), "v2")
	if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(dir+"/a", []byte("one"), 0o644), os.WriteFile(dir+"/b", []byte("two"), 0o644)); err != nil {
		t.Fatal(err)
	}
	mustSeal(t, s, "v2")
	path := s.indexPath("v2")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	x, err := parseIndex(b)
	if err != nil {
		t.Fatal(err)
	}
	swap(x.record(secLocs, 0), x.record(secLocs, 1))
	resign(b)
	if err := errors.Join(os.Remove(path), os.WriteFile(path, b, 0o444)); err != nil {
		t.Fatal(err)
	}
	damage, err := s.Verify(t.Context(), []string{"v2"}, nil)
	if err != nil || len(damage) != 2 {
		t.Errorf("Verify: %v, %v, want both files", damage, err)
	}
}

// TestSwappedChunks: a pack whose table was changed is refused as a whole, even
// if each chunk has the digest that the table gives it.
func TestSwappedChunks(t *testing.T) {
	s := crashedStore(t)
	v, err := s.Open("v0")
	if err != nil {
		t.Fatal(err)
	}
	p := v.packs[0]
	b, err := os.ReadFile(p.path)
	if err != nil {
		t.Fatal(err)
	}
	table := b[p.dataEnd:]
	swap(table[:chunkRecord], table[chunkRecord:2*chunkRecord])
	if err := errors.Join(os.Remove(p.path), os.WriteFile(p.path, b, 0o444)); err != nil {
		t.Fatal(err)
	}
	if _, err := openPack(s.packsDir(), p.digest); err == nil || !strings.Contains(err.Error(), p.path) {
		t.Errorf("openPack: %v", err)
	}
}

func swap(a, b []byte) {
	for i := range a {
		a[i], b[i] = b[i], a[i]
	}
}

// describe prints an error, which looks for a path.
func describe(err error) {
	if err != nil {
		_ = err.Error()
	}
}

// walkData goes through the data of a file as a seal would.
func walkData(v *Version, id fs.NodeID) {
	f := &viewFile{v: v, id: id}
	off := int64(0)
	for range 100 {
		_, to, err := f.NextData(off)
		if err != nil || to <= off {
			return
		}
		off = to
	}
}
