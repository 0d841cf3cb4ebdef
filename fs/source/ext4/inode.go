package ext4

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/source"
)

// inode is the record of an object, inodeSize bytes.
type inode []byte

// Flags of an inode.
const (
	flagEncrypted = 0x800
	flagExtents   = 0x80000
	flagInline    = 0x10000000
)

const (
	rootInode  = 2
	blockField = 0x28 // extents, block numbers, a link's text, or content
	blockBytes = 60
)

func (n inode) flags() uint32  { return le.Uint32(n[0x20:]) }
func (n inode) size() uint64   { return uint64(le.Uint32(n[4:])) | uint64(le.Uint32(n[0x6C:]))<<32 }
func (n inode) block() []byte  { return n[blockField:][:blockBytes] }
func (n inode) format() uint16 { return le.Uint16(n) & 0xF000 }

// kinds are the types of i_mode.
var kinds = map[uint16]fs.Kind{
	0x1000: fs.FIFO, 0x2000: fs.CharDevice, 0x4000: fs.Directory, 0x6000: fs.BlockDevice,
	0x8000: fs.Regular, 0xA000: fs.Symlink, 0xC000: fs.Socket,
}

// inode reads a record.
func (v *Volume) inode(ino uint64) (inode, error) {
	if ino == 0 || ino > uint64(v.inodes) {
		return nil, fmt.Errorf("damaged: refers to inode %d of %d", ino, v.inodes)
	}
	group, index := (ino-1)/uint64(v.inodesPerGroup), int64((ino-1)%uint64(v.inodesPerGroup))
	desc := make([]byte, v.descSize)
	if err := v.readBlocks(desc, v.firstBlock+1, int64(group)*v.descSize); err != nil {
		return nil, fmt.Errorf("descriptor of group %d: %w", group, err)
	}
	table := uint64(le.Uint32(desc[8:]))
	if v.descSize >= 64 {
		table |= uint64(le.Uint32(desc[0x28:])) << 32
	}
	n := make(inode, v.inodeSize)
	if err := v.readBlocks(n, table, index*v.inodeSize); err != nil {
		return nil, fmt.Errorf("inode %d: %w", ino, err)
	}
	if n.flags()&flagEncrypted != 0 {
		return nil, fmt.Errorf("inode %d is encrypted: mount the image with its key, and seal the directory", ino)
	}
	return n, nil
}

// extra returns the field at off, which is there if i_extra_isize says so.
func (n inode) extra(off int) uint32 {
	if len(n) < off+4 || 128+int(le.Uint16(n[0x80:])) < off+4 {
		return 0
	}
	return le.Uint32(n[off:])
}

func (n inode) time(off, extra int) (fs.Time, error) {
	x := n.extra(extra)
	t := fs.Time{Sec: int64(int32(le.Uint32(n[off:]))) + int64(x&3)<<32, Nsec: x >> 2}
	if t.Nsec >= 1e9 {
		return t, errors.New("damaged: a time of more than 10^9 nanoseconds")
	}
	return t, nil
}

// Root implements volume.Volume.
func (v *Volume) Root() uint64 { return rootInode }

// Meta implements volume.Volume.
func (v *Volume) Meta(ino uint64) (m source.Meta, err error) {
	n, err := v.inode(ino)
	if err != nil {
		return m, err
	}
	m = source.Meta{
		Kind:      kinds[n.format()],
		Mode:      uint32(le.Uint16(n)) & 0o7777,
		UID:       uint32(le.Uint16(n[2:])) | uint32(le.Uint16(n[0x78:]))<<16,
		GID:       uint32(le.Uint16(n[0x18:])) | uint32(le.Uint16(n[0x7A:]))<<16,
		Size:      n.size(),
		Allocated: (uint64(le.Uint32(n[0x1C:])) | uint64(le.Uint16(n[0x74:]))<<32) * 512,
		Ino:       ino,
		Nlink:     uint32(le.Uint16(n[0x1A:])),
	}
	if m.Kind == 0 || m.Nlink == 0 || m.Size > 1<<62 {
		return m, fmt.Errorf("damaged: inode %d is none", ino)
	}
	if n.flags()&flagInline != 0 {
		m.Allocated = m.Size
	}
	if m.Kind == fs.BlockDevice || m.Kind == fs.CharDevice {
		m.Major, m.Minor = device(n.block())
		m.Size = 0
	}
	if m.Mtime, err = n.time(0x10, 0x88); err == nil {
		m.Ctime, err = n.time(0xC, 0x84)
	}
	return m, err
}

// device decodes the number of a device: 8 bits each in the first field, or more
// in the second.
func device(b []byte) (major, minor uint32) {
	if old := le.Uint32(b); old != 0 {
		return old >> 8 & 0xFF, old & 0xFF
	}
	d := uint64(le.Uint32(b[4:]))
	return unix.Major(d), unix.Minor(d)
}

// maxLink is the length of the longest link text.
const maxLink = 4095

// Readlink implements volume.Volume.
func (v *Volume) Readlink(ino uint64) (string, error) {
	n, err := v.inode(ino)
	if err != nil {
		return "", err
	}
	if n.format() != 0xA000 || n.size() > maxLink {
		return "", fmt.Errorf("damaged: inode %d is no link of at most %d bytes", ino, maxLink)
	}
	if n.size() < blockBytes && n.flags()&(flagExtents|flagInline) == 0 {
		return string(n.block()[:n.size()]), nil
	}
	c, err := v.content(n)
	if err != nil {
		return "", err
	}
	text := make([]byte, n.size())
	_, err = c.ReadAt(text, 0)
	return string(text), err
}
