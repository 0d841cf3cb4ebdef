package squashfs

import (
	"fmt"

	"github.com/rootnfsd/rootnfsd/fs/source/volume"
)

// A listing is runs of entries behind a header: how many less one, the block with
// their inodes, and the number that theirs are told from. An entry is the inode's place
// in the block, its number, its type, the length of its name less one, and the name.
const (
	dirHeader = 12
	dirEntry  = 8
	maxRun    = 256
	maxName   = 256
	// dots is what the size of a directory counts for "." and "..", which are not listed.
	dots = 3
)

// dirRoom returns how large the listings can be in all: the blocks from where their
// table begins, each of which is metaSize at most. It goes on into the tables behind,
// up to the first of their indexes. Some images have no fragments, exports or attributes.
func (v *Volume) dirRoom(sb *[superSize]byte) uint64 {
	end := v.size
	for _, at := range []int{48, 56, 80, 88} { // owners, attributes, fragments, exports
		index := le.Uint64(sb[at:])
		if index > uint64(v.dirs) && index < uint64(end) {
			end = int64(index)
		}
	}
	var room uint64
	for at := v.dirs; at < end; room += metaSize {
		length, _, err := v.metaHeaderAt(at)
		if err != nil {
			break // an index, which is behind all tables
		}
		at += metaHeader + int64(length)
	}
	return room
}

// List implements volume.Volume.
func (v *Volume) List(dir, parent uint64) ([]volume.Entry, error) {
	n, err := v.inode(dir)
	if err != nil {
		return nil, err
	}
	if n.kind != typeDir {
		return nil, errDamaged
	}
	if err := v.checkPlace(dir, parent, &n); err != nil {
		return nil, err
	}
	if n.size <= dots {
		return nil, nil
	}
	size := n.size - dots
	if err := v.listings.Add(dir, size); err != nil {
		return nil, err
	}
	c, err := v.at(v.dirs, n.start<<16|uint64(n.offset))
	if err != nil {
		return nil, err
	}
	var entries []volume.Entry
	for size > 0 {
		if entries, size, err = c.run(entries, size); err != nil {
			return nil, err
		}
	}
	return entries, nil
}

// run reads a header and its entries, and takes them from size.
func (c *cursor) run(entries []volume.Entry, size uint64) ([]volume.Entry, uint64, error) {
	var b [dirHeader]byte
	if size < dirHeader {
		return nil, 0, errDamaged
	}
	if err := c.read(b[:]); err != nil {
		return nil, 0, err
	}
	f, size := fields(b[:]), size-dirHeader
	count, block := uint64(f.u32())+1, uint64(f.u32())
	if count > maxRun {
		return nil, 0, errDamaged
	}
	for range count {
		var b [dirEntry + maxName]byte
		if size < dirEntry {
			return nil, 0, errDamaged
		}
		if err := c.read(b[:dirEntry]); err != nil {
			return nil, 0, err
		}
		place, length := uint64(le.Uint16(b[:])), int(le.Uint16(b[6:]))+1
		if length > maxName || size < dirEntry+uint64(length) {
			return nil, 0, errDamaged
		}
		name := b[dirEntry:][:length]
		if err := c.read(name); err != nil {
			return nil, 0, err
		}
		entries = append(entries, volume.Entry{Name: string(name), Ino: block<<16 | place})
		size -= dirEntry + uint64(length)
	}
	return entries, size, nil
}

// checkPlace refuses a directory that was not found where its inode says. It says so
// by a number, so no two directories may have the same.
func (v *Volume) checkPlace(dir, parent uint64, n *inode) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if known, ok := v.dirRefs[n.number]; ok && known != dir {
		return fmt.Errorf("damaged: two directories have the number %d", n.number)
	}
	v.dirRefs[n.number] = dir
	if dir == v.root {
		return nil
	}
	if up, ok := v.dirRefs[n.parent]; !ok || up != parent {
		return volume.ErrElsewhere
	}
	return nil
}
