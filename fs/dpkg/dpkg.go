// Package dpkg reads which Debian packages are installed in a tree, and which of
// them its files are of. It takes any billy.Filesystem and knows nothing of
// where that comes from.
package dpkg

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/go-git/go-billy/v5"
)

// Where dpkg keeps what it knows (dpkg(1), FILES).
const (
	statusPath = "/var/lib/dpkg/status"
	infoDir    = "/var/lib/dpkg/info"
	listSuffix = ".list"
)

// Package is an installed package.
type Package struct {
	Name    string
	Arch    string
	Version string
}

// Key identifies a package among those of a tree, which may have one of a name
// for each architecture.
type Key struct{ Name, Arch string }

// Key returns the package's.
func (p Package) Key() Key { return Key{p.Name, p.Arch} }

// Database is what dpkg knows of a tree.
type Database struct {
	root     billy.Filesystem
	packages []Package
}

// Open reads which packages are installed in the tree. One that was not made
// with dpkg has none.
func Open(root billy.Filesystem) (*Database, error) {
	db := &Database{root: root}
	f, err := root.Open(statusPath)
	if errors.Is(err, os.ErrNotExist) {
		return db, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if db.packages, err = parseStatus(f); err != nil {
		return nil, fmt.Errorf("%s: %w", statusPath, err)
	}
	return db, nil
}

// Packages returns the installed packages, by name and architecture.
func (db *Database) Packages() []Package { return db.packages }

// maxLine is the longest line that is read. Lists of dependencies are long.
const maxLine = 1 << 20

// maxPath is the longest path, as on Linux: each name of one is looked up.
const maxPath = 4096

// parseStatus reads a status file: paragraphs of fields (deb822(5)). A package
// that is being removed or was, but for its configuration, is not installed.
func parseStatus(r io.Reader) ([]Package, error) {
	var packages []Package
	var p Package
	installed := false
	finish := func() {
		if installed && p.Name != "" {
			packages = append(packages, p)
		}
		p, installed = Package{}, false
	}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		line := lines.Text()
		if line == "" {
			finish()
			continue
		}
		field, value, ok := strings.Cut(line, ":")
		if !ok || line[0] == ' ' || line[0] == '\t' { // a field goes on
			continue
		}
		value = strings.TrimSpace(value)
		switch strings.ToLower(field) {
		case "package":
			p.Name = value
		case "architecture":
			p.Arch = value
		case "version":
			p.Version = value
		case "status": // want, error, status: only the last is about files
			words := strings.Fields(value)
			installed = len(words) == 3 && words[2] != "not-installed" && words[2] != "config-files"
		}
	}
	finish()
	slices.SortFunc(packages, func(a, b Package) int {
		return strings.Compare(a.Name+" "+a.Arch, b.Name+" "+b.Arch)
	})
	return packages, lines.Err()
}

// Owners returns which packages the objects at some paths are of. A path that is
// of no package, or of several, as most directories are, is left out. Paths are
// those of the tree, where dpkg may know others: it has /bin/sh for /usr/bin/sh,
// by a symlink from /bin to usr/bin.
func (db *Database) Owners(wanted map[string]bool) (map[string]Key, error) {
	owners := make(map[string]Key)
	if len(wanted) == 0 || len(db.packages) == 0 {
		return owners, nil
	}
	r := resolver{db.root, map[string]string{"/": "/", ".": "/"}}
	shared := make(map[string]bool)
	for _, p := range db.packages {
		err := db.eachFile(p, func(listed string) {
			name := r.real(listed)
			if !wanted[name] {
				return
			}
			if other, ok := owners[name]; ok && other != p.Key() {
				shared[name] = true
			}
			owners[name] = p.Key()
		})
		if err != nil {
			return nil, err
		}
	}
	for name := range shared {
		delete(owners, name)
	}
	return owners, nil
}

// eachFile calls do for each path that dpkg says is of a package. A package
// without a list has no files.
func (db *Database) eachFile(p Package, do func(string)) error {
	f, err := db.root.Open(path.Join(infoDir, p.Name+listSuffix))
	if errors.Is(err, os.ErrNotExist) { // one that may be there for several architectures
		f, err = db.root.Open(path.Join(infoDir, p.Name+":"+p.Arch+listSuffix))
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		if line := lines.Text(); strings.HasPrefix(line, "/") && line != "/." && len(line) <= maxPath {
			do(line)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	return nil
}

// resolver finds out what the directories in paths are by their symlinks.
type resolver struct {
	root billy.Filesystem
	dirs map[string]string // by path as it is written
}

// real returns a path with no symlinks but, maybe, the last name.
func (r *resolver) real(p string) string {
	dir, name := path.Split(path.Clean(p))
	return path.Join(r.dir(path.Clean(dir), 0), name)
}

// maxLinks bounds the symlinks that lead to a directory, as Linux does.
const maxLinks = 40

func (r *resolver) dir(p string, links int) string {
	if real, ok := r.dirs[p]; ok {
		return real
	}
	above, name := path.Split(p)
	parent := r.dir(path.Clean(above), links)
	real := path.Join(parent, name)
	if text, err := r.root.Readlink(real); err == nil && links < maxLinks {
		if !path.IsAbs(text) {
			text = path.Join(parent, text)
		}
		real = r.dir(path.Clean("/"+text), links+1)
	}
	r.dirs[p] = real
	return real
}
