package image

import (
	"fmt"
	"slices"
	"testing"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/source"
)

// lockedStore is a new store that the test holds the lock of.
func lockedStore(t *testing.T) *Store {
	t.Helper()
	s, err := OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	unlock, err := s.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(unlock)
	return s
}

// TestHashTable puts records under hashes that are spread, all alike, or such that
// the last slots are too few, finds them all, and goes through them by hash.
func TestHashTable(t *testing.T) {
	s := lockedStore(t)
	for name, hash := range map[string]func(i uint32) uint32{
		"spread":      func(i uint32) uint32 { return i * 0x9e3779b9 },
		"low":         func(i uint32) uint32 { return i % 3 },
		"at the end":  func(i uint32) uint32 { return ^(i % 50) },
		"at both":     func(i uint32) uint32 { return (i%7)<<20 - (i%100)<<12 },
		"all of them": func(i uint32) uint32 { return i << 20 },
	} {
		t.Run(name, func(t *testing.T) {
			const n = 3000 // so that the table grows twice
			table := hashTable{store: s, size: 8, hash: func(r []byte) uint32 { return le.Uint32(r[4:]) }}
			defer table.close()
			find := func(i uint32) []byte {
				r, err := table.find(hash(i), func(r []byte) bool { return le.Uint32(r) == i })
				if err != nil {
					t.Fatal(err)
				}
				return r
			}
			for i := uint32(1); i <= n; i++ {
				r := find(i)
				if !isFree(r) {
					t.Fatalf("record %d is there before it was put", i)
				}
				table.put(r, le.AppendUint32(le.AppendUint32(nil, i), hash(i)))
			}
			for i := uint32(1); i <= n; i++ {
				if r := find(i); le.Uint32(r) != i || le.Uint32(r[4:]) != hash(i) {
					t.Errorf("record %d is %x", i, r)
				}
			}
			var hashes []uint32
			err := table.runs(func(run [][]byte) error {
				from := len(hashes)
				for _, r := range run {
					hashes = append(hashes, le.Uint32(r[4:]))
				}
				slices.Sort(hashes[from:])
				return nil
			})
			if err != nil || len(hashes) != n || !slices.IsSorted(hashes) {
				t.Errorf("%d records, sorted %v, %v", len(hashes), slices.IsSorted(hashes), err)
			}
		})
	}
}

// TestQueue takes directories out while others are put in.
func TestQueue(t *testing.T) {
	q, err := newQueue(lockedStore(t))
	if err != nil {
		t.Fatal(err)
	}
	defer q.spool.close()
	of := func(i int) *directory {
		return &directory{queued{Inode: uint32(i), Parent: 7, Was: fs.NodeID(i + 1), Meta: source.Meta{
			Kind: fs.Directory, Dev: 1 << 40, Size: uint64(i), Mtime: fs.Time{Sec: -1, Nsec: 5}, MountPoint: i%2 == 0,
		}}, fmt.Sprintf("/%0*d", 1+i%300, i)}
	}
	pushed, popped := 0, 0
	for popped < 5000 {
		for range 3 {
			if pushed < 5000 {
				if err := q.push(of(pushed)); err != nil {
					t.Fatal(err)
				}
				pushed++
			}
		}
		got, err := q.pop()
		if err != nil {
			t.Fatal(err)
		}
		want := of(popped)
		want.PathLen = uint32(len(want.path))
		if *got != *want {
			t.Fatalf("directory %d is %+v, want %+v", popped, got, want)
		}
		popped++
	}
	if q.n != 0 {
		t.Errorf("%d directories are left", q.n)
	}
}
