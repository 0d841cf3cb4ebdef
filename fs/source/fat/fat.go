// Package fat reads FAT12, FAT16 and FAT32 file systems with long names, as boot
// partitions have them. What it offers is a volume.Volume; owners and modes, which
// FAT has none of, are as Linux shows them by default: root's, 0755.
//
// Everything read is checked: a chain of clusters cannot be longer than the file
// system, so that none is followed in a circle.
package fat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"
	"time"
	"unicode/utf16"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/source"
	"github.com/rootnfsd/rootnfsd/fs/source/volume"
)

var le = binary.LittleEndian

// ErrNot says that there is no FAT file system.
var ErrNot = errors.New("no FAT file system")

// Options are what mount(8) calls umask, fmask and dmask.
type Options struct{ FileMask, DirMask uint32 }

// DefaultOptions are those that mount uses as root.
var DefaultOptions = Options{0o022, 0o022}

// Volume is a FAT file system.
type Volume struct {
	r           io.ReaderAt
	opts        Options
	fat         []byte // the whole table
	bits        int    // of an entry: 12, 16 or 32
	clusters    uint32 // numbered from 2
	clusterSize int64
	data        int64 // where cluster 2 begins
	rootDir     int64 // of FAT12 and FAT16
	rootSize    int64
	rootCluster uint32 // of FAT32
	listings    *volume.Listings
	id, label   string // in the boot sector
}

// maxFAT bounds the table that is held in memory: that of 4 GiB in clusters of 512 bytes.
const maxFAT = 32 << 20

// Open looks at the file system at the start of r, within size bytes.
func Open(r io.ReaderAt, size int64, opts Options) (*Volume, error) {
	var b [512]byte
	if size < 512 {
		return nil, ErrNot
	}
	if _, err := r.ReadAt(b[:], 0); err != nil {
		return nil, fmt.Errorf("read boot sector: %w", err)
	}
	sector, perCluster := int64(le.Uint16(b[11:])), int64(b[13])
	reserved, copies, rootEntries := int64(le.Uint16(b[14:])), int64(b[16]), int64(le.Uint16(b[17:]))
	powerOf2 := func(n int64) bool { return n > 0 && n&(n-1) == 0 }
	if b[510] != 0x55 || b[511] != 0xAA || !powerOf2(sector) || sector < 512 || sector > 4096 || !powerOf2(perCluster) || reserved == 0 || copies == 0 {
		return nil, ErrNot
	}
	total, fatSectors := int64(le.Uint16(b[19:])), int64(le.Uint16(b[22:]))
	if total == 0 {
		total = int64(le.Uint32(b[32:]))
	}
	fat32 := fatSectors == 0 // as Linux tells it; how many clusters there are only tells 12 bits from 16
	if fat32 {
		fatSectors = int64(le.Uint32(b[36:]))
	}
	v := &Volume{r: r, opts: opts, clusterSize: sector * perCluster, rootSize: rootEntries * entrySize}
	v.rootDir = (reserved + copies*fatSectors) * sector
	v.data = v.rootDir + (v.rootSize+sector-1)/sector*sector
	clusters := (total*sector - v.data) / v.clusterSize
	switch {
	case total*sector > size:
		return nil, fmt.Errorf("the image is cut off: the FAT file system has %d bytes, and there are %d", total*sector, size)
	case clusters < 1 || clusters >= 1<<28 || clusters >= 65525 && !fat32 || fatSectors*sector > maxFAT:
		return nil, errors.New("damaged: the boot sector contradicts itself, or clusters are too many")
	case fat32:
		v.bits, v.rootCluster = 32, le.Uint32(b[44:])
	case clusters < 4085:
		v.bits = 12
	default:
		v.bits = 16
	}
	v.describe(&b)
	v.clusters = uint32(clusters)
	v.listings = volume.NewListings(uint64(v.rootSize + clusters*v.clusterSize))
	if need := ((clusters+2)*int64(v.bits) + 7) / 8; need > fatSectors*sector {
		return nil, errors.New("damaged: the table is too short for the clusters")
	}
	v.fat = make([]byte, fatSectors*sector)
	if _, err := r.ReadAt(v.fat, reserved*sector); err != nil {
		return nil, fmt.Errorf("read table: %w", err)
	}
	return v, nil
}

