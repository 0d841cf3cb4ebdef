// Package benchtest is for the tests of the measurements, which run the real program.
package benchtest

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// Program builds rootnfsd for one test and returns where it is.
func Program(t testing.TB) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "rootnfsd")
	if out, err := exec.Command("go", "build", "-o", program, "github.com/rootnfsd/rootnfsd/cmd/rootnfsd").CombinedOutput(); err != nil {
		t.Fatalf("build rootnfsd: %v\n%s", err, out)
	}
	return program
}
