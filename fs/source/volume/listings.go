package volume

import (
	"errors"
	"fmt"
	"sync"
)

// Listings bounds the work that the directories of a Volume can make. Each has room
// of its own, so they cannot be larger in all than their file system; where they
// are, somebody has them share it.
type Listings struct {
	mu   sync.Mutex
	left uint64
	seen map[uint64]uint64 // a bit for each directory
}

// NewListings is for a file system of size bytes.
func NewListings(size uint64) *Listings {
	return &Listings{left: size, seen: map[uint64]uint64{}}
}

// maxDir bounds a listing, which is read into memory: there is room for maxNames that are
// long, and for a few times as many that are as short as can be.
const maxDir = 64 << 20

// Add is called before a directory of size bytes is listed, and counts it once.
func (l *Listings) Add(dir, size uint64) error {
	if size > maxDir {
		return fmt.Errorf("damaged: a directory of %d bytes", size)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	word, bit := dir/64, uint64(1)<<(dir%64)
	if l.seen[word]&bit != 0 {
		return nil
	}
	if size > l.left {
		return errors.New("damaged: the directories are larger in all than their file system")
	}
	l.seen[word] |= bit
	l.left -= size
	return nil
}
