package durable_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/rootnfsd/rootnfsd/fs/durable"
)

// check makes sure that the one file in a directory has this content and mode.
func check(t *testing.T, path, content string, mode os.FileMode) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || string(got) != content {
		t.Errorf("%q, %v, want %q", got, err, content)
	}
	stat, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if stat.Mode() != mode {
		t.Errorf("mode %v, want %v", stat.Mode(), mode)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("in the directory are %v, %v", entries, err)
	}
}

func text(s string) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, s)
		return err
	}
}

func TestReplaceFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	for _, c := range []struct {
		content string
		mode    os.FileMode
	}{{"first and long", 0o600}, {"second", 0o666}, {"", 0o444}, {"third", 0o644}} {
		if err := durable.ReplaceFile(path, c.mode, text(c.content)); err != nil {
			t.Error(err)
		}
		check(t, path, c.content, c.mode) // whatever the umask
	}
}

// TestReplaceFileFails: the old file stays, and nothing else.
func TestReplaceFileFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := durable.ReplaceFile(path, 0o640, text("old")); err != nil {
		t.Fatal(err)
	}
	full := errors.New("disk full")
	err := durable.ReplaceFile(path, 0o600, func(w io.Writer) error { return errors.Join(text("new, in part")(w), full) })
	if !errors.Is(err, full) {
		t.Errorf("ReplaceFile: %v", err)
	}
	check(t, path, "old", 0o640)

	dir := filepath.Dir(path)
	if err := durable.ReplaceFile(dir, 0o600, text("new")); err == nil {
		t.Error("replaced a directory")
	}
	check(t, path, "old", 0o640)
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(dir), durable.TempPattern+"*")); err != nil || len(left) > 0 {
		t.Errorf("left are %v, %v", left, err)
	}
	if err := durable.ReplaceFile(dir+"/none/file", 0o600, text("new")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("in a directory that is not there: %v", err)
	}
}

func TestDiscard(t *testing.T) {
	dir := t.TempDir()
	f, err := durable.CreateTemp(dir, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time there is nothing left to do
		if err := durable.Discard(f); err != nil {
			t.Error(err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left are %v, %v", left, err)
	}
}
