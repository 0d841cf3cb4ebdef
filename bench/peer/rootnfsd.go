package peer

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Rootnfsd serves a version of a store, which is sealed already, by the program
// at a path, which may be given more flags of serve. The store must not be
// served by another process. What the server learns stays in the store: to bench
// with somebody's, see RootnfsdAside.
func Rootnfsd(ctx context.Context, program, store, version string, flags ...string) (*Server, error) {
	dir, err := os.MkdirTemp("", "rootnfsd-bench")
	if err != nil {
		return nil, err
	}
	return rootnfsd(ctx, dir, program, store, version, flags)
}

// RootnfsdAside serves a version as Rootnfsd does, but of a Scratch store, which
// Stop removes: the store itself stays as it is.
func RootnfsdAside(ctx context.Context, program, store, version string, flags ...string) (*Server, error) {
	dir, err := os.MkdirTemp("", "rootnfsd-bench")
	if err != nil {
		return nil, err
	}
	scratch := filepath.Join(dir, "images")
	if err := Scratch(ctx, program, store, version, scratch); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return rootnfsd(ctx, dir, program, scratch, version, flags)
}

// RootnfsdHome serves a directory as the one home of all, by the program at a path,
// beside a store of no account. Callers are who they say they are, from any port.
func RootnfsdHome(ctx context.Context, program, home string, flags ...string) (*Server, error) {
	dir, err := os.MkdirTemp("", "rootnfsd-bench")
	if err != nil {
		return nil, err
	}
	store := filepath.Join(dir, "images")
	if err := os.MkdirAll(filepath.Join(store, "v1", "etc"), 0o755); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	homeFlags := []string{"--home", home, "--home-layout", "shared", "--home-squash", "none", "--home-ports", "any"}
	s, err := rootnfsd(ctx, dir, program, store, "v1", append(homeFlags, flags...))
	if err != nil {
		return nil, err
	}
	s.MountPath = "/home"
	s.About += ", but for one home for all, no squash, any port"
	return s, nil
}

// rootnfsd serves a store by a server whose own directory is dir.
func rootnfsd(ctx context.Context, dir, program, store, version string, flags []string) (*Server, error) {
	addr, err := FreeAddr()
	if err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	s := &Server{
		Name:  "rootnfsd",
		About: about(program, "--version") + ", serve with its defaults",
		Addr:  addr, MountAddr: addr, MountPath: "/@" + version,
	}
	args := append([]string{"serve", "--export", store, "--listen", addr, "--portmap", "off"}, flags...)
	return s, s.start(ctx, dir, program, args...)
}

// about is the first line that a program prints.
func about(program string, args ...string) string {
	out, err := exec.Command(program, args...).Output()
	if err != nil {
		return program
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line
}
