package lint

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/go-git/go-billy/v5"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/source"
)

// some things to be put into trees.
var additions = []Addition{
	{"/etc/conf.d/a.conf", fs.Regular, 0o644, "content\n"},
	{"/usr/local/sbin/tool", fs.Regular, 0o755, "#!/bin/sh\n"},
	{"/etc/wants/unit", fs.Symlink, 0o777, "../unit"},
	{"/overlay", fs.Directory, 0o755, ""},
}

// add adds to a tree, and returns the changes as "file: change".
func add(t *testing.T, root billy.Filesystem, all []Addition) (billy.Filesystem, []string, []Addition) {
	t.Helper()
	out, changes, made, err := Add(context.Background(), root, "node-files", all)
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, c := range changes {
		said = append(said, c.File+": "+c.What)
	}
	return out, said, made
}

// TestAdd puts things into trees, and nothing where they are already.
func TestAdd(t *testing.T) {
	for _, c := range []struct {
		name    string
		tree    files
		changes []string
		at      map[string]string // what is where afterwards
	}{
		{"an empty tree", files{}, []string{
			"/etc: made the directory", "/etc/conf.d: made the directory", "/etc/conf.d/a.conf: made",
			"/usr: made the directory", "/usr/local: made the directory", "/usr/local/sbin: made the directory", "/usr/local/sbin/tool: made",
			"/etc/wants: made the directory", "/etc/wants/unit: made", "/overlay: made the directory",
		}, map[string]string{"/etc/conf.d/a.conf": "content\n", "/etc/wants/unit": "-> ../unit"}},
		{"other content", files{"etc/conf.d/a.conf": "old\n", "usr/local/sbin/tool": "#!/bin/sh\n", "etc/wants/unit": "-> /dev/null", "overlay/x": ""},
			[]string{"/etc/conf.d/a.conf: replaced", "/etc/wants/unit: replaced"},
			map[string]string{"/etc/conf.d/a.conf": "content\n", "/etc/wants/unit": "-> ../unit"}},
		{"another mode", files{"etc/conf.d/a.conf": "content\n", "usr/local/sbin/tool": "#!/bin/sh\n", "etc/wants/unit": "-> ../unit", "overlay/": ""},
			[]string{"/etc/conf.d/a.conf: gave it to root, with the mode that it should have"}, nil}, // treeOf gives 0755
		{"links to directories", files{"real/conf.d/": "", "etc": "-> /real", "usr/local": "-> ../real", "real/sbin": "-> /././usr/../real/wants", "real/wants/": "", "overlay": "-> /real"},
			[]string{"/real/conf.d/a.conf: made", "/real/wants/tool: made", "/real/wants/unit: made"},
			map[string]string{"/real/wants/tool": "#!/bin/sh\n"}},
		{"links that lead out", files{"etc": "-> ../../../../real", "real/": "", "usr/local/sbin/tool": "-> /etc/passwd", "overlay/": ""},
			[]string{"/real/conf.d: made the directory", "/real/conf.d/a.conf: made", "/usr/local/sbin/tool: replaced", "/real/wants: made the directory", "/real/wants/unit: made"},
			map[string]string{"/usr/local/sbin/tool": "#!/bin/sh\n"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tree := rooted{treeOf(t, c.tree)}
			out, changes, made := add(t, tree, additions)
			if !slices.Equal(changes, c.changes) {
				t.Errorf("changes\n%s\nwant\n%s", strings.Join(changes, "\n"), strings.Join(c.changes, "\n"))
			}
			for p, want := range c.at {
				if got := contentOf(t, out, p); got != want {
					t.Errorf("%s is %q; want %q", p, got, want)
				}
			}
			if len(made) != len(changes) {
				t.Errorf("made is %+v; want all that was changed", made)
			}
			for _, a := range made {
				info, err := out.Lstat(a.Path)
				if err != nil {
					t.Fatal(err)
				}
				if m := source.MetaOf(info); m.Kind != a.Kind || m.Mode != a.Mode || m.UID != 0 || m.GID != 0 {
					t.Errorf("%s is %+v; want %+v, root's", a.Path, m, a)
				}
			}
			var recorded []Change
			record := FixesPath
			if _, err := out.Readlink("/etc"); err == nil {
				record = "/real/rootnfsd/fixes.json"
			}
			if err := json.Unmarshal([]byte(contentOf(t, out, record)), &recorded); err != nil || len(recorded) != len(c.changes) || recorded[0].Rule != "node-files" {
				t.Errorf("the record is %+v, %v; want all changes", recorded, err)
			}
			if again, changes, made := add(t, out, additions); len(changes)+len(made) > 0 || again.(interface{ Changed() bool }).Changed() {
				t.Errorf("done again, it changes %q", changes)
			}
		})
	}
}

// rooted is a source in which all is root's, whoever runs the test.
type rooted struct{ billy.Filesystem }

func (r rooted) Lstat(p string) (os.FileInfo, error) {
	info, err := r.Filesystem.Lstat(p)
	if err != nil {
		return nil, err
	}
	m := *source.MetaOf(info)
	m.UID, m.GID = 0, 0
	return source.NewInfo(info.Name(), m), nil
}

// TestAddOwner takes a file away from who owns it.
func TestAddOwner(t *testing.T) {
	tree := owned{rooted{treeOf(t, files{"x": "content\n"})}}
	_, changes, _ := add(t, tree, []Addition{{"/x", fs.Regular, 0o755, "content\n"}})
	if want := []string{"/x: gave it to root, with the mode that it should have"}; !slices.Equal(changes, want) {
		t.Errorf("changes %q; want %q", changes, want)
	}
}

// owned is a source in which all is somebody's.
type owned struct{ rooted }

func (o owned) Lstat(p string) (os.FileInfo, error) {
	info, err := o.rooted.Lstat(p)
	if err != nil || p == "/" {
		return info, err
	}
	m := *source.MetaOf(info)
	m.UID = 1000
	return source.NewInfo(info.Name(), m), nil
}

// TestAddRefuses has trees in which there is no place for what is to be added.
func TestAddRefuses(t *testing.T) {
	one := []Addition{{"/etc/conf.d/a.conf", fs.Regular, 0o644, "content\n"}}
	for name, tree := range map[string]files{
		"a directory of that name": {"etc/conf.d/a.conf/": ""},
		"a file on the way":        {"etc": "x"},
		"a link to nothing":        {"etc": "-> /nowhere"},
		"a loop":                   {"etc": "-> /etc"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, changes, _, err := Add(context.Background(), treeOf(t, tree), "node-files", one); err == nil || !strings.Contains(err.Error(), "/etc/conf.d/a.conf") {
				t.Errorf("%v, %v; want an error that names the file", fmt.Sprint(changes), err)
			}
		})
	}
}
