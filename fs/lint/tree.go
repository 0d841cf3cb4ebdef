package lint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"syscall"

	"github.com/go-git/go-billy/v5"

	"github.com/rootnfsd/rootnfsd/fs/source"
)

const (
	// maxLinks is how many symlinks a path may pass through, as on Linux.
	maxLinks = 40
	// maxPath is the longest path that is looked at, as on Linux.
	maxPath = 4096
	// maxConfig is how much is read of a file of settings.
	maxConfig = 1 << 20
	// maxConfigs is how much is read of all of them together: there may be any
	// number of them in a directory, hard links of one large file.
	maxConfigs = 16 << 20
)

// tree reads a billy.Filesystem as a node would see it: symlinks are followed,
// and absolute ones begin at the root of the tree.
type tree struct {
	fs       billy.Filesystem
	ctx      context.Context   // when it is done, nothing more is looked up or read
	dirs     map[string]string // real paths of directories, by the paths they were asked for
	settings int               // how much was read of settings
}

// resolve returns the real path of p, whose last name is followed as well, and
// what is there.
func (t *tree) resolve(p string) (string, os.FileInfo, error) {
	if err := t.ctx.Err(); err != nil {
		return "", nil, err
	}
	p = path.Clean("/" + p)
	dir, name := path.Split(p)
	if known, ok := t.dirs[dir]; ok {
		return t.walk(known, name)
	}
	above, info, err := t.walk("/", dir)
	if err != nil {
		return "", nil, err
	}
	if !info.IsDir() {
		return "", nil, &os.PathError{Op: "open", Path: p, Err: syscall.ENOTDIR}
	}
	t.dirs[dir] = above
	return t.walk(above, name)
}

// walk follows rest from the directory at, a real path.
func (t *tree) walk(at, rest string) (string, os.FileInfo, error) {
	info, err := t.fs.Lstat(at)
	for links := 0; err == nil; {
		var name string
		if name, rest, _ = strings.Cut(strings.TrimLeft(rest, "/"), "/"); name == "" && rest == "" {
			return at, info, nil
		}
		next := path.Join(at, name) // ".." of the root is the root
		if info, err = t.fs.Lstat(next); err != nil {
			break
		}
		if info.Mode()&os.ModeSymlink == 0 {
			if at = next; rest != "" && !info.IsDir() {
				err = syscall.ENOTDIR
			}
			continue
		}
		text, readErr := t.fs.Readlink(next)
		if links++; readErr != nil {
			err = readErr
		} else if links > maxLinks || len(text)+len(rest) > maxPath {
			err = syscall.ELOOP
		}
		if strings.HasPrefix(text, "/") {
			at = "/"
		}
		rest = text + "/" + rest
		if err == nil {
			info, err = t.fs.Lstat(at)
		}
	}
	return "", nil, &os.PathError{Op: "open", Path: path.Join(at, rest), Err: err}
}

// missing reports whether an error says that something is not there, or not what
// it would have to be. Names in symlinks may be such as no file can have.
func missing(err error) bool {
	for _, kind := range []error{os.ErrNotExist, syscall.ENOTDIR, syscall.ELOOP, syscall.ENAMETOOLONG, syscall.EINVAL} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// stat returns what is at p, following symlinks, and nil if nothing is.
func (t *tree) stat(p string) (os.FileInfo, error) {
	_, info, err := t.resolve(p)
	if missing(err) {
		return nil, nil
	}
	return info, err
}

// exists returns the first of some paths that something is at, or "".
func (t *tree) exists(paths ...string) (string, error) {
	for _, p := range paths {
		if info, err := t.stat(p); info != nil || err != nil {
			return p, err
		}
	}
	return "", nil
}

// lstat returns what is at p itself, and nil if nothing is.
func (t *tree) lstat(p string) (os.FileInfo, error) {
	dir, name := path.Split(p)
	real, _, err := t.resolve(dir)
	var info os.FileInfo
	if err == nil {
		info, err = t.fs.Lstat(path.Join(real, name))
	}
	if missing(err) {
		return nil, nil
	}
	return info, err
}

// list returns the entries of a directory, none if there is no such directory.
func (t *tree) list(p string) ([]os.FileInfo, error) {
	real, info, err := t.resolve(p)
	if missing(err) || err == nil && !info.IsDir() {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return t.fs.ReadDir(real)
}

// open opens the regular file at p; it returns nil if there is none.
func (t *tree) open(p string) (billy.File, error) {
	real, info, err := t.resolve(p)
	if missing(err) || err == nil && !info.Mode().IsRegular() {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	f, err := t.fs.Open(real)
	if err != nil {
		return nil, err
	}
	return stoppable{f, t.ctx}, nil
}

// stoppable is a file that nothing more is read of when its context is done.
type stoppable struct {
	billy.File
	ctx context.Context
}

func (f stoppable) Read(b []byte) (int, error) {
	if err := f.ctx.Err(); err != nil {
		return 0, err
	}
	return f.File.Read(b)
}

// read returns the content of the regular file at p, its beginning if it is
// very large, and nothing if there is none.
func (t *tree) read(p string) (string, error) {
	f, err := t.open(p)
	if f == nil || err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxConfig))
	if t.settings += len(b); err == nil && t.settings > maxConfigs {
		err = fmt.Errorf("there are more than %d MiB of settings, with %s", maxConfigs>>20, printable(p))
	}
	return string(b), err
}

// lines returns the lines of the file at p without comments, blanks around them
// and empty ones.
func (t *tree) lines(p string) ([]string, error) {
	text, err := t.read(p)
	var all []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' && line[0] != ';' {
			all = append(all, line)
		}
	}
	return all, err
}

// walkAll calls do for all that is below dir, a real path, without following
// symlinks or entering what is mounted there.
func (t *tree) walkAll(dir string, do func(p string, info os.FileInfo) error) error {
	for todo := []string{dir}; len(todo) > 0; {
		if err := t.ctx.Err(); err != nil {
			return err
		}
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		entries, err := t.fs.ReadDir(at)
		if err != nil {
			return err
		}
		for _, info := range entries {
			p := path.Join(at, info.Name())
			if m := source.MetaOf(info); m != nil && m.MountPoint || len(p) > maxPath {
				continue
			}
			if err := do(p, info); err != nil {
				return err
			}
			if info.IsDir() {
				todo = append(todo, p)
			}
		}
	}
	return nil
}

// capability returns the file capabilities of the object at p, a real path.
func (t *tree) capability(p string) ([]byte, error) {
	r, ok := t.fs.(source.XattrReader)
	if !ok {
		return nil, nil
	}
	xattrs, err := r.Xattrs(p)
	for _, x := range xattrs {
		if x.Name == "security.capability" {
			return bytes.Clone(x.Value), nil
		}
	}
	return nil, err
}
