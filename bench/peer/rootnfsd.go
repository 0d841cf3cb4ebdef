package peer

import (
	"context"
	"os"
	"os/exec"
	"strings"
)

// Rootnfsd serves a version of a store, which is sealed already, by the program
// at a path. The store must not be served by another process.
func Rootnfsd(ctx context.Context, program, store, version string) (*Server, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "rootnfsd-bench")
	if err != nil {
		return nil, err
	}
	s := &Server{
		Name:  "rootnfsd",
		About: about(program, "--version") + ", serve with its defaults",
		Addr:  addr, MountAddr: addr, MountPath: "/@" + version,
	}
	return s, s.start(ctx, dir, program, "serve", "--export", store, "--listen", addr, "--portmap", "off")
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
