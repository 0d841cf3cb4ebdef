package image_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/go-git/go-billy/v5"
	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/fstest"
	"github.com/rootnfsd/rootnfsd/fs/image"
	"github.com/rootnfsd/rootnfsd/fs/source"
)

// meddling is a source in which something happens each time that a file is read
// or a directory listed.
type meddling struct {
	*source.Dir
	onRead func(path string)
	onList func(path string)
}

func (m *meddling) Open(p string) (billy.File, error) {
	f, err := m.Dir.Open(p)
	if err != nil || m.onRead == nil {
		return f, err
	}
	return &meddlingFile{f.(openFile), func() { m.onRead(p) }}, nil
}

func (m *meddling) ReadDir(p string) ([]os.FileInfo, error) {
	infos, err := m.Dir.ReadDir(p)
	if m.onList != nil {
		m.onList(p)
	}
	return infos, err
}

type openFile interface {
	billy.File
	source.Stater
	source.DataFinder
}

type meddlingFile struct {
	openFile
	onRead func()
}

func (f *meddlingFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.openFile.ReadAt(p, off)
	f.onRead()
	return n, err
}

// TestTreeChanges: a tree that changes while it is sealed is refused, the place
// named, and nothing is left of the attempt.
func TestTreeChanges(t *testing.T) {
	for name, c := range map[string]struct {
		file   string // its content changes while it is read
		size   int
		listed string // or this directory while it is listed
		change func(path string) error
	}{
		"small file grows":   {file: "/d/f", size: 100, change: func(p string) error { return os.WriteFile(p, fstest.Bytes(101), 0o644) }},
		"small file shrinks": {file: "/d/f", size: 100, change: func(p string) error { return os.Truncate(p, 50) }},
		"large file grows":   {file: "/d/f", size: 1 << 20, change: func(p string) error { return os.Truncate(p, 2<<20) }},
		"large file shrinks": {file: "/d/f", size: 1 << 20, change: func(p string) error { return os.Truncate(p, 1000) }},
		"file is rewritten":  {file: "/d/f", size: 100, change: func(p string) error { return os.WriteFile(p, fstest.Bytes(100), 0o644) }},
		"file is replaced": {file: "/d/f", size: 100, change: func(p string) error {
			return errors.Join(os.WriteFile(p+"2", fstest.Bytes(100), 0o644), os.Rename(p+"2", p))
		}},
		"name is added":   {listed: "/d", change: func(p string) error { return os.WriteFile(p+"/new", nil, 0o644) }},
		"name is removed": {listed: "/d", change: func(p string) error { return os.Remove(p + "/g") }},
		"root changes":    {listed: "/", change: func(p string) error { return os.Mkdir(p+"/new", 0o755) }},
	} {
		t.Run(name, func(t *testing.T) {
			dir := writeFiles(t, map[string]string{"d/f": string(fstest.Bytes(max(c.size, 1))), "d/g": "", "e/f": "more"})
			s := newStore(t)
			sealDir(t, s, "v0", writeFiles(t, map[string]string{"x": "before"}))
			src := &meddling{Dir: openDir(t, dir)}
			var once sync.Once // several blocks of a file are read at once
			src.onRead = func(p string) {
				if p != c.file {
					return
				}
				once.Do(func() {
					if err := c.change(dir + p); err != nil {
						t.Error(err)
					}
				})
			}
			lists := 0
			src.onList = func(p string) {
				if p != c.listed {
					return
				}
				if lists++; lists == 2 { // the first time they are only counted
					if err := c.change(dir + p); err != nil {
						t.Error(err)
					}
				}
			}
			_, err := s.Seal(t.Context(), "v1", src, image.SealOptions{})
			where := c.file + c.listed
			if err == nil || !strings.Contains(err.Error(), "seal again when nothing writes") ||
				!strings.Contains(err.Error(), `"`+where) && !strings.Contains(err.Error(), where+"/g") {
				t.Errorf("Seal: %v, want an error that names %s", err, where)
			}
			checkAsBefore(t, s)
		})
	}
}

