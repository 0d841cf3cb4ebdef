package image_test

import (
	"errors"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/go-git/go-billy/v5"
	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/fstest"
	"github.com/rootnfsd/rootnfsd/fs/image"
	"github.com/rootnfsd/rootnfsd/fs/source"
)

// host is a directory on a host whose clock and file system the test decides on.
// It notes which files are read.
type host struct {
	*source.Dir
	era  string
	lag  time.Duration
	stat func(path string, m *source.Meta) // changes what stat says

	mu   sync.Mutex // guards read
	read []string
}

func newHost(t *testing.T, dir string) *host {
	return &host{Dir: openDir(t, dir), era: "today", stat: func(string, *source.Meta) {}}
}

func (h *host) CtimeRule() (string, time.Duration, bool) { return h.era, h.lag, true }

func (h *host) seen(p string, info os.FileInfo) os.FileInfo {
	m := *source.MetaOf(info)
	h.stat(p, &m)
	return source.NewInfo(info.Name(), m)
}

func (h *host) Lstat(p string) (os.FileInfo, error) {
	info, err := h.Dir.Lstat(p)
	if err != nil {
		return nil, err
	}
	return h.seen(p, info), nil
}

func (h *host) ReadDir(p string) ([]os.FileInfo, error) {
	infos, err := h.Dir.ReadDir(p)
	for i := range infos {
		infos[i] = h.seen(path.Join(p, infos[i].Name()), infos[i])
	}
	return infos, err
}

func (h *host) Open(p string) (billy.File, error) {
	h.mu.Lock()
	h.read = append(h.read, p)
	h.mu.Unlock()
	f, err := h.Dir.Open(p)
	if err != nil {
		return nil, err
	}
	return hostFile{f.(openFile), h, p}, nil
}

type hostFile struct {
	openFile
	h *host
	p string
}

func (f hostFile) Stat() (os.FileInfo, error) { return f.h.Lstat(f.p) }

func (h *host) meta(t *testing.T, p string) source.Meta {
	t.Helper()
	info, err := h.Dir.Lstat(p)
	if err != nil {
		t.Fatal(err)
	}
	return *source.MetaOf(info)
}

// freeze makes stat say for ever what it says now.
func (h *host) freeze(t *testing.T, paths ...string) {
	t.Helper()
	was := make(map[string]source.Meta)
	for _, p := range paths {
		was[p] = h.meta(t, p)
	}
	h.stat = func(p string, m *source.Meta) {
		if frozen, ok := was[p]; ok {
			*m = frozen
		}
	}
}

