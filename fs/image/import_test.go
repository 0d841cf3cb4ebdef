package image_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-billy/v5"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/fstest"
	"github.com/rootnfsd/rootnfsd/fs/image"
	"github.com/rootnfsd/rootnfsd/fs/source"
	"github.com/rootnfsd/rootnfsd/fs/source/overlay"
)

// putter puts objects into a sink. The first error stays.
type putter struct {
	source.Sink
	err error
}

func (p *putter) put(path string, m source.Meta, text, content string) {
	m.Size = uint64(len(content))
	if p.err == nil {
		p.err = p.Put(path, &m, text, nil, strings.NewReader(content))
	}
}

func (p *putter) file(path, content string) {
	p.put(path, source.Meta{Kind: fs.Regular, Mode: 0o644}, "", content)
}

func (p *putter) dir(path string) { p.put(path, source.Meta{Kind: fs.Directory, Mode: 0o700}, "", "") }

func (p *putter) symlink(path, text string) { p.put(path, source.Meta{Kind: fs.Symlink}, text, "") }

func (p *putter) link(path, old string) {
	if p.err == nil {
		p.err = p.Link(path, old)
	}
}

func (p *putter) object(o *fstest.Object) {
	if o.LinkTo != "" {
		p.link("."+o.Path, o.LinkTo)
		return
	}
	m := source.Meta{Kind: o.Kind, Mode: o.Mode, UID: o.UID, GID: o.GID, Mtime: o.Mtime, Major: o.Major, Minor: o.Minor}
	p.put("."+o.Path, m, o.Target, string(o.Content))
}

func importTree(t *testing.T, s *image.Store, fill func(*putter), opts image.ImportOptions) (image.SealResult, error) {
	t.Helper()
	return s.Import(t.Context(), "v1", func(sink source.Sink) error {
		p := &putter{Sink: sink}
		fill(p)
		return p.err
	}, opts)
}

// TestImport puts a tree in an order that no seal has, directories last, and gets the
// version that sealing it makes.
func TestImport(t *testing.T) {
	dir, sample := sampleDir(t)
	s := newStore(t)
	want := sealDir(t, newStore(t), "v1", dir)
	fill := func(p *putter) {
		p.file("sizes/300000", "replaced")
		p.file("names/a/below", "gone, with the directory that a file takes the place of")
		for _, o := range slices.Backward(sample) {
			if o.LinkTo == "" && o.Kind != fs.Directory {
				p.object(&o)
			}
		}
		for _, o := range sample {
			if o.LinkTo != "" || o.Kind == fs.Directory {
				p.object(&o)
			}
		}
	}
	dry, err := importTree(t, s, fill, image.ImportOptions{DryRun: true})
	if err != nil || dry.Digest != want.Digest || len(versionNames(t, s)) != 0 || len(packs(t, s)) != 0 {
		t.Errorf("dry run: %+v, %v; want %+v, and nothing stored", dry, err, want)
	}
	r, err := importTree(t, s, fill, image.ImportOptions{})
	if err != nil || r.Digest != want.Digest || r.Bytes != want.Bytes || r.Unchanged {
		t.Fatalf("%+v, %v; want %+v", r, err, want)
	}
	fstest.TestTree(t, open(t, s, "v1"), sample)
	if again := sealDir(t, s, "v2", dir); again.NewBytes != 0 || again.Digest != r.Digest {
		t.Errorf("sealed from the directory: %+v; want no new content", again)
	}
	_, err = importTree(t, s, func(p *putter) { p.file("a", "only garbage"); p.dir("a") }, image.ImportOptions{})
	if err != nil || len(packs(t, s)) != 1 {
		t.Errorf("%v, packs %v; want the one of the first import", err, packs(t, s))
	}
	checkStore(t, s)
}

