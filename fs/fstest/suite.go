package fstest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"slices"
	"sync"
	"testing"

	"github.com/rootnfsd/rootnfsd/fs"
)

// TestTree checks that tree keeps the contract of fs.Tree (and of fs.Spanner,
// if it is one) and holds exactly the objects of want. Sizes of directories and
// symlinks are the tree's own affair but for being stable.
func TestTree(t *testing.T, tree fs.Tree, want Objects) {
	t.Helper()
	s := newSuite(t, tree, want)
	t.Run("Attributes", s.attributes)
	t.Run("Lookup", s.lookup)
	t.Run("Permissions", s.permissions)
	t.Run("Readlink", s.readlink)
	t.Run("ReadDir", s.readDir)
	t.Run("Read", s.read)
	t.Run("Kinds", s.kinds)
	t.Run("Stale", s.stale)
	t.Run("Statfs", s.statfs)
	t.Run("Concurrent", s.concurrent)
}

var root = &fs.Cred{}

type suite struct {
	tree    fs.Tree
	want    Objects
	objects map[string]*Object
	names   map[*Object]uint32
	ids     map[string]fs.NodeID
}

// newSuite looks up every path, so that the tests can go by id.
func newSuite(t *testing.T, tree fs.Tree, want Objects) *suite {
	t.Helper()
	s := &suite{tree: tree, want: want, ids: map[string]fs.NodeID{"/": tree.Root()}}
	s.objects, s.names = want.resolved()
	for _, x := range want[1:] {
		dir, ok := s.ids[path.Dir(x.Path)]
		if !ok {
			t.Fatalf("%q is listed before its directory", x.Path)
		}
		id, err := tree.Lookup(root, dir, fs.Name(path.Base(x.Path)))
		if err != nil {
			t.Fatalf("Lookup of %q: %v", x.Path, err)
		}
		s.ids[x.Path] = id
	}
	return s
}

// nlink is how many names the object at p has: a directory has one in its
// parent, its own "." and the ".." of each directory in it.
func (s *suite) nlink(p string) uint32 {
	x := s.objects[p]
	if x.Kind != fs.Directory {
		return s.names[x]
	}
	n := uint32(2)
	for _, name := range s.want.children(p) {
		if s.objects[path.Join(p, name)].Kind == fs.Directory {
			n++
		}
	}
	return n
}

func (s *suite) attributes(t *testing.T) {
	if s.tree.FSID() == 0 {
		t.Error("FSID is zero")
	}
	seen := make(map[uint64]*Object)
	for p, x := range s.objects {
		a := fs.Attr{UID: 77, Major: 77, Nlink: 77} // remains of an earlier call
		if err := s.tree.Getattr(s.ids[p], &a); err != nil {
			t.Errorf("Getattr of %q: %v", p, err)
			continue
		}
		if other, ok := seen[a.FileID]; ok && other != x || a.FileID == 0 {
			t.Errorf("%q has FileID %d, which is zero or that of %q", p, a.FileID, other.Path)
		}
		seen[a.FileID] = x
		if a.Size == 0 && x.Kind == fs.Directory {
			t.Errorf("directory %q has size 0", p)
		}
		if a.Used > a.Size+4095 {
			t.Errorf("%q of size %d uses %d bytes", p, a.Size, a.Used)
		}
		want := fs.Attr{
			Kind: x.Kind, Mode: x.Mode, UID: x.UID, GID: x.GID, Nlink: s.nlink(p), Major: x.Major, Minor: x.Minor,
			Mtime: x.Mtime, Atime: x.Mtime, Ctime: x.Mtime, Size: uint64(len(x.Content)) + uint64(len(x.Target)),
			FSID: s.tree.FSID(), FileID: a.FileID, Used: a.Used,
		}
		if x.Kind == fs.Directory {
			want.Size = a.Size
		}
		if a != want {
			t.Errorf("attributes of %q:\ngot  %+v\nwant %+v", p, a, want)
		}
	}
	if len(seen) != len(s.names) {
		t.Errorf("%d distinct objects, want %d", len(seen), len(s.names))
	}
}

