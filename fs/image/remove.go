package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/rootnfsd/rootnfsd/fs/durable"
)

// removeWait is how long Remove waits for others who change the store.
const removeWait = 5 * time.Second

// RemoveResult tells what a removal did.
type RemoveResult struct {
	Freed uint64 // bytes of the files that were deleted
	// Kept says why packs were left that maybe nobody needs; it is nil if none
	// was. The next Remove tries again.
	Kept error
}

// Remove deletes a version and the packs that no other version needs. What was
// opened before stays readable, and its space is freed when it is let go. While
// the index of another version is damaged, it deletes the version but no pack,
// since nobody knows which are needed.
//
// The version is left alone, with an error, if it does not have that digest: it
// was sealed anew since the caller looked. The zero Digest stands for whatever
// is there, as the digest of a damaged index is not known.
func (s *Store) Remove(name string, digest Digest) (RemoveResult, error) {
	if err := validVersion(name); err != nil {
		return RemoveResult{}, err
	}
	if _, err := os.Lstat(s.indexPath(name)); err != nil {
		return RemoveResult{}, errVersion(name, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), removeWait)
	defer cancel()
	unlock, err := s.lock(ctx)
	if err != nil {
		return RemoveResult{}, fmt.Errorf("remove %s: %w", name, err)
	}
	defer unlock()
	s.atStep("locked")
	freed, err := s.removeIndex(name, digest)
	if err != nil {
		return RemoveResult{}, errVersion(name, err)
	}
	s.atStep("index removed")
	more, err := s.removeUnused()
	err = errors.Join(err, s.forget(nil))
	if err != nil {
		err = fmt.Errorf("%s is removed, but not what only it needs: %w", name, err)
	}
	return RemoveResult{Freed: freed + more, Kept: err}, nil
}

// removeIndex deletes the index of a version that has this digest.
func (s *Store) removeIndex(name string, digest Digest) (freed uint64, err error) {
	if digest != (Digest{}) {
		h, err := readHeader(s.indexPath(name))
		if err != nil {
			return 0, err
		}
		if h.digest != digest {
			return 0, fmt.Errorf("it was sealed again meanwhile, with other content (%s), and is left alone", h.digest.Short())
		}
	}
	if freed, err = removeFile(s.indexPath(name)); err != nil {
		return 0, err
	}
	return freed, durable.SyncDir(s.versionsDir())
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
func (s *Store) usedPacks() (_ map[Digest]bool, err error) {
	defer guard(debug.SetPanicOnFault(true), &err)
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
		runtime.KeepAlive(x)
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
