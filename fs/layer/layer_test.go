package layer_test

import (
	"context"
	"errors"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/fstest"
	"github.com/rootnfsd/rootnfsd/fs/image"
	"github.com/rootnfsd/rootnfsd/fs/layer"
	"github.com/rootnfsd/rootnfsd/fs/source"
)

var (
	root = &fs.Cred{}
	day  = fs.Time{Sec: 1_700_000_000, Nsec: 123456789} // of the directories of the sample
)

// files are of all kinds that a layer over the sample can have.
func files() []layer.File {
	file := func(path string, mode uint32, content string) layer.File {
		return layer.File{Path: path, Mode: mode, UID: 1000, GID: 42, Mtime: fs.Time{Sec: 1_800_000_000, Nsec: 5}, Content: content}
	}
	return []layer.File{
		file("/etc/hostname", 0o644, "pi-01\n"),
		file("/etc/passwd", 0o600, "replaced"),              // its only name
		file("/bin/su-too", 0o4755, "one name less for su"), // one of three names
		file("/bin/secret", 0o711, "execute only, too"),
		file("/links/one", 0o644, "no symlink any more"),
		file("/dev/null-too", 0o640, "no device any more"),
		file("/names/zz", 0o644, ""),
		file("/names/\xff\xc0", 0o644, "a name that is not UTF-8"),
		file("/empty/first", 0o000, "of a directory that was empty"),
		file("/root/deep/new/deeper/large", 0o640, string(fstest.Bytes(150_000))),
		file("/root/deep/new/small", 0o640, "x"),
		file("/at the top", 0o444, "of a new name in the root"),
	}
}

// laid is what comes of laying files over a tree.
func laid(base fstest.Objects, files []layer.File) fstest.Objects {
	want := slices.Clone(base)
	at := func(p string) int {
		return slices.IndexFunc(want, func(o fstest.Object) bool { return o.Path == p })
	}
	for _, f := range files {
		var missing []string
		for dir := path.Dir(f.Path); at(dir) < 0; dir = path.Dir(dir) {
			missing = append(missing, dir)
		}
		for _, dir := range slices.Backward(missing) {
			want = append(want, fstest.Object{Path: dir, Kind: fs.Directory, Mode: 0o755, Mtime: day})
		}
		o := fstest.Object{Path: f.Path, Kind: fs.Regular, Mode: f.Mode, UID: f.UID, GID: f.GID, Mtime: f.Mtime, Content: []byte(f.Content)}
		if i := at(f.Path); i >= 0 {
			want[i] = o
		} else {
			want = append(want, o)
		}
	}
	return want
}

