package image

import (
	"runtime/debug"
	"slices"
	"sort"
	"strings"

	"github.com/rootnfsd/rootnfsd/fs"
)

// pathOf returns a path of an object, the first in canonical order, for
// messages. It takes time in proportion to the number of names.
func (x *index) pathOf(id fs.NodeID) string {
	var names []string
	for range x.counts[secDirs] + 1 { // deeper than any path, if parents form a ring
		if id == 1 {
			slices.Reverse(names)
			return "/" + strings.Join(names, "/")
		}
		parent, name := x.nameOf(id)
		if parent == 0 {
			break
		}
		names = append(names, string(name))
		id = parent
	}
	return "unknown"
}

// pathOf is that of the index, for who is not guarded: an index that cannot be
// read knows no path.
func (v *Version) pathOf(id fs.NodeID) (path string) {
	path = "unknown"
	var fault error
	defer v.guard(debug.SetPanicOnFault(true), &fault)
	return v.index.pathOf(id)
}

// nameOf returns the first name of an object and the directory that it is in.
func (x *index) nameOf(id fs.NodeID) (parent fs.NodeID, name []byte) {
	for i := range x.counts[secDirents] {
		e := (*dirent)(x.record(secDirents, i))
		if fs.NodeID(e.inode()) == id {
			return x.dirOfEntry(i), x.span(secNames, e.nameOff(), e.nameLen())
		}
	}
	return 0, nil
}

// dirOfEntry returns the directory that entry i of secDirents belongs to: the
// first whose entries end behind it.
func (x *index) dirOfEntry(i uint64) fs.NodeID {
	dir := func(k int) *dirRecord { return (*dirRecord)(x.record(secDirs, uint64(k))) }
	n := int(x.counts[secDirs])
	k := sort.Search(n, func(k int) bool { return uint64(dir(k).first())+uint64(dir(k).count()) > i })
	if k == n {
		return 0
	}
	return fs.NodeID(dir(k).inode())
}

// eachName calls do for every name in the tree, directories before what they
// contain, and once for the root. It ends early where the index is nonsense.
func (v *Version) eachName(do func(path string, n *inode)) (err error) {
	defer v.guard(debug.SetPanicOnFault(true), &err)
	type directory struct {
		id   fs.NodeID
		path string
	}
	queue := []directory{{1, ""}}
	root, err := v.index.inode(1)
	if err != nil {
		return err
	}
	do("/", root)
	for seen := uint64(1); len(queue) > 0; queue = queue[1:] {
		_, d, err := v.index.dir(queue[0].id)
		if err != nil {
			return err
		}
		for i := range d.count() {
			e, name, err := v.index.dirent(d, i)
			if err != nil {
				return err
			}
			n, err := v.index.inode(fs.NodeID(e.inode()))
			if err != nil {
				return fs.ErrIO
			}
			path := queue[0].path + "/" + string(name)
			do(path, n)
			if n.kind() != fs.Directory {
				continue
			}
			if seen++; seen > v.index.counts[secDirs] { // directories that contain each other
				return fs.ErrIO
			}
			queue = append(queue, directory{fs.NodeID(e.inode()), path})
		}
	}
	return nil
}
