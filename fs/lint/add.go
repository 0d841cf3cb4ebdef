package lint

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"

	"github.com/go-git/go-billy/v5"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/source"
	"github.com/rootnfsd/rootnfsd/fs/source/overlay"
)

// Addition is an object that is put into a tree. It is root's.
type Addition struct {
	Path    string  // from the root of the tree
	Kind    fs.Kind // Regular, Symlink or Directory
	Mode    uint32  // within 07777, of a regular file; a directory that has to be made is 0755
	Content string  // of a regular file, or the text of a symlink
}

// Add returns a tree with objects put into it, and what had to be changed for that, recorded as what Fix changes
// under the name of rule. Directories on the way are made where they are missing. The tree that it is given
// stays as it is; if all is there already the two are the same.
//
// Symlinks on the way are followed as a node would follow them, absolute ones from the root of the tree; what is at a
// path itself is replaced. The additions that had to be made are returned by the paths at which they really
// are, no symlink on the way, and directories before what is in them.
func Add(ctx context.Context, root billy.Filesystem, rule string, all []Addition) (*overlay.Overlay, []Change, []Addition, error) {
	out := overlay.New(root)
	f := &adder{fixer: fixer{checker: newChecker(ctx, out), out: out}}
	f.rule = &Rule{ID: rule}
	for _, a := range all {
		if err := ctx.Err(); err != nil {
			return nil, nil, nil, err
		}
		if err := f.add(a); err != nil {
			return nil, nil, nil, fmt.Errorf("put %s into the tree: %w", a.Path, err)
		}
	}
	if len(f.changes) == 0 {
		return out, nil, nil, nil
	}
	return out, f.changes, f.made, f.record()
}

type adder struct {
	fixer
	made []Addition
}

func (f *adder) add(a Addition) error {
	if a.Kind == fs.Directory {
		_, err := f.directory(a.Path)
		return err
	}
	dir, err := f.directory(path.Dir(path.Clean("/" + a.Path)))
	if err != nil {
		return err
	}
	a.Path = path.Join(dir, path.Base(a.Path))
	info, err := f.fs.Lstat(a.Path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	what, before, after := "made", "", shownOf(a.Kind, a.Content)
	if err == nil {
		if info.IsDir() {
			return errors.New("there is a directory of that name: move it away")
		}
		m := source.MetaOf(info)
		if before, err = f.shown(a.Path, m); err != nil {
			return err
		}
		kept := m.Kind == a.Kind && m.UID == 0 && m.GID == 0
		switch {
		case kept && before == after && (a.Kind == fs.Symlink || m.Mode == a.Mode):
			return nil
		case m.Kind == a.Kind && before == after:
			what = "gave it to root, with the mode that it should have"
		default:
			what = "replaced"
		}
		// What is there now has an owner, a mode and attributes of its own.
		if err := f.out.Hide(a.Path); err != nil {
			return err
		}
	}
	if a.Kind == fs.Symlink {
		err = f.out.Link(a.Path, a.Content)
	} else {
		err = f.out.WriteFile(a.Path, []byte(a.Content), a.Mode)
	}
	if err != nil {
		return err
	}
	f.made = append(f.made, a)
	if before == after {
		before, after = "", ""
	}
	f.changed(a.Path, what, before, after)
	return nil
}

// shown is what people are shown of an object that is there.
func (f *adder) shown(p string, m *source.Meta) (string, error) {
	switch m.Kind {
	case fs.Symlink:
		text, err := f.fs.Readlink(p)
		return shownOf(m.Kind, text), err
	case fs.Regular:
		return f.read(p)
	}
	return "(" + m.Kind.String() + ")\n", nil
}

func shownOf(kind fs.Kind, content string) string {
	if kind == fs.Symlink {
		return "-> " + content + "\n"
	}
	return content
}

// directory returns the real path of a directory, which is made if need be.
func (f *adder) directory(p string) (string, error) {
	real, made, err := f.makeDirectory(p)
	for _, d := range made {
		f.made = append(f.made, Addition{Path: d, Kind: fs.Directory, Mode: 0o755})
		f.changed(d, "made the directory", "", "")
	}
	return real, err
}
