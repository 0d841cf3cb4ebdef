package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/rootnfsd/rootnfsd/fs/durable"
)

// removeWait is how long Remove waits for others who change the store.
const removeWait = 5 * time.Second

// Remove deletes a version and the packs that no other version needs, and
// returns the bytes freed. What was opened before stays readable, and its space
// is freed when it is let go. While the index of another version is damaged, it
// deletes the version but no pack, since nobody knows which are needed; the
// error says so.
func (s *Store) Remove(name string) (freed uint64, err error) {
	if err := validVersion(name); err != nil {
		return 0, err
	}
	if _, err := os.Lstat(s.indexPath(name)); err != nil {
		return 0, errVersion(name, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), removeWait)
	defer cancel()
	unlock, err := s.lock(ctx)
	if err != nil {
		return 0, fmt.Errorf("remove %s: %w", name, err)
	}
	defer unlock()
	s.atStep("locked")
	if freed, err = removeFile(s.indexPath(name)); err != nil {
		return 0, errVersion(name, err)
	}
	if err := durable.SyncDir(s.versionsDir()); err != nil {
		return freed, err
	}
	s.atStep("index removed")
	more, err := s.removeUnused()
	if err != nil {
		err = fmt.Errorf("%s is removed, but not what only it needs: %w", name, err)
	}
	return freed + more, err
}

// removeUnused deletes the packs that no version refers to. The caller holds
// the lock, so no version is being made.
func (s *Store) removeUnused() (freed uint64, err error) {
	used, err := s.usedPacks()
	if err != nil {
		return 0, err
	}
	digests, err := s.packs.list()
	if err != nil {
		return 0, err
	}
	for _, d := range digests {
		if used[d] {
			continue
		}
		n, err := removeFile(packPath(s.packsDir(), d))
		if err != nil {
			return freed, err
		}
		freed += n
		s.atStep("pack removed")
	}
	return freed, durable.SyncDir(s.packsDir())
}

// usedPacks returns the packs that the versions of the store refer to. Any
// index that cannot be read in full is an error.
func (s *Store) usedPacks() (map[Digest]bool, error) {
	names, err := s.versionNames()
	if err != nil {
		return nil, err
	}
	used := make(map[Digest]bool)
	for _, name := range names {
		x, err := openIndex(s.indexPath(name))
		if err != nil {
			return nil, errVersion(name, err)
		}
		for i := range x.counts[secPacks] {
			used[x.packDigest(i)] = true
		}
	}
	return used, nil
}

// removeFile deletes a file and returns how large it was.
func removeFile(path string) (uint64, error) {
	stat, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, fmt.Errorf("%s is gone already: %w", filepath.Base(path), err)
	}
	if err != nil {
		return 0, err
	}
	return uint64(stat.Size()), os.Remove(path)
}
