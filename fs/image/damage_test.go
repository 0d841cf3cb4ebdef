package image_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/fstest"
	"github.com/rootnfsd/rootnfsd/fs/image"
)

// small is a tree of which every byte that is stored can be broken in turn.
var small = map[string]string{
	"a": "some content", "b": "other content", "d/c": string(fstest.Bytes(500)), "d/empty": "",
	"d/large": string(fstest.Bytes(70_000)), "same": "some content",
}

// copyStore copies a store, so that damage to one copy does not show in the
// next.
func copyStore(t *testing.T, s *image.Store) *image.Store {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(s.Dir())); err != nil {
		t.Fatal(err)
	}
	return reopen(t, dir)
}

// readsRight reports for each file of small whether it can be read. Content that
// comes back and is not what was sealed is a failure.
func readsRight(t *testing.T, v *image.Version, what string) map[string]bool {
	t.Helper()
	right := make(map[string]bool)
	for path, want := range small {
		id := lookup(t, v, path)
		got, err := content(v, id)
		if err != nil && !errors.Is(err, fs.ErrIO) {
			t.Errorf("%s: %s: %v, want ErrIO", what, path, err)
		}
		if err == nil && string(got) != want {
			t.Errorf("%s: %s: wrong bytes", what, path)
		}
		sent, spanErr := sendAll(v, id)
		if spanErr == nil && string(sent) != want {
			t.Errorf("%s: %s: wrong bytes by Spans", what, path)
		}
		if (err == nil) != (spanErr == nil) {
			t.Errorf("%s: %s: Read says %v, Spans %v", what, path, err, spanErr)
		}
		right[path] = err == nil
	}
	return right
}

// sendAll reads a file by Spans.
func sendAll(v *image.Version, id fs.NodeID) ([]byte, error) {
	var out bytes.Buffer
	spans := make([]fs.Span, 16)
	for {
		n, eof, err := v.Spans(root, id, uint64(out.Len()), 1<<20, spans, false)
		if err != nil {
			return nil, err
		}
		for _, s := range spans[:n] {
			if s.File == nil {
				out.Write(make([]byte, s.Len))
			} else if _, err := io.Copy(&out, io.NewSectionReader(s.File, s.Off, s.Len)); err != nil {
				return nil, err
			}
		}
		if eof {
			return out.Bytes(), nil
		}
	}
}

// TestDamagedPack breaks a byte of a pack, over the whole of it. Whatever it is,
// a read gives the right bytes or ErrIO, and Verify names the same files.
func TestDamagedPack(t *testing.T) {
	good := newStore(t)
	sealDir(t, good, "v1", writeFiles(t, small))
	size := fileSize(t, packs(t, good)[0])
	offsets := []int64{0, 3, 7, 8, 63, size - 1, size - 64, size - 57, size - 56, size - 48, size - 40, size - 9, size - 8}
	for off := int64(64); off < size; off += 1009 {
		offsets = append(offsets, off)
	}
	for off := size - 600; off < size; off += 13 { // table, order, footer
		offsets = append(offsets, off)
	}
	for _, off := range offsets {
		s := copyStore(t, good)
		pack := packs(t, s)[0]
		flip(t, pack, off)
		what := fmt.Sprintf("byte %d of %d", off, size)
		v := open(t, s, "v1")
		right := readsRight(t, v, what)
		damage, err := s.Verify(t.Context(), nil, nil)
		if err != nil {
			t.Errorf("%s: Verify: %v", what, err)
		}
		for _, d := range damage {
			path := strings.TrimPrefix(d.Path, "/")
			if right[path] {
				t.Errorf("%s: Verify calls %q bad, which reads well: %v", what, d.Path, d.Err)
			}
			right[path] = true
		}
		for path, named := range right {
			if !named {
				t.Errorf("%s: %s cannot be read, and Verify does not name it", what, path)
			}
		}
	}
}

func fileSize(t *testing.T, path string) int64 {
	t.Helper()
	stat, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return stat.Size()
}

