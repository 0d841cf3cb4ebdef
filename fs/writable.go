package fs

// Handle names one object of a WritableTree: the identity that the host's file
// system gives it, opaque and comparable. It stays the same when the object is
// renamed, when the server restarts, and for as long as the object exists; the
// next object in the same inode has another one. The zero Handle names nothing.
type Handle struct {
	// Len is how many of Bytes count; the rest is zero, so that == compares.
	Len   uint8
	Bytes [MaxHandle]byte
}

// MaxHandle is the longest Handle in bytes. It leaves room for what a server
// puts around it in the 64 bytes of an nfs_fh3.
const MaxHandle = 32

// Stability is how safe written content must be before a write is acknowledged:
// the values are those of stable_how (RFC 1813, section 3.3.7).
type Stability uint8

// The degrees of safety.
const (
	Unstable Stability = 0 // in memory; Commit makes it safe
	DataSync Stability = 1 // the content, and what is needed to find it
	FileSync Stability = 2 // the content and all attributes
)

// Verifier changes whenever content that was written Unstable may have been
// lost: at every start, and when the host reports that it could not write
// something back. A client that sees another Verifier than before writes again
// what it has not committed (RFC 1813, section 4.8).
type Verifier [8]byte

// SetAttr is which attributes to change, and to what. Nil leaves one alone.
type SetAttr struct {
	Mode  *uint32 // within 07777
	UID   *uint32
	GID   *uint32
	Size  *uint64
	Atime *SetTime
	Mtime *SetTime
}

// SetTime is a time to set: the caller's, or the server's when Now is true,
// for which the right to write is enough.
type SetTime struct {
	Now  bool
	Time Time
}

// Create says what Create does when the name is taken (RFC 1813, section 3.3.8).
type Create uint8

// The ways to create a file.
const (
	Unchecked Create = iota // open what is there, truncating it if the attributes say so
	Guarded                 // ErrExist
	Exclusive               // ErrExist unless it was made with the same verifier: then it is the same call again
)

// Change is what an operation did to the attributes of an object, for the
// client's cache (wcc_data). Before is only set when nothing else can have
// changed the object between the two: a wrong one makes a client keep stale
// content, none makes it fetch again.
type Change struct {
	Before   *BeforeAttr
	After    Attr
	HasAfter bool
}

// BeforeAttr are the attributes that a client compares with its cache (wcc_attr).
type BeforeAttr struct {
	Size  uint64
	Mtime Time
	Ctime Time
}

