package image

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/rootnfsd/rootnfsd/fs"
)

// An index file is a header and eleven sections, one behind the other, each
// padded with zeros to eight bytes. All numbers are little endian. The first
// seven sections are the canonical part: what a client can see of the tree,
// equal for equal trees, and what the version's digest is taken of. The other
// four are derived from it or say where the content lies in this store.
const (
	secInodes  = iota // an inode for each object, by inode number, from 1
	secDirs           // a dirRecord for each directory, by inode number
	secDirents        // a dirent for each name, by directory, then by the bytes of the name
	secNames          // the names
	secTexts          // the texts of symlinks
	secXattrs         // see appendXattrs
	secFiles          // the content digest of each regular file, by inode number
	numCanonical
)

const (
	secSlots   = iota + numCanonical // the hash table: see slotsFor
	secLocs                          // a location for each regular file, by inode number
	secExtents                       // the extents, by file, then by offset
	secPacks                         // the digests of the packs that extents refer to
	numSections
)

const (
	indexMagic = "rnfsidx\x01" // the last byte is the version of the format
	headerSize = 256
	sectionPad = 8
	inodeSize  = 64
	dirSize    = 32
	direntSize = 16
	digestSize = sha256.Size
	slotSize   = 4
	locSize    = 16
	extentSize = 24
	maxObjects = 1<<32 - 2 // inode numbers and entries plus one fit 32 bits
)

// recordSizes are the sizes of the records of each section.
var recordSizes = [numSections]uint64{
	secInodes: inodeSize, secDirs: dirSize, secDirents: direntSize, secNames: 1, secTexts: 1, secXattrs: 1, secFiles: digestSize,
	secSlots: slotSize, secLocs: locSize, secExtents: extentSize, secPacks: digestSize,
}

var le = binary.LittleEndian

// header is the start of an index file.
//
//	0    magic
//	8    when it was sealed, nanoseconds since the epoch
//	16   bytes of content, holes left out
//	24   digest of the canonical part: the digest of the version
//	56   digest of the derived part
//	88   lengths of the sections without padding, 64 bits each
//	224  digest of the header up to here
type header struct {
	sealed  int64
	bytes   uint64
	digest  Digest
	derived Digest
	lengths [numSections]uint64
}