// checkAsBefore makes sure that a store has version v0 only, and its one pack.
func checkAsBefore(t *testing.T, s *image.Store) {
	t.Helper()
	if got := versionNames(t, s); len(got) != 1 || got[0] != "v0" {
		t.Errorf("versions %v", got)
	}
	if got := packs(t, s); len(got) != 1 {
		t.Errorf("packs %v", got)
	}
	checkStore(t, s)
}

func TestSealIsCancelled(t *testing.T) {
	s := newStore(t)
	sealDir(t, s, "v0", writeFiles(t, map[string]string{"x": "before"}))
	dir := t.TempDir()
	for i := range 500 {
		write(t, filepath.Join(dir, "f"+strings.Repeat("i", i%200), string(rune('a'+i%26))), string(fstest.Bytes(1000+i)))
	}
	ctx, cancel := context.WithCancel(t.Context())
	src := &meddling{Dir: openDir(t, dir), onRead: func(string) { cancel() }}
	if _, err := s.Seal(ctx, "v1", src, image.SealOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Seal: %v", err)
	}
	checkAsBefore(t, s)
}

// TestSealMaxBytes: holes count, and a file with two names counts once.
func TestSealMaxBytes(t *testing.T) {
	s := newStore(t)
	sealDir(t, s, "v0", writeFiles(t, map[string]string{"x": "before"}))
	dir := writeFiles(t, map[string]string{"a": "content", "sparse": ""})
	if err := errors.Join(os.Truncate(dir+"/sparse", 1<<20), os.Link(dir+"/sparse", dir+"/too")); err != nil {
		t.Fatal(err)
	}
	const all = 1<<20 + uint64(len("content"))
	if _, err := s.Seal(t.Context(), "v1", openDir(t, dir), image.SealOptions{MaxBytes: all, DryRun: true}); err != nil {
		t.Error(err)
	}
	_, err := s.Seal(t.Context(), "v1", openDir(t, dir), image.SealOptions{MaxBytes: all - 1})
	if err == nil || !strings.Contains(err.Error(), "larger in all") {
		t.Errorf("a byte too much: %v", err)
	}
	checkAsBefore(t, s)
}

func TestMountPoint(t *testing.T) {
	needRoot(t)
	dir := writeFiles(t, map[string]string{"proc/under": "hidden", "etc/x": "1"})
	if err := unix.Mount("none", dir+"/proc", "tmpfs", 0, ""); err != nil {
		t.Skipf("cannot mount: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir+"/proc", unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	write(t, dir+"/proc/over", "not of the tree")
	if err := errors.Join(os.Chown(dir+"/proc", 5, 6), os.Chmod(dir+"/proc", 0o700)); err != nil {
		t.Fatal(err)
	}
	// A tmpfs has such attributes since Linux 6.6.
	if err := unix.Setxattr(dir+"/proc", "user.over", []byte("1"), 0); err != nil && err != unix.ENOTSUP {
		t.Fatal(err)
	}
	s := newStore(t)
	r := sealDir(t, s, "v1", dir)
	if r.Objects != 4 || len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], `"/proc"`) {
		t.Errorf("%d objects, warnings %q", r.Objects, r.Warnings)
	}
	v := open(t, s, "v1")
	if n, eof, err := v.ReadDir(root, lookup(t, v, "proc"), 0, make([]fs.DirEntry, 5)); n != 2 || !eof || err != nil {
		t.Errorf("/proc has %d entries, %v, %v", n, eof, err)
	}
	// A mount of the same file system has the same device number.
	if err := unix.Mount(dir+"/etc", dir+"/proc", "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir+"/proc", unix.MNT_DETACH)
	bound := sealDir(t, s, "v2", dir)
	if bound.Objects != 4 || len(bound.Warnings) != 1 {
		t.Errorf("with a bind mount: %d objects, warnings %q", bound.Objects, bound.Warnings)
	}
	if bound.Digest != r.Digest {
		t.Error("the digest depends on what is mounted")
	}
	var top, proc fs.Attr
	if err := errors.Join(v.Getattr(1, &top), v.Getattr(lookup(t, v, "proc"), &proc)); err != nil {
		t.Fatal(err)
	}
	if proc.Mode != 0o755 || proc.UID != 0 || proc.GID != 0 || proc.Mtime != top.Mtime {
		t.Errorf("/proc is %+v", proc)
	}
}

// TestNoSpace fills a small file system: beforehand, when the tree is plainly
// too large, and on the way, when other packs made that uncertain.
func TestNoSpace(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("cannot mount: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	s := reopen(t, dir)
	large := writeFiles(t, map[string]string{"large": string(fstest.Bytes(5 << 20))})
	_, err := s.Seal(t.Context(), "v1", openDir(t, large), image.SealOptions{})
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "5.2 MB") || !strings.Contains(err.Error(), "4.2 MB") {
		t.Errorf("an empty store: %v, want both figures", err)
	}
	sealDir(t, s, "v0", writeFiles(t, map[string]string{"x": "before"}))
	_, err = s.Seal(t.Context(), "v1", openDir(t, large), image.SealOptions{})
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "free") {
		t.Errorf("a store with packs: %v", err)
	}
	checkAsBefore(t, s)
	sealDir(t, s, "v1", writeFiles(t, map[string]string{"y": "after"}))
}

