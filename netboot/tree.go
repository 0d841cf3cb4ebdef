package netboot

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/rootnfsd/rootnfsd/fs"
)

// superuser reads boot files: what a node may boot is decided by its address.
var superuser = &fs.Cred{}

// spot is an object of a tree, and the way to it. It never changes.
type spot struct {
	tree  fs.Tree
	ids   []fs.NodeID // from the root on
	names []string    // of all but the root
	attr  fs.Attr
}

// rootOf returns the root of a tree.
func rootOf(tree fs.Tree) (*spot, error) {
	s := &spot{tree: tree, ids: []fs.NodeID{tree.Root()}}
	return s, tree.Getattr(s.id(), &s.attr)
}

func (s *spot) id() fs.NodeID { return s.ids[len(s.ids)-1] }

// path is where the object is found from the root.
func (s *spot) path() string { return "/" + strings.Join(s.names, "/") }

func (s *spot) isDir() bool { return s.attr.Kind == fs.Directory }

// root returns the spot at the top. Of its attributes the kind alone is known.
func (s *spot) root() *spot {
	return &spot{tree: s.tree, ids: s.ids[:1:1], attr: fs.Attr{Kind: fs.Directory}}
}

// parent returns the spot of the directory which the object is in. Of its attributes the kind alone is known.
func (s *spot) parent() *spot {
	n := len(s.names) - 1
	return &spot{tree: s.tree, ids: s.ids[: n+1 : n+1], names: s.names[:n:n], attr: fs.Attr{Kind: fs.Directory}}
}

// mostLinks is how many symlinks may follow each other, as on Linux (path_resolution(7)).
const mostLinks = 40

// linkError says of a symlink why it leads to no file.
type linkError struct {
	link string // its path
	text string // what it says
	why  string
	kind error
}

func (e *linkError) Error() string {
	return fmt.Sprintf("the symlink %s -> %s %s", e.link, e.text, e.why)
}
func (e *linkError) Unwrap() error { return e.kind }

// find returns what a path from the spot leads to. Symlinks are followed as on the node, which has the tree as its
// root: an absolute one leads on from there, and none out of it. The error is a *linkError if one was followed, else one of the tree.
func (s *spot) find(names ...string) (*spot, error) {
	at := s
	todo := names
	var first *linkError // the symlink that was followed first
	links := 0
	fail := func(kind error, why string) (*spot, error) {
		if first == nil {
			return nil, kind
		}
		first.kind, first.why = kind, why
		return nil, first
	}
	for len(todo) > 0 {
		name := todo[0]
		todo = todo[1:]
		switch {
		case name == "" || name == ".":
			continue
		case name == ".." && len(at.names) == 0:
			return fail(fs.ErrAccess, "leads out of the image")
		case name == "..":
			at = at.parent()
			continue
		}
		next, err := at.step(name)
		switch {
		case errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrNotDir):
			return fail(err, "leads to nothing: the image has no "+path.Join(at.path(), name))
		case err != nil:
			return fail(err, "cannot be followed: "+err.Error())
		case next.attr.Kind != fs.Symlink:
			at = next
			continue
		}
		text, err := s.tree.Readlink(next.id())
		if err != nil {
			return fail(err, "cannot be followed: "+err.Error())
		}
		if first == nil {
			first = &linkError{link: next.path(), text: string(text)}
		}
		if links++; links > mostLinks {
			return fail(fs.ErrAccess, fmt.Sprintf("leads through more than %d symlinks", mostLinks))
		}
		if strings.HasPrefix(string(text), "/") {
			at = at.root()
		}
		todo = append(strings.Split(string(text), "/"), todo...)
	}
	if first != nil && at.attr.Kind != fs.Directory && at.attr.Kind != fs.Regular {
		return fail(fs.ErrInvalid, "leads to a "+at.attr.Kind.String())
	}
	return at, nil
}

// step returns what has a name in the directory at the spot.
func (s *spot) step(name string) (*spot, error) {
	parsed, err := fs.ParseName([]byte(name))
	if err != nil {
		return nil, err
	}
	id, err := s.tree.Lookup(superuser, s.id(), parsed)
	if err != nil {
		return nil, err
	}
	next := &spot{tree: s.tree, ids: append(slices.Clip(s.ids), id), names: append(slices.Clip(s.names), name)}
	return next, s.tree.Getattr(id, &next.attr)
}

// each calls f with the names in the directory at the spot, but "." and "..", until it returns false.
func (s *spot) each(f func(name string) bool) error {
	entries := make([]fs.DirEntry, 128)
	for cookie := uint64(0); ; {
		n, eof, err := s.tree.ReadDir(superuser, s.id(), cookie, entries)
		if err != nil {
			return err
		}
		for _, e := range entries[:n] {
			if cookie = e.Cookie; fs.Name(e.Name).IsDot() || fs.Name(e.Name).IsDotDot() {
				continue
			}
			if !f(string(e.Name)) {
				return nil
			}
		}
		if eof || n == 0 {
			return nil
		}
	}
}

// hasEntries reports whether there is anything in a directory.
func (s *spot) hasEntries() (any bool, err error) {
	err = s.each(func(string) bool {
		any = true
		return false
	})
	return any, err
}

// regular returns the regular file that a path from the spot leads to.
func (s *spot) regular(names ...string) (*spot, error) {
	f, err := s.find(names...)
	switch {
	case err != nil:
		return nil, err
	case f.isDir():
		return nil, fs.ErrIsDir
	case f.attr.Kind != fs.Regular:
		return nil, fs.ErrInvalid
	}
	return f, nil
}

// read returns the content of the file at the spot, of which there may be so many bytes.
func (s *spot) read(most int) ([]byte, error) {
	if s.attr.Size > uint64(most) {
		return nil, fs.ErrTooLarge
	}
	b := make([]byte, s.attr.Size)
	n, _, err := s.tree.Read(superuser, s.id(), 0, b, false)
	return b[:n], err
}

// errNoBootFiles says that nothing can be booted from an image.
var errNoBootFiles = fmt.Errorf("%w: the image has no boot files, neither in /boot/firmware nor in /boot", fs.ErrNotExist)

// bootDir returns the directory that has the boot files: /boot/firmware where the firmware of a Raspberry Pi
// and Debian's packages for it look, /boot where there is nothing in that.
func bootDir(tree fs.Tree) (*spot, error) {
	root, err := rootOf(tree)
	if err != nil {
		return nil, err
	}
	for _, names := range [][]string{{"boot", "firmware"}, {"boot"}} {
		dir, err := root.find(names...)
		if errors.Is(err, fs.ErrIO) {
			return nil, err
		}
		if err != nil || !dir.isDir() {
			continue
		}
		if any, err := dir.hasEntries(); any || err != nil {
			return dir, err
		}
	}
	return nil, errNoBootFiles
}