// TestBadPacks: whatever became of a pack, the version opens, the files in it
// are ErrIO, by name, and the others are served.
func TestBadPacks(t *testing.T) {
	for name, harm := range map[string]func(pack string) error{
		"missing":       os.Remove,
		"empty":         func(p string) error { return os.Truncate(p, 0) },
		"cut to header": func(p string) error { return os.Truncate(p, 64) },
		"cut short":     func(p string) error { return os.Truncate(p, 1000) },
		"another's": func(p string) error {
			other, err := filepath.Glob(filepath.Join(filepath.Dir(p), "*"))
			if err != nil {
				return err
			}
			i := slices.IndexFunc(other, func(o string) bool { return o != p })
			return errors.Join(os.Remove(p), os.Link(other[i], p))
		},
		"a directory": func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o755)) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newBrokenStore(t)
			dir := writeFiles(t, map[string]string{"first": "in the first pack"})
			sealDir(t, s, "v0", dir)
			first := packs(t, s)
			write(t, dir+"/second", string(fstest.Bytes(100_000)))
			sealDir(t, s, "v1", dir)
			second := slices.DeleteFunc(packs(t, s), func(p string) bool { return p == first[0] })[0]
			if err := harm(second); err != nil {
				t.Fatal(err)
			}
			s = reopen(t, s.Dir())
			v := open(t, s, "v1")
			if len(v.Problems()) != 1 {
				t.Errorf("problems %v", v.Problems())
			}
			if got := readAll(t, v, "first"); got != "in the first pack" {
				t.Errorf("first: %q", got)
			}
			_, err := content(v, lookup(t, v, "second"))
			if !errors.Is(err, fs.ErrIO) || !strings.Contains(err.Error(), "/second") || !strings.Contains(err.Error(), second) {
				t.Errorf("second: %v, want ErrIO, the file and %s", err, second)
			}
			damage, err := s.Verify(t.Context(), nil, nil)
			if err != nil || len(damage) != 1 || damage[0].Version != "v1" || damage[0].Path != "/second" {
				t.Errorf("Verify: %v, %v", damage, err)
			}
			if name == "a directory" {
				return
			}
			// Sealing the same tree again makes good what was lost.
			r := sealDir(t, s, "v1", dir)
			if r.Unchanged || r.NewBytes != 100_000 {
				t.Errorf("sealed again: %+v", r)
			}
			if name != "missing" && (len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], second)) {
				t.Errorf("warnings %q, want one that names %s", r.Warnings, second)
			}
			if readAll(t, open(t, s, "v1"), "second") != string(fstest.Bytes(100_000)) {
				t.Error("second is still bad")
			}
			checkStore(t, s)
		})
	}
}

// TestPackShrinksInUse cuts off a pack that is open and mapped: an access to its
// table is a fault, which must not be the end of the process.
func TestPackShrinksInUse(t *testing.T) {
	s := newBrokenStore(t)
	sealDir(t, s, "v1", writeFiles(t, small))
	v := open(t, s, "v1")
	if got := readAll(t, v, "a"); got != small["a"] {
		t.Fatalf("a: %q", got)
	}
	if err := os.Truncate(packs(t, s)[0], 0); err != nil {
		t.Fatal(err)
	}
	for path := range small {
		if path == "d/empty" {
			continue
		}
		id := lookup(t, v, path)
		_, byRead := content(v, id)
		_, bySpans := sendAll(v, id)
		for _, err := range []error{byRead, bySpans} {
			if !errors.Is(err, fs.ErrIO) {
				t.Errorf("%s: %v, want ErrIO", path, err)
				continue
			}
			for _, want := range []string{"version v1", `"/` + path + `"`, packs(t, s)[0]} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%s: %v, want it to name %s", path, err, want)
				}
			}
		}
	}
	if damage, err := s.Verify(t.Context(), nil, nil); err != nil || len(damage) != len(small)-1 {
		t.Errorf("Verify: %d findings, %v", len(damage), err)
	}
}

// TestIndexShrinksInUse does the same to an index.
func TestIndexShrinksInUse(t *testing.T) {
	s := newBrokenStore(t)
	sealDir(t, s, "v1", writeFiles(t, small))
	v := open(t, s, "v1")
	if err := os.Truncate(indexOf(s, "v1"), 0); err != nil {
		t.Fatal(err)
	}
	var a fs.Attr
	if err := v.Getattr(1, &a); err != fs.ErrIO {
		t.Errorf("Getattr: %v", err)
	}
	if _, err := v.Lookup(root, 1, fs.Name("a")); err != fs.ErrIO {
		t.Errorf("Lookup: %v", err)
	}
	if _, _, err := v.ReadDir(root, 1, 0, make([]fs.DirEntry, 3)); err != fs.ErrIO {
		t.Errorf("ReadDir: %v", err)
	}
	if _, _, err := v.Read(root, 2, 0, make([]byte, 3), false); !errors.Is(err, fs.ErrIO) || !strings.Contains(err.Error(), "version v1") {
		t.Errorf("Read: %v", err)
	}
}

