package main

import (
	"slices"
	"strings"

	"github.com/rootnfsd/rootnfsd/fs"
)

// treePaths knows the paths of the objects of trees, by the trees' identities.
// It is for one goroutine.
type treePaths map[uint64]map[fs.NodeID]place

// place is where an object is: the first name that was found for it.
type place struct {
	dir  fs.NodeID
	name string
}

// of returns the path of an object. The first time it walks the tree.
func (p treePaths) of(tree fs.Tree, id fs.NodeID) (string, bool) {
	places, known := p[tree.FSID()]
	if !known {
		places = map[fs.NodeID]place{}
		addPlaces(places, tree)
		p[tree.FSID()] = places
	}
	var names []string
	for id != tree.Root() {
		at, ok := places[id]
		if !ok || len(names) > len(places) { // unknown, or a ring
			return "", false
		}
		names = append(names, at.name)
		id = at.dir
	}
	slices.Reverse(names)
	return "/" + strings.Join(names, "/"), true
}

// join is the path of a name in a directory, whatever the name.
func join(dir, name string) string { return strings.TrimSuffix(dir, "/") + "/" + name }

// addPlaces walks a tree. What cannot be listed stays unknown.
func addPlaces(places map[fs.NodeID]place, tree fs.Tree) {
	entries := make([]fs.DirEntry, 128)
	for todo := []fs.NodeID{tree.Root()}; len(todo) > 0; {
		dir := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		var cookie uint64
		for eof := false; !eof; {
			n, end, err := tree.ReadDir(&fs.Cred{}, dir, cookie, entries)
			if err != nil || n == 0 {
				break
			}
			eof, cookie = end, entries[n-1].Cookie
			todo = append(todo, addEntries(places, dir, entries[:n])...)
		}
	}
}

// addEntries adds the places of entries of a directory and returns the
// directories among them that are new.
func addEntries(places map[fs.NodeID]place, dir fs.NodeID, entries []fs.DirEntry) (dirs []fs.NodeID) {
	for _, e := range entries {
		name := fs.Name(e.Name)
		_, seen := places[e.ID]
		if seen || name.IsDot() || name.IsDotDot() {
			continue
		}
		places[e.ID] = place{dir, string(e.Name)}
		if e.Kind == fs.Directory {
			dirs = append(dirs, e.ID)
		}
	}
	return dirs
}
