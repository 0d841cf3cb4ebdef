package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestFile exercises files of this machine, which are right.
func TestFile(t *testing.T) {
	for seed := range uint64(5) {
		e, err := newExerciser(filepath.Join(t.TempDir(), "file"), seed)
		if err != nil {
			t.Fatal(err)
		}
		for range 1000 {
			if err := e.step(); err != nil {
				t.Fatal(err)
			}
		}
		if err := e.finish(); err != nil {
			t.Error(err)
		}
		if err := e.close(); err != nil {
			t.Error(err)
		}
	}
}

// TestFileNotices spoils a file behind the exerciser's back in ways that servers do.
func TestFileNotices(t *testing.T) {
	for name, spoil := range map[string]func(path string, content []byte) error{
		"a byte": func(path string, content []byte) error {
			content[len(content)/2]++
			return os.WriteFile(path, content, 0)
		},
		"the last byte": func(path string, content []byte) error {
			return os.Truncate(path, int64(len(content)-1))
		},
		"one more byte": func(path string, content []byte) error {
			return os.Truncate(path, int64(len(content)+1))
		},
	} {
		e, err := newExerciser(filepath.Join(t.TempDir(), "file"), 1)
		if err != nil {
			t.Fatal(err)
		}
		for e.done < 100 || len(e.model) == 0 {
			if err := e.step(); err != nil {
				t.Fatal(err)
			}
		}
		content, err := os.ReadFile(e.path)
		if err != nil {
			t.Fatal(err)
		}
		if err := spoil(e.path, content); err != nil {
			t.Fatal(err)
		}
		if err := e.finish(); err == nil || !strings.Contains(err.Error(), "seed 1") {
			t.Errorf("%s: %v; want what is wrong, and the seed", name, err)
		}
	}
}

// newStorm makes a storm on this machine.
func newStorm(t *testing.T) *storm {
	t.Helper()
	dir := t.TempDir()
	for _, d := range stormDirs {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "a", "shared"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	s := startStorm(dir, "node", 1)
	s.shared = []string{"shared"}
	if err := s.makeOwn(12); err != nil {
		t.Fatal(err)
	}
	for range 2000 {
		if err := s.step(); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestStorm(t *testing.T) {
	s := newStorm(t)
	if err := s.checkOwn(); err != nil {
		t.Fatal(err)
	}
	if s.moved == 0 || s.missed == 0 {
		t.Errorf("of the shared file %d moves succeeded and %d did not", s.moved, s.missed)
	}
	d := s.own[0]
	if err := os.Rename(s.path(d.in, d.name), s.path(d.in, "lost")); err != nil {
		t.Fatal(err)
	}
	if err := s.checkOwn(); err == nil {
		t.Error("a file that is lost is not missed")
	}
	if err := s.move(d); err == nil {
		t.Error("a file that is lost can be moved")
	}
}
