package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"github.com/rootnfsd/rootnfsd/fs/durable"
)

// removeWait is how long Remove and Compact wait for others who change the store.
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
	unlock, freed, err := s.removeVersion(name, digest)
	if err != nil {
		return RemoveResult{}, err
	}
	defer unlock()
	more, err := s.removeUnused()
	err = errors.Join(err, s.forget(nil))
	if err != nil {
		err = fmt.Errorf("%s is removed, but not what only it needs: %w", name, err)
	}
	return RemoveResult{Freed: freed + more, Kept: err}, nil
}

// RemoveOnly is Remove that leaves the packs to Compact, for who removes many.
func (s *Store) RemoveOnly(name string, digest Digest) error {
	unlock, _, err := s.removeVersion(name, digest)
	if err != nil {
		return err
	}
	unlock()
	return nil
}

// removeVersion deletes a version and not the packs that it needs. It leaves the
// store locked.
func (s *Store) removeVersion(name string, digest Digest) (unlock func(), freed uint64, err error) {
	if err := validVersion(name); err != nil {
		return nil, 0, err
	}
	if _, err := os.Lstat(s.indexPath(name)); err != nil {
		return nil, 0, errVersion(name, err)
	}
	unlock, err = s.waitLock(context.Background())
	if err != nil {
		return nil, 0, fmt.Errorf("remove %s: %w", name, err)
	}
	s.atStep("locked")
	if freed, err = s.removeIndex(name, digest); err != nil {
		unlock()
		return nil, 0, errVersion(name, err)
	}
	s.atStep("index removed")
	return unlock, freed, nil
}

// waitLock takes the lock, and waits for others no longer than removeWait.
func (s *Store) waitLock(ctx context.Context) (unlock func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, removeWait)
	defer cancel()
	return s.lock(ctx)
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
	return s.deletePacks(slices.DeleteFunc(digests, func(d Digest) bool { return used[d] }))
}

// deletePacks deletes packs and returns how large they were.
func (s *Store) deletePacks(digests []Digest) (freed uint64, err error) {
	for _, d := range digests {
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
