package peer_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rootnfsd/rootnfsd/bench/benchtest"
	"github.com/rootnfsd/rootnfsd/bench/peer"
)

// TestScratch measures a version that no node would boot: of somebody's data, or of a
// container.
func TestScratch(t *testing.T) {
	program, store, tree := benchtest.Program(t), t.TempDir(), t.TempDir()
	for _, dir := range []string{"usr/lib/os-release", "bin/sh"} { // but no init
		if err := os.MkdirAll(filepath.Join(tree, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command(program, "seal", "--export", store, "--from", tree, "v1").CombinedOutput(); err != nil {
		t.Fatalf("seal: %v\n%s", err, out)
	}
	if err := exec.Command(program, "promote", "v1", "--export", store).Run(); err == nil {
		t.Fatal("promote has nothing against this version: this test sees nothing")
	}
	if err := peer.Scratch(t.Context(), program, store, "v1", filepath.Join(t.TempDir(), "scratch")); err != nil {
		t.Error(err)
	}
}
