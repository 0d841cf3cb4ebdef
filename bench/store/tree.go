package store

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// A made-up tree has directories of a hundred files each, side by side in
// directories of a hundred directories, as deep as it takes. Each file has
// content of its own.
const fan = 100

// makeTree makes a tree of n objects, its root included, at dir.
func makeTree(ctx context.Context, dir string, n int) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	t := &treeMaker{left: n - 1}
	for i := 0; t.left > 0; i++ {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		upper := filepath.Join(dir, fmt.Sprintf("part-%03d", i/fan))
		if i%fan == 0 {
			if err := t.mkdir(upper); err != nil {
				return err
			}
		}
		if err := t.fill(filepath.Join(upper, fmt.Sprintf("dir-%02d", i%fan))); err != nil {
			return err
		}
	}
	return nil
}

// treeMaker makes objects until none are left to make.
type treeMaker struct{ left int }

func (t *treeMaker) mkdir(path string) error {
	t.left--
	return os.Mkdir(path, 0o755)
}

// fill makes a directory and the files in it.
func (t *treeMaker) fill(dir string) error {
	if t.left == 0 {
		return nil
	}
	if err := t.mkdir(dir); err != nil {
		return err
	}
	for i := 0; i < fan && t.left > 0; i++ {
		t.left--
		content := fmt.Appendf(nil, "file %d to go\n", t.left)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("file-%02d.conf", i)), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}
