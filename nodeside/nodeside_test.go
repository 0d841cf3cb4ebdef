package nodeside_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/nodeside"
)

const home = "192.168.1.66:/home"

// TestFiles looks at the files of each target: no two of a path, scripts that can be run, a home where one was
// named and nowhere else.
func TestFiles(t *testing.T) {
	for _, target := range nodeside.TargetNames() {
		t.Run(target, func(t *testing.T) {
			with, err := nodeside.Files(target, home)
			if err != nil {
				t.Fatal(err)
			}
			without, err := nodeside.Files(target, "")
			if err != nil || len(without) >= len(with) || len(without) == 0 {
				t.Errorf("%d files without a home, %v, and %d with one", len(without), err, len(with))
			}
			seen := map[string]bool{}
			homes := 0
			for _, f := range with {
				if seen[f.Path] || filepath.Clean(f.Path) != f.Path || !filepath.IsAbs(f.Path) {
					t.Errorf("%s is there twice, or no path from the root", f.Path)
				}
				seen[f.Path] = true
				isScript := strings.HasPrefix(f.Content, "#!/bin/sh\n")
				if f.Kind == fs.Regular && isScript != (f.Mode == 0o755) {
					t.Errorf("%s has mode %o, and is a script: %v", f.Path, f.Mode, isScript)
				}
				if strings.Contains(f.Content, "server:/home") {
					t.Errorf("%s has the placeholder in it", f.Path)
				}
				homes += strings.Count(f.Content, home)
			}
			if homes != 1 {
				t.Errorf("the home is named %d times; want once", homes)
			}
			for _, f := range without {
				if strings.Contains(f.Content, "=server:") || strings.Contains(f.Path, "home") {
					t.Errorf("without a home there is %s", f.Path)
				}
			}
		})
	}
	if _, err := nodeside.Files("debia", ""); !errors.Is(err, nodeside.ErrTarget) {
		t.Errorf("for a target that there is not: %v; want ErrTarget", err)
	}
}

// TestHome has homes that can be written into a unit, and others.
func TestHome(t *testing.T) {
	for home, good := range map[string]bool{
		"server:/home": true, "192.168.1.66:/srv/nodes/home": true, "[2001:db8::1]:/home": true, "a.b-c.example:/h@me+1_x": true, "server:/": true,
		"server": false, ":/home": false, "server:home": false, "/home": false, "[]:/home": false,
		"server:/home dir": false, "server:/home\nExecStart=/bin/sh": false, "server:/%h": false, "server:/$HOME": false, `server:/"`: false,
		"server:/home;reboot": false, "server:/'": false, "server:/home,x": false, "server:/" + strings.Repeat("x", 2000): false, "sérver:/home": false,
	} {
		files, err := nodeside.Files("debian", home)
		if (err == nil) != good {
			t.Errorf("%.40q: %v; want that it is good: %v", home, err, good)
		}
		if err != nil && (len(files) > 0 || !strings.Contains(err.Error(), "SERVER:/PATH")) {
			t.Errorf("%.40q: %v, and %d files; want what a home looks like", home, err, len(files))
		}
	}
}

func FuzzHome(f *testing.F) {
	for _, home := range []string{"server:/home", "[::1]:/home", "x:/\n", "x:/%", ":/"} {
		f.Add(home)
	}
	f.Fuzz(func(t *testing.T, home string) {
		files, err := nodeside.Files("alpine", home)
		if err != nil || home == "" {
			return
		}
		for _, file := range files {
			if strings.Contains(file.Content, "nolock "+home+" /home\n") {
				if strings.ContainsAny(home, " \t\n\r%$`'\"\\;&|<>(){}*?!#~,\x00") {
					t.Errorf("%q is one word for no shell and no unit", home)
				}
				return
			}
		}
		t.Errorf("%q is in no file", home)
	})
}

// TestTar reads the archive: the files are in it, and it is the same each time.
func TestTar(t *testing.T) {
	files, err := nodeside.Files("init-overlay", home)
	if err != nil {
		t.Fatal(err)
	}
	var first, second bytes.Buffer
	if err := errors.Join(nodeside.WriteTar(&first, files), nodeside.WriteTar(&second, files)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("the same files are another archive")
	}
	in := tar.NewReader(&first)
	for _, f := range files {
		h, err := in.Next()
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		kind := map[byte]fs.Kind{tar.TypeReg: fs.Regular, tar.TypeSymlink: fs.Symlink, tar.TypeDir: fs.Directory}[h.Typeflag]
		if "/"+strings.TrimSuffix(h.Name, "/") != f.Path || kind != f.Kind || h.Mode != int64(f.Mode) || h.Uid != 0 || string(content)+h.Linkname != f.Content {
			t.Errorf("%s is %+v, %q", f.Path, h, content)
		}
	}
	if _, err := in.Next(); err != io.EOF {
		t.Errorf("there is more in the archive: %v", err)
	}
}

