package tarball_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/fstest"
	"github.com/rootnfsd/rootnfsd/fs/image"
	"github.com/rootnfsd/rootnfsd/fs/source"
	"github.com/rootnfsd/rootnfsd/fs/source/tarball"
)

// need skips a test that cannot be run here, unless all must be.
func need(t testing.TB, there bool, what string) {
	t.Helper()
	switch {
	case there:
	case os.Getenv("ROOTNFSD_TEST_ALL") != "":
		t.Fatalf("needs %s", what)
	default:
		t.Skipf("needs %s", what)
	}
}

func newStore(t testing.TB) *image.Store {
	t.Helper()
	s, err := image.OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// golden is a tree with all that an archive can have: fstest.Sample without what tar
// has no word for, extended attributes and ACLs.
func golden(t testing.TB) string {
	t.Helper()
	need(t, os.Getuid() == 0, "root: owners and devices")
	dir := t.TempDir()
	if err := fstest.Sample().Create(dir); err != nil {
		t.Fatal(err)
	}
	capability := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	acl := func(entries ...string) string {
		return "\x02\x00\x00\x00" + strings.Join(entries, "")
	}
	user, group, mask, other := "\x01\x00\x07\x00\xff\xff\xff\xff", "\x04\x00\x05\x00\xff\xff\xff\xff", "\x10\x00\x05\x00\xff\xff\xff\xff", "\x20\x00\x05\x00\xff\xff\xff\xff"
	err := errors.Join(
		os.Remove(dir+"/dev/log"),
		unix.Setxattr(dir+"/bin/su", "security.capability", []byte(capability), 0),
		unix.Setxattr(dir+"/etc/passwd", "user.binary", []byte("\x00\xff\n=x"), 0),
		unix.Setxattr(dir+"/etc/passwd", "user.empty", nil, 0),
		unix.Setxattr(dir+"/etc/passwd", "user.50%=1/2,%3D,%2", []byte("x"), 0),
		unix.Setxattr(dir+"/home", "system.posix_acl_access", []byte(acl(user, "\x02\x00\x05\x00\xe8\x03\x00\x00", group, mask, other)), 0),
		unix.Setxattr(dir+"/home", "system.posix_acl_default", []byte(acl(user, group, other)), 0),
	)
	need(t, err == nil, fmt.Sprint("a file system with extended attributes: ", err))
	return dir
}

func seal(t testing.TB, dir string) image.SealResult {
	t.Helper()
	src, err := source.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	r, err := newStore(t).Seal(t.Context(), "v1", src, image.SealOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func read(t testing.TB, s *image.Store, r io.Reader) (image.SealResult, error) {
	t.Helper()
	return s.Import(t.Context(), "v1", func(to source.Sink) error { return tarball.Read(r, to) }, image.ImportOptions{MaxBytes: 1 << 30})
}

// TestArchivers imports what the usual programs make of a tree, and gets the version
// that sealing it makes.
func TestArchivers(t *testing.T) {
	dir := golden(t)
	// Neither makes a hard link of a device, and bsdtar gets times wrong that are before
	// 1970 and not of whole seconds.
	epoch := time.Unix(0, 0)
	err := errors.Join(os.Remove(dir+"/dev/null-too"), os.Remove(dir+"/times/1901"), os.Chtimes(dir+"/times", epoch, epoch))
	if err != nil {
		t.Fatal(err)
	}
	want := seal(t, dir)
	for _, c := range [][]string{
		{"tar", "--format=pax", "--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "--sparse", "-cf", "-", "-C", dir, "."},
		{"tar", "--format=pax", "--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "--sparse", "--sparse-version=0.1", "-cf", "-", "-C", dir, "."},
		{"tar", "--format=pax", "--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "--sparse", "--sparse-version=0.0", "-cf", "-", "-C", dir, "."},
		{"bsdtar", "--format=pax", "--xattrs", "--acls", "--numeric-owner", "-cf", "-", "-C", dir, "."},
	} {
		t.Run(strings.Join(c[:2], " "), func(t *testing.T) {
			_, err := exec.LookPath(c[0])
			need(t, err == nil, c[0])
			archive := filepath.Join(t.TempDir(), "archive")
			c[len(c)-4] = archive
			if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %v\n%s", c, err, out)
			}
			expect(t, archive, want, dir)
		})
	}
}

// TestGNUFormat: the format of old has whole seconds and no attributes, but all else.
func TestGNUFormat(t *testing.T) {
	dir := golden(t)
	if err := os.Remove(dir + "/dev/null-too"); err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	archive := filepath.Join(out, "archive")
	if err := os.Mkdir(out+"/tree", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"tar", "--format=gnu", "--numeric-owner", "--sparse", "-cf", archive, "-C", dir, "."}, {"tar", "-xpf", archive, "-C", out + "/tree", "--numeric-owner"}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	expect(t, archive, seal(t, out+"/tree"), out+"/tree")
}

// TestCollisions has names twice in an archive, of objects of different kinds, and
// absolute ones: what comes of them is what GNU tar makes of them.
func TestCollisions(t *testing.T) {
	need(t, os.Getuid() == 0, "root: owners")
	dir := t.TempDir()
	script := `umask 022; cd "$1"; mkdir -p 1/empty 1/dir 2/file/below 2/link out
echo 1 >1/twice; echo 1 >1/file; echo 1 >1/dir/stays; echo 1 >1/name; ln 1/name 1/other; ln -s dir 1/link
echo 22 >2/twice; echo 2 >2/empty; echo 2 >2/file/below/in; mkdir 2/dir; echo 2 >2/dir/new; echo 2 >2/name; echo 2 >2/link/in
chmod 700 2/dir; chmod 600 2/twice; find 1 2 -exec touch -h -d @1700000000 {} +
tar --format=pax --numeric-owner -cf archive -C 1 .
tar --format=pax --numeric-owner -P --transform='s,^\./,/,' -rf archive -C 2 .
tar -xpf archive -C out --numeric-owner`
	if out, err := exec.Command("sh", "-ec", script, "sh", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	expect(t, dir+"/archive", seal(t, dir+"/out"), dir+"/out")
}

// expect imports an archive, and gets the version that sealing its tree, dir, makes.
func expect(t *testing.T, archive string, want image.SealResult, dir string) {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := newStore(t)
	r, err := read(t, s, f)
	if err != nil {
		t.Fatal(err)
	}
	if r.Digest != want.Digest {
		t.Errorf("digest %v; want %v", r.Digest.Short(), want.Digest.Short())
		differences(t, s, dir)
	}
}

// differences says in what the only version of a store is not the tree dir.
func differences(t *testing.T, s *image.Store, dir string) {
	t.Helper()
	src, err := source.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if _, err := s.Seal(t.Context(), "tree", src, image.SealOptions{}); err != nil {
		t.Fatal(err)
	}
	v, err := s.Open("v1")
	if err != nil {
		t.Fatal(err)
	}
	tree, err := s.Open("tree")
	if err != nil {
		t.Fatal(err)
	}
	a, b := v.Filesystem().(source.XattrReader), tree.Filesystem().(source.XattrReader)
	var walk func(dir string)
	walk = func(dir string) {
		infos, err := tree.Filesystem().ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range append(infos, source.NewInfo(".", source.Meta{})) {
			p := filepath.Join(dir, i.Name())
			x, err := v.Filesystem().Lstat(p)
			if err != nil {
				t.Error(err)
				continue
			}
			y, _ := tree.Filesystem().Lstat(p)
			m, n := *source.MetaOf(x), *source.MetaOf(y)
			n.Dev, n.Ino, m.Dev, m.Ino = 0, 0, 0, 0
			xa, _ := a.Xattrs(p)
			xb, _ := b.Xattrs(p)
			if m != n || fmt.Sprint(xa) != fmt.Sprint(xb) {
				t.Errorf("%q:\n%+v %q\nwant\n%+v %q", p, m, xa, n, xb)
			}
			if i.IsDir() {
				walk(p)
			}
		}
	}
	walk("/")
}

// TestRoundTrip: what Write writes Read reads, sockets too, and it is the same each time.
func TestRoundTrip(t *testing.T) {
	dir := golden(t)
	if err := unix.Mknod(dir+"/dev/log", unix.S_IFSOCK|0o666, 0); err != nil {
		t.Fatal(err)
	}
	want := seal(t, dir)
	src, err := source.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	var a, b bytes.Buffer
	if err := errors.Join(tarball.Write(t.Context(), &a, src), tarball.Write(t.Context(), &b, src)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Error("two archives of one tree differ")
	}
	s := newStore(t)
	r, err := read(t, s, bytes.NewReader(a.Bytes()))
	if err != nil || r.Digest != want.Digest {
		t.Fatalf("%v, %v; want %v", r.Digest.Short(), err, want.Digest.Short())
	}
	v, err := s.Open("v1")
	if err != nil {
		t.Fatal(err)
	}
	b.Reset()
	if err := tarball.Write(t.Context(), &b, v.Filesystem()); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Error("the archive of the version differs from that of the tree")
	}
}

// small is a little archive with a file and a hard link.
func small(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	content := fstest.Bytes(1500)
	err := errors.Join(
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "d/file", Mode: 0o644, Size: int64(len(content)), PAXRecords: map[string]string{"SCHILY.xattr.user.x": "1"}}),
		func() error { _, err := w.Write(content); return err }(),
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeLink, Name: "link", Linkname: "./d/file"}),
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "sym", Linkname: "d"}),
		w.Close(),
	)
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestTruncated cuts an archive off at each byte: no part of it is taken for a whole.
func TestTruncated(t *testing.T) {
	whole := small(t)
	for n := range len(whole) - 512 { // of two blocks of zeros one is enough
		if err := tarball.Read(bytes.NewReader(whole[:n]), discard{}); err == nil {
			t.Fatalf("%d of %d bytes are taken for all", n, len(whole))
		}
	}
	if err := tarball.Read(bytes.NewReader(whole), discard{}); err != nil {
		t.Error(err)
	}
}