// describe reads what the boot sector says that nothing depends on.
func (v *Volume) describe(b *[512]byte) {
	ebpb := b[36:]
	if v.bits == 32 {
		ebpb = b[64:]
	}
	const hasID, hasLabel = 0x28, 0x29
	if sign := ebpb[2]; sign == hasID || sign == hasLabel {
		v.id = fmt.Sprintf("%04X-%04X", le.Uint16(ebpb[5:]), le.Uint16(ebpb[3:]))
		if sign == hasLabel {
			v.label = strings.TrimRight(string(ebpb[7:][:11]), " ")
		}
	}
}

// ID is what mount(8) calls the UUID of the file system, such as 2F1B-7A5C, "" if it has
// none.
func (v *Volume) ID() string { return v.id }

// Label is what the file system is called, "" if nobody gave it a name. As blkid(8) has
// it, an entry of the root counts before the boot sector.
func (v *Volume) Label() (string, error) {
	l, err := v.scan(rootIno)
	if err != nil || l.label != "" {
		return l.label, err
	}
	if v.label == "NO NAME" {
		return "", nil
	}
	return v.label, nil
}

// next returns what follows a cluster, 0 at the end.
func (v *Volume) next(cluster uint32) (uint32, error) {
	var n, end uint32
	switch v.bits {
	case 12:
		at := cluster + cluster/2
		n, end = uint32(le.Uint16(v.fat[at:]))>>(cluster&1*4)&0xFFF, 0xFF8
	case 16:
		n, end = uint32(le.Uint16(v.fat[cluster*2:])), 0xFFF8
	default:
		n, end = le.Uint32(v.fat[int64(cluster)*4:])&0x0FFFFFFF, 0x0FFFFFF8
	}
	if n >= end {
		return 0, nil
	}
	return n, v.check(n)
}

func (v *Volume) check(cluster uint32) error {
	if cluster < 2 || cluster-2 >= v.clusters {
		return fmt.Errorf("damaged: refers to cluster %d of %d", cluster, v.clusters)
	}
	return nil
}

// chain returns the clusters from first on, at most max.
func (v *Volume) chain(first uint32, max int64) ([]uint32, error) {
	if first == 0 {
		return nil, nil
	}
	if err := v.check(first); err != nil {
		return nil, err
	}
	var all []uint32
	for c := first; c != 0; {
		if int64(len(all)) == max {
			return all, nil
		}
		if len(all) == int(v.clusters) {
			return nil, errors.New("damaged: a chain of clusters without end")
		}
		all = append(all, c)
		var err error
		if c, err = v.next(c); err != nil {
			return nil, err
		}
	}
	return all, nil
}

const (
	entrySize  = 32
	maxDirSize = 65536 * entrySize
)

// Attributes of an entry.
const (
	attrVolume = 0x08
	attrDir    = 0x10
	attrLong   = 0x0F
)

// An object's number is where its entry lies in the image, which Volume reads again
// when it is asked; that of the root, which has none, is 1.
const rootIno = 1

// Root implements volume.Volume.
func (v *Volume) Root() uint64 { return rootIno }

type entry [entrySize]byte

func (e *entry) cluster(bits int) uint32 {
	c := uint32(le.Uint16(e[26:]))
	if bits == 32 {
		c |= uint32(le.Uint16(e[20:])) << 16
	}
	return c
}

func (v *Volume) entry(ino uint64) (*entry, error) {
	var e entry
	_, err := v.r.ReadAt(e[:], int64(ino))
	return &e, err
}