// TestPut makes and replaces files in a tree, each whole.
func TestPut(t *testing.T) {
	defer unix.Umask(unix.Umask(0o077)) // of an administrator who is careful; modes are as they are said all the same
	dir := t.TempDir()
	tree := open(t, dir)
	for _, f := range []nodeside.File{
		{Path: "/etc", Kind: fs.Directory, Mode: 0o755},
		{Path: "/etc", Kind: fs.Directory, Mode: 0o700},
		{Path: "/etc/a", Kind: fs.Regular, Mode: 0o755, Content: "one"},
		{Path: "/etc/a", Kind: fs.Regular, Mode: 0o644, Content: "two"},
		{Path: "/etc/link", Kind: fs.Symlink, Mode: 0o777, Content: "/dev/null"},
		{Path: "/etc/link", Kind: fs.Regular, Mode: 0o600, Content: "file"},
		{Path: "/etc/a", Kind: fs.Symlink, Mode: 0o777, Content: "link"},
	} {
		if err := tree.Put(f); err != nil {
			t.Fatal(err)
		}
		info, err := os.Lstat(filepath.Join(dir, f.Path))
		if err != nil {
			t.Fatal(err)
		}
		switch f.Kind {
		case fs.Symlink:
			if text, err := os.Readlink(filepath.Join(dir, f.Path)); text != f.Content || err != nil {
				t.Errorf("%s leads to %q, %v; want %q", f.Path, text, err, f.Content)
			}
		case fs.Regular:
			b, err := os.ReadFile(filepath.Join(dir, f.Path))
			if string(b) != f.Content || err != nil || uint32(info.Mode().Perm()) != f.Mode || !info.Mode().IsRegular() {
				t.Errorf("%s is %v, %q, %v; want %o, %q", f.Path, info.Mode(), b, err, f.Mode, f.Content)
			}
		case fs.Directory:
			if info.Mode().Perm() != 0o755 {
				t.Errorf("%s has mode %v; want that of the first time", f.Path, info.Mode())
			}
		}
	}
	expectNames(t, filepath.Join(dir, "etc"), "a", "link")
}

// TestPutStaysInside has trees that lead out: nothing is made there.
func TestPutStaysInside(t *testing.T) {
	outside := t.TempDir()
	for name, prepare := range map[string]func(dir string) error{
		"a link to a directory outside": func(dir string) error { return os.Symlink(outside, filepath.Join(dir, "etc")) },
		"a link upwards":                func(dir string) error { return os.Symlink("../../../../../../.."+outside, filepath.Join(dir, "etc")) },
		"a link inside": func(dir string) error {
			return errors.Join(os.Mkdir(filepath.Join(dir, "real"), 0o755), os.Symlink("real", filepath.Join(dir, "etc")))
		},
		"a file":                   func(dir string) error { return os.WriteFile(filepath.Join(dir, "etc"), nil, 0o644) },
		"nothing":                  func(string) error { return nil },
		"a directory of that name": func(dir string) error { return os.MkdirAll(filepath.Join(dir, "etc/a/b"), 0o755) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := prepare(dir); err != nil {
				t.Fatal(err)
			}
			tree := open(t, dir)
			for _, p := range []string{"/etc/a", "etc/a", "/etc/../etc/a", "/../etc/a"} {
				for _, kind := range []fs.Kind{fs.Regular, fs.Symlink} {
					if err := tree.Put(nodeside.File{Path: p, Kind: kind, Mode: 0o644, Content: "x"}); err == nil || !strings.Contains(err.Error(), p) {
						t.Errorf("%s: %v; want an error that names it", p, err)
					}
				}
			}
			if err := tree.Put(nodeside.File{Path: "/", Kind: fs.Regular}); err == nil {
				t.Error("a file without a name is made")
			}
			expectNames(t, outside)
			if left, _ := filepath.Glob(filepath.Join(dir, "etc/.rootnfsd-*")); len(left) > 0 {
				t.Errorf("temporary files are left: %q", left)
			}
		})
	}
	if _, err := nodeside.OpenTree(filepath.Join(outside, "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a tree that there is not: %v", err)
	}
}

func open(t *testing.T, dir string) *nodeside.Tree {
	t.Helper()
	tree, err := nodeside.OpenTree(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tree.Close() })
	return tree
}

func expectNames(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if strings.Join(names, " ") != strings.Join(want, " ") {
		t.Errorf("%s has %q; want %q", dir, names, want)
	}
}