// WritableTree is a file tree on the host that can be changed. Objects are
// named by Handle, and names are looked up in one directory at a time, never
// following a symlink: no call reaches anything outside the tree.
//
// Every method acts for the Cred that it gets, and whether that one may is the
// host kernel's decision. All may wait for a disk, and may be called by many
// goroutines at once. Errors are of the kinds of Error: ErrStale for a Handle
// whose object is gone or was moved out of the tree, ErrBadHandle for bytes
// that no tree gave out, ErrWouldBlock where the host is short of something for
// the moment (NFS3ERR_JUKEBOX): names are as they were then, and the same call
// again is safe.
//
// A Handle does not prove that its object is one of this tree: of another tree
// on the same file system a directory is refused (ErrStale), but a file is not
// told apart. Who passes handles on over a network signs them.
//
// Methods that change something are durable when they return without an error,
// but for what is written Unstable. What they say of a Change is true with an
// error too.
type WritableTree interface {
	// FSID is the identity of the tree: never zero, and constant.
	FSID() uint64

	// Root is the directory at the top.
	Root() Handle

	// Getattr needs no rights.
	Getattr(h Handle, a *Attr) error

	// Access returns which of want the caller has.
	Access(c *Cred, h Handle, want Perm) (Perm, error)

	// Lookup finds name in dir. ".." in the root is the root.
	Lookup(c *Cred, dir Handle, name Name, a *Attr) (Handle, error)

	// Readlink appends the text of a symlink to b.
	Readlink(c *Cred, h Handle, b []byte) ([]byte, error)

	// ReadDir is Tree.ReadDir, but fills in handles and attributes if plus is
	// true, as far as they can be had.
	ReadDir(c *Cred, dir Handle, cookie uint64, plus bool, entries []HostEntry) (n int, eof bool, err error)

	// Read is Tree.Read. It never opens what is not a regular file.
	Read(c *Cred, h Handle, off uint64, p []byte) (n int, eof bool, err error)

	// ReadNow is Read, but ErrWouldBlock where that would wait for a disk. It tells
	// the attributes from before it, too.
	ReadNow(c *Cred, h Handle, off uint64, p []byte, a *Attr) (n int, eof bool, err error)

	// Splice is Read into a pipe, as far as that has room, and tells the attributes
	// from before it. If it fails it has moved nothing. ErrInvalid or ErrNotSupported
	// may mean that the host cannot do this, and Read is to be called.
	Splice(c *Cred, h Handle, off uint64, n, pipe int, a *Attr) (moved int, eof bool, err error)

	// Write writes all of p or fails: ErrTooLarge, ErrNoSpace, ErrQuota. The
	// owner may write whatever the mode says, as CanRead has it for Read.
	Write(c *Cred, h Handle, off uint64, p []byte, how Stability) (Change, Verifier, error)

	// WriteSpliced is Write, Unstable, of the n bytes that are in a pipe. If it fails,
	// some of them may be left there: all of them with ErrInvalid or ErrNotSupported,
	// which may mean that the host cannot do this, and Write is to be called.
	WriteSpliced(c *Cred, h Handle, off uint64, n, pipe int) (Change, Verifier, error)

	// Commit makes safe what was written Unstable, unless the Verifier is
	// another than that of the Write by then. It needs no rights.
	Commit(c *Cred, h Handle) (Change, Verifier, error)

	// Setattr changes attributes, all or as far as the host can. If guard is not
	// nil and not the object's ctime, it is ErrNotSync and nothing changes.
	Setattr(c *Cred, h Handle, s *SetAttr, guard *Time) (Change, error)

	// Create makes a regular file. verf is of Exclusive only; s is not, and may
	// be nil. Without a mode the file has none of the bits.
	Create(c *Cred, dir Handle, name Name, how Create, s *SetAttr, verf Verifier, a *Attr) (Handle, Change, error)

	// Mkdir, Symlink and Mknod make objects of the other kinds. Devices need root.
	Mkdir(c *Cred, dir Handle, name Name, s *SetAttr, a *Attr) (Handle, Change, error)
	Symlink(c *Cred, dir Handle, name Name, text []byte, s *SetAttr, a *Attr) (Handle, Change, error)
	Mknod(c *Cred, dir Handle, name Name, kind Kind, major, minor uint32, s *SetAttr, a *Attr) (Handle, Change, error)

	// Remove takes a name away that is not a directory's (ErrIsDir), Rmdir an
	// empty directory (ErrNotDir, ErrNotEmpty).
	Remove(c *Cred, dir Handle, name Name) (Change, error)
	Rmdir(c *Cred, dir Handle, name Name) (Change, error)

	// Rename and Link work within the tree.
	Rename(c *Cred, from Handle, oldName Name, to Handle, newName Name) (fromDir, toDir Change, err error)
	Link(c *Cred, h Handle, dir Handle, name Name, a *Attr) (Change, error)

	// Statfs tells how much room there is for the caller.
	Statfs(c *Cred) (Statfs, error)
}

// HostEntry is one name in a directory of a WritableTree.
type HostEntry struct {
	FileID uint64
	Cookie uint64 // as in DirEntry
	Name   []byte // valid until the next use of the entry
	Handle Handle // zero if it was not asked for, or could not be had
	Attr   Attr   // of Handle
}
