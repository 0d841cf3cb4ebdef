package source

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs"
)

// Meta is all that a source tells of an object but its name and content.
type Meta struct {
	Kind fs.Kind
	Mode uint32 // within 07777
	UID  uint32
	GID  uint32
	Size uint64 // of a regular file's content, or of a symlink's text
	// Allocated is what the content takes where it lies now, in bytes: an
	// estimate of what there is to store.
	Allocated uint64
	// Dev and Ino say which object this is, Nlink how many names it has. Two
	// names with the same Dev and Ino, and Nlink above one, are hard links.
	Dev   uint64
	Ino   uint64
	Nlink uint32
	Major uint32 // of a device
	Minor uint32
	Mtime fs.Time
	// Ctime only serves to notice that an object changed meanwhile.
	Ctime fs.Time
	// MountPoint says that something else is mounted here, which is not part
	// of the tree. Only ReadDir fills it in.
	MountPoint bool
}

// Same reports whether a and b describe the same object with the same content.
func (a *Meta) Same(b *Meta) bool {
	return a.Dev == b.Dev && a.Ino == b.Ino && a.Kind == b.Kind && a.Size == b.Size && a.Mtime == b.Mtime && a.Ctime == b.Ctime
}

// Xattr is an extended attribute.
type Xattr struct {
	Name  string
	Value []byte
}

// SortXattrs sorts the attributes of an object by name. One that is there twice is an
// error: no file system has that.
func SortXattrs(all []Xattr) error {
	slices.SortFunc(all, func(a, b Xattr) int { return strings.Compare(a.Name, b.Name) })
	for i := 1; i < len(all); i++ {
		if all[i-1].Name == all[i].Name {
			return fmt.Errorf("the extended attribute %q is there twice", all[i].Name)
		}
	}
	return nil
}

// XattrReader is a source that has extended attributes.
type XattrReader interface {
	// Xattrs returns the attributes of the object at path, itself if it is a
	// symlink, that belong to its content, sorted by name.
	Xattrs(path string) ([]Xattr, error)
}

// Xattrer is an open file that has the extended attributes that an XattrReader
// would tell by its path.
type Xattrer interface {
	Xattrs() ([]Xattr, error)
}

// DataFinder is an open file that knows where its holes are.
type DataFinder interface {
	// NextData returns the first run of data that ends behind off; from is at
	// least off. The error is io.EOF if only holes follow.
	NextData(off int64) (from, to int64, err error)
}

// Stater is an open file that can be asked for its Meta, as a FileInfo.
type Stater interface {
	Stat() (os.FileInfo, error)
}

// NewInfo returns the FileInfo of an object. Its Sys is a *syscall.Stat_t, as
// that of a file of the host is.
func NewInfo(name string, m Meta) os.FileInfo { return &info{name, m} }

// MetaOf returns the Meta of a FileInfo that NewInfo made; of any other it
// returns nil.
func MetaOf(fi os.FileInfo) *Meta {
	if i, ok := fi.(*info); ok {
		return &i.meta
	}
	return nil
}

type info struct {
	name string
	meta Meta
}

var typeBits = [...]os.FileMode{
	fs.Directory:   os.ModeDir,
	fs.BlockDevice: os.ModeDevice,
	fs.CharDevice:  os.ModeDevice | os.ModeCharDevice,
	fs.Symlink:     os.ModeSymlink,
	fs.Socket:      os.ModeSocket,
	fs.FIFO:        os.ModeNamedPipe,
}

func (i *info) Name() string { return i.name }
func (i *info) Size() int64  { return int64(i.meta.Size) }
func (i *info) IsDir() bool  { return i.meta.Kind == fs.Directory }

func (i *info) ModTime() time.Time {
	return time.Unix(i.meta.Mtime.Sec, int64(i.meta.Mtime.Nsec))
}

func (i *info) Mode() os.FileMode {
	m := os.FileMode(i.meta.Mode & 0o777)
	if int(i.meta.Kind) < len(typeBits) {
		m |= typeBits[i.meta.Kind]
	}
	if i.meta.Mode&unix.S_ISUID != 0 {
		m |= os.ModeSetuid
	}
	if i.meta.Mode&unix.S_ISGID != 0 {
		m |= os.ModeSetgid
	}
	if i.meta.Mode&unix.S_ISVTX != 0 {
		m |= os.ModeSticky
	}
	return m
}

func (i *info) Sys() any {
	m := &i.meta
	st := &syscall.Stat_t{Uid: m.UID, Gid: m.GID, Mode: m.Mode | hostTypes[m.Kind&7], Size: int64(m.Size)}
	st.Ino = m.Ino
	setUint(&st.Nlink, uint64(m.Nlink))
	setUint(&st.Dev, m.Dev)
	setUint(&st.Rdev, unix.Mkdev(m.Major, m.Minor))
	return st
}

// setUint stores v in a field whose width depends on the architecture.
func setUint[T uint32 | uint64](field *T, v uint64) { *field = T(v) }

// hostTypes are the type bits of st_mode.
var hostTypes = [8]uint32{
	fs.Regular:     unix.S_IFREG,
	fs.Directory:   unix.S_IFDIR,
	fs.BlockDevice: unix.S_IFBLK,
	fs.CharDevice:  unix.S_IFCHR,
	fs.Symlink:     unix.S_IFLNK,
	fs.Socket:      unix.S_IFSOCK,
	fs.FIFO:        unix.S_IFIFO,
}

// kindOf is hostTypes read backwards. It returns 0 for what it does not know.
func kindOf(mode uint32) fs.Kind {
	for k, bits := range hostTypes {
		if k > 0 && mode&unix.S_IFMT == bits {
			return fs.Kind(k)
		}
	}
	return 0
}