// TestEmpty: nothing but the mark of its end is an archive, and told from none.
func TestEmpty(t *testing.T) {
	for n, want := range map[int]bool{0: false, 511: false, 512: true, 1024: true, 10240: true} {
		if err := tarball.Read(bytes.NewReader(make([]byte, n)), discard{}); err == nil || errors.Is(err, tarball.ErrEmpty) != want {
			t.Errorf("%d zeros: %v; an empty archive: %v", n, err, want)
		}
	}
}

// TestTail: what is behind the end of an archive is read, but not without end.
func TestTail(t *testing.T) {
	whole := small(t)
	for n, want := range map[int64]string{0: "", 64 << 20: "", 1 << 62: "behind the end"} {
		err := tarball.Read(io.MultiReader(bytes.NewReader(whole), io.LimitReader(zeros{}, n)), discard{})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%d bytes more: %v; want %q", n, err, want)
		}
	}
}

// zeros is nothing but zeros.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

func TestBadEntries(t *testing.T) {
	for name, h := range map[string]*tar.Header{
		"multi-volume": {Typeflag: 'M', Name: "a"},
		"label":        {Typeflag: 'V', Name: "a", Size: 1 << 50},
		"acl":          {Typeflag: tar.TypeReg, Name: "a", PAXRecords: map[string]string{"SCHILY.acl.access": "user:somebody:rwx"}},
		"acl tag":      {Typeflag: tar.TypeReg, Name: "a", PAXRecords: map[string]string{"SCHILY.acl.access": "mask:1:rwx"}},
		"acl rights":   {Typeflag: tar.TypeReg, Name: "a", PAXRecords: map[string]string{"SCHILY.acl.access": "user::rwz"}},
	} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		w.Close() // which fails, since one entry is to have content
		if err := tarball.Read(&b, discard{}); err == nil || !strings.Contains(err.Error(), `"a": `) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// discard is a sink that reads content and keeps nothing.
type discard struct{}

func (discard) Put(_ string, m *source.Meta, _ string, _ []source.Xattr, content io.Reader) error {
	if m.Kind != fs.Regular {
		return nil
	}
	n, err := io.CopyN(io.Discard, content, int64(min(m.Size, 1<<20)))
	if err == io.EOF && uint64(n) < m.Size {
		err = io.ErrUnexpectedEOF
	}
	return err
}
func (discard) Link(string, string) error { return nil }
func (discard) Layer()                    {}
func (discard) Remove(string) error       { return nil }
func (discard) Clear(string) error        { return nil }

func FuzzRead(f *testing.F) {
	f.Add(small(f))
	f.Fuzz(func(t *testing.T, b []byte) { _ = tarball.Read(bytes.NewReader(b), discard{}) })
}