func (s *suite) lookup(t *testing.T) {
	for p, x := range s.objects {
		id := s.ids[p]
		if x.Kind != fs.Directory {
			for _, name := range []string{".", "..", "x"} {
				if got, err := s.tree.Lookup(root, id, fs.Name(name)); !errors.Is(err, fs.ErrNotDir) {
					t.Errorf("Lookup of %q in %v %q: %d, %v, want ErrNotDir", name, x.Kind, p, got, err)
				}
			}
			continue
		}
		for name, want := range map[string]fs.NodeID{".": id, "..": s.ids[path.Dir(p)]} {
			if got, err := s.tree.Lookup(root, id, fs.Name(name)); got != want || err != nil {
				t.Errorf("Lookup of %q in %q: %d, %v, want %d", name, p, got, err, want)
			}
		}
		for _, name := range s.missing(p) {
			if got, err := s.tree.Lookup(root, id, fs.Name(name)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("Lookup of %q in %q: %d, %v, want ErrNotExist", name, p, got, err)
			}
		}
	}
}

// missing returns names that are near to those in the directory p but not there.
func (s *suite) missing(p string) []string {
	names := s.want.children(p)
	near := []string{"no such name", "\x00", "a/b", string(bytes.Repeat([]byte{'m'}, fs.MaxName))}
	for _, n := range names {
		near = append(near, n+"x", n[1:], n[:len(n)-1], n+"\x00", "./"+n)
	}
	return slices.DeleteFunc(near, func(n string) bool {
		return n == "" || n == "." || n == ".." || slices.Contains(names, n)
	})
}

// creds are callers in all relations to the owners of Sample.
func creds() []*fs.Cred {
	return []*fs.Cred{
		{},
		{UID: 1000, GID: 1000},
		{UID: 1000, GID: 5, Groups: []uint32{6, 42, 2000}},
		{UID: 1001, GID: 1000},
		{UID: 1001, GID: 1001, Groups: []uint32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 42, 2000}},
		{UID: fs.Nobody, GID: fs.Nobody},
	}
}

func (s *suite) permissions(t *testing.T) {
	check := func(what, p string, c *fs.Cred, allowed bool, err error) {
		if allowed && err != nil || !allowed && !errors.Is(err, fs.ErrAccess) {
			t.Errorf("%s %q (mode %o) by %+v: %v, want allowed = %v", what, p, s.objects[p].Mode, *c, err, allowed)
		}
	}
	for p, x := range s.objects {
		var a fs.Attr
		if err := s.tree.Getattr(s.ids[p], &a); err != nil {
			t.Fatal(err)
		}
		for _, c := range creds() {
			switch x.Kind {
			case fs.Directory:
				_, err := s.tree.Lookup(c, s.ids[p], fs.Name("."))
				check("Lookup in", p, c, fs.Granted(&a, c)&fs.MayExec != 0, err)
				_, _, err = s.tree.ReadDir(c, s.ids[p], 0, make([]fs.DirEntry, 1))
				check("ReadDir of", p, c, fs.Granted(&a, c)&fs.MayRead != 0, err)
			case fs.Regular:
				_, _, err := s.tree.Read(c, s.ids[p], 0, make([]byte, 1), false)
				check("Read of", p, c, fs.CanRead(&a, c), err)
			}
		}
	}
}

func (s *suite) readlink(t *testing.T) {
	for p, x := range s.objects {
		text, err := s.tree.Readlink(s.ids[p])
		if x.Kind == fs.Symlink {
			if string(text) != x.Target || err != nil {
				t.Errorf("Readlink of %q: %q, %v, want %q", p, text, err, x.Target)
			}
		} else if !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("Readlink of %v %q: %v, want ErrInvalid", x.Kind, p, err)
		}
	}
}

func (s *suite) readDir(t *testing.T) {
	for p, x := range s.objects {
		if x.Kind != fs.Directory {
			if _, _, err := s.tree.ReadDir(root, s.ids[p], 0, make([]fs.DirEntry, 1)); !errors.Is(err, fs.ErrNotDir) {
				t.Errorf("ReadDir of %v %q: %v, want ErrNotDir", x.Kind, p, err)
			}
			continue
		}
		all := s.list(t, p, 1000, 0)
		s.checkEntries(t, p, all)
		for batch := 1; batch <= len(all)+1; batch++ {
			if got := s.list(t, p, batch, 0); !sameEntries(got, all) {
				t.Errorf("ReadDir of %q by %d entries differs from the whole", p, batch)
			}
		}
		for i, e := range all {
			if got := s.list(t, p, 3, e.Cookie); !sameEntries(got, all[i+1:]) {
				t.Errorf("ReadDir of %q from cookie %d: %d entries, want %d", p, e.Cookie, len(got), len(all)-i-1)
			}
		}
		last := all[len(all)-1].Cookie
		for _, bad := range []uint64{last + 1, last + 2, last + 1<<32, 1 << 31, 1 << 32, 1<<63 - 1, 1 << 63, math.MaxUint64 - 2, math.MaxUint64} {
			if n, _, err := s.tree.ReadDir(root, s.ids[p], bad, make([]fs.DirEntry, 2)); !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("ReadDir of %q from cookie %d, which nobody gave out: %d entries, %v, want ErrInvalid", p, bad, n, err)
			}
		}
	}
}

