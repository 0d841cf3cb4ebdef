// Package ext4 reads ext2, ext3 and ext4 file systems where they lie, without
// the kernel. It owns the format of the disk; what it offers is a
// volume.Volume.
//
// Every number that is read is checked before it is used, since an image may
// come from anywhere: damage leads to an error or to other content, and neither
// to a panic nor to memory or loops without bound. Checksums of metadata are
// verified in the superblock alone.
package ext4

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"

	"github.com/rootnfsd/rootnfsd/fs/source/volume"
)

var le = binary.LittleEndian

// Volume is an ext4 file system. All methods may be called by many goroutines.
type Volume struct {
	r              io.ReaderAt
	blockSize      int64
	blocks         uint64
	firstBlock     uint64
	inodes         uint32
	inodesPerGroup uint32
	inodeSize      int64
	descSize       int64
	listings       *volume.Listings
	id, label      string
}

// The superblock lies behind 1024 bytes for a boot loader.
const (
	superOffset = 1024
	superSize   = 1024
	magicOffset = 0x38
	magic       = 0xEF53
)

// Features that change what a reader must understand (INCOMPAT), and of the
// others those that matter here.
const (
	incompatRecover = 0x4
	incompat64Bit   = 0x80
	roMetadataCsum  = 0x400

	// filetype, extents, 64bit, mmp, flex_bg, ea_inode, metadata_csum_seed,
	// large_dir, inline_data
	known = 0x2 | 0x40 | incompat64Bit | 0x100 | 0x200 | 0x400 | 0x2000 | 0x4000 | 0x8000
)

// unknown names, by their bit, the features that are refused.
var unknown = map[int]string{0: "compression", 3: "journal_dev", 4: "meta_bg", 12: "dirdata", 16: "encrypt", 17: "casefold"}

// ErrNot says that there is no ext4 file system.
var ErrNot = errors.New("no ext4 file system")

// Open looks at the file system that begins at the start of r and must lie
// within size bytes. The error is ErrNot if there is none.
func Open(r io.ReaderAt, size int64) (*Volume, error) {
	var sb [superSize]byte
	if size < superOffset+superSize {
		return nil, ErrNot
	}
	if _, err := r.ReadAt(sb[:], superOffset); err != nil {
		return nil, fmt.Errorf("read superblock: %w", err)
	}
	if le.Uint16(sb[magicOffset:]) != magic {
		return nil, ErrNot
	}
	incompat, ro := le.Uint32(sb[0x60:]), le.Uint32(sb[0x64:])
	if err := checkFeatures(incompat); err != nil {
		return nil, err
	}
	if ro&roMetadataCsum != 0 && ^crc32.Checksum(sb[:0x3FC], crc32.MakeTable(crc32.Castagnoli)) != le.Uint32(sb[0x3FC:]) {
		return nil, errors.New("damaged: the superblock's checksum is wrong; let e2fsck repair the file system")
	}
	if err := checkState(le.Uint16(sb[0x3A:])); err != nil {
		return nil, err
	}
	shift := le.Uint32(sb[0x18:])
	if shift > 6 {
		return nil, fmt.Errorf("damaged: blocks of 2^%d bytes", uint64(shift)+10)
	}
	v := &Volume{r: r, blockSize: 1024 << shift, inodeSize: 128, descSize: 32}
	v.inodes, v.inodesPerGroup = le.Uint32(sb[0:]), le.Uint32(sb[0x28:])
	v.blocks, v.firstBlock = uint64(le.Uint32(sb[4:])), uint64(le.Uint32(sb[0x14:]))
	if le.Uint32(sb[0x4C:]) > 0 { // the first revision had no such field
		v.inodeSize = int64(le.Uint16(sb[0x58:]))
	}
	if incompat&incompat64Bit != 0 {
		v.blocks |= uint64(le.Uint32(sb[0x150:])) << 32
		v.descSize = int64(le.Uint16(sb[0xFE:]))
	}
	switch {
	case v.blocks > uint64(size/v.blockSize):
		return nil, fmt.Errorf("the image is cut off: the file system has %d blocks of %d bytes, and there are %d bytes", v.blocks, v.blockSize, size)
	case v.inodeSize < 128 || v.inodeSize > v.blockSize || v.inodeSize&(v.inodeSize-1) != 0,
		v.descSize < 32 || v.descSize > v.blockSize || incompat&incompat64Bit != 0 && v.descSize < 64,
		v.inodesPerGroup == 0, v.firstBlock > 1:
		return nil, errors.New("damaged: the superblock contradicts itself")
	}
	v.id = fmt.Sprintf("%x-%x-%x-%x-%x", sb[0x68:0x6C], sb[0x6C:0x6E], sb[0x6E:0x70], sb[0x70:0x72], sb[0x72:0x78])
	v.label, _, _ = strings.Cut(string(sb[0x78:0x88]), "\x00")
	v.listings = volume.NewListings(v.blocks * uint64(v.blockSize))
	return v, nil
}

// ID is what mount(8) calls the UUID of the file system.
func (v *Volume) ID() string { return v.id }

// Label is what the file system is called, "" if nobody gave it a name.
func (v *Volume) Label() string { return v.label }

// checkState refuses what e2fsck would not call clean. What has a journal stays valid when
// it is mounted; that there is something in the journal, a feature says.
func checkState(state uint16) error {
	const valid, faulty = 1, 2
	switch {
	case state&faulty != 0:
		return errors.New("the kernel or e2fsck found errors in the file system: run e2fsck -f on its partition (losetup --partscan shows it)")
	case state&valid == 0:
		return errors.New("the file system was not unmounted, and has no journal: run e2fsck -p on its partition (losetup --partscan shows it)")
	}
	return nil
}

func checkFeatures(incompat uint32) error {
	if incompat&incompatRecover != 0 {
		return errors.New("the file system was not unmounted, and changes are in its journal: " +
			"boot the image and shut it down, or run e2fsck -p on its partition (losetup --partscan shows it)")
	}
	var names []string
	for bit := range 32 {
		if (incompat&^known)>>bit&1 == 0 {
			continue
		}
		name := unknown[bit]
		if name == "" {
			name = fmt.Sprintf("unknown feature %d", bit)
		}
		names = append(names, name)
	}
	if names != nil {
		return fmt.Errorf("cannot read a file system with %s: mount it, and seal the directory", strings.Join(names, ", "))
	}
	return nil
}

// readBlocks reads from block on into p, all of which must be in the file system.
func (v *Volume) readBlocks(p []byte, block uint64, off int64) error {
	n := uint64((off + int64(len(p)) + v.blockSize - 1) / v.blockSize)
	if block >= v.blocks || n > v.blocks-block {
		return fmt.Errorf("damaged: refers to block %d of %d", block, v.blocks)
	}
	if n, err := v.r.ReadAt(p, int64(block)*v.blockSize+off); n < len(p) {
		return fmt.Errorf("read block %d: %w", block, err)
	}
	return nil
}
