package layer

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"path"
	"slices"
	"strings"

	"github.com/rootnfsd/rootnfsd/fs"
)

// Check says which of the files can be laid over a tree together, in order, and of each
// of the others why it cannot. The base must number its objects from 1 to
// the number of them that Statfs tells, as a sealed version does.
func Check(base fs.Tree, files []File) (good []File, refused []error) {
	files = slices.Clone(files)
	slices.SortStableFunc(files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	t := newTree(base, 0)
	for _, f := range files {
		if err := t.lay(&f); err != nil {
			refused = append(refused, err)
			continue
		}
		good = append(good, f)
	}
	return good, refused
}

// New lays files over a tree. They are as Check returned them for one with the same
// content. What id is goes into the FSID: it should follow from the files. The
// errors are those of Check, and those of the base.
func New(base fs.Tree, id uint64, files []File) (*Tree, error) {
	t := newTree(base, id)
	for i := range files {
		if err := t.lay(&files[i]); err != nil {
			return nil, err
		}
	}
	for id, o := range t.changed {
		if o.dir == nil {
			continue
		}
		if err := t.listBase(id, o); err != nil {
			return nil, err
		}
		t.listAdded(o.dir)
	}
	for i := range t.own {
		if d := t.own[i].dir; d != nil {
			d.added = []fs.DirEntry{t.entry(t.first+fs.NodeID(i), ".", 1), {ID: d.parent, FileID: uint64(d.parent), Cookie: 2, Kind: fs.Directory, Name: []byte("..")}}
			t.listAdded(d)
		}
	}
	return t, nil
}

// rootCred looks at trees as the superuser: what a layer is made of is no client's matter.
var rootCred = &fs.Cred{}

// lay adds one file, or says why it cannot and leaves the tree as it was.
func (t *Tree) lay(f *File) error {
	names, err := split(f)
	if err != nil {
		return fmt.Errorf("%s: %w", f.Path, err)
	}
	dir, missing, err := t.walk(names)
	if err == nil && uint64(t.first)+uint64(len(t.own)+len(missing)) > math.MaxUint32 {
		err = errors.New("the version has so many objects that no number below 2^32 is left for it")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", f.Path, err)
	}
	name := names[len(names)-1]
	var old fs.NodeID
	if len(missing) == 0 {
		if old, err = t.replaceable(dir, name); err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
	}
	for _, m := range missing {
		if dir, err = t.mkdir(dir, m); err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
	}
	o := object{content: f.Content, attr: fs.Attr{
		Kind: fs.Regular, Mode: f.Mode, Nlink: 1, UID: f.UID, GID: f.GID,
		Size: uint64(len(f.Content)), Used: uint64(len(f.Content)+4095) &^ 4095,
		Atime: f.Mtime, Mtime: f.Mtime, Ctime: f.Mtime,
	}}
	t.bytes += uint64(len(f.Content))
	return t.enter(dir, name, o, old)
}

// split checks a file by itself and returns the names in its path.
func split(f *File) ([]string, error) {
	switch {
	case len(f.Path) > MaxPath:
		return nil, fmt.Errorf("the path has more than %d bytes", MaxPath)
	case !strings.HasPrefix(f.Path, "/") || path.Clean(f.Path) != f.Path || f.Path == "/":
		return nil, errors.New("not a path from the root to a file")
	case f.Mode&^0o7777 != 0 || f.Mtime.Nsec >= 1e9:
		return nil, errors.New("a mode or a time that no file has")
	}
	names := strings.Split(f.Path[1:], "/")
	for _, n := range names {
		if _, err := fs.ParseName([]byte(n)); err != nil {
			return nil, err
		}
	}
	return names, nil
}

// walk follows the names of a file as far as there are directories, and returns the directories that are
// missing.
func (t *Tree) walk(names []string) (dir fs.NodeID, missing []string, err error) {
	dir = t.Root()
	last := len(names) - 1
	for i, name := range names[:last] {
		next, err := t.Lookup(rootCred, dir, fs.Name(name))
		if errors.Is(err, fs.ErrNotExist) {
			return dir, names[i:last], nil
		}
		var a fs.Attr
		if err == nil {
			err = t.Getattr(next, &a)
		}
		if err != nil {
			return 0, nil, err
		}
		at := "/" + path.Join(names[:i+1]...)
		switch {
		case t.Owns(next) && a.Kind != fs.Directory:
			return 0, nil, fmt.Errorf("%s is itself one of the files", at)
		case a.Kind == fs.Symlink:
			return 0, nil, t.throughSymlink(next, at, names[i+1:])
		case a.Kind != fs.Directory:
			return 0, nil, fmt.Errorf("in the version, %s is a %s and no directory: choose another place", at, a.Kind)
		}
		dir = next
	}
	return dir, nil, nil
}

// throughSymlink is the error for a path that leads through a symlink at a place. It is not followed, for
// the symlink itself may be replaced.
func (t *Tree) throughSymlink(id fs.NodeID, at string, rest []string) error {
	text, err := t.Readlink(id)
	if err != nil {
		return err
	}
	to := string(text)
	if !path.IsAbs(to) {
		to = path.Join(path.Dir(at), to)
	}
	return fmt.Errorf("in the version, %s is a symlink to %s: put it into %s", at, text, path.Join(append([]string{to}, rest...)...))
}

// replaceable returns what has a name in a directory of the base; 0 if nothing has.
func (t *Tree) replaceable(dir fs.NodeID, name string) (fs.NodeID, error) {
	id, err := t.Lookup(rootCred, dir, fs.Name(name))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	var a fs.Attr
	if err == nil {
		err = t.Getattr(id, &a)
	}
	switch {
	case err != nil:
		return 0, err
	case t.Owns(id):
		return 0, errors.New("it is there twice")
	case a.Kind == fs.Directory:
		return 0, errors.New("in the version, that is a directory, which a file cannot replace")
	}
	return id, nil
}

// mkdir makes a directory, which is root's and as old as its parent.
func (t *Tree) mkdir(parent fs.NodeID, name string) (fs.NodeID, error) {
	var a fs.Attr
	if err := t.Getattr(parent, &a); err != nil {
		return 0, err
	}
	o := object{
		dir: &directory{parent: parent, names: map[string]fs.NodeID{}},
		attr: fs.Attr{
			Kind: fs.Directory, Mode: 0o755, Nlink: 2, Size: dirSize(0, 0), Used: dirSize(0, 0),
			Atime: a.Mtime, Mtime: a.Mtime, Ctime: a.Mtime,
		},
	}
	id := t.first + fs.NodeID(len(t.own))
	return id, t.enter(parent, name, o, 0)
}

// enter adds an object under a name, which old had, if that is not 0.
func (t *Tree) enter(dir fs.NodeID, name string, o object, old fs.NodeID) error {
	parent, err := t.change(dir)
	if err != nil {
		return err
	}
	if old != 0 {
		was, err := t.change(old)
		if err != nil {
			return err
		}
		if was.attr.Nlink--; was.attr.Nlink == 0 {
			t.orphans++
		}
	}
	if o.dir != nil {
		parent.attr.Nlink++
	}
	id := t.first + fs.NodeID(len(t.own))
	o.attr.FSID, o.attr.FileID = t.fsid, uint64(id)
	parent.dir.names[name] = id
	t.own = append(t.own, o)
	return nil
}

// change returns an object to be changed, good until the next one is entered.
func (t *Tree) change(id fs.NodeID) (*object, error) {
	if t.Owns(id) {
		return t.object(id)
	}
	if o := t.changed[id]; o != nil {
		return o, nil
	}
	o := &object{}
	if err := t.Getattr(id, &o.attr); err != nil {
		return nil, err
	}
	if o.attr.Kind == fs.Directory {
		o.dir = &directory{names: map[string]fs.NodeID{}}
	}
	t.changed[id] = o
	return o, nil
}

// dirSize is the size of a directory with so many names of so many bytes, as fs/image has it,
// "." and ".." not counted.
func dirSize(names, bytes int) uint64 {
	return uint64(16*(names+2)+len(".")+len("..")+bytes+4095) &^ 4095
}

// listBase finds out what the layer's names replace in a directory of the base, and its size.
func (t *Tree) listBase(id fs.NodeID, o *object) error {
	var names, bytes int
	d := o.dir
	count := func(name string) { names, bytes = names+1, bytes+len(name) }
	batch := make([]fs.DirEntry, 256)
	for eof := false; !eof; {
		n, end, err := t.base.ReadDir(rootCred, id, d.last, batch)
		if err != nil {
			return err
		}
		if n == 0 && !end {
			return fmt.Errorf("%w: the listing of a directory does not end", fs.ErrIO)
		}
		for _, e := range batch[:n] {
			d.last = e.Cookie
			name := string(e.Name)
			if own, ok := d.names[name]; ok {
				d.replaced = append(d.replaced, t.entry(own, name, e.Cookie))
			} else if name != "." && name != ".." {
				count(name)
			}
		}
		eof = end
	}
	for name := range d.names {
		count(name)
	}
	o.attr.Size = max(o.attr.Size, dirSize(names, bytes))
	return nil
}

// listAdded puts the names of the layer that replace none into a listing, in order.
func (t *Tree) listAdded(d *directory) {
	for _, name := range slices.Sorted(maps.Keys(d.names)) {
		if !slices.ContainsFunc(d.replaced, func(r fs.DirEntry) bool { return string(r.Name) == name }) {
			d.added = append(d.added, t.entry(d.names[name], name, d.last+uint64(len(d.added))+1))
		}
	}
}

// entry is the entry of an own object in a listing.
func (t *Tree) entry(id fs.NodeID, name string, cookie uint64) fs.DirEntry {
	return fs.DirEntry{ID: id, FileID: uint64(id), Cookie: cookie, Kind: t.own[id-t.first].attr.Kind, Name: []byte(name)}
}
