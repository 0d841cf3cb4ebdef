package image_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/image"
)

// changes lists what Diff says, one line for a path.
func changes(t testing.TB, before, after *image.Version) []string {
	t.Helper()
	var lines []string
	err := image.Diff(before, after, func(c *image.Change) error {
		switch {
		case c.Before == nil:
			lines = append(lines, "+ "+c.Path)
		case c.After == nil:
			lines = append(lines, "- "+c.Path)
		default:
			lines = append(lines, "~ "+c.Path+" "+c.What.String())
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return lines
}

// TestDiff changes a tree in every way that there is.
func TestDiff(t *testing.T) {
	dir, _ := sampleDir(t)
	// A write must not show twice, by its own and by the time of the directory.
	long := time.Unix(1_600_000_000, 0)
	settle := func() {
		t.Helper()
		err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				err = os.Chtimes(path, long, long)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	// As setcap(8) writes it: cap_net_raw+ep, revision 2.
	capability := []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	at := func(path string) string { return dir + path }
	must := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	must(unix.Setxattr(at("/bin/wall"), "security.capability", capability, 0))
	settle()
	s := newStore(t)
	sealDir(t, s, "v1", dir)

	keepTime := func(path, content string) error {
		stat, err := os.Stat(at(path))
		if err != nil {
			return err
		}
		return errors.Join(os.WriteFile(at(path), []byte(content), 0o644), os.Chtimes(at(path), long, stat.ModTime()))
	}
	must(
		keepTime("/etc/passwd", "root:x:0:0::/root:/bin/no\n"),
		os.Chmod(at("/etc/shadow"), 0o600),
		os.Lchown(at("/links/one"), 3, 4),
		os.Chtimes(at("/times/epoch"), long, long),
		os.RemoveAll(at("/root")), // with the third name of su
		os.MkdirAll(at("/sizes.d/deep"), 0o755),
		os.WriteFile(at("/sizes.d/deep/new"), nil, 0o644),
		unix.Setxattr(at("/bin/secret"), "user.why", []byte("because"), 0),
		unix.Removexattr(at("/bin/wall"), "security.capability"),
	)
	must(os.Remove(at("/links/absolute")), os.Symlink("/etc/shadow", at("/links/absolute")))
	must(os.Remove(at("/dev/sda")), unix.Mknod(at("/dev/sda"), unix.S_IFBLK|0o660, int(unix.Mkdev(8, 16))), os.Chown(at("/dev/sda"), 0, 6), unix.Chmod(at("/dev/sda"), 0o660))
	must(os.Remove(at("/dev/fifo")), os.Mkdir(at("/dev/fifo"), 0o600), os.WriteFile(at("/dev/fifo/in"), nil, 0o644))
	settle()
	sealDir(t, s, "v2", dir)
	before, after := open(t, s, "v1"), open(t, s, "v2")

	want := []string{
		"~ /bin/secret xattrs",
		"~ /bin/su links",
		"~ /bin/su-too links",
		"~ /bin/wall xattrs",
		"~ /dev/fifo type, times",
		"+ /dev/fifo/in",
		"~ /dev/sda device, times",
		"~ /etc/passwd content",
		"~ /etc/shadow mode",
		"~ /links/absolute target, times",
		"~ /links/one owner",
		"- /root",
		"- /root/deep",
		"- /root/deep/third-name",
		"+ /sizes.d",
		"+ /sizes.d/deep",
		"+ /sizes.d/deep/new",
		"~ /times/epoch times",
	}
	if got := changes(t, before, after); !slices.Equal(got, want) {
		t.Errorf("the versions differ in\n%q, want\n%q", got, want)
	}
	if got := changes(t, after, after); got != nil {
		t.Errorf("a version differs from itself in %q", got)
	}
	if got := len(changes(t, after, before)); got != len(want) {
		t.Errorf("the other way round there are %d changes, want %d", got, len(want))
	}
	if err := image.Diff(before, after, func(*image.Change) error { return os.ErrClosed }); err != os.ErrClosed {
		t.Errorf("stopped by %v, Diff says %v", os.ErrClosed, err)
	}
	err := image.Diff(before, after, func(c *image.Change) error {
		switch c.Path {
		case "/links/absolute":
			if c.Before.Target != "/etc/passwd" || c.After.Target != "/etc/shadow" {
				t.Errorf("%+v, %+v", c.Before, c.After)
			}
		case "/etc/passwd":
			if c.Before.Digest == c.After.Digest || c.Before.Kind != fs.Regular || c.Before.Size != c.After.Size {
				t.Errorf("%+v, %+v", c.Before, c.After)
			}
		case "/dev/sda":
			if c.Before.Minor != 0 || c.After.Minor != 16 {
				t.Errorf("%+v, %+v", c.Before, c.After)
			}
		case "/bin/wall":
			if len(c.Before.Xattrs) != 1 || c.After.Xattrs != nil {
				t.Errorf("%+v, %+v", c.Before, c.After)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestDiffOfLinks: which names are one file is part of a version, though every
// path has the same content and as many links as before.
func TestDiffOfLinks(t *testing.T) {
	pairs := func(first, second string) string {
		dir := t.TempDir()
		for _, pair := range []string{first, second} {
			a, b := filepath.Join(dir, pair[:1]), filepath.Join(dir, pair[1:])
			if err := errors.Join(os.WriteFile(a, []byte("same"), 0o644), os.Link(a, b), os.Chtimes(a, time.Unix(1, 0), time.Unix(1, 0))); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chtimes(dir, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	s := newStore(t)
	sealDir(t, s, "v1", pairs("ab", "cd"))
	sealDir(t, s, "v2", pairs("ac", "bd"))
	sealDir(t, s, "v3", pairs("cd", "ab"))
	v1, v2, v3 := open(t, s, "v1"), open(t, s, "v2"), open(t, s, "v3")
	if v1.Info().Digest == v2.Info().Digest || v1.Info().Digest != v3.Info().Digest {
		t.Fatal("the digests are not as this test wants them")
	}
	if got := changes(t, v1, v2); len(got) == 0 || slices.ContainsFunc(got, func(line string) bool { return line[2:] != line[2:4]+" links" }) {
		t.Errorf("changes %q, want links only", got)
	}
	if got := changes(t, v1, v3); got != nil {
		t.Errorf("two versions with one digest differ in %q", got)
	}
}

// TestDiffOfDamage: an index that is cut short in use is an error.
func TestDiffOfDamage(t *testing.T) {
	s := newBrokenStore(t)
	sealDir(t, s, "v1", writeFiles(t, small))
	sealDir(t, s, "v2", writeFiles(t, map[string]string{"x": "other"}))
	for _, cut := range []string{"v1", "v2"} {
		before, after := open(t, s, "v1"), open(t, s, "v2")
		copied, err := os.ReadFile(indexOf(s, cut))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(indexOf(s, cut), 0); err != nil {
			t.Fatal(err)
		}
		if err := image.Diff(before, after, func(*image.Change) error { return nil }); err != fs.ErrIO {
			t.Errorf("%s is cut short: %v", cut, err)
		}
		if err := errors.Join(os.Remove(indexOf(s, cut)), os.WriteFile(indexOf(s, cut), copied, 0o444)); err != nil {
			t.Fatal(err)
		}
	}
}

// BenchmarkDiff200k compares versions of 200,000 objects, of which one in a
// thousand changed.
func BenchmarkDiff200k(b *testing.B) {
	s, dir := manyObjectsIn(b, 200_000)
	paths, err := filepath.Glob(dir + "/*/file-42.conf")
	if err != nil {
		b.Fatal(err)
	}
	for i := 0; i < len(paths); i += 10 {
		write(b, paths[i], "changed")
	}
	sealDir(b, s, "v2", dir)
	before, after := open(b, s, "v1"), open(b, s, "v2")
	for b.Loop() {
		changed := 0
		err := image.Diff(before, after, func(*image.Change) error { changed++; return nil })
		if err != nil || changed != 198 {
			b.Fatal(changed, err)
		}
	}
}
