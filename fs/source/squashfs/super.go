// Package squashfs reads squashfs images where they lie, without the kernel. It
// owns the format of the disk, version 4.0 (Documentation/filesystems/squashfs.rst
// in the kernel's source); what it offers is a volume.Volume.
//
// Every number that is read is checked before it is used, since an image may come
// from anywhere: damage leads to an error or to other content, and neither to a
// panic nor to memory or loops without bound.
package squashfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/rootnfsd/rootnfsd/fs/source/volume"
)

var le = binary.LittleEndian

// Volume is a squashfs image. All methods may be called by many goroutines.
//
// The number of an object is where its inode lies: a block of the inode table and
// the place in it, as directories have it.
type Volume struct {
	r         io.ReaderAt
	size      int64 // of the file system
	root      uint64
	blockSize int64
	unpack    unpacker

	inodes, dirs int64 // where these tables begin
	ids          []uint32
	fragments    table
	xattrs       table
	values       int64 // where extended attributes begin

	metadata *lru.Cache[int64, metaBlock]
	blocks   *lru.Cache[int64, []byte] // fragments, and blocks that were asked for last
	listings *volume.Listings

	mu      sync.Mutex
	dirRefs map[uint32]uint64 // where the inode of a directory's number lies
}

const (
	superSize    = 96
	magic        = "hsqs"
	noTable      = 1<<64 - 1
	maxBlockSize = 1 << 20
	minBlockSize = 4 << 10
)

// cached is how much is kept of metadata, and of content, in bytes.
const cached = 8 << 20

// ErrNot says that there is no squashfs image.
var ErrNot = errors.New("no squashfs image")

var errDamaged = errors.New("damaged: let unsquashfs tell what is left of the image")

// Open looks at the image that begins at the start of r and must lie within size
// bytes. The error is ErrNot if there is none.
func Open(r io.ReaderAt, size int64) (*Volume, error) {
	var sb [superSize]byte
	if n, err := r.ReadAt(sb[:], 0); n < superSize {
		if err == io.EOF {
			err = ErrNot
		}
		return nil, err
	}
	if string(sb[:4]) != magic {
		return nil, ErrNot
	}
	if major, minor := le.Uint16(sb[28:]), le.Uint16(sb[30:]); major != 4 || minor != 0 {
		return nil, fmt.Errorf("a squashfs image of version %d.%d, of which only 4.0 can be read: unsquashfs it and import the directory", major, minor)
	}
	v := &Volume{
		r: r, root: le.Uint64(sb[32:]), blockSize: int64(le.Uint32(sb[12:])),
		inodes: int64(le.Uint64(sb[64:])), dirs: int64(le.Uint64(sb[72:])), dirRefs: map[uint32]uint64{},
	}
	used := le.Uint64(sb[40:])
	if used > uint64(size) {
		return nil, fmt.Errorf("cut off: the image has %d bytes, and says it has %d", size, used)
	}
	v.size = int64(used)
	if v.blockSize < minBlockSize || v.blockSize > maxBlockSize || v.blockSize != 1<<(le.Uint16(sb[22:])&31) ||
		v.inodes < superSize || v.dirs < v.inodes || v.dirs > v.size {
		return nil, errDamaged
	}
	var err error
	if v.unpack, err = unpackerOf(le.Uint16(sb[20:])); err != nil {
		return nil, err
	}
	v.metadata, _ = lru.New[int64, metaBlock](cached / metaSize) // fails for a size below 1 only
	v.blocks, _ = lru.New[int64, []byte](int(cached / v.blockSize))
	if err := v.openTables(&sb); err != nil {
		return nil, err
	}
	v.listings = volume.NewListings(v.dirRoom(&sb))
	return v, nil
}

// openTables finds the tables that have an index, and reads the owners.
func (v *Volume) openTables(sb *[superSize]byte) error {
	ids, err := v.openTable(le.Uint64(sb[48:]), uint64(le.Uint16(sb[26:])), 4)
	if err != nil {
		return err
	}
	v.ids = make([]uint32, ids.count)
	for i := range v.ids {
		var id [4]byte
		if err := v.record(ids, uint64(i), id[:]); err != nil {
			return err
		}
		v.ids[i] = le.Uint32(id[:])
	}
	if at := le.Uint64(sb[80:]); at != noTable {
		if v.fragments, err = v.openTable(at, uint64(le.Uint32(sb[16:])), 16); err != nil {
			return err
		}
	}
	if at := le.Uint64(sb[56:]); at != noTable {
		var header [16]byte
		if err := v.readAt(header[:], at); err != nil {
			return err
		}
		if v.values = int64(le.Uint64(header[:])); v.values < superSize || v.values > v.size {
			return errDamaged
		}
		if v.xattrs, err = v.openTable(at+16, uint64(le.Uint32(header[8:])), 16); err != nil {
			return err
		}
	}
	return nil
}

// readAt fills b from the image.
func (v *Volume) readAt(b []byte, off uint64) error {
	if off > uint64(v.size) || uint64(len(b)) > uint64(v.size)-off {
		return errDamaged
	}
	if n, err := v.r.ReadAt(b, int64(off)); n < len(b) {
		return fmt.Errorf("read the image: %w", err)
	}
	return nil
}
