package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs/durable"
)

// The lock file is held, by flock(2), by who changes versions or packs. It says
// who that is, for others to print. Readers need no lock: files appear whole and
// never change.

// lockPoll is how often a waiter looks again; flock cannot be waited for with a
// context.
const lockPoll = 50 * time.Millisecond

// lock takes the store's lock, waiting until ctx ends. Leftovers of a crash are
// gone when it returns.
func (s *Store) lock(ctx context.Context) (unlock func(), err error) {
	unlock, err = s.lockFile(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.removeTemporaries(); err != nil {
		unlock()
		return nil, err
	}
	return unlock, nil
}

// lockFile makes the state directory if need be and locks the file in it.
func (s *Store) lockFile(ctx context.Context) (unlock func(), err error) {
	for _, dir := range []string{s.StateDir(), s.versionsDir()} {
		if err := makeDir(dir, 0o755); err != nil {
			return nil, err
		}
	}
	if err := makeDir(s.packsDir(), packsMode); err != nil {
		return nil, err
	}
	if err := closeToOthers(s.packsDir()); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(s.StateDir(), "lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := s.acquire(ctx, f); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

// acquire locks f and writes this process into it.
func (s *Store) acquire(ctx context.Context, f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			return fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is changing the store %s: %w", holder(f), s.dir, ctx.Err())
		case <-time.After(lockPoll):
		}
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// holder names the process that holds the lock.
func holder(f *os.File) string {
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 32))
	pid := strings.TrimSpace(string(b))
	if err != nil || pid == "" {
		return "another rootnfsd"
	}
	return "another rootnfsd (pid " + pid + ")"
}

// packsMode is the mode of the directory of packs. In them is the content of all
// files of a tree, /etc/shadow among them, so they are for their owner only; the
// indexes hold names and attributes and may be read by all.
const packsMode = 0o700

// closeToOthers gives the directory of packs its mode if it has another.
func closeToOthers(dir string) error {
	stat, err := os.Stat(dir)
	if err != nil || stat.Mode().Perm() == packsMode {
		return err
	}
	return os.Chmod(dir, packsMode)
}

// makeDir makes a directory durably; one that exists is fine, but may not be
// durable yet, if a crash came in between.
func makeDir(dir string, mode os.FileMode) error {
	if err := os.Mkdir(dir, mode); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return durable.SyncDir(filepath.Dir(dir))
}

// staleAge is how old a temporary file beside the lock must be to be taken for a
// leftover. Those of versions and packs belong to who holds the lock, but there
// others write, who do not take it, and are done in a moment.
const staleAge = time.Hour

// temporaries returns the temporary files in the store that, if nobody holds the
// lock, a crash has left.
func (s *Store) temporaries() ([]string, error) {
	var paths []string
	for dir, age := range map[string]time.Duration{s.StateDir(): staleAge, s.versionsDir(): 0, s.packsDir(): 0} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), durable.TempPattern) && (age == 0 || olderThan(e, age)) {
				paths = append(paths, filepath.Join(dir, e.Name()))
			}
		}
	}
	return paths, nil
}

func olderThan(e os.DirEntry, age time.Duration) bool {
	stat, err := e.Info()
	return err == nil && time.Since(stat.ModTime()) > age
}

// removeTemporaries deletes what a crash has left. The caller holds the lock.
func (s *Store) removeTemporaries() error {
	paths, err := s.temporaries()
	for _, path := range paths {
		if e := os.Remove(path); !errors.Is(e, os.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}