// hostTree is a tree with something of everything that a seal reads.
func hostTree(t *testing.T) string {
	t.Helper()
	dir := writeFiles(t, map[string]string{
		"a": "aaaa", "b": "bbbb", "d/c": "cccc", "d/empty": "",
		"large": string(fstest.Bytes(300_000)), "z/large": string(fstest.Bytes(70_000)),
	})
	hole, err := os.OpenFile(dir+"/large", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = hole.WriteAt([]byte("behind a hole"), 900_000)
	if err := errors.Join(err, hole.Close(), os.Link(dir+"/a", dir+"/d/link"), os.Symlink("text", dir+"/symlink")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// every is all files of hostTree, each by its first name.
var every = []string{"/a", "/b", "/d/c", "/d/empty", "/large", "/z/large"}

// rewrite changes the content of a file, keeping its size and mtime.
func rewrite(t *testing.T, path, content string) {
	t.Helper()
	stat, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(content) != int(stat.Size()) {
		t.Fatalf("%s would get another size", path)
	}
	if err := errors.Join(os.WriteFile(path, []byte(content), 0o644), os.Chtimes(path, stat.ModTime(), stat.ModTime())); err != nil {
		t.Fatal(err)
	}
}

// TestSealWithStamps seals a tree, changes something, seals it again, and compares
// the outcome with that of a store that never saw the tree before.
func TestSealWithStamps(t *testing.T) {
	for name, c := range map[string]struct {
		before func(t *testing.T, s *image.Store, h *host, dir string) // the first seal
		change func(t *testing.T, s *image.Store, h *host, dir string) // the second
		opts   image.SealOptions
		read   []string
		again  []string // what is read at each further seal, too
	}{
		"nothing changed": {},
		"all is read if asked": {
			opts: image.SealOptions{ReadAll: true},
			read: every,
		},
		"mtime put back": {
			change: func(t *testing.T, _ *image.Store, _ *host, dir string) { rewrite(t, dir+"/b", "BBBB") },
			read:   []string{"/b"},
		},
		"touched": {
			change: func(t *testing.T, _ *image.Store, _ *host, dir string) {
				if err := os.Chtimes(dir+"/b", time.Time{}, time.Unix(1e9, 5)); err != nil {
					t.Fatal(err)
				}
			},
			read: []string{"/b"},
		},
		"grown": {
			change: func(t *testing.T, _ *image.Store, _ *host, dir string) { write(t, dir+"/large", "small") },
			read:   []string{"/large"},
		},
		"written by another name": {
			change: func(t *testing.T, _ *image.Store, _ *host, dir string) { rewrite(t, dir+"/d/link", "AAAA") },
			read:   []string{"/a"},
		},
		"another name": {
			change: func(t *testing.T, _ *image.Store, _ *host, dir string) {
				if err := os.Link(dir+"/b", dir+"/B"); err != nil {
					t.Fatal(err)
				}
			},
			read: []string{"/B"},
		},
		"removed": {
			change: func(t *testing.T, _ *image.Store, _ *host, dir string) {
				if err := os.Remove(dir + "/b"); err != nil {
					t.Fatal(err)
				}
			},
		},
		"attribute set": {
			change: func(t *testing.T, _ *image.Store, _ *host, dir string) {
				if err := errors.Join(unix.Setxattr(dir+"/b", "user.x", []byte("2"), 0), unix.Setxattr(dir+"/d", "user.x", []byte("3"), 0)); err != nil {
					t.Fatal(err)
				}
			},
			read: []string{"/b"},
		},
		"changed in the same tick": {
			before: func(t *testing.T, _ *image.Store, h *host, _ string) { h.lag = time.Hour; h.freeze(t, "/b") },
			change: func(t *testing.T, _ *image.Store, _ *host, dir string) { rewrite(t, dir+"/b", "BBBB") },
			read:   every,
			again:  every,
		},
		"changed in the tick of the last seal, long ago": {
			before: func(t *testing.T, _ *image.Store, h *host, _ string) { h.lag = time.Hour; h.freeze(t, "/b") },
			change: func(t *testing.T, _ *image.Store, h *host, dir string) { h.lag = 0; rewrite(t, dir+"/b", "BBBB") },
			read:   every,
		},
		"clock was ahead": {
			before: func(t *testing.T, _ *image.Store, h *host, _ string) {
				h.stat = func(p string, m *source.Meta) {
					if p == "/b" {
						m.Ctime = fs.Time{Sec: 1 << 40}
						m.Mtime = fs.Time{Sec: 1}
					}
				}
			},
			change: func(t *testing.T, _ *image.Store, _ *host, dir string) { rewrite(t, dir+"/b", "BBBB") },
			read:   []string{"/b"},
			again:  []string{"/b"},
		},
		"clock set back": {
			change: func(t *testing.T, _ *image.Store, h *host, dir string) {
				ctime := h.meta(t, "/b").Ctime
				rewrite(t, dir+"/b", "BBBB")
				h.stat = func(p string, m *source.Meta) {
					if p == "/b" {
						m.Ctime = fs.Time{Sec: ctime.Sec - 3600, Nsec: ctime.Nsec}
					}
				}
			},
			read: []string{"/b"},
		},
		"inode used again": {
			change: func(t *testing.T, _ *image.Store, h *host, dir string) {
				was := h.meta(t, "/b")
				if err := os.Remove(dir + "/b"); err != nil {
					t.Fatal(err)
				}
				write(t, dir+"/b", "BBBB")
				h.stat = func(p string, m *source.Meta) {
					if p == "/b" {
						m.Ino, m.Mtime = was.Ino, was.Mtime
					}
				}
			},
			read: []string{"/b"},
		},
		"two swapped": {
			before: func(_ *testing.T, _ *image.Store, h *host, _ string) {
				// On some file systems a renamed object keeps its ctime.
				h.stat = func(_ string, m *source.Meta) { m.Ctime, m.Mtime = fs.Time{Sec: 1}, fs.Time{Sec: 1} }
			},
			change: func(t *testing.T, _ *image.Store, _ *host, dir string) {
				if err := errors.Join(os.Rename(dir+"/b", dir+"/x"), os.Rename(dir+"/d/c", dir+"/b"), os.Rename(dir+"/x", dir+"/d/c")); err != nil {
					t.Fatal(err)
				}
			},
			read: []string{"/b", "/d/c"},
		},
		"another device": {
			change: func(t *testing.T, _ *image.Store, h *host, _ string) {
				h.stat = func(p string, m *source.Meta) {
					if p == "/b" {
						m.Dev++
					}
				}
			},
			read:  []string{"/b"},
			again: []string{"/b"},
		},
		"host was restarted": {
			change: func(t *testing.T, _ *image.Store, h *host, _ string) { h.era = "tomorrow" },
			read:   every,
		},
		"pack is gone": {
			change: func(t *testing.T, s *image.Store, _ *host, _ string) {
				if err := os.Remove(packs(t, s)[0]); err != nil {
					t.Fatal(err)
				}
			},
			read: slices.DeleteFunc(slices.Clone(every), func(p string) bool { return p == "/d/empty" }),
		},
		"version is removed": {
			change: func(t *testing.T, s *image.Store, _ *host, _ string) {
				if _, err := s.Remove("v1", image.Digest{}); err != nil {
					t.Fatal(err)
				}
				if left := stampsOf(t, s); len(left) > 0 {
					t.Errorf("the stamps of a removed version are left: %v", left)
				}
			},
			read: every,
		},
		"index is damaged": {
			change: func(t *testing.T, s *image.Store, _ *host, _ string) { flip(t, indexOf(s, "v1"), 300) },
			read:   every,
		},
		"stamps are cut short": {
			change: func(t *testing.T, s *image.Store, _ *host, _ string) {
				if err := os.Truncate(stampsOf(t, s)[0], 250); err != nil {
					t.Fatal(err)
				}
			},
			read: every,
		},
		"stamps are empty": {
			change: func(t *testing.T, s *image.Store, _ *host, _ string) {
				if err := os.Truncate(stampsOf(t, s)[0], 0); err != nil {
					t.Fatal(err)
				}
			},
			read: every,
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := hostTree(t)
			s, h := newStore(t), newHost(t, dir)
			if err := unix.Setxattr(dir+"/a", "user.x", []byte("1"), 0); err != nil {
				t.Skipf("no extended attributes here: %v", err)
			}
			if c.before != nil {
				c.before(t, s, h, dir)
			}
			seal(t, s, "v1", h)
			h.read = nil
			if c.change != nil {
				c.change(t, s, h, dir)
			}
			got, err := s.Seal(t.Context(), "v1", h, c.opts)
			if err != nil {
				t.Fatal(err)
			}
			if slices.Sort(h.read); !slices.Equal(h.read, c.read) {
				t.Errorf("read %q, want %q", h.read, c.read)
			}
			fresh := seal(t, newStore(t), "v1", h)
			if got.Digest != fresh.Digest || got.Bytes != fresh.Bytes || got.Objects != fresh.Objects {
				t.Errorf("sealed %+v, a new store %+v", got.Info, fresh.Info)
			}
			h.read = nil
			if r := seal(t, s, "v1", h); !r.Unchanged || r.Digest != fresh.Digest {
				t.Errorf("once more: unchanged %v, %v", r.Unchanged, r.Digest)
			}
			if slices.Sort(h.read); !slices.Equal(h.read, c.again) {
				t.Errorf("once more: read %q, want %q", h.read, c.again)
			}
		})
	}
}

// stampsOf returns the paths of the stamps files of a store.
func stampsOf(t *testing.T, s *image.Store) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(s.StateDir(), "versions", "*.stamps"))
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// TestDamagedStamps breaks a byte of the stamps, over the whole of them: then
// the tree is read as if there were none.
func TestDamagedStamps(t *testing.T) {
	good, h := newStore(t), newHost(t, hostTree(t))
	want := seal(t, good, "v1", h).Digest
	size := fileSize(t, stampsOf(t, good)[0])
	for off := int64(0); off < size; off += 7 {
		s := copyStore(t, good)
		flip(t, stampsOf(t, s)[0], off)
		h.read = nil
		if r := seal(t, s, "v1", h); !r.Unchanged || r.Digest != want {
			t.Errorf("byte %d of %d: unchanged %v, digest %v", off, size, r.Unchanged, r.Digest)
		}
		if slices.Sort(h.read); !slices.Equal(h.read, every) {
			t.Errorf("byte %d of %d: read %q", off, size, h.read)
		}
	}
}

// TestSealUnderAnotherName: what is remembered is the directory, whatever name
// its version was given, and for as long as that version is there.
func TestSealUnderAnotherName(t *testing.T) {
	s, h := newStore(t), newHost(t, hostTree(t))
	first := seal(t, s, "v1", h)
	h.read = nil
	if r := seal(t, s, "v2", h); r.Digest != first.Digest || r.NewBytes > 0 || len(h.read) > 0 {
		t.Errorf("read %q, %d new bytes", h.read, r.NewBytes)
	}
	if _, err := s.Remove("v1", image.Digest{}); err != nil {
		t.Fatal(err)
	}
	if r := seal(t, s, "v3", h); r.Digest != first.Digest || len(h.read) > 0 {
		t.Errorf("read %q", h.read)
	}
	if got := readAll(t, open(t, s, "v3"), "large"); got[900_000:] != "behind a hole" {
		t.Error("another content")
	}
}
