package squashfs

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/source"
)

// Types of inodes. Each has a longer form, whose number is larger by extended.
const (
	typeDir     = 1
	typeFile    = 2
	typeSymlink = 3
	typeBlock   = 4
	typeChar    = 5
	typeFIFO    = 6
	typeSocket  = 7
	extended    = 7
)

var kinds = [...]fs.Kind{
	typeDir: fs.Directory, typeFile: fs.Regular, typeSymlink: fs.Symlink, typeBlock: fs.BlockDevice,
	typeChar: fs.CharDevice, typeFIFO: fs.FIFO, typeSocket: fs.Socket,
}

// none stands for no fragment, and for no extended attributes.
const none = 1<<32 - 1

// inode is what all kinds have, and what one of them has.
type inode struct {
	kind   uint16
	mode   uint32
	uid    uint32
	gid    uint32
	mtime  uint32
	number uint32
	nlink  uint32
	xattr  uint32
	size   uint64 // of content, of a link's text or of a listing
	start  uint64 // of content; of a listing, in the table of directories
	offset uint32 // in the fragment, or in the listing's first block
	parent uint32 // of a directory: its number
	// fragment is that with the end of the content.
	fragment uint32
	sparse   uint64 // how much of the content is holes
	device   uint32
	rest     cursor // at the list of blocks, or at a link's text
}

// fields takes numbers from a record, one after the other.
type fields []byte

func (f *fields) u16() uint16 { x := le.Uint16(*f); *f = (*f)[2:]; return x }
func (f *fields) u32() uint32 { x := le.Uint32(*f); *f = (*f)[4:]; return x }
func (f *fields) u64() uint64 { x := le.Uint64(*f); *f = (*f)[8:]; return x }

// sizes are those of the fields that follow the first ones, by type.
var sizes = [...]int{
	typeDir: 16, typeFile: 16, typeSymlink: 8, typeBlock: 8, typeChar: 8, typeFIFO: 4, typeSocket: 4,
	typeDir + extended: 24, typeFile + extended: 40, typeSymlink + extended: 8, typeBlock + extended: 12,
	typeChar + extended: 12, typeFIFO + extended: 8, typeSocket + extended: 8,
}

// inode reads the inode at ref.
func (v *Volume) inode(ref uint64) (n inode, err error) {
	c, err := v.at(v.inodes, ref)
	if err != nil {
		return n, err
	}
	var b [40]byte
	f := fields(b[:16])
	if err := c.read(f); err != nil {
		return n, err
	}
	kind := f.u16()
	if kind == 0 || int(kind) >= len(sizes) {
		return n, fmt.Errorf("damaged: an inode of type %d", kind)
	}
	n = inode{kind: kind, mode: uint32(f.u16()) & 0o7777, xattr: none, nlink: 1, fragment: none}
	owner, group := f.u16(), f.u16()
	if int(owner) >= len(v.ids) || int(group) >= len(v.ids) {
		return n, errDamaged
	}
	n.uid, n.gid, n.mtime, n.number = v.ids[owner], v.ids[group], f.u32(), f.u32()
	f = fields(b[:sizes[kind]])
	if err := c.read(f); err != nil {
		return n, err
	}
	n.fill(f)
	n.rest = c
	if n.kind > extended {
		n.kind -= extended
		if n.kind == typeSymlink { // whose text comes first
			return n, n.linkXattr()
		}
	}
	return n, nil
}

// fill takes the fields of n's kind.
func (n *inode) fill(f fields) {
	switch n.kind {
	case typeDir:
		n.start, n.nlink, n.size, n.offset, n.parent = uint64(f.u32()), f.u32(), uint64(f.u16()), uint32(f.u16()), f.u32()
	case typeDir + extended:
		n.nlink, n.size, n.start, n.parent = f.u32(), uint64(f.u32()), uint64(f.u32()), f.u32()
		f.u16() // how large its index is
		n.offset, n.xattr = uint32(f.u16()), f.u32()
	case typeFile:
		n.start, n.fragment, n.offset, n.size = uint64(f.u32()), f.u32(), f.u32(), uint64(f.u32())
	case typeFile + extended:
		n.start, n.size, n.sparse, n.nlink = f.u64(), f.u64(), f.u64(), f.u32()
		n.fragment, n.offset, n.xattr = f.u32(), f.u32(), f.u32()
	case typeSymlink, typeSymlink + extended:
		n.nlink, n.size = f.u32(), uint64(f.u32())
	case typeBlock, typeChar:
		n.nlink, n.device = f.u32(), f.u32()
	case typeBlock + extended, typeChar + extended:
		n.nlink, n.device, n.xattr = f.u32(), f.u32(), f.u32()
	case typeFIFO, typeSocket:
		n.nlink = f.u32()
	case typeFIFO + extended, typeSocket + extended:
		n.nlink, n.xattr = f.u32(), f.u32()
	}
}

// linkXattr reads what follows the text of a link.
func (n *inode) linkXattr() error {
	var b [maxLink + 4]byte
	if n.size > maxLink {
		return errDamaged
	}
	c := n.rest
	if err := c.read(b[:n.size+4]); err != nil {
		return err
	}
	n.xattr = le.Uint32(b[n.size:])
	return nil
}

// maxLink is the length of the longest link text.
const maxLink = 4095

// Root implements volume.Volume.
func (v *Volume) Root() uint64 { return v.root }

// Meta implements volume.Volume.
func (v *Volume) Meta(ino uint64) (m source.Meta, err error) {
	n, err := v.inode(ino)
	if err != nil {
		return m, err
	}
	m = source.Meta{
		Kind: kinds[n.kind], Mode: n.mode, UID: n.uid, GID: n.gid, Ino: ino, Nlink: n.nlink,
		Mtime: fs.Time{Sec: int64(n.mtime)}, Ctime: fs.Time{Sec: int64(n.mtime)},
	}
	switch n.kind {
	case typeFile, typeSymlink:
		m.Size, m.Allocated = n.size, n.size-min(n.sparse, n.size)
	case typeBlock, typeChar:
		m.Major, m.Minor = unix.Major(uint64(n.device)), unix.Minor(uint64(n.device))
	}
	if m.Nlink == 0 || m.Size > 1<<62 {
		return m, errDamaged
	}
	return m, nil
}

// Readlink implements volume.Volume.
func (v *Volume) Readlink(ino uint64) (string, error) {
	n, err := v.inode(ino)
	if err != nil {
		return "", err
	}
	if n.kind != typeSymlink || n.size > maxLink {
		return "", fmt.Errorf("damaged: no link of at most %d bytes", maxLink)
	}
	text := make([]byte, n.size)
	err = n.rest.read(text)
	return string(text), err
}
