package image_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-git/go-billy/v5"
	"github.com/willscott/go-nfs/file"
	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/fstest"
	"github.com/rootnfsd/rootnfsd/fs/image"
	"github.com/rootnfsd/rootnfsd/fs/source"
)

func TestOpenStore(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "images")
	if _, err := image.OpenStore(missing); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), missing) {
		t.Errorf("a store that is not there: %v", err)
	}
	plain := filepath.Join(t.TempDir(), "file")
	write(t, plain, "")
	if _, err := image.OpenStore(plain); err == nil {
		t.Error("a file is a store")
	}
	s := newStore(t)
	if v, err := s.Versions(); len(v) != 0 || err != nil {
		t.Errorf("versions of an empty store: %v, %v", v, err)
	}
	if _, err := s.Open("v1"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Open in an empty store: %v", err)
	}
	if _, err := s.Remove("v1", image.Digest{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Remove in an empty store: %v", err)
	}
	if _, err := os.Stat(s.StateDir()); !errors.Is(err, os.ErrNotExist) {
		t.Error("looking at a store wrote to it")
	}
}

func TestValidName(t *testing.T) {
	for _, name := range []string{"v1", "1", "2024-05-01", "bookworm_6.1+rpi", strings.Repeat("a", 64)} {
		if err := image.ValidName(name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"", ".", "..", ".x", "-x", "a b", "a,b", "a:b", "a/b", "a@b", "a~b", "ä", "a\n", strings.Repeat("a", 65)} {
		if image.ValidName(name) == nil {
			t.Errorf("%q is a valid name", name)
		}
		s := newStore(t)
		if _, err := s.Seal(t.Context(), name, openDir(t, t.TempDir()), image.SealOptions{}); err == nil {
			t.Errorf("sealed version %q", name)
		}
		if _, err := s.Open(name); err == nil {
			t.Errorf("opened version %q", name)
		}
	}
}

// TestNamesOfSupersededVersions: what follows the ~ is checked before it becomes
// part of a path.
func TestNamesOfSupersededVersions(t *testing.T) {
	s := newStore(t)
	for _, name := range []string{"v1~", "v1~12", "v1~../../../etc", "v1~0123456789aB", "v1~0123456789ab~", "~0123456789ab", "v1~0123456789abc"} {
		if _, err := s.Open(name); err == nil || errors.Is(err, os.ErrNotExist) {
			t.Errorf("Open of %q: %v, want that this is no name", name, err)
		}
		if _, err := s.Remove(name, image.Digest{}); err == nil || errors.Is(err, os.ErrNotExist) {
			t.Errorf("Remove of %q: %v, want that this is no name", name, err)
		}
	}
	if _, err := s.Open("v1~0123456789ab"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Open: %v, want that it is not there", err)
	}
}

func TestTreesAndVersions(t *testing.T) {
	s := newStore(t)
	for _, d := range []string{"v10", "v2", "v1", ".hidden", "lost+found"} {
		if err := os.Mkdir(filepath.Join(s.Dir(), d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(s.Dir(), "README"), "not a tree")
	for link, target := range map[string]string{"v3": t.TempDir(), "v4": "nowhere"} {
		if err := os.Symlink(target, filepath.Join(s.Dir(), link)); err != nil {
			t.Fatal(err)
		}
	}
	trees, err := s.Trees()
	if want := []string{"v1", "v2", "v3", "v10"}; err != nil || !slices.Equal(trees, want) {
		t.Errorf("Trees: %v, %v, want %v", trees, err, want)
	}
	for _, v := range trees {
		before := time.Now()
		r := sealDir(t, s, v, filepath.Join(s.Dir(), v))
		if r.Sealed.Before(before.Add(-time.Second)) || r.Sealed.After(time.Now().Add(time.Second)) {
			t.Errorf("sealed at %v", r.Sealed)
		}
	}
	if got := versionNames(t, s); !slices.Equal(got, trees) {
		t.Errorf("Versions: %v, want %v", got, trees)
	}
}

// TestSameTreeSameDigest seals one tree, copied, in a new store and in one with
// a history, under another name.
func TestSameTreeSameDigest(t *testing.T) {
	dir, _ := sampleDir(t)
	copied := filepath.Join(t.TempDir(), "copy")
	run(t, "cp", "-a", dir, copied)

	fresh, used := newStore(t), newStore(t)
	sealDir(t, used, "v0", writeFiles(t, map[string]string{"passwd": "root:x:0:0::/root:/bin/sh\n", "other": string(fstest.Bytes(70_000))}))
	a, b := sealDir(t, fresh, "v1", dir), sealDir(t, used, "other-name", copied)
	if a.Digest != b.Digest {
		t.Errorf("digests %v and %v", a.Digest, b.Digest)
	}
	if b.NewBytes >= a.NewBytes {
		t.Errorf("the second store took %d new bytes, the first, which was empty, %d", b.NewBytes, a.NewBytes)
	}
	if open(t, fresh, "v1").FSID() != open(t, used, "other-name").FSID() {
		t.Error("FSIDs differ")
	}
	view := open(t, used, "other-name").Filesystem()
	if c := seal(t, newStore(t), "v1", view); c.Digest != a.Digest {
		t.Error("sealed again from its own view, the digest differs")
	}
}

// pinned is the digest of fstest.Sample with the attributes of labelled.
const pinned = "1ea6097690f0d91a461c8475f48e4c165bde94bb699aa7c1311c005435da3dd9"

// TestDigestIsPinned: handles hold the start of the digest, so nodes survive an
// update of the server only if the same tree has the digest that it always had.
// If this fails and Sample did not change, the encoding did: think again, or give
// the format a new number.
func TestDigestIsPinned(t *testing.T) {
	dir, _ := sampleDir(t)
	if got := seal(t, newStore(t), "v1", labelled{openDir(t, dir)}).Digest.String(); got != pinned {
		t.Errorf("the digest is %s, want %s", got, pinned)
	}
}

// labelled is a directory in which two files have extended attributes, on file
// systems without them too.
type labelled struct{ *source.Dir }

// Open hides that an open file, too, could be asked.
func (l labelled) Open(p string) (billy.File, error) {
	f, err := l.Dir.Open(p)
	if err != nil {
		return nil, err
	}
	return struct{ openFile }{f.(openFile)}, nil
}

func (labelled) Xattrs(p string) ([]source.Xattr, error) {
	switch p {
	case "/bin/su":
		return []source.Xattr{{Name: "security.capability", Value: []byte{1, 0, 0, 2}}}, nil
	case "/etc/passwd":
		return []source.Xattr{{Name: "user.a"}, {Name: "user.b", Value: []byte("value")}}, nil
	}
	return nil, nil
}

// TestZerosAreHoles: whether a file has holes or zeros is its file system's
// affair.
func TestZerosAreHoles(t *testing.T) {
	content := slices.Concat(fstest.Bytes(70_000), make([]byte, 1<<20), fstest.Bytes(5), make([]byte, 300_000))
	written, sparse := t.TempDir(), t.TempDir()
	write(t, written+"/f", string(content))
	write(t, sparse+"/f", string(content[:70_000]))
	patch(t, sparse+"/f", 70_000+1<<20, fstest.Bytes(5))
	if err := os.Truncate(sparse+"/f", int64(len(content))); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{written, sparse} {
		touch(t, dir+"/f")
		touch(t, dir)
	}
	s := newStore(t)
	a, b := sealDir(t, s, "written", written), sealDir(t, s, "sparse", sparse)
	if a.Digest != b.Digest {
		t.Error("digests differ")
	}
	if a.NewBytes > 3*65536 {
		t.Errorf("stored %d bytes", a.NewBytes)
	}
	if readAll(t, open(t, s, "written"), "f") != string(content) {
		t.Error("wrong bytes")
	}
}

// TestOrderOfTheSource does not matter.
func TestOrderOfTheSource(t *testing.T) {
	dir := writeFiles(t, map[string]string{"a": "1", "b/c": "2", "b/d": "3", "e": "4"})
	s := newStore(t)
	a, b := sealDir(t, s, "v1", dir), seal(t, s, "v2", &backwards{openDir(t, dir)})
	if a.Digest != b.Digest {
		t.Error("digests differ")
	}
}

// backwards lists directories from the end.
type backwards struct{ *source.Dir }

func (b *backwards) ReadDir(p string) ([]os.FileInfo, error) {
	infos, err := b.Dir.ReadDir(p)
	slices.Reverse(infos)
	return infos, err
}

// TestDigestCoversAll changes one thing at a time.
func TestDigestCoversAll(t *testing.T) {
	needRoot(t)
	make := func() string {
		dir := writeFiles(t, map[string]string{"d/f": "content", "d/g": "content", "h": ""})
		if err := os.Symlink("text", filepath.Join(dir, "l")); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mknod(filepath.Join(dir, "dev"), unix.S_IFCHR, int(unix.Mkdev(1, 3))); err != nil {
			t.Fatal(err)
		}
		for _, p := range []string{"d/f", "d/g", "h", "l", "dev", "d", ""} {
			touch(t, filepath.Join(dir, p))
		}
		return dir
	}
	s := newStore(t)
	want := sealDir(t, s, "v0", make()).Digest
	if got := sealDir(t, s, "v1", make()).Digest; got != want {
		t.Fatal("the same tree has another digest")
	}
	for what, change := range map[string]func(dir string) error{
		"content": func(d string) error { return os.WriteFile(d+"/d/f", []byte("Content"), 0o644) },
		"size":    func(d string) error { return os.Truncate(d+"/h", 1) },
		"mode":    func(d string) error { return os.Chmod(d+"/d/f", 0o600) },
		"setuid":  func(d string) error { return unix.Chmod(d+"/d/f", 0o4644) },
		"uid":     func(d string) error { return os.Lchown(d+"/l", 1, 0) },
		"gid":     func(d string) error { return os.Chown(d+"/d", 0, 1) },
		"name":    func(d string) error { return os.Rename(d+"/d/f", d+"/d/F") },
		"place":   func(d string) error { return os.Rename(d+"/d/f", d+"/f") },
		"link": func(d string) error {
			return errors.Join(os.Remove(d+"/d/g"), os.Link(d+"/d/f", d+"/d/g"))
		},
		"text": func(d string) error { return errors.Join(os.Remove(d+"/l"), os.Symlink("Text", d+"/l")) },
		"rdev": func(d string) error {
			return errors.Join(os.Remove(d+"/dev"), unix.Mknod(d+"/dev", unix.S_IFCHR, int(unix.Mkdev(1, 4))))
		},
		"kind": func(d string) error {
			return errors.Join(os.Remove(d+"/dev"), unix.Mknod(d+"/dev", unix.S_IFBLK, int(unix.Mkdev(1, 3))))
		},
		"mtime": nil,
	} {
		dir := make()
		if change != nil {
			if err := change(dir); err != nil {
				t.Fatal(err)
			}
			for _, p := range []string{"d/f", "d/F", "f", "d/g", "h", "l", "dev", "d", ""} {
				if _, err := os.Lstat(filepath.Join(dir, p)); err == nil {
					touch(t, filepath.Join(dir, p))
				}
			}
		} else if err := unix.UtimesNanoAt(unix.AT_FDCWD, dir+"/d/f", []unix.Timespec{{}, {Sec: 5, Nsec: 1}}, 0); err != nil {
			t.Fatal(err)
		}
		if got := sealDir(t, s, "v1", dir).Digest; got == want {
			t.Errorf("another %s, and the digest is the same", what)
		}
	}
}

// touch sets the mtime to a fixed time.
func touch(t *testing.T, path string) {
	t.Helper()
	ts := []unix.Timespec{{Sec: 5}, {Sec: 5}}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, ts, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		t.Fatal(err)
	}
}

// TestDeduplication: a version that differs from another in 1 % of its bytes
// adds about as much.
func TestDeduplication(t *testing.T) {
	const files, size, chunk = 100, 130_000, 65536
	dir := t.TempDir()
	for i := range files {
		write(t, fmt.Sprintf("%s/%03d", dir, i), string(fstest.Bytes(size+i)))
	}
	s := newStore(t)
	first := sealDir(t, s, "v1", dir)
	if first.NewBytes < files*size || first.Bytes != first.NewBytes {
		t.Fatalf("v1 added %d bytes of %d", first.NewBytes, first.Bytes)
	}
	// 1 % of the bytes, in two places.
	for i := range 2 {
		patch(t, fmt.Sprintf("%s/%03d", dir, i*30), 0, fstest.Bytes(chunk + 1 + i)[:chunk])
	}
	if r := sealDir(t, s, "v2", dir); r.NewBytes != 2*chunk {
		t.Errorf("changed 2 chunks in place, added %d bytes, want %d", r.NewBytes, 2*chunk)
	}
	f, err := os.OpenFile(dir+"/000", os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(fstest.Bytes(400_000)); err != nil {
		t.Fatal(err)
	}
	if r := sealDir(t, s, "v3", dir); r.NewBytes < 400_000 || r.NewBytes > 400_000+chunk {
		t.Errorf("appended 400000 bytes, added %d", r.NewBytes)
	}
	if r := sealDir(t, s, "v4", dir); r.NewBytes != 0 || r.Unchanged {
		t.Errorf("the same tree under another name: %+v", r)
	}
	if n := len(packs(t, s)); n != 3 {
		t.Errorf("%d packs, want 3", n)
	}
}

func patch(t *testing.T, path string, off int64, b []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
}

func TestEditAfterSealing(t *testing.T) {
	dir := writeFiles(t, map[string]string{"a": "old", "b": strings.Repeat("x", 300_000)})
	s := newStore(t)
	sealDir(t, s, "v1", dir)
	patch(t, dir+"/a", 0, []byte("new"))
	if err := os.Remove(dir + "/b"); err != nil {
		t.Fatal(err)
	}
	v := open(t, s, "v1")
	if got := readAll(t, v, "a"); got != "old" {
		t.Errorf("a is %q", got)
	}
	if got := readAll(t, v, "b"); got != strings.Repeat("x", 300_000) {
		t.Errorf("b changed")
	}
}

// TestSealAgain: what nodes run stays when a version is sealed anew.
func TestSealAgain(t *testing.T) {
	dir := writeFiles(t, map[string]string{"a": "old"})
	s := newStore(t)
	first := sealDir(t, s, "v1", dir)
	same := sealDir(t, s, "v1", dir)
	if !same.Unchanged || same.Digest != first.Digest || !same.Sealed.Equal(first.Sealed) {
		t.Errorf("sealed the same again: %+v", same)
	}
	running := open(t, s, "v1")
	write(t, dir+"/a", "newer")
	second := sealDir(t, s, "v1", dir)
	if second.Unchanged || second.Digest == first.Digest {
		t.Errorf("sealed another tree: %+v", second)
	}
	old := "v1~" + first.Digest.Short()
	if got := versionNames(t, s); !slices.Equal(got, []string{"v1", old}) {
		t.Fatalf("versions %v", got)
	}
	for _, c := range []struct {
		v    *image.Version
		want string
	}{{running, "old"}, {open(t, s, old), "old"}, {open(t, s, "v1"), "newer"}} {
		if got := readAll(t, c.v, "a"); got != c.want {
			t.Errorf("%s: %q, want %q", c.v.Info().Name, got, c.want)
		}
	}
	if open(t, s, old).Info().Digest != first.Digest {
		t.Error("the superseded version has another digest")
	}
	if _, err := s.Remove(old, first.Digest); err != nil {
		t.Error(err)
	}
	if got := versionNames(t, s); !slices.Equal(got, []string{"v1"}) {
		t.Errorf("versions %v", got)
	}
}

// TestOpenDigest follows one version through its names.
func TestOpenDigest(t *testing.T) {
	s := newBrokenStore(t)
	one, two := writeFiles(t, map[string]string{"a": "old"}), writeFiles(t, map[string]string{"a": "newer"})
	d := sealDir(t, s, "v1", one).Digest
	old := "v1~" + d.Short()
	check := func(what string, names ...string) {
		t.Helper()
		for _, name := range names {
			v, err := s.OpenDigest(name, d)
			if err != nil || readAll(t, v, "a") != "old" {
				t.Errorf("%s: OpenDigest of %s: %v", what, name, err)
			}
		}
	}
	check("sealed", "v1", old)
	newer := sealDir(t, s, "v1", two).Digest
	check("superseded", "v1", old)
	flip(t, indexOf(s, "v1"), 20)
	check("beside damage", "v1", old)
	if _, err := s.OpenDigest("v1", newer); err == nil || errors.Is(err, fs.ErrStale) {
		t.Errorf("damaged: %v, want an error that may pass", err)
	}
	remove := func(name string) {
		t.Helper()
		if _, err := s.Remove(name, image.Digest{}); err != nil {
			t.Fatal(err)
		}
	}
	remove("v1")
	check("its successor removed", "v1", old)
	sealDir(t, s, "v1", one)
	remove(old)
	check("sealed again", "v1", old)
	sealDir(t, s, "v1", two)
	remove(old)
	for _, name := range []string{"v1", old, "v2"} {
		if _, err := s.OpenDigest(name, d); !errors.Is(err, fs.ErrStale) {
			t.Errorf("removed: OpenDigest of %s: %v, want ErrStale", name, err)
		}
	}
	if _, err := s.OpenDigest("../v1", d); err == nil || errors.Is(err, fs.ErrStale) {
		t.Errorf("OpenDigest of what is no name: %v", err)
	}
}

// TestOpenDigestBesideSeals opens a version all the while that another takes its
// name.
func TestOpenDigestBesideSeals(t *testing.T) {
	s := newStore(t)
	one, two := writeFiles(t, map[string]string{"a": "one"}), writeFiles(t, map[string]string{"a": "two"})
	for i := range 20 {
		name := fmt.Sprint("v", i)
		d := sealDir(t, s, name, one).Digest
		done := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				if _, err := s.OpenDigest(name, d); err != nil {
					t.Error(err)
					return
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
		sealDir(t, s, name, two)
		close(done)
		wg.Wait()
	}
}

// flip inverts a bit of a file.
func flip(t testing.TB, path string, off int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1 << rand.IntN(8)
	if _, err := f.WriteAt(b[:], off); err != nil {
		t.Fatal(err)
	}
}

func TestViewForGoNFS(t *testing.T) {
	dir, sample := sampleDir(t)
	s := newStore(t)
	sealDir(t, s, "v1", dir)
	v := open(t, s, "v1")
	view := v.Filesystem()
	for _, x := range sample {
		want, err := os.Lstat(dir + x.Path)
		if err != nil {
			t.Fatal(err)
		}
		got, err := view.Lstat(x.Path)
		if err != nil {
			t.Error(err)
			continue
		}
		if got.Mode() != want.Mode() || !got.ModTime().Equal(want.ModTime()) || !got.IsDir() && got.Size() != want.Size() {
			t.Errorf("%q: %v %v %d, want %v %v %d", x.Path, got.Mode(), got.ModTime(), got.Size(), want.Mode(), want.ModTime(), want.Size())
		}
		if x.Path != "/" && got.Name() != filepath.Base(dir+x.Path) {
			t.Errorf("%q has the name %q", x.Path, got.Name())
		}
		g, w := file.GetInfo(got), file.GetInfo(want)
		if w.Fileid = 1; x.Path != "/" {
			w.Fileid = uint64(lookup(t, v, x.Path))
		}
		if *g != *w {
			t.Errorf("%q: go-nfs sees %+v, want %+v", x.Path, *g, *w)
		}
	}
}

func TestViewFollowsLinksInsideOnly(t *testing.T) {
	dir := writeFiles(t, map[string]string{"a/f": "inside", "etc/passwd": "the tree's"})
	for link, text := range map[string]string{
		"rel": "a/f", "abs": "/a/f", "out": "../../../../etc/passwd", "a/up": "../etc", "loop": "loop", "chain": "a/up/passwd", "dangling": "nowhere",
	} {
		if err := os.Symlink(text, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	s := newStore(t)
	sealDir(t, s, "v1", dir)
	view := open(t, s, "v1").Filesystem()
	sub, err := view.Chroot("/a")
	if err != nil {
		t.Fatal(err)
	}
	read := func(fsys billy.Filesystem, p string) string {
		f, err := fsys.Open(p)
		if err != nil {
			return err.Error()
		}
		defer f.Close()
		b := make([]byte, 100)
		n, err := f.Read(b)
		if err != nil {
			return err.Error()
		}
		return string(b[:n])
	}
	for p, want := range map[string]string{
		"rel": "inside", "/abs": "inside", "out": "the tree's", "a/up/passwd": "the tree's", "chain": "the tree's", "../../a/f": "inside",
		"loop": "open loop: too many levels of symbolic links", "dangling": "open dangling: no such file or directory",
		"a": "open a: is a directory", "a/f/x": "open a/f/x: not a directory",
	} {
		if got := read(view, p); got != want {
			t.Errorf("%s: %q, want %q", p, got, want)
		}
	}
	for p, want := range map[string]string{"f": "inside", "up/passwd": "open up/passwd: no such file or directory", "../etc/passwd": "open ../etc/passwd: no such file or directory"} {
		if got := read(sub, p); got != want {
			t.Errorf("below /a: %s: %q, want %q", p, got, want)
		}
	}
	if _, err := view.Create("x"); !errors.Is(err, billy.ErrReadOnly) {
		t.Errorf("Create: %v", err)
	}
	if _, err := view.OpenFile("rel", os.O_RDWR, 0); !errors.Is(err, billy.ErrReadOnly) {
		t.Errorf("OpenFile for writing: %v", err)
	}
	if _, err := view.Stat("nothing"); !os.IsNotExist(err) {
		t.Errorf("Stat of nothing: %v", err)
	}
}

// TestLock: a seal waits for another, and says whom it waits for.
func TestLock(t *testing.T) {
	s := newStore(t)
	busy, release := make(chan struct{}), make(chan struct{})
	first := make(chan error)
	go func() {
		src := &pausing{Dir: openDir(t, writeFiles(t, map[string]string{"a": "1"})), busy: busy, release: release}
		_, err := s.Seal(context.Background(), "v1", src, image.SealOptions{})
		first <- err
	}()
	<-busy
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	want := fmt.Sprintf("another rootnfsd (pid %d) is changing the store %s", os.Getpid(), s.Dir())
	if _, err := s.Seal(ctx, "v2", openDir(t, t.TempDir()), image.SealOptions{}); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), want) {
		t.Errorf("Seal beside another: %v, want %q", err, want)
	}
	second := make(chan error)
	go func() {
		_, err := reopen(t, s.Dir()).Seal(context.Background(), "v2", openDir(t, t.TempDir()), image.SealOptions{})
		second <- err
	}()
	close(release)
	for _, c := range []chan error{first, second} {
		if err := <-c; err != nil {
			t.Error(err)
		}
	}
	if got := versionNames(t, s); !slices.Equal(got, []string{"v1", "v2"}) {
		t.Errorf("versions %v", got)
	}
}

// pausing is a source that stops at the first look at its root.
type pausing struct {
	*source.Dir
	busy    chan struct{}
	release chan struct{}
}

func (p *pausing) Lstat(path string) (os.FileInfo, error) {
	select {
	case <-p.release:
	case p.busy <- struct{}{}:
		<-p.release
	}
	return p.Dir.Lstat(path)
}