// lay lays files over a tree that takes them all.
func lay(t testing.TB, base fs.Tree, files []layer.File) *layer.Tree {
	t.Helper()
	good, refused := layer.Check(base, files)
	if len(refused) > 0 {
		t.Fatal(refused)
	}
	tree, err := layer.New(base, 7, good)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// sealed is the sample as a version.
func sealed(t testing.TB) *image.Version {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: makes devices and files of other owners")
	}
	dir := t.TempDir()
	if err := fstest.Sample().Create(dir); err != nil {
		t.Fatal(err)
	}
	src, err := source.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	s, err := image.OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Seal(context.Background(), "v1", src, image.SealOptions{}); err != nil {
		t.Fatal(err)
	}
	v, err := s.Open("v1")
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestTree(t *testing.T) {
	sample := fstest.Sample()
	t.Run("over memory", func(t *testing.T) {
		fstest.TestTree(t, lay(t, sample.Mem(42), files()), laid(sample, files()))
	})
	t.Run("over a version", func(t *testing.T) {
		fstest.TestTree(t, lay(t, sealed(t), files()), laid(sample, files()))
	})
	t.Run("over nothing", func(t *testing.T) {
		empty := fstest.Objects{{Path: "/", Kind: fs.Directory, Mode: 0o755}}
		only := []layer.File{{Path: "/f", Mode: 0o644, Mtime: day}}
		fstest.TestTree(t, lay(t, empty.Mem(42), only), laid(empty, only))
	})
	t.Run("bare", func(t *testing.T) {
		few := sample[:5]
		fstest.TestTree(t, layer.Bare(few.Mem(42), 7, fs.ErrStale), few)
	})
}

// find looks a path up.
func find(t testing.TB, tree fs.Tree, p string) fs.NodeID {
	t.Helper()
	id := tree.Root()
	for name := range strings.SplitSeq(strings.Trim(p, "/"), "/") {
		var err error
		if id, err = tree.Lookup(root, id, fs.Name(name)); err != nil {
			t.Fatalf("%s: %v", p, err)
		}
	}
	return id
}

func list(t testing.TB, tree fs.Tree, dir fs.NodeID) []fs.DirEntry {
	t.Helper()
	entries := make([]fs.DirEntry, 1000)
	n, eof, err := tree.ReadDir(root, dir, 0, entries)
	if err != nil || !eof {
		t.Fatal(eof, err)
	}
	return entries[:n]
}

// TestTheRestStays: what the layer does not replace keeps its number and its place, and a
// name that is replaced keeps its place.
func TestTheRestStays(t *testing.T) {
	base := fstest.Sample().Mem(42)
	tree := lay(t, base, files())
	var most uint64
	for _, dir := range []string{"/etc", "/bin", "/names", "/dev", "/links", "/empty"} {
		id := find(t, base, dir)
		if got := find(t, tree, dir); got != id {
			t.Errorf("%s has number %d, was %d", dir, got, id)
		}
		before, after := list(t, base, id), list(t, tree, id)
		for i, e := range before {
			now := after[i]
			if string(now.Name) != string(e.Name) || now.Cookie != e.Cookie {
				t.Errorf("in %s %q is where %q was, with cookie %d, was %d", dir, now.Name, e.Name, now.Cookie, e.Cookie)
			}
			if !tree.Owns(now.ID) && now.ID != e.ID {
				t.Errorf("%q in %s has number %d, was %d", e.Name, dir, now.ID, e.ID)
			}
			if tree.Owns(e.ID) {
				t.Errorf("%q in %s is taken for the layer's", e.Name, dir)
			}
		}
		for _, e := range after {
			most = max(most, e.FileID)
		}
	}
	if most > base.Statfs().Files+uint64(len(files()))+2 || most >= 1<<32 {
		t.Errorf("there is a number %d", most)
	}
	var a fs.Attr
	if err := tree.Getattr(find(t, tree, "/bin/su"), &a); err != nil || a.Nlink != 2 {
		t.Errorf("su has %d names left, %v; want 2", a.Nlink, err)
	}
}

// TestIdentity: the FSID is neither the base's nor that of another layer, and the same each time.
func TestIdentity(t *testing.T) {
	base := fstest.Sample().Mem(42)
	fsid := lay(t, base, files()).FSID()
	if again := lay(t, fstest.Sample().Mem(42), files()).FSID(); again != fsid {
		t.Errorf("made again it is %x, was %x", again, fsid)
	}
	if bare := layer.Bare(base, 7, fs.ErrAccess).FSID(); bare != fsid {
		t.Errorf("bare it is %x, was %x", bare, fsid)
	}
	seen := map[uint64]bool{0: true, base.FSID(): true, fsid: true}
	for _, other := range []*layer.Tree{layer.Bare(base, 8, 0), layer.Bare(fstest.Sample().Mem(43), 7, 0)} {
		if seen[other.FSID()] {
			t.Errorf("%x is there twice", other.FSID())
		}
		seen[other.FSID()] = true
	}
}

// TestBareHides: whoever may not see the layer has the base's names, and an error for objects that it knows.
func TestBareHides(t *testing.T) {
	base := fstest.Sample().Mem(42)
	own := find(t, lay(t, base, files()), "/etc/hostname")
	for _, want := range []fs.Error{fs.ErrAccess, fs.ErrIO} {
		bare := layer.Bare(base, 7, want)
		etc := find(t, bare, "/etc")
		if _, err := bare.Lookup(root, etc, fs.Name("hostname")); err != fs.ErrNotExist {
			t.Errorf("Lookup: %v", err)
		}
		for what, err := range map[string]error{
			"Getattr":  bare.Getattr(own, new(fs.Attr)),
			"Read":     second(bare.Read(root, own, 0, make([]byte, 9), false)),
			"Spans":    second(bare.Spans(root, own, 0, 9, make([]fs.Span, 1), false)),
			"Lookup":   func() error { _, err := bare.Lookup(root, own, fs.Name("x")); return err }(),
			"Readlink": func() error { _, err := bare.Readlink(own); return err }(),
			"ReadDir":  second(bare.ReadDir(root, own, 0, make([]fs.DirEntry, 1))),
		} {
			if err != want {
				t.Errorf("%s of an own object: %v, want %v", what, err, want)
			}
		}
	}
}

func second(_ int, _ bool, err error) error { return err }

func TestRefusals(t *testing.T) {
	mem := fstest.Sample().Mem(42)
	mem.Symlink("/lib", "usr/lib")
	mem.Mkdir("/a", 0o755)
	mem.Symlink("/a/absolute", "/bin")
	for _, c := range []struct {
		file layer.File
		want string // in the error
	}{
		{layer.File{Path: "/etc"}, "/etc: in the version, that is a directory"},
		{layer.File{Path: "/lib/x/y"}, "/lib/x/y: in the version, /lib is a symlink to usr/lib: put it into /usr/lib/x/y"},
		{layer.File{Path: "/a/absolute/z"}, "/a/absolute is a symlink to /bin: put it into /bin/z"},
		{layer.File{Path: "/etc/passwd/x"}, "/etc/passwd is a file and no directory"},
		{layer.File{Path: "/dev/null/x"}, "character device"},
		{layer.File{Path: "/good/x"}, "/good is itself one of the files"},
		{layer.File{Path: "/good"}, "twice"},
		{layer.File{Path: "/"}, "not a path"},
		{layer.File{Path: ""}, "not a path"},
		{layer.File{Path: "etc/x"}, "not a path"},
		{layer.File{Path: "/etc/../x"}, "not a path"},
		{layer.File{Path: "/etc//x"}, "not a path"},
		{layer.File{Path: "/etc/x/"}, "not a path"},
		{layer.File{Path: "/etc/./x"}, "not a path"},
		{layer.File{Path: "/a\x00b"}, "invalid"},
		{layer.File{Path: "/" + strings.Repeat("n", 256)}, "name too long"},
		{layer.File{Path: strings.Repeat("/n", 513)}, "1024"},
		{layer.File{Path: "/x", Mode: 0o100644}, "mode"},
		{layer.File{Path: "/x", Mtime: fs.Time{Nsec: 1e9}}, "time"},
	} {
		good, refused := layer.Check(mem, []layer.File{{Path: "/good", Content: "first"}, c.file})
		if len(good) != 1 || good[0].Content != "first" || len(refused) != 1 || !strings.Contains(refused[0].Error(), c.want) {
			t.Errorf("%q: %v, refused %v; want %q", c.file.Path, good, refused, c.want)
		}
	}
	if _, err := layer.New(mem, 7, []layer.File{{Path: "/etc"}}); err == nil {
		t.Error("New took what Check refuses")
	}
}

// crowded is a tree that says it has as many objects as there are numbers.
type crowded struct{ *fstest.MemTree }

func (crowded) Statfs() fs.Statfs { return fs.Statfs{Files: 1<<32 - 2} }

func TestNumbersEnd(t *testing.T) {
	good, refused := layer.Check(crowded{fstest.Sample().Mem(42)}, files()[:3])
	if len(good) != 1 || len(refused) != 2 || !strings.Contains(refused[0].Error(), "2^32") {
		t.Errorf("%d laid, refused: %v", len(good), refused)
	}
}

// TestOrderIsNoMatter: the same files are the same layer in whatever order they come.
func TestOrderIsNoMatter(t *testing.T) {
	base := fstest.Sample().Mem(42)
	forwards, _ := layer.Check(base, files())
	backwards := files()
	slices.Reverse(backwards)
	again, _ := layer.Check(base, backwards)
	if layer.Digest(forwards) != layer.Digest(again) {
		t.Error("the digests differ")
	}
	again[0].Mtime.Nsec++
	if layer.Digest(forwards) == layer.Digest(again) {
		t.Error("a time differs and the digest does not")
	}
}

func TestCallsAllocateNothing(t *testing.T) {
	tree := lay(t, sealed(t), files())
	c := &fs.Cred{UID: 1000, GID: 7, Groups: []uint32{1, 42}}
	own, shared, etc, made := find(t, tree, "/etc/hostname"), find(t, tree, "/bin/su"), find(t, tree, "/etc"), find(t, tree, "/root/deep/new")
	buf, entries, spans := make([]byte, 70_000), make([]fs.DirEntry, 30), make([]fs.Span, 8)
	hit, miss := fs.Name("hostname"), fs.Name("shadow")
	var a fs.Attr
	if _, _, err := tree.Read(c, shared, 0, buf, false); err != nil {
		t.Fatal(err)
	}
	for what, call := range map[string]func() error{
		"Getattr":         func() error { return tree.Getattr(own, &a) },
		"Getattr of base": func() error { return tree.Getattr(shared, &a) },
		"Lookup":          func() error { _, err := tree.Lookup(c, etc, hit); return err },
		"Lookup of base":  func() error { _, err := tree.Lookup(c, etc, miss); return err },
		"ReadDir":         func() error { return second(tree.ReadDir(c, etc, 0, entries)) },
		"ReadDir of own":  func() error { return second(tree.ReadDir(c, made, 0, entries)) },
		"Read":            func() error { return second(tree.Read(c, own, 0, buf, true)) },
		"Read of base":    func() error { return second(tree.Read(c, shared, 3, buf, true)) },
		"Spans of base":   func() error { return second(tree.Spans(c, shared, 0, 1<<20, spans, true)) },
	} {
		var err error
		if n := testing.AllocsPerRun(100, func() { err = call() }); n != 0 || err != nil {
			t.Errorf("%s: %v allocations, %v", what, n, err)
		}
	}
	if spans[0].File == nil {
		t.Error("content of the base is not sent from its file")
	}
	if err := second(tree.Spans(c, own, 0, 9, spans, false)); !errors.Is(err, fs.ErrNotSupported) {
		t.Errorf("Spans of an own file: %v", err)
	}
}

func TestEncoding(t *testing.T) {
	for _, want := range [][]layer.File{nil, files()[:1], files()} {
		b := layer.Encode(nil, want)
		got, err := layer.Decode(b)
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("%d files: %v", len(want), err)
		}
		for n := range min(len(b), 400) {
			if _, err := layer.Decode(b[:n]); err == nil {
				t.Errorf("cut to %d bytes it is taken", n)
			}
		}
		if _, err := layer.Decode(append(b, 0)); err == nil {
			t.Error("a byte more is taken")
		}
	}
	many := make([]layer.File, layer.MaxFiles+1)
	for _, bad := range [][]layer.File{
		many,
		{{Path: strings.Repeat("p", layer.MaxPath+1)}},
		{{Content: strings.Repeat("c", layer.MaxBytes)}, {Content: "c"}},
	} {
		if _, err := layer.Decode(layer.Encode(nil, bad)); err == nil {
			t.Errorf("%d files beyond the bounds are taken", len(bad))
		}
	}
	if n := len(layer.Encode(nil, many[1:])); n > layer.MaxEncoded {
		t.Errorf("%d files have %d bytes, more than MaxEncoded", layer.MaxFiles, n)
	}
}

// FuzzDecode: whatever is taken is what Encode makes, and can be checked against a tree.
func FuzzDecode(f *testing.F) {
	f.Add([]byte{})
	f.Add(layer.Encode(nil, nil))
	f.Add(layer.Encode(nil, files()[:9]))
	base := fstest.Sample().Mem(42)
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := layer.Decode(b)
		if err != nil {
			return
		}
		if string(layer.Encode(nil, got)) != string(b) {
			t.Errorf("%x is another encoding of the same files", b)
		}
		good, refused := layer.Check(base, got)
		if len(good)+len(refused) != len(got) {
			t.Errorf("of %d files %d are good and %d refused", len(got), len(good), len(refused))
		}
		if _, err := layer.New(base, 7, good); err != nil {
			t.Errorf("New refuses what is good: %v", err)
		}
	})
}
