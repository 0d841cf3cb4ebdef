// Package durable replaces files so that a power cut at any moment leaves the
// old content or the new one, whole. It is the one place where that is done;
// it imports the standard library only.
package durable

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// TempPattern is how the names of temporary files begin: a file so named that
// nobody holds a lock over is a leftover of a crash and can be deleted.
const TempPattern = ".tmp-"

// ReplaceFile writes a file at path by way of write, replacing what is there.
// When it returns nil the new content is on disk under its name; when it
// returns an error, or never returns, path is what it was before.
func ReplaceFile(path string, perm os.FileMode, write func(io.Writer) error) (err error) {
	f, err := CreateTemp(filepath.Dir(path), perm)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, Discard(f))
		}
	}()
	if err := write(f); err != nil {
		return err
	}
	return Commit(f, path)
}

// CreateTemp makes an empty temporary file in dir, for a caller that needs more
// of it than an io.Writer. It ends with Commit or Discard.
func CreateTemp(dir string, perm os.FileMode) (*os.File, error) {
	f, err := os.CreateTemp(dir, TempPattern+"*")
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(perm); err != nil {
		return nil, errors.Join(err, Discard(f))
	}
	return f, nil
}

// Commit makes the content of f durable, closes it and gives it its name. The
// order matters: were the rename on disk before the data, a power cut would
// leave an empty file under the name of a good one.
func Commit(f *os.File, path string) error {
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// Discard closes and deletes a temporary file; one that is closed or gone
// already is not an error.
func Discard(f *os.File) error {
	if err := f.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	if err := os.Remove(f.Name()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// SyncDir makes the entries of a directory durable: names that were created,
// renamed or removed in it.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}