func (h *header) marshal() []byte {
	b := make([]byte, 0, headerSize)
	b = append(b, indexMagic...)
	b = le.AppendUint64(b, uint64(h.sealed))
	b = le.AppendUint64(b, h.bytes)
	b = append(b, h.digest[:]...)
	b = append(b, h.derived[:]...)
	for _, n := range h.lengths {
		b = le.AppendUint64(b, n)
	}
	b = b[:headerSize-digestSize]
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

var errNoIndex = errors.New("not an index of a version, or cut short")

// parseHeader checks b, of which the header is the first part, against the
// size of the whole file.
func parseHeader(b []byte, fileSize int64) (*header, error) {
	if len(b) < headerSize || string(b[:len(indexMagic)-1]) != indexMagic[:len(indexMagic)-1] {
		return nil, errNoIndex
	}
	if b[len(indexMagic)-1] != indexMagic[len(indexMagic)-1] {
		return nil, fmt.Errorf("format %d of the index is not known: it was sealed by another release", b[len(indexMagic)-1])
	}
	if sha256.Sum256(b[:headerSize-digestSize]) != Digest(b[headerSize-digestSize:headerSize]) {
		return nil, errors.New("the header of the index is damaged")
	}
	h := &header{sealed: int64(le.Uint64(b[8:])), bytes: le.Uint64(b[16:]), digest: Digest(b[24:56]), derived: Digest(b[56:88])}
	for i := range h.lengths {
		h.lengths[i] = le.Uint64(b[88+8*i:])
	}
	return h, h.check(fileSize)
}

// check makes sure that the sections fill the file exactly and agree in number
// where they describe the same objects.
func (h *header) check(fileSize int64) error {
	total := uint64(headerSize)
	for i, n := range h.lengths {
		if n > uint64(fileSize) || n%recordSizes[i] != 0 {
			return fmt.Errorf("section %d of the index is %d bytes long", i, n)
		}
		if total += padded(n); total > uint64(fileSize) {
			break // and before the sum can overflow
		}
	}
	switch slots := h.count(secSlots); {
	case total != uint64(fileSize):
		return fmt.Errorf("the index is %d bytes long, not %d", fileSize, total)
	case h.count(secInodes) == 0 || h.count(secInodes) > maxObjects || h.count(secDirents) > maxObjects:
		return fmt.Errorf("an index of %d objects under %d names", h.count(secInodes), h.count(secDirents))
	case h.count(secLocs) != h.count(secFiles):
		return errors.New("the index locates more or less files than there are")
	case slots == 0 || slots&(slots-1) != 0 || slots <= h.count(secDirents):
		return fmt.Errorf("the index has a hash table of %d slots for %d names", slots, h.count(secDirents))
	}
	return nil
}

// count is the number of records of a section.
func (h *header) count(section int) uint64 { return h.lengths[section] / recordSizes[section] }

// padded is the length of a section of n bytes with its padding.
func padded(n uint64) uint64 { return (n + sectionPad - 1) &^ (sectionPad - 1) }

// canonicalSize is the length of the canonical part.
func (h *header) canonicalSize() uint64 {
	var n uint64
	for _, l := range h.lengths[:numCanonical] {
		n += padded(l)
	}
	return n
}

// canonicalPrefix is what is hashed before the canonical part, so that sections
// cannot change roles.
func (h *header) canonicalPrefix() []byte {
	b := []byte("rootnfsd tree 1\n")
	for _, n := range h.lengths[:numCanonical] {
		b = le.AppendUint64(b, n)
	}
	return b
}

func (h *header) info(name string) Info {
	return Info{
		Name: name, Digest: h.digest, Sealed: time.Unix(0, h.sealed),
		Objects: h.count(secInodes), Bytes: h.bytes, Layout: h.derived,
	}
}

// inode is the record of an object.
//
//	0   kind, 8 bits
//	2   mode, 16 bits
//	4   number of links, of what is not a directory
//	8   uid
//	12  gid
//	16  size, of what is not a directory, 64 bits
//	24  mtime: seconds, 64 bits
//	32  mtime: nanoseconds
//	40  directory: its place in secDirs; file: in secFiles and secLocs; symlink:
//	    offset in secTexts; device: major << 32 | minor; 64 bits
//	48  bytes used, 64 bits
//	56  extended attributes: 0 for none, or offset in secXattrs plus one, 64 bits
type inode [inodeSize]byte

func (n *inode) kind() fs.Kind { return fs.Kind(n[0]) }
func (n *inode) mode() uint32  { return uint32(le.Uint16(n[2:])) & 0o7777 }
func (n *inode) nlink() uint32 { return le.Uint32(n[4:]) }
func (n *inode) uid() uint32   { return le.Uint32(n[8:]) }
func (n *inode) gid() uint32   { return le.Uint32(n[12:]) }
func (n *inode) size() uint64  { return le.Uint64(n[16:]) }
func (n *inode) mtime() fs.Time {
	return fs.Time{Sec: int64(le.Uint64(n[24:])), Nsec: le.Uint32(n[32:])}
}
func (n *inode) ref() uint64    { return le.Uint64(n[40:]) }
func (n *inode) used() uint64   { return le.Uint64(n[48:]) }
func (n *inode) xattrs() uint64 { return le.Uint64(n[56:]) }

const nlinkOffset = 4

func (n *inode) set(a *fs.Attr, ref, xattrs uint64) {
	*n = inode{0: byte(a.Kind)}
	le.PutUint16(n[2:], uint16(a.Mode))
	le.PutUint32(n[nlinkOffset:], a.Nlink)
	le.PutUint32(n[8:], a.UID)
	le.PutUint32(n[12:], a.GID)
	le.PutUint64(n[16:], a.Size)
	le.PutUint64(n[24:], uint64(a.Mtime.Sec))
	le.PutUint32(n[32:], a.Mtime.Nsec)
	le.PutUint64(n[40:], ref)
	le.PutUint64(n[48:], a.Used)
	le.PutUint64(n[56:], xattrs)
}

// dirRecord is what a directory has besides its inode.
//
//	0   first of its entries in secDirents
//	4   number of them
//	8   inode of its parent; the root is its own
//	12  number of links
//	16  size, 64 bits
//	24  its inode
type dirRecord [dirSize]byte

func (d *dirRecord) first() uint32  { return le.Uint32(d[0:]) }
func (d *dirRecord) count() uint32  { return le.Uint32(d[4:]) }
func (d *dirRecord) parent() uint32 { return le.Uint32(d[8:]) }
func (d *dirRecord) nlink() uint32  { return le.Uint32(d[12:]) }
func (d *dirRecord) size() uint64   { return le.Uint64(d[16:]) }
func (d *dirRecord) inode() uint32  { return le.Uint32(d[24:]) }

func (d *dirRecord) set(first, count, parent, nlink uint32, size uint64, inode uint32) {
	*d = dirRecord{}
	le.PutUint32(d[0:], first)
	le.PutUint32(d[4:], count)
	le.PutUint32(d[8:], parent)
	le.PutUint32(d[12:], nlink)
	le.PutUint64(d[16:], size)
	le.PutUint32(d[24:], inode)
}

// dirent is a name in a directory.
//
//	0   inode
//	4   kind, 8 bits
//	5   length of the name, 8 bits
//	8   offset of the name in secNames, 64 bits
type dirent [direntSize]byte

func (e *dirent) inode() uint32   { return le.Uint32(e[0:]) }
func (e *dirent) kind() fs.Kind   { return fs.Kind(e[4]) }
func (e *dirent) nameLen() uint64 { return uint64(e[5]) }
func (e *dirent) nameOff() uint64 { return le.Uint64(e[8:]) }

func (e *dirent) set(inode uint32, kind fs.Kind, nameLen int, nameOff uint64) {
	*e = dirent{4: byte(kind), 5: byte(nameLen)}
	le.PutUint32(e[0:], inode)
	le.PutUint64(e[8:], nameOff)
}

// location says which extents are those of a file.
//
//	0   first of them in secExtents, 64 bits
//	8   number of them
type location [locSize]byte

func (l *location) first() uint64 { return le.Uint64(l[0:]) }
func (l *location) count() uint32 { return le.Uint32(l[8:]) }

func (l *location) set(first uint64, count uint32) {
	*l = location{}
	le.PutUint64(l[0:], first)
	le.PutUint32(l[8:], count)
}

// extent is a run of chunks that follow each other in the file and in the
// table of a pack. Where no extent is, the file has a hole.
//
//	0   number of the first chunk in the file, 64 bits
//	8   number of chunks
//	12  pack: its place in secPacks
//	16  number of the first chunk in the pack
type extent [extentSize]byte

func (e *extent) chunk() uint64 { return le.Uint64(e[0:]) }
func (e *extent) count() uint32 { return le.Uint32(e[8:]) }
func (e *extent) pack() uint32  { return le.Uint32(e[12:]) }
func (e *extent) first() uint32 { return le.Uint32(e[16:]) }

func (e *extent) set(chunk uint64, count, pack, first uint32) {
	*e = extent{}
	le.PutUint64(e[0:], chunk)
	le.PutUint32(e[8:], count)
	le.PutUint32(e[12:], pack)
	le.PutUint32(e[16:], first)
}

// The hash table finds the entry of a name in a directory. A slot is zero or
// the place of an entry in secDirents plus one. An entry is in the first slot
// that was free from the one that its hash selects on, cyclically. At least half
// of the slots are free, so a look-up costs the same in a small and a large tree.

// slotsFor returns the number of slots for n names: a power of two.
func slotsFor(n uint64) uint64 {
	slots := uint64(8)
	for slots < 2*n {
		slots *= 2
	}
	return slots
}

// hashName is the hash of a name in a directory: FNV-1a over the bytes of the
// directory's inode number and of the name, its bits then mixed, since FNV
// leaves the low ones of short names alike.
func hashName[T string | []byte](dir uint32, name T) uint32 {
	const prime = 1099511628211
	h := uint64(14695981039346656037)
	for range 4 {
		h = (h ^ uint64(dir&0xff)) * prime
		dir >>= 8
	}
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * prime
	}
	h ^= h >> 32
	h *= 0x9e3779b97f4a7c15
	return uint32(h >> 32)
}
