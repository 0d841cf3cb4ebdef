package peer

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Scratch makes a store at dir, which must not be there, that has the versions of
// another one, and has promoted one of them. What a server of it learns, of boots and
// of nodes, stays in it.
//
// The files are symbolic links, but not the directories: opening a store removes what
// a crash has left there, which might be what somebody seals in the other one.
func Scratch(ctx context.Context, program, store, version, dir string) error {
	for _, pattern := range []string{"versions/*.index", "packs/*.pack"} {
		if err := linkAll(filepath.Join(store, ".rootnfsd"), filepath.Join(dir, ".rootnfsd"), pattern); err != nil {
			return fmt.Errorf("a scratch store for %s: %w", store, err)
		}
	}
	out, err := exec.CommandContext(ctx, program, "promote", version, "--force", "--no-verify", "--no-warm", "--export", dir).CombinedOutput()
	if err != nil {
		return fmt.Errorf("a scratch store for %s: promote: %w\n%s", store, err, out)
	}
	return nil
}

// linkAll makes symbolic links below one directory to what matches a pattern below
// another.
func linkAll(from, to, pattern string) error {
	from, err := filepath.Abs(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(to, filepath.Dir(pattern)), 0o700); err != nil {
		return err
	}
	paths, err := filepath.Glob(filepath.Join(from, pattern))
	if err != nil {
		return err
	}
	for _, path := range paths {
		if err := os.Symlink(path, filepath.Join(to, filepath.Dir(pattern), filepath.Base(path))); err != nil {
			return err
		}
	}
	return nil
}