// TestReserve seals on a disk that has room for the tree, but not much more:
// what decides which version is served must still find some.
func TestReserve(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=64m"); err != nil {
		t.Skipf("cannot mount: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	s := reopen(t, dir)
	sealDir(t, s, "v0", writeFiles(t, map[string]string{"x": "before"}))
	leaveFree(t, dir, 500_000)
	tree := writeFiles(t, map[string]string{"y": string(fstest.Bytes(50_000))})
	_, err := s.Seal(t.Context(), "v1", openDir(t, tree), image.SealOptions{})
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "free") {
		t.Errorf("Seal: %v", err)
	}
	checkAsBefore(t, s)
	leaveFree(t, dir, 2_000_000)
	sealDir(t, s, "v1", tree)
}

// leaveFree fills a file system until about n bytes are free.
func leaveFree(t *testing.T, dir string, n int64) {
	t.Helper()
	filler := filepath.Join(dir, "filler")
	write(t, filler, "")
	var disk unix.Statfs_t
	if err := unix.Statfs(dir, &disk); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(filler, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, int64(disk.Bavail)*int64(disk.Bsize)-n); err != nil {
		t.Fatal(err)
	}
}

func TestProgress(t *testing.T) {
	dir := writeFiles(t, map[string]string{"a": string(fstest.Bytes(1 << 20)), "b": string(fstest.Bytes(1000)), "c": ""})
	s := newStore(t)
	var last image.Progress
	report := func(p image.Progress) {
		if p.Files < last.Files || p.Bytes < last.Bytes || p.Files > p.TotalFiles || p.Bytes > p.TotalBytes {
			t.Errorf("progress from %+v to %+v", last, p)
		}
		last = p
	}
	if _, err := s.Seal(t.Context(), "v1", openDir(t, dir), image.SealOptions{Progress: report}); err != nil {
		t.Fatal(err)
	}
	if want := (image.Progress{Files: 4, TotalFiles: 4, Bytes: 1<<20 + 1000, TotalBytes: 1<<20 + 1000}); last != want {
		t.Errorf("in the end %+v, want %+v", last, want)
	}
	last = image.Progress{}
	if _, err := s.Verify(t.Context(), nil, report); err != nil || last.Bytes < 1<<20 {
		t.Errorf("Verify: %v, %+v", err, last)
	}
}