// list reads the directory at p from cookie on, batch entries at a time.
func (s *suite) list(t *testing.T, p string, batch int, cookie uint64) []fs.DirEntry {
	t.Helper()
	var all []fs.DirEntry
	for range 10_000 {
		entries := make([]fs.DirEntry, batch)
		n, eof, err := s.tree.ReadDir(root, s.ids[p], cookie, entries)
		if err != nil {
			t.Fatalf("ReadDir of %q from cookie %d: %v", p, cookie, err)
		}
		all = append(all, entries[:n]...)
		if eof {
			return all
		}
		if n == 0 {
			t.Fatalf("ReadDir of %q from cookie %d: nothing, but not the end", p, cookie)
		}
		cookie = entries[n-1].Cookie
	}
	t.Fatalf("ReadDir of %q does not end", p)
	return nil
}

func (s *suite) checkEntries(t *testing.T, p string, entries []fs.DirEntry) {
	t.Helper()
	want := map[string]fs.NodeID{".": s.ids[p], "..": s.ids[path.Dir(p)]}
	for _, name := range s.want.children(p) {
		want[name] = s.ids[path.Join(p, name)]
	}
	var cookie uint64
	for i, e := range entries {
		var a fs.Attr
		if err := s.tree.Getattr(e.ID, &a); err != nil || a.Kind != e.Kind || a.FileID != e.FileID {
			t.Errorf("entry %q of %q: kind %v, fileid %d; Getattr says %v, %d, %v", e.Name, p, e.Kind, e.FileID, a.Kind, a.FileID, err)
		}
		if id, ok := want[string(e.Name)]; !ok || id != e.ID {
			t.Errorf("entry %q of %q has id %d, want %d, %v", e.Name, p, e.ID, id, ok)
		}
		delete(want, string(e.Name))
		if e.Cookie <= cookie || e.Cookie > math.MaxInt64 {
			t.Errorf("entry %q of %q has cookie %d after %d", e.Name, p, e.Cookie, cookie)
		}
		cookie = e.Cookie
		if i < 2 && string(e.Name) != ".."[:i+1] {
			t.Errorf("entry %d of %q is %q", i, p, e.Name)
		}
	}
	if len(want) > 0 {
		t.Errorf("ReadDir of %q misses %v", p, want)
	}
}

func sameEntries(a, b []fs.DirEntry) bool {
	return slices.EqualFunc(a, b, func(x, y fs.DirEntry) bool {
		return x.ID == y.ID && x.Cookie == y.Cookie && bytes.Equal(x.Name, y.Name)
	})
}

func (s *suite) read(t *testing.T) {
	for p, x := range s.objects {
		if x.Kind != fs.Regular {
			continue
		}
		size := uint64(len(x.Content))
		for _, off := range []uint64{
			0, 1, 511, 4095, 4096, 65535, 65536, 65537, 131071, 199_999, 200_005, size - 1, size, size + 1, size / 2,
			1 << 31, 1 << 32, 1<<63 - 1, 1 << 63, math.MaxUint64 - 1, math.MaxUint64,
		} {
			for _, count := range []int{0, 1, 2, 100, 4096, 65536, 65537, 1 << 20} {
				s.readAt(t, p, off, count)
			}
		}
	}
}

// readAt reads once by Read, and once by Spans if there is such a thing.
func (s *suite) readAt(t *testing.T, p string, off uint64, count int) {
	t.Helper()
	content := s.objects[p].Content
	want := content[min(off, uint64(len(content))):]
	want = want[:min(count, len(want))]
	wantEOF := off >= uint64(len(content)) || len(want) == len(content)-int(off)

	buf := make([]byte, count)
	n, eof, err := s.tree.Read(root, s.ids[p], off, buf, false)
	if err != nil || eof != wantEOF || !bytes.Equal(buf[:n], want) {
		t.Errorf("Read of %q (%d bytes) at %d, %d bytes: %d, eof %v, %v, want %d, eof %v; right bytes: %v",
			p, len(content), off, count, n, eof, err, len(want), wantEOF, bytes.Equal(buf[:n], want))
	}
	sp, ok := s.tree.(fs.Spanner)
	if !ok {
		return
	}
	got, eof, err := readSpans(sp, s.ids[p], off, uint32(count), 64)
	if errors.Is(err, fs.ErrNotSupported) {
		return
	}
	if err != nil || eof != wantEOF || !bytes.Equal(got, want) {
		t.Errorf("Spans of %q (%d bytes) at %d, %d bytes: %d, eof %v, %v, want %d, eof %v; right bytes: %v",
			p, len(content), off, count, len(got), eof, err, len(want), wantEOF, bytes.Equal(got, want))
	}
	// With room for one span it may stop early, but must not invent an end.
	got, eof, err = readSpans(sp, s.ids[p], off, uint32(count), 1)
	if err != nil || !bytes.HasPrefix(want, got) || len(got) == 0 && len(want) > 0 || eof != (wantEOF && len(got) == len(want)) {
		t.Errorf("Spans of %q at %d, %d bytes, into one span: %d bytes, eof %v, %v", p, off, count, len(got), eof, err)
	}
}

