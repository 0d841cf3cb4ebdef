package store

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rootnfsd/rootnfsd/bench"
	"github.com/rootnfsd/rootnfsd/bench/benchtest"
)

// TestImports measures the real programs, with little work.
func TestImports(t *testing.T) {
	for _, name := range []string{"tar", "gzip", "xz", "zstd", "mkfs.ext4"} {
		_, err := exec.LookPath(name)
		benchtest.Need(t, err)
	}
	program := benchtest.Program(t)
	dir, tree := t.TempDir(), filepath.Join(t.TempDir(), "tree")
	if err := makeTree(t.Context(), tree, 300); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(tree, "etc"), 0o755); err != nil { // without it an image is none of a root
		t.Fatal(err)
	}
	given := filepath.Join(t.TempDir(), "given.tgz")
	if err := shell(t.Context(), `tar -czf "$2" -C "$1" .`, tree, given); err != nil {
		t.Fatal(err)
	}
	b := &Imports{Program: program, Dir: dir, Sources: []string{given}, Tree: tree, Runs: 1, Say: func(string) {}, Note: func(note string) { t.Error(note) }}
	if err := b.Check(); err != nil {
		t.Fatal(err)
	}
	report := new(bench.Report)
	if err := b.Run(t.Context(), report); err != nil {
		t.Fatal(err)
	}
	measured := map[string]uint64{} // bytes
	for _, r := range report.Results {
		for _, run := range r.Runs {
			if r.Bench != benchImport || len(r.Runs) != b.Runs || run.Wall <= 0 || run.CPU <= 0 || run.Bytes == 0 {
				t.Errorf("%+v: %d runs, %+v", r.Case, len(r.Runs), run)
			}
			measured[r.Work+", "+r.Server] = run.Bytes
		}
	}
	for _, work := range []string{"given.tgz", "tar.zst", "tar.gz", "tar.xz", "tar.xz, of one block", "img.zst", "img.xz"} {
		if n := measured[work+", "+ours]; n == 0 || measured[work+", "+alone] != n || measured[work+", "+toFile] != n {
			t.Errorf("%s: not measured in all ways", work)
		}
	}
	if len(measured) != 7*3 {
		t.Errorf("%d are measured: %v", len(measured), measured)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	b.Sources = []string{filepath.Join(tree, "part-000/dir-00/file-00")}
	if err := b.Run(t.Context(), report); err == nil {
		t.Error("what is not compressed is measured")
	}
}
