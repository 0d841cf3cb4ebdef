package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rootnfsd/rootnfsd/fs"
)

// Digest identifies the content of a version: SHA-256 over its canonical index.
type Digest = fs.Digest

const indexSuffix = ".index"

// Store is a directory of golden trees and the versions sealed from them. All
// methods may be called by many goroutines and processes at once.
type Store struct {
	dir   string
	packs *packSet
	// step, if set, is called between the steps of Seal, Remove, Compact and Open,
	// for tests to crash there.
	step func(string)
}

// OpenStore opens the store at dir, which exists. What sealing makes lives in
// dir/.rootnfsd, which the first Seal creates. Everybody may list the versions;
// to read content one must be who sealed it, or root.
func OpenStore(dir string) (*Store, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	stat, err := os.Stat(abs)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("no store at %s: make the directory, and in it one for each golden tree (%s): %w",
			abs, filepath.Join(abs, "v1"), os.ErrNotExist)
	case err != nil:
		return nil, fmt.Errorf("store: %w", err)
	case !stat.IsDir():
		return nil, fmt.Errorf("store %s is not a directory", abs)
	}
	s := &Store{dir: abs}
	s.packs = newPackSet(s.packsDir())
	s.tidy()
	return s, nil
}

// tidy removes what a crash has left, if there is something, this process may
// and nobody is busy. The next Seal or Remove does it otherwise.
func (s *Store) tidy() {
	if left, err := s.temporaries(); err != nil || len(left) == 0 {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // do not wait
	if unlock, err := s.lock(ctx); err == nil {
		unlock()
	}
}

// Dir is the absolute path of the store.
func (s *Store) Dir() string { return s.dir }

// StateDir is where the store and exports keep their files: Dir()/.rootnfsd. It
// is not there before the first Seal.
func (s *Store) StateDir() string { return filepath.Join(s.dir, ".rootnfsd") }

func (s *Store) versionsDir() string { return filepath.Join(s.StateDir(), "versions") }
func (s *Store) packsDir() string    { return filepath.Join(s.StateDir(), "packs") }

func (s *Store) indexPath(name string) string {
	return filepath.Join(s.versionsDir(), name+indexSuffix)
}

func (s *Store) atStep(name string) {
	if s.step != nil {
		s.step(name)
	}
}

// Info describes one sealed version without opening its content.
type Info struct {
	Name    string // as the user said it; a superseded seal of v1 is "v1~" and 12 hex digits of its digest
	Digest  Digest
	Sealed  time.Time
	Objects uint64
	Bytes   uint64 // of content, holes left out
	Layout  Digest // of where the content lies: another one when packs were rewritten
	Err     error  // the index is corrupt: why; the other fields but Name are zero
}

// Versions lists the sealed versions in natural order of their names (v2 before
// v10). It reads only the start of each index: damage behind that is found by
// Open and Verify.
func (s *Store) Versions() ([]Info, error) {
	names, err := s.versionNames()
	if err != nil {
		return nil, err
	}
	infos := make([]Info, 0, len(names))
	for _, name := range names {
		h, err := readHeader(s.indexPath(name))
		switch {
		case errors.Is(err, os.ErrNotExist): // removed meanwhile
		case err != nil:
			infos = append(infos, Info{Name: name, Err: errVersion(name, err)})
		default:
			infos = append(infos, h.info(name))
		}
	}
	return infos, nil
}

// versionNames returns the names of all versions, superseded ones too.
func (s *Store) versionNames() ([]string, error) {
	entries, err := os.ReadDir(s.versionsDir())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), indexSuffix); ok && validVersion(name) == nil {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, compareNames)
	return names, nil
}

// Trees lists the golden trees, in natural order: the names of the directories
// in the store and of symlinks to directories, hidden ones and a file system's
// lost+found left out. They need not be valid names of versions.
func (s *Store) Trees() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || e.Name() == "lost+found" {
			continue
		}
		if stat, err := os.Stat(filepath.Join(s.dir, e.Name())); err == nil && stat.IsDir() {
			names = append(names, e.Name())
		}
	}
	slices.SortFunc(names, compareNames)
	return names, nil
}

// Progress is what Seal and Verify tell while they run. Totals are zero while unknown.
type Progress struct {
	Files, TotalFiles uint64
	Bytes, TotalBytes uint64
}
