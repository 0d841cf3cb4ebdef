package integration

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// files are the content of a small tree, by path.
type files map[string]string

// newStore makes a store named images with a version for each of trees, by
// name, and returns its directory.
func newStore(t *testing.T, trees map[string]files) string {
	t.Helper()
	store := filepath.Join(t.TempDir(), "images")
	mkdir(t, store)
	for name, tree := range trees {
		mkdir(t, filepath.Join(store, name))
		for path, content := range tree {
			write(t, filepath.Join(store, name, path), content)
		}
	}
	return store
}

// write writes a file and the directories above it.
func write(t *testing.T, path, content string) {
	t.Helper()
	mkdir(t, filepath.Dir(path))
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
}

// smallTree is a tree for tests that look at one or two files.
var smallTree = files{
	"etc/hostname":    "golden\n",
	"etc/os-release":  "NAME=small\n",
	"usr/bin/program": "#!/bin/sh\n",
}

// versionRow is one version in the output of versions --json.
type versionRow struct {
	Name, Digest string
	Objects      uint64
	Promoted     bool
	Nodes        []string
}

// versionNames are the names that versions lists, sorted.
func versionNames(t *testing.T, store string) []string {
	t.Helper()
	var names []string
	for _, v := range cliJSON[[]versionRow](t, "versions", "--export", store) {
		names = append(names, v.Name)
	}
	slices.Sort(names)
	return names
}
