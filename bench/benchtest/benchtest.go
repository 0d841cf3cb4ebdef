// Package benchtest is for the tests of the measurements, which run the real program.
package benchtest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/bench/peer"
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

// Need says that a test needs what is missing, if anything: it is skipped, or fails
// where nothing may be left out.
func Need(t testing.TB, missing error) {
	t.Helper()
	switch {
	case missing == nil:
	case os.Getenv("ROOTNFSD_TEST_ALL") != "":
		t.Fatalf("nothing may be left out (ROOTNFSD_TEST_ALL is set): %v", missing)
	default:
		t.Skip(missing)
	}
}

// BootTree makes a tree with a directory of boot files, and peer.BootFile in it unless
// its content is empty. Any user may read it, as servers must that are not who the test
// is: the directories of tests are closed to them.
func BootTree(t testing.TB, content string) string {
	t.Helper()
	tree, err := os.MkdirTemp("", "rootnfsd-tftp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(tree) })
	boot := filepath.Join(tree, peer.BootDir)
	if err := errors.Join(os.Chmod(tree, 0o755), os.MkdirAll(boot, 0o755)); err != nil {
		t.Fatal(err)
	}
	if content != "" {
		if err := os.WriteFile(filepath.Join(boot, peer.BootFile), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return tree
}

// InNetwork runs a test again in a network of its own, where all ports are free, and
// reports whether it is there: where it is not, the test has been run and may return.
func InNetwork(t *testing.T) bool {
	t.Helper()
	if os.Getenv(peer.OwnNetwork) != "" {
		if _, err := peer.InEmptyNetwork(); err != nil {
			t.Fatal(err)
		}
		return true
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), peer.OwnNetwork+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("in a network of its own: %v", err)
	}
	t.Logf("in a network of its own:\n%s", out)
	return false
}
