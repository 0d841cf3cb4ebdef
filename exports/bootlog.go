package exports

import (
	"sync/atomic"
	"time"

	"github.com/rootnfsd/rootnfsd/fs"
)

const (
	// bootTime is how long after its mount a node is taken to boot.
	bootTime = 3 * time.Minute
	// bootBlock is the unit in which it is noted what a node reads, in bytes.
	bootBlock = 64 << 10
)

// bootLog is the set of blocks that nodes read while they boot a version. It is
// a hash table of fixed size, so that noting a READ takes no lock and allocates
// nothing, and so that nobody can fill memory by reading much in little time.
type bootLog struct {
	// initramfs is set if the nodes are known to boot. Otherwise somebody who
	// looks at the version cannot be told from one.
	initramfs bool

	count atomic.Int64
	// slots hold keys or zero, and are never cleared. A key is found in one of
	// the mostProbes slots from its hash on.
	slots [1 << bootLogBits]atomic.Uint64

	// Of who saves it.
	saved, seen int64     // count, when it was last saved and looked at
	quiet       time.Time // since when seen has not changed, nor saving been tried
	failed      bool      // the last try to save it, so that it is logged once
}

const (
	bootLogBits = 15
	mostBlocks  = 3 << bootLogBits / 4 // 1.5 GiB: no boot reads as much
	mostProbes  = 64

	blockBits = 24 // of a key; the rest is the inode
)

// note adds the blocks of a READ.
func (l *bootLog) note(id fs.NodeID, off uint64, count uint32) {
	if count == 0 || id >= 1<<(64-blockBits) || off >= bootBlock<<blockBits-uint64(count) {
		return
	}
	for block := off / bootBlock; block <= (off+uint64(count)-1)/bootBlock; block++ {
		l.add(uint64(id)<<blockBits | block)
	}
}

// add adds a key unless there is no room for it.
func (l *bootLog) add(key uint64) {
	const mask = 1<<bootLogBits - 1
	at := key * 0x9e3779b97f4a7c15 >> (64 - bootLogBits) // Fibonacci hashing
	for range mostProbes {
		slot := &l.slots[at]
		have := slot.Load()
		if have == 0 {
			if l.count.Load() >= mostBlocks {
				return
			}
			if slot.CompareAndSwap(0, key) {
				l.count.Add(1)
				return
			}
			have = slot.Load()
		}
		if have == key {
			return
		}
		at = (at + 1) & mask
	}
}

// keys returns what was noted, in no order.
func (l *bootLog) keys() []uint64 {
	var keys []uint64
	for i := range l.slots {
		if key := l.slots[i].Load(); key != 0 {
			keys = append(keys, key)
		}
	}
	return keys
}

// quietTime is how long nothing new must have been read for a log to be saved:
// a boot is over by then, or waits for something.
const quietTime = 10 * time.Second

// settled reports whether the log has news and should be saved.
func (l *bootLog) settled(now time.Time) bool {
	if n := l.count.Load(); n != l.seen {
		l.seen, l.quiet = n, now
	}
	return l.seen != l.saved && now.Sub(l.quiet) >= quietTime
}

// bootLogFor returns where it is to be noted what a node reads that has just
// mounted v, or nil if it is not. From a node that mounts out of an initramfs
// one learns for certain what a boot reads; as soon as there is such a node,
// others, which may be people who look around, do not count any more.
func (v *version) bootLogFor(initramfs bool) *bootLog {
	v.image.booting.Lock()
	defer v.image.booting.Unlock()
	if v.image.initramfs && !initramfs {
		return nil
	}
	v.image.initramfs = initramfs
	l := v.boot.Load()
	if l == nil || l.initramfs != initramfs {
		l = &bootLog{initramfs: initramfs}
		v.boot.Store(l)
	}
	return l
}