// Meta implements volume.Volume. The time zone, which FAT does not tell, is UTC.
func (v *Volume) Meta(ino uint64) (source.Meta, error) {
	dir := source.Meta{Kind: fs.Directory, Mode: 0o777 &^ v.opts.DirMask, Ino: ino, Nlink: 1}
	if ino == rootIno {
		return dir, nil
	}
	e, err := v.entry(ino)
	if err != nil {
		return source.Meta{}, err
	}
	m := dir
	if e[11]&attrDir == 0 {
		m.Kind, m.Mode, m.Size = fs.Regular, 0o777&^v.opts.FileMask, uint64(le.Uint32(e[28:]))
		m.Allocated = m.Size
		if e[11]&1 != 0 { // read-only
			m.Mode &^= 0o222
		}
	}
	d, t := int(le.Uint16(e[24:])), int(le.Uint16(e[22:]))
	when := time.Date(1980+d>>9, time.Month(max(d>>5&15, 1)), max(d&31, 1), t>>11, t>>5&63, t&31*2, 0, time.UTC)
	m.Mtime = fs.Time{Sec: when.Unix()}
	m.Ctime = m.Mtime
	return m, nil
}

// List implements volume.Volume.
func (v *Volume) List(dir, parent uint64) ([]volume.Entry, error) {
	l, err := v.scan(dir)
	if err != nil {
		return nil, err
	}
	if dir == rootIno {
		return l.entries, nil
	}
	up, err := v.directory(parent)
	if err != nil {
		return nil, err
	}
	// The root is meant by 0, but some programs write its cluster.
	if !l.hasParent || l.parent != up && (parent != rootIno || l.parent != 0) {
		return nil, volume.ErrElsewhere
	}
	return l.entries, nil
}

// scan reads a directory.
func (v *Volume) scan(dir uint64) (l lister, err error) {
	first, err := v.directory(dir)
	if err != nil {
		return l, err
	}
	parts := []part{{0, v.rootDir, v.rootSize}}
	if dir != rootIno || v.bits == 32 {
		if parts, err = v.parts(first, maxDirSize); err != nil {
			return l, err
		}
	}
	if n := len(parts); n > 0 {
		if err := v.listings.Add(dir, uint64(parts[n-1].from+parts[n-1].size)); err != nil {
			return l, err
		}
	}
	l = lister{bits: v.bits, dirs: map[uint32]bool{}}
	for _, p := range parts {
		b := make([]byte, p.size)
		if _, err := v.r.ReadAt(b, p.at); err != nil {
			return l, err
		}
		for ; len(b) >= entrySize && !l.ended; b, p.at = b[entrySize:], p.at+entrySize {
			if err := l.add((*entry)(b), uint64(p.at)); err != nil {
				return l, err
			}
		}
	}
	return l, nil
}

// directory returns the first cluster of a directory.
func (v *Volume) directory(dir uint64) (uint32, error) {
	if dir == rootIno {
		return v.rootCluster, nil
	}
	e, err := v.entry(dir)
	if err != nil {
		return 0, err
	}
	if e[11]&attrDir == 0 {
		return 0, errors.New("not a directory")
	}
	return e.cluster(v.bits), nil
}

// lister gathers entries. Before that of a file lie those of its long name, last part first.
type lister struct {
	bits      int
	entries   []volume.Entry
	dirs      map[uint32]bool // that were seen, by their first cluster
	parent    uint32
	hasParent bool
	long      []uint16
	sum       byte
	ended     bool
	label     string // of the file system
}

func (l *lister) add(e *entry, at uint64) error {
	switch {
	case e[0] == 0:
		l.ended = true
	case e[0] == 0xE5: // deleted
		l.long = nil
	case e[11]&0x3F == attrLong:
		if e[0]&0x40 != 0 {
			l.long, l.sum = nil, e[13]
		}
		const parts, units = 20, 13
		if len(l.long) >= parts*units {
			return errors.New("damaged: a name that is too long")
		}
		var name []uint16
		for _, span := range [][2]int{{1, 11}, {14, 26}, {28, 32}} {
			for i := span[0]; i < span[1]; i += 2 {
				name = append(name, le.Uint16(e[i:]))
			}
		}
		l.long = append(name, l.long...)
	case e[11]&attrVolume != 0:
		l.long = nil
		if l.label == "" {
			l.label = strings.TrimRight(string(e[:11]), " ")
		}
	default:
		name, first := l.name(e), e.cluster(l.bits)
		l.long = nil
		if name == ".." {
			l.parent, l.hasParent = first, true
		}
		if name == "." || name == ".." {
			break
		}
		if e[11]&attrDir != 0 {
			if l.dirs[first] {
				return fmt.Errorf("damaged: %q is another name of a directory", name)
			}
			l.dirs[first] = true
		}
		l.entries = append(l.entries, volume.Entry{Name: name, Ino: at})
	}
	return nil
}

