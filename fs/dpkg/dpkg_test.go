package dpkg_test

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rootnfsd/rootnfsd/fs/dpkg"
	"github.com/rootnfsd/rootnfsd/fs/source"
	"github.com/rootnfsd/rootnfsd/fs/source/overlay"
)

const status = `Package: bash
Status: install ok installed
Architecture: amd64
Version: 5.2.15-2+b2
Depends: base-files (>= 2.1.12), debianutils (>= 5.6-0.1)
Description: GNU Bourne Again SHell
 Version: of nothing
 .
 More.

Package: libc6
Status: install ok installed
Architecture: i386
Multi-Arch: same
Version: 2.36-9

Package: libc6
Status: hold ok installed
Architecture: amd64
Version: 2.36-9

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1

Package: broken
Status: install reinstreq half-configured
Architecture: all
Version: 2
`

// tree makes a tree with dpkg's files in it.
func tree(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func openDir(t testing.TB, dir string) *source.Dir {
	t.Helper()
	d, err := source.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestDatabase(t *testing.T) {
	dir := tree(t, map[string]string{
		"var/lib/dpkg/status":                status,
		"var/lib/dpkg/info/bash.list":        "/.\n/bin\n/bin/bash\n/usr\n/usr/share\n/usr/share/doc\n/loop/x\n/etc/link/file\n",
		"var/lib/dpkg/info/libc6:amd64.list": "/.\n/lib64\n/lib64/ld.so\n/usr\n/usr/share\n/usr/share/copyright\n",
		"var/lib/dpkg/info/libc6:i386.list":  "/.\n/lib\n/lib/ld.so\n/usr\n/usr/share\n/usr/share/copyright\n",
		"var/lib/dpkg/info/gone.list":        "/etc/gone\n",
		"usr/bin/bash":                       "",
	})
	for link, text := range map[string]string{"bin": "usr/bin", "lib64": "/usr/lib64", "loop": "loop", "etc/link": "../../../srv"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, link)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(text, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	db, err := dpkg.Open(openDir(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	want := []dpkg.Package{
		{"bash", "amd64", "5.2.15-2+b2"}, {"broken", "all", "2"}, {"libc6", "amd64", "2.36-9"}, {"libc6", "i386", "2.36-9"},
	}
	if got := db.Packages(); !slices.Equal(got, want) {
		t.Errorf("packages %v, want %v", got, want)
	}
	wanted := map[string]bool{}
	for _, p := range []string{"/bin/bash", "/usr/bin/bash", "/bin", "/usr", "/usr/share", "/usr/share/copyright", "/usr/lib64/ld.so", "/lib/ld.so", "/etc/gone", "/srv/file", "/nobody"} {
		wanted[p] = true
	}
	owners, err := db.Owners(wanted)
	if err != nil {
		t.Fatal(err)
	}
	bash := dpkg.Key{Name: "bash", Arch: "amd64"}
	wantOwners := map[string]dpkg.Key{
		"/usr/bin/bash": bash, "/bin": bash, "/usr/lib64/ld.so": {Name: "libc6", Arch: "amd64"}, "/lib/ld.so": {Name: "libc6", Arch: "i386"}, "/srv/file": bash,
	}
	if !maps.Equal(owners, wantOwners) {
		t.Errorf("owners %v, want %v", owners, wantOwners)
	}
}

func TestNoDatabase(t *testing.T) {
	db, err := dpkg.Open(openDir(t, t.TempDir()))
	if err != nil || len(db.Packages()) != 0 {
		t.Errorf("%v, %v, want no packages", db.Packages(), err)
	}
	if owners, err := db.Owners(map[string]bool{"/etc": true}); err != nil || len(owners) != 0 {
		t.Errorf("owners %v, %v", owners, err)
	}
	dir := tree(t, map[string]string{"var/lib/dpkg/status": "Package: x\nLong: " + strings.Repeat("x", 2<<20)})
	if _, err := dpkg.Open(openDir(t, dir)); err == nil || !strings.Contains(err.Error(), "/var/lib/dpkg/status") {
		t.Errorf("a file that is nonsense: %v", err)
	}
}

// TestLongPaths takes no notice of paths that no file can have, which would take
// for ever to look up name by name.
func TestLongPaths(t *testing.T) {
	long := strings.Repeat("/a", 1<<19-1)
	dir := tree(t, map[string]string{
		"var/lib/dpkg/status":         status,
		"var/lib/dpkg/info/bash.list": long + "\n/bin/bash\n" + long + "b\n",
	})
	db, err := dpkg.Open(openDir(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan map[string]dpkg.Key, 1)
	go func() {
		owners, err := db.Owners(map[string]bool{"/bin/bash": true})
		if err != nil {
			t.Error(err)
		}
		done <- owners
	}()
	select {
	case owners := <-done:
		if len(owners) != 1 {
			t.Errorf("owners %v", owners)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("two long paths take more than 10 seconds")
	}
}

// FuzzDatabase looks up files in what may be anything.
func FuzzDatabase(f *testing.F) {
	f.Add(status, "/.\n/bin/bash\n/usr/../link/x\n", "bin/link/..")
	dir := tree(f, map[string]string{"var/lib/dpkg/status": "", "bin/x": ""})
	d := openDir(f, dir)
	f.Fuzz(func(t *testing.T, status, list, link string) {
		o := overlay.New(d)
		err := errors.Join(o.WriteFile("/var/lib/dpkg/status", []byte(status), 0o644), o.Mkdir("/var/lib/dpkg/info"), o.WriteFile("/var/lib/dpkg/info/bash.list", []byte(list), 0o644), o.Link("/link", link))
		if err != nil {
			t.Fatal(err)
		}
		db, err := dpkg.Open(o)
		if err != nil {
			return
		}
		_, _ = db.Owners(map[string]bool{"/bin/bash": true, "/link": true, "/x": true}) // or an error
	})
}