// TestDamagedIndex breaks each byte of an index in turn: it is refused by name,
// and the other version goes on.
func TestDamagedIndex(t *testing.T) {
	s := newBrokenStore(t)
	sealDir(t, s, "v1", writeFiles(t, small))
	sealDir(t, s, "v2", writeFiles(t, map[string]string{"x": "other"}))
	path := indexOf(s, "v1")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	refused := func(what string) {
		t.Helper()
		if _, err := s.Open("v1"); err == nil || !strings.Contains(err.Error(), "version v1") {
			t.Errorf("%s: Open: %v", what, err)
		}
	}
	check := func(what string) {
		t.Helper()
		refused(what)
		open(t, s, "v2")
		damage, err := s.Verify(t.Context(), nil, nil)
		if err != nil || len(damage) != 1 || damage[0].Version != "v1" {
			t.Errorf("%s: Verify: %v, %v", what, damage, err)
		}
		infos, err := s.Versions()
		if err != nil || len(infos) != 2 || infos[1].Err != nil {
			t.Errorf("%s: Versions: %v, %v", what, infos, err)
		}
	}
	for off := range good {
		flip(t, path, int64(off))
		refused(fmt.Sprintf("byte %d", off))
		if off%32 == 0 {
			check(fmt.Sprintf("byte %d", off))
		}
		if err := os.WriteFile(path, good, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, size := range []int{0, 1, 8, 255, 256, 257, len(good) / 2, len(good) - 8, len(good) - 1} {
		if err := os.WriteFile(path, good[:size], 0o644); err != nil {
			t.Fatal(err)
		}
		check(fmt.Sprintf("%d bytes", size))
		if infos, err := s.Versions(); err != nil || infos[0].Err == nil {
			t.Errorf("cut to %d bytes, and Versions says %+v, %v", size, infos[0], err)
		}
	}
	if err := os.WriteFile(path, append(slices.Clone(good), 0), 0o644); err != nil {
		t.Fatal(err)
	}
	check("a byte more")
	if err := os.WriteFile(path, good[:100], 0o644); err != nil {
		t.Fatal(err)
	}
	if r := sealDir(t, s, "v1", writeFiles(t, small)); len(r.Warnings) != 1 {
		t.Errorf("sealed over a damaged index: warnings %q", r.Warnings)
	}
	if err := os.WriteFile(path, good, 0o644); err != nil {
		t.Fatal(err)
	}
	if right := readsRight(t, open(t, s, "v1"), "repaired"); slices.Contains(slices.Collect(maps.Values(right)), false) {
		t.Error("repaired, and not readable")
	}
	checkStore(t, s)
}

// TestSealMends: sealing the same tree again makes good an index that is damaged
// or refers to a pack that is gone, though there is no new content.
func TestSealMends(t *testing.T) {
	for name, harm := range map[string]func(t *testing.T, s *image.Store, first string){
		"index":  func(t *testing.T, s *image.Store, _ string) { flip(t, indexOf(s, "v1"), 300) },
		"header": func(t *testing.T, s *image.Store, _ string) { flip(t, indexOf(s, "v1"), 20) },
		"pack": func(t *testing.T, _ *image.Store, first string) {
			if err := os.Remove(first); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			dir := writeFiles(t, map[string]string{"a": "content"})
			want := sealDir(t, s, "v1", dir)
			first := packs(t, s)[0]
			harm(t, s, first)
			// Another version's pack has the content too where that of v1 is gone.
			sealDir(t, s, "v2", writeFiles(t, map[string]string{"a": "content", "b": "more"}))
			if r := sealDir(t, s, "v1", dir); r.Unchanged || r.NewBytes != 0 || r.Digest != want.Digest {
				t.Errorf("sealed again: %+v", r)
			}
			v := open(t, s, "v1")
			if got := readAll(t, v, "a"); got != "content" || len(v.Problems()) != 0 {
				t.Errorf("a: %q, problems %v", got, v.Problems())
			}
			if r := sealDir(t, s, "v1", dir); !r.Unchanged {
				t.Errorf("sealed a third time: %+v", r)
			}
		})
	}
}

// TestSealMendsSuperseded: what is kept of a version when it is sealed anew is
// whole, even where a damaged copy has its name.
func TestSealMendsSuperseded(t *testing.T) {
	s := newStore(t)
	one, two := writeFiles(t, map[string]string{"a": "one"}), writeFiles(t, map[string]string{"a": "two"})
	old := "v1~" + sealDir(t, s, "v1", one).Digest.Short()
	for _, dir := range []string{two, one} {
		sealDir(t, s, "v1", dir)
	}
	flip(t, indexOf(s, old), 300)
	sealDir(t, s, "v1", two)
	if got := readAll(t, open(t, s, old), "a"); got != "one" {
		t.Errorf("the version that was replaced says %q", got)
	}
	// The other way round a good copy must survive the bad one.
	sealDir(t, s, "v1", one)
	flip(t, indexOf(s, "v1"), 300)
	sealDir(t, s, "v1", two)
	if got := readAll(t, open(t, s, old), "a"); got != "one" {
		t.Errorf("replaced by a damaged one, it says %q", got)
	}
	// After a crash one file may have both names.
	sealDir(t, s, "v1", one)
	if err := errors.Join(os.Remove(indexOf(s, old)), os.Link(indexOf(s, "v1"), indexOf(s, old))); err != nil {
		t.Fatal(err)
	}
	sealDir(t, s, "v1", two)
	if got := readAll(t, open(t, s, old), "a"); got != "one" {
		t.Errorf("kept by a crash, it says %q", got)
	}
}
