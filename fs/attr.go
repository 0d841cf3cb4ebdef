package fs

// Kind is the type of an object. The values are those of ftype3 (RFC 1813,
// section 2.5), which are also dense and start at one, so the zero Kind means
// "not known".
type Kind uint8

// The kinds of objects that a Unix file tree holds.
const (
	Regular     Kind = 1
	Directory   Kind = 2
	BlockDevice Kind = 3
	CharDevice  Kind = 4
	Symlink     Kind = 5
	Socket      Kind = 6
	FIFO        Kind = 7
)

var kindNames = [...]string{"unknown", "file", "directory", "block device", "character device", "symlink", "socket", "fifo"}

// String returns the kind in words, for messages.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return kindNames[0]
}

// NodeID names one object of a tree: its inode number. It is never zero. In a
// sealed version the numbers run from 1 (the root) to the number of objects,
// so they fit a 32-bit ino_t.
type NodeID uint64

// Time is an instant as inodes store it: seconds since the epoch, which may be
// negative, and nanoseconds in [0, 1e9).
type Time struct {
	Sec  int64
	Nsec uint32
}

// Attr is what stat(2) tells of an object.
type Attr struct {
	Kind Kind
	// Mode holds the permission bits and the setuid, setgid and sticky bits,
	// never the type: it is always within 07777.
	Mode  uint32
	Nlink uint32
	UID   uint32
	GID   uint32
	// Size is the length of the content in bytes; Used is what of it is stored,
	// holes left out.
	Size uint64
	Used uint64
	// Major and Minor are the device number of a device, else zero.
	Major uint32
	Minor uint32
	// FSID is the tree's identity, FileID the object's within it. Clients treat
	// a changed FSID as a mount point and a changed FileID as a stale handle,
	// so both are constant for as long as the object exists.
	FSID   uint64
	FileID uint64
	Atime  Time
	Mtime  Time
	Ctime  Time
}