// TestImportAmend changes a tree when all of it has come, and gets the version that
// sealing the changed directory makes. What is to be amended can be read like any source,
// also where an earlier version has the content.
func TestImportAmend(t *testing.T) {
	dir, sample := sampleDir(t)
	change := func(tree billy.Filesystem) (billy.Filesystem, error) {
		o := overlay.New(tree)
		return o, errors.Join(
			o.WriteFile("/etc/passwd", []byte("changed"), 0o600), o.WriteFile("/root/new", fstest.Bytes(80_000), 0o600),
			o.Chmod("/bin/wall", 0o700), o.Chmod("/root", 0o777), o.Hide("/sizes/131072"), o.Link("/bin/su-too", "su"), o.Mkdir("/made"),
		)
	}
	changed, err := change(openDir(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	want := seal(t, newStore(t), "v1", changed)
	fill := func(p *putter) {
		for _, o := range sample {
			p.object(&o)
		}
	}
	opts := image.ImportOptions{Amend: func(tree billy.Filesystem) (billy.Filesystem, error) {
		for _, o := range sample {
			if err := sameObject(tree, &o); err != nil {
				t.Error(err)
			}
		}
		return change(tree)
	}}
	empty, full := newStore(t), newStore(t)
	sealDir(t, full, "v0", dir)
	for _, s := range []*image.Store{empty, full} {
		opts.DryRun = true
		before := len(packs(t, s))
		if r, err := importTree(t, s, fill, opts); err != nil || r.Digest != want.Digest || len(packs(t, s)) != before {
			t.Errorf("dry run: %+v, %v, packs %v; want %v, and nothing stored", r, err, packs(t, s), want.Digest)
		}
		opts.DryRun = false
		if r, err := importTree(t, s, fill, opts); err != nil || r.Digest != want.Digest || r.Bytes != want.Bytes {
			t.Errorf("%+v, %v; want %+v", r, err, want)
		}
	}
	refused := errors.New("refused")
	opts.Amend = func(billy.Filesystem) (billy.Filesystem, error) { return nil, refused }
	s := newStore(t)
	if _, err := importTree(t, s, fill, opts); !errors.Is(err, refused) || len(packs(t, s)) != 0 || len(versionNames(t, s)) != 0 {
		t.Errorf("Import: %v, packs %v; want %v, and nothing stored", err, packs(t, s), refused)
	}
}

// sameObject holds what a source tells of an object against what it should be.
func sameObject(src billy.Filesystem, want *fstest.Object) error {
	info, err := src.Lstat(want.Path)
	if err != nil || want.LinkTo != "" {
		return err
	}
	if m := source.MetaOf(info); m.Kind != want.Kind || m.Mode != want.Mode && m.Kind != fs.Symlink {
		return fmt.Errorf("%q: %+v", want.Path, m)
	}
	switch want.Kind {
	case fs.Symlink:
		if text, err := src.Readlink(want.Path); err != nil || text != want.Target {
			return fmt.Errorf("%q: %q, %v", want.Path, text, err)
		}
	case fs.Regular:
		f, err := src.Open(want.Path)
		if err != nil {
			return err
		}
		defer f.Close()
		if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, want.Content) {
			return fmt.Errorf("%q: %d bytes, %v; want %d", want.Path, len(got), err, len(want.Content))
		}
		if n := len(want.Content); n > 70_000 { // across a border of chunks
			part := make([]byte, 10_000)
			if _, err := f.ReadAt(part, 60_000); err != nil || !bytes.Equal(part, want.Content[60_000:70_000]) {
				return fmt.Errorf("%q: a part of it: %v", want.Path, err)
			}
		}
	}
	return nil
}

// filesOf lists a version: the content of its files, and its directories, by path.
func filesOf(t *testing.T, v *image.Version) map[string]string {
	t.Helper()
	all := map[string]string{}
	var walk func(dir string)
	walk = func(dir string) {
		infos, err := v.Filesystem().ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range infos {
			p := dir + i.Name()
			switch {
			case i.IsDir():
				all[p] = i.Mode().Perm().String()
				walk(p + "/")
			case i.Mode()&os.ModeSymlink != 0:
				text, err := v.Filesystem().Readlink(p)
				if err != nil {
					t.Fatal(err)
				}
				all[p] = text
			default:
				all[p] = readAll(t, v, p)
			}
		}
	}
	walk("/")
	return all
}

func TestImportCollisions(t *testing.T) {
	type tree = map[string]string
	const made, put = "-rwxr-xr-x", "-rwx------"
	for name, c := range map[string]struct {
		fill func(*putter)
		want tree
	}{
		"the last wins":          {func(p *putter) { p.file("a", "1"); p.file("./a", "2"); p.file("//a", "3") }, tree{"/a": "3"}},
		"missing parents":        {func(p *putter) { p.file("/a/b/c", "1") }, tree{"/a": made, "/a/b": made, "/a/b/c": "1"}},
		"a directory twice":      {func(p *putter) { p.file("a/b", "1"); p.dir("a/") }, tree{"/a": put, "/a/b": "1"}},
		"a file for a directory": {func(p *putter) { p.file("a/b/c", "1"); p.file("a", "2") }, tree{"/a": "2"}},
		"and a directory again":  {func(p *putter) { p.file("a/b", "1"); p.file("a", "2"); p.dir("a") }, tree{"/a": put}},
		"a directory for a link": {func(p *putter) { p.symlink("a", "b"); p.dir("a"); p.file("a/c", "1") }, tree{"/a": put, "/a/c": "1"}},
		"names that come back": {func(p *putter) {
			for _, content := range []string{"1", "2"} {
				p.file("a/b", content)
				p.file("a/c/d", content)
				p.file("a", "a file for all that")
				p.dir("a")
			}
			p.file("a/c/d", "3")
			p.link("a/b", "a/c/d")
		}, tree{"/a": put, "/a/b": "3", "/a/c": made, "/a/c/d": "3"}},
		"gone layer by layer": {func(p *putter) {
			for _, content := range []string{"1", "2", "3"} {
				p.Layer()
				p.err = errors.Join(p.err, p.Clear("a"), p.Clear("a"), p.Remove("a"), p.Clear("b"))
				p.file("a/x/"+content, content)
				p.file("a/same", content)
				p.file("b/"+content, content)
				p.err = errors.Join(p.err, p.Remove("a/x"), p.Clear("b"))
			}
			p.Layer()
			p.err = errors.Join(p.err, p.Remove("a/x"))
		}, tree{"/a": made, "/a/same": "3", "/b": made, "/b/3": "3"}},
		"one of two names replaced": {func(p *putter) { p.file("a", "1"); p.link("b", "a"); p.file("a", "2") }, tree{"/a": "2", "/b": "1"}},
		"a link to itself":          {func(p *putter) { p.file("a", "1"); p.link("a", "a") }, tree{"/a": "1"}},
		"a link for a directory":    {func(p *putter) { p.file("a/b", "1"); p.link("a", "a/b") }, tree{"/a": "1"}},
		"layers": {func(p *putter) {
			for _, f := range []string{"d/old", "d/sub/old", "gone", "stays", "opaque/old", "x/old"} {
				p.file(f, "1")
			}
			p.Layer()
			for _, f := range []string{"opaque/new", "stays", "x/new"} {
				p.file(f, "2")
			}
			for _, gone := range []string{"gone", "stays", "d/sub", "never/was", "x", "/"} {
				p.err = errors.Join(p.err, p.Remove(gone))
			}
			p.err = errors.Join(p.err, p.Clear("opaque"), p.Clear("never"))
		}, tree{"/d": made, "/d/old": "1", "/stays": "2", "/opaque": made, "/opaque/new": "2", "/x": made, "/x/new": "2"}},
		"layers through symlinks": {func(p *putter) {
			p.Layer()
			for name, text := range map[string]string{
				"bin": "usr/bin", "usr/lib64": "../lib", "lib": "/usr/lib", "out": "../../../../usr", "a/b/up": "../..", "new": "not/yet", "end": "usr/bin/",
			} {
				p.symlink(name, text)
			}
			p.file("usr/bin/gone", "1")
			p.file("usr/lib/cleared/old", "1")
			p.Layer()
			p.file("bin/sh", "bin")
			p.file("usr/lib64/x", "lib64") // through two
			p.file("out/out", "out")
			p.file("a/b/up/end/up", "up") // through two
			p.file("new/x", "new")
			p.link("out/linked", "bin/sh")
			p.err = errors.Join(p.err, p.Remove("bin/gone"), p.Clear("lib/cleared"), p.Remove("end"))
			p.file("usr/lib64", "a file for a link")
		}, tree{
			"/a": made, "/a/b": made, "/a/b/up": "../..", "/bin": "usr/bin", "/lib": "/usr/lib", "/new": "not/yet", "/not": made, "/not/yet": made, "/not/yet/x": "new",
			"/out": "../../../../usr", "/usr": made, "/usr/bin": made, "/usr/bin/sh": "bin", "/usr/bin/up": "up", "/usr/lib": made, "/usr/lib/cleared": made,
			"/usr/lib/x": "lib64", "/usr/lib64": "a file for a link", "/usr/linked": "bin", "/usr/out": "out",
		}},
	} {
		s := newStore(t)
		if _, err := importTree(t, s, c.fill, image.ImportOptions{}); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := filesOf(t, open(t, s, "v1")); !maps.Equal(got, c.want) {
			t.Errorf("%s: %v; want %v", name, got, c.want)
		}
		checkStore(t, s)
	}
}

// TestImportOverAndOver replaces a directory of many names many times, and says as often
// that others are gone. All that is in it is looked at once, not each time, which would
// take minutes.
func TestImportOverAndOver(t *testing.T) {
	const many = 50_000
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, err := newStore(t).Import(ctx, "v1", func(sink source.Sink) error {
		p := &putter{Sink: sink}
		for i := range many {
			p.file("replaced/"+strconv.Itoa(i), "")
		}
		for i := 0; i < many && ctx.Err() == nil; i++ {
			p.file("replaced", "")
			p.dir("replaced")
		}
		p.Layer()
		for i := range many {
			p.file("cleared/"+strconv.Itoa(i), "")
		}
		for i := 0; i < many && ctx.Err() == nil; i++ {
			p.err = errors.Join(p.err, p.Clear("cleared"), p.Remove("cleared"))
		}
		return errors.Join(p.err, ctx.Err())
	}, image.ImportOptions{})
	if err != nil {
		t.Error(err)
	}
}

// TestImportRefuses has what cannot be in a tree, and what goes wrong on the way. The
// store is then as it was.
func TestImportRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		fill func(*putter)
		want string
	}{
		"dotdot":            {func(p *putter) { p.file("a/../b", "") }, `".."`},
		"below a symlink":   {func(p *putter) { p.symlink("a", "b"); p.file("a/c", "") }, `"/a" is a symlink`},
		"below a file":      {func(p *putter) { p.file("a", ""); p.file("a/c", "") }, `"/a" is no directory`},
		"links in a circle": {func(p *putter) { p.Layer(); p.symlink("a", "b"); p.symlink("b", "/a"); p.file("a/c", "") }, "is a symlink"},
		"a link to itself": {func(p *putter) {
			p.Layer()
			p.symlink("a", strings.Repeat("./", 1000)+strings.Repeat("a/", 1000))
			p.file("a/c", "")
		}, `"/a" is a symlink`},
		"a link to a file":      {func(p *putter) { p.Layer(); p.file("d/b", ""); p.symlink("a", "d/b"); p.file("a/c", "") }, `"/d/b" is no directory`},
		"a link to a long name": {func(p *putter) { p.Layer(); p.symlink("a", strings.Repeat("n", 256)); p.file("a/c", "") }, "name"},
		"a link out of it":      {func(p *putter) { p.link("a", "../b") }, `".."`},
		"a link to nothing":     {func(p *putter) { p.link("a", "b") }, "no such object"},
		"a link to a directory": {func(p *putter) { p.dir("b"); p.link("a", "b") }, "directory"},
		"a link through a link": {func(p *putter) { p.file("d/f", ""); p.symlink("l", "d"); p.link("a", "l/f") }, `"/l" is a symlink`},
		"a file for the root":   {func(p *putter) { p.file("./", "") }, "root"},
		"a long name":           {func(p *putter) { p.file(strings.Repeat("n", 256), "") }, "name"},
		"a long path":           {func(p *putter) { p.file(strings.Repeat("n/", 2048), "") }, "longer"},
		"a symlink to nothing":  {func(p *putter) { p.symlink("a", "") }, "symlink"},
		"an unknown kind":       {func(p *putter) { p.put("a", source.Meta{}, "", "") }, "kind"},
		"a user that is none":   {func(p *putter) { p.put("a", source.Meta{Kind: fs.FIFO, UID: 1<<32 - 1}, "", "") }, `"/a": user 4294967295`},
		"a group that is none":  {func(p *putter) { p.put("/", source.Meta{Kind: fs.Directory, GID: 1<<32 - 1}, "", "") }, `"/": user 0 and group 4294967295`},
		"a short file": {func(p *putter) {
			p.err = p.Put("a", &source.Meta{Kind: fs.Regular, Size: 10}, "", nil, strings.NewReader("short"))
		}, "unexpected EOF"},
		"too much": {func(p *putter) { p.file("a", string(fstest.Bytes(950_000))) }, "larger"},
	} {
		s := newStore(t)
		sealDir(t, s, "v0", writeFiles(t, map[string]string{"x": "before"}))
		_, err := importTree(t, s, func(p *putter) {
			p.file("some/content", string(fstest.Bytes(70_000)))
			c.fill(p)
		}, image.ImportOptions{MaxBytes: 1_000_000})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want an error with %q", name, err, c.want)
		}
		checkAsBefore(t, s)
	}
}

func TestImportIsCancelled(t *testing.T) {
	s := newStore(t)
	sealDir(t, s, "v0", writeFiles(t, map[string]string{"x": "before"}))
	ctx, cancel := context.WithCancel(t.Context())
	_, err := s.Import(ctx, "v1", func(sink source.Sink) error {
		p := &putter{Sink: sink}
		for i := 0; p.err == nil && i < 10_000; i++ {
			p.file("f", string(fstest.Bytes(50_000+i)))
			if i == 20 {
				cancel()
			}
		}
		return p.err
	}, image.ImportOptions{})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Import: %v", err)
	}
	checkAsBefore(t, s)
}
