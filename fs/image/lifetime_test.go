package image_test

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rootnfsd/rootnfsd/fs/fstest"
	"github.com/rootnfsd/rootnfsd/fs/image"
)

// inUse counts how often this process has files below dir open or mapped.
func inUse(t *testing.T, dir string) (n int) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skipf("cannot look: %v", err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(to, dir) {
			n++
		}
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return n + strings.Count(string(maps), dir)
}

// TestVersionsAreLetGo: versions share their packs, and what nobody holds any
// more is closed and unmapped.
func TestVersionsAreLetGo(t *testing.T) {
	s := newStore(t)
	sealDir(t, s, "v1", writeFiles(t, small))
	collect(t, func() bool { return inUse(t, s.StateDir()) == 0 })
	func() {
		a, b := open(t, s, "v1"), open(t, s, "v1")
		readsRight(t, a, "first")
		if n := inUse(t, s.StateDir()); n < 4 {
			t.Errorf("%d files open or mapped, want two indexes and a pack, twice", n)
		}
		if n := inUse(t, packs(t, s)[0]); n > 2 {
			t.Errorf("a pack that two versions share is open or mapped %d times", n)
		}
		runtime.KeepAlive(b)
	}()
	collect(t, func() bool { return inUse(t, s.StateDir()) == 0 })
}

// collect runs the garbage collector until done. Cleanups run on a goroutine
// of their own some time after it.
func collect(t *testing.T, done func() bool) {
	t.Helper()
	for range 1000 {
		runtime.GC()
		if done() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Error("not let go")
}

// TestReadersBesideWriters reads a version while others come and go, for the
// race detector and to see that nobody takes away what is in use.
func TestReadersBesideWriters(t *testing.T) {
	s := newStore(t)
	dir := writeFiles(t, small)
	sealDir(t, s, "v1", dir)
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				v, err := s.Open("v1")
				if err != nil {
					t.Error(err)
					return
				}
				readsRight(t, v, "v1")
				if _, err := s.Versions(); err != nil {
					t.Error(err)
				}
				runtime.GC()
			}
		})
	}
	for i := range 10 {
		write(t, filepath.Join(dir, "more"), string(fstest.Bytes(100_000+i)))
		sealDir(t, s, "v2", dir)
		for _, name := range versionNames(t, s) {
			if name == "v1" {
				continue
			}
			if _, err := s.Remove(name, image.Digest{}); err != nil {
				t.Error(err)
			}
		}
	}
	close(done)
	wg.Wait()
	if n := len(packs(t, s)); n != 1 {
		t.Errorf("%d packs, want 1", n)
	}
}
