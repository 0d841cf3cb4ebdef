package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// Missing says what is not there of the programs named and of root's rights,
// or returns nil.
func Missing(programs ...string) error {
	if os.Geteuid() != 0 {
		return errors.New("not root")
	}
	var missing []string
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			missing = append(missing, p)
		}
	}
	if missing != nil {
		return fmt.Errorf("not installed: %s (integration/setup.sh installs it)", strings.Join(missing, ", "))
	}
	return nil
}

// Checkout is the root directory of the module that holds the working directory.
func Checkout() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("no go.mod in the working directory or above it")
		}
	}
}

// Build compiles rootnfsd as it is released, without cgo, into dir and returns the binary's path.
func Build(dir string) (string, error) { return BuildProgram(dir, "./cmd/rootnfsd") }

// BuildProgram is Build for another program of the module.
func BuildProgram(dir, pkg string) (string, error) {
	checkout, err := Checkout()
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, filepath.Base(pkg))
	cmd := exec.Command("go", "build", "-o", binary, pkg)
	cmd.Dir = checkout
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	return binary, run(cmd)
}

// run runs cmd to its end; its output is part of the error.
func run(cmd *exec.Cmd) error {
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return nil
}

// runAll runs commands one after the other; an error begins with what they are for.
func runAll(purpose string, commands [][]string) error {
	for _, c := range commands {
		if err := run(dieWithUs(exec.Command(c[0], c[1:]...))); err != nil {
			return fmt.Errorf("%s: %w", purpose, err)
		}
	}
	return nil
}

// dieWithUs makes the kernel kill cmd when this process dies, however it dies.
func dieWithUs(cmd *exec.Cmd) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}