func (l *lister) name(e *entry) string {
	var sum byte
	for _, c := range e[:11] {
		sum = sum>>1 | sum<<7
		sum += c
	}
	if l.long != nil && sum == l.sum {
		for i, u := range l.long {
			if u == 0 {
				l.long = l.long[:i]
				break
			}
		}
		return string(utf16.Decode(l.long))
	}
	// Bits of an entry say which half of a short name is to be shown in lower case.
	half := func(b []byte, lower byte) string {
		s := strings.TrimRight(string(b), " ")
		if e[12]&lower != 0 {
			s = strings.ToLower(s)
		}
		return s
	}
	base, ext := half(e[:8], 8), half(e[8:11], 16)
	if strings.HasPrefix(base, "\x05") {
		base = "\xE5" + base[1:]
	}
	if ext != "" {
		base += "." + ext
	}
	return strings.ToValidUTF8(base, "_")
}

// Readlink implements volume.Volume: FAT has no links.
func (v *Volume) Readlink(uint64) (string, error) { return "", errors.New("not a symlink") }

// Xattrs implements volume.Volume: FAT has none.
func (v *Volume) Xattrs(uint64) ([]source.Xattr, error) { return nil, nil }

// part is a part of a file, which begins at from in it and at at in the image.
type part struct{ from, at, size int64 }

// parts returns where size bytes lie that begin in cluster first.
func (v *Volume) parts(first uint32, size int64) ([]part, error) {
	chain, err := v.chain(first, (size+v.clusterSize-1)/v.clusterSize)
	if err != nil {
		return nil, err
	}
	var parts []part
	for i, c := range chain {
		at := v.data + int64(c-2)*v.clusterSize
		if n := len(parts); n > 0 && parts[n-1].at+parts[n-1].size == at {
			parts[n-1].size += v.clusterSize
		} else {
			parts = append(parts, part{int64(i) * v.clusterSize, at, v.clusterSize})
		}
	}
	return parts, nil
}

// Open implements volume.Volume.
func (v *Volume) Open(ino uint64) (volume.Content, error) {
	e, err := v.entry(ino)
	if err != nil {
		return nil, err
	}
	size := int64(le.Uint32(e[28:]))
	parts, err := v.parts(e.cluster(v.bits), size)
	if err != nil {
		return nil, err
	}
	var have int64
	for _, p := range parts {
		have += p.size
	}
	if have < size {
		return nil, errors.New("damaged: a file has fewer clusters than bytes")
	}
	return &content{v.r, size, parts}, nil
}

type content struct {
	r     io.ReaderAt
	size  int64
	parts []part
}

func (c *content) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 || off >= c.size {
		return 0, io.EOF
	}
	if int64(len(p)) > c.size-off {
		p, err = p[:c.size-off], io.EOF
	}
	for i := sort.Search(len(c.parts), func(i int) bool { return c.parts[i].from > off }) - 1; n < len(p); i++ {
		x := c.parts[i]
		skip := off - x.from
		some := p[n:][:min(int64(len(p)-n), x.size-skip)]
		if got, err := c.r.ReadAt(some, x.at+skip); got < len(some) {
			return n, err
		}
		n, off = n+len(some), off+int64(len(some))
	}
	return n, err
}

// NextData implements source.DataFinder: FAT has no holes.
func (c *content) NextData(off int64) (from, to int64, err error) {
	if off >= c.size {
		return 0, 0, io.EOF
	}
	return off, c.size, nil
}
