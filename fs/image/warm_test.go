package image_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/fstest"
)

// chill makes the kernel forget the content of a file, which is on disk, but for
// a few pages that are mapped. It skips the test where that cannot be done.
func chill(t testing.TB, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
	if n := inMemory(t, path); n > 64 {
		t.Skipf("%d pages of %s stay in memory", n, path)
	}
}

// inMemory returns how many pages of a file are in memory.
func inMemory(t testing.TB, path string) int {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	m, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(m)
	vec := make([]byte, (len(m)+os.Getpagesize()-1)/os.Getpagesize())
	if _, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&m[0])), uintptr(len(m)), uintptr(unsafe.Pointer(&vec[0]))); errno != 0 {
		t.Fatal(errno)
	}
	n := 0
	for _, v := range vec {
		n += int(v & 1)
	}
	return n
}

// TestWarm warms a part of what is on disk: it can be read without waiting
// then, and the rest was left there.
func TestWarm(t *testing.T) {
	const chunk = 64 << 10
	big := string(fstest.Bytes(400*chunk + 5))
	dir := writeFiles(t, map[string]string{"big": big, "small": "small", "other": string(fstest.Bytes(300 * chunk)[chunk:])})
	if err := os.Truncate(filepath.Join(dir, "big"), 500*chunk); err != nil { // a hole at the end
		t.Fatal(err)
	}
	s := newStore(t)
	sealDir(t, s, "v1", dir)
	pack := packs(t, s)[0]
	s = reopen(t, s.Dir())
	v := open(t, s, "v1")
	chill(t, pack)

	bigID, smallID := lookup(t, v, "big"), lookup(t, v, "small")
	mayRead := func(id fs.NodeID, off uint64, n int) bool {
		_, _, err := v.Read(root, id, off, make([]byte, n), true)
		if err != nil && !errors.Is(err, fs.ErrWouldBlock) {
			t.Fatal(err)
		}
		return err == nil
	}
	if mayRead(bigID, 0, chunk) || mayRead(smallID, 0, 5) {
		t.Fatal("what is on disk and was never read can be read without waiting")
	}
	ranges := []fs.Range{
		{ID: bigID, Off: 2*chunk - 1, Len: 2},
		{ID: bigID, Off: 399 * chunk, Len: 1 << 63},
		{ID: bigID, Off: 450 * chunk, Len: chunk},
		{ID: bigID, Off: 1 << 63, Len: 1},
		{ID: bigID, Off: 5 * chunk, Len: 0},
		{ID: smallID, Off: 0, Len: 1 << 20},
		{ID: smallID, Off: 0, Len: 1},
		{ID: v.Root(), Off: 0, Len: 1},
		{ID: 12345, Off: 0, Len: 1},
	}
	const want = 3*chunk + chunk + 5
	for round := range 2 {
		var done, total uint64
		n, err := v.Warm(context.Background(), ranges, func(d, t uint64) { done, total = d, t })
		if n != want || done != n || total != n || err != nil {
			t.Errorf("Warm: %d bytes (%d of %d), %v; want %d", n, done, total, err, want)
		}
		if !mayRead(bigID, chunk, 2*chunk) || !mayRead(bigID, 399*chunk, 2*chunk) || !mayRead(smallID, 0, 5) {
			t.Error("what was warmed cannot be read without waiting")
		}
		if mayRead(bigID, 200*chunk, 1) {
			t.Error("what was not warmed can be read without waiting")
		}
		if n := inMemory(t, pack) * os.Getpagesize(); n > 200*chunk {
			t.Errorf("%d bytes are in memory now", n)
		}
		if round == 0 {
			chill(t, pack) // verified by now, but on disk again
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if n, err := v.Warm(ctx, ranges, nil); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("Warm that was called off: %d, %v", n, err)
	}
}

// TestWarmLeavesDamageAlone warms around a chunk that is damaged.
func TestWarmLeavesDamageAlone(t *testing.T) {
	const chunk = 64 << 10
	s := newBrokenStore(t)
	sealDir(t, s, "v1", writeFiles(t, map[string]string{"f": string(fstest.Bytes(10 * chunk))}))
	flip(t, packs(t, s)[0], 3*chunk+chunk/2)
	v := open(t, reopen(t, s.Dir()), "v1")
	id := lookup(t, v, "f")
	if n, err := v.Warm(context.Background(), []fs.Range{{ID: id, Len: 1 << 20}}, nil); n != 9*chunk || err != nil {
		t.Errorf("Warm: %d bytes, %v; want %d", n, err, 9*chunk)
	}
	if _, _, err := v.Read(root, id, 3*chunk, make([]byte, 1), true); !errors.Is(err, fs.ErrWouldBlock) {
		t.Errorf("what is damaged was taken for good: %v", err)
	}
}