// readSpans reads what Spans says.
func readSpans(tree fs.Spanner, id fs.NodeID, off uint64, count uint32, room int) ([]byte, bool, error) {
	spans := make([]fs.Span, room)
	n, eof, err := tree.Spans(root, id, off, count, spans, false)
	if err != nil {
		return nil, false, err
	}
	var out []byte
	for _, sp := range spans[:n] {
		if sp.Len <= 0 || sp.Len > int64(count) {
			return nil, false, fmt.Errorf("span of %d bytes", sp.Len)
		}
		b := make([]byte, sp.Len)
		if sp.File != nil {
			if _, err := io.ReadFull(io.NewSectionReader(sp.File, sp.Off, sp.Len), b); err != nil {
				return nil, false, err
			}
		}
		out = append(out, b...)
	}
	return out, eof, nil
}

func (s *suite) kinds(t *testing.T) {
	for p, x := range s.objects {
		want := fs.ErrInvalid
		switch x.Kind {
		case fs.Regular:
			continue
		case fs.Directory:
			want = fs.ErrIsDir
		}
		if _, _, err := s.tree.Read(root, s.ids[p], 0, make([]byte, 1), false); !errors.Is(err, want) {
			t.Errorf("Read of %v %q: %v, want %v", x.Kind, p, err, want)
		}
		if sp, ok := s.tree.(fs.Spanner); ok {
			if _, _, err := sp.Spans(root, s.ids[p], 0, 1, make([]fs.Span, 1), false); !errors.Is(err, want) {
				t.Errorf("Spans of %v %q: %v, want %v", x.Kind, p, err, want)
			}
		}
	}
}

func (s *suite) stale(t *testing.T) {
	var n fs.NodeID
	for _, id := range s.ids {
		n = max(n, id)
	}
	for _, id := range []fs.NodeID{0, n + 1, n + 2, 1<<32 + 1, 1 << 63, math.MaxUint64} {
		for what, err := range s.callAll(id) {
			if !errors.Is(err, fs.ErrStale) {
				t.Errorf("%s of object %d, which is not: %v, want ErrStale", what, id, err)
			}
		}
	}
}

func (s *suite) callAll(id fs.NodeID) map[string]error {
	errs := make(map[string]error)
	errs["Getattr"] = s.tree.Getattr(id, new(fs.Attr))
	_, errs["Lookup"] = s.tree.Lookup(root, id, fs.Name("x"))
	_, errs["Readlink"] = s.tree.Readlink(id)
	_, _, errs["ReadDir"] = s.tree.ReadDir(root, id, 0, make([]fs.DirEntry, 1))
	_, _, errs["Read"] = s.tree.Read(root, id, 0, make([]byte, 1), false)
	if sp, ok := s.tree.(fs.Spanner); ok {
		_, _, errs["Spans"] = sp.Spans(root, id, 0, 1, make([]fs.Span, 1), false)
	}
	return errs
}

func (s *suite) statfs(t *testing.T) {
	st := s.tree.Statfs()
	if st.Files != uint64(len(s.names)) {
		t.Errorf("Statfs counts %d objects, want %d", st.Files, len(s.names))
	}
	if st.FreeBytes != 0 || st.FreeFiles != 0 {
		t.Errorf("a read-only tree has %d bytes, %d objects free", st.FreeBytes, st.FreeFiles)
	}
}

// concurrent makes goroutines read everything at once, for the race detector.
func (s *suite) concurrent(t *testing.T) {
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for p, x := range s.objects {
				s.callAll(s.ids[p])
				if x.Kind == fs.Regular {
					s.readAt(t, p, uint64(len(x.Content)/3), 70_000)
				}
			}
		})
	}
	wg.Wait()
}
