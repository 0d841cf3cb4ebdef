package hostdir

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"runtime"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs"
)

var _ fs.WritableTree = (*Tree)(nil)

// Tree is a directory of the host. It is dropped by letting go of it.
type Tree struct {
	host *Host
	fd   int // of the directory, for as long as the Tree can be reached
	root fs.Handle
	dev  device
	fsid uint64
	// paths is where objects were seen, for a host on which they cannot be
	// opened by handle; else nil.
	paths  *paths
	verf   atomic.Uint64
	turns  chan struct{} // bounds the calls of this tree that act for callers
	volume *volume
	// local says that the file system is known to be one on a disk of the host, or in its
	// memory, that answers from memory what statx asks.
	local bool
	// marker is a file without a name for commit, where the order of changes is kept; else -1.
	marker int
	// apart says that the fsync of a directory may not take along what is in it.
	apart bool
}

// device and inode number are the identity of an object while it exists.
type device struct {
	major, minor uint32
	ino          uint64
}

func deviceOf(st *unix.Statx_t) device { return device{st.Dev_major, st.Dev_minor, st.Ino} }

// Open returns the tree at dir, a directory that is there. A symlink at the end
// of dir or on the way is followed: it is the administrator's.
func (h *Host) Open(dir string) (*Tree, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, openError(dir, err)
	}
	t := h.newTree(fd)
	if err := t.identify(); err != nil {
		unix.Close(fd)
		return nil, openError(dir, err)
	}
	runtime.AddCleanup(t, func(fd int) { unix.Close(fd) }, fd)
	if t.marker = openMarker(fd, t.dev); t.marker >= 0 {
		runtime.AddCleanup(t, func(fd int) { unix.Close(fd) }, t.marker)
	}
	if t.paths != nil {
		runtime.AddCleanup(t, (*paths).forget, t.paths)
	}
	t.rotate()
	return t, nil
}

func (h *Host) newTree(fd int) *Tree {
	return &Tree{host: h, fd: fd, marker: -1, turns: make(chan struct{}, max(1, cap(h.actor.slots)/4))}
}

// openError tells the administrator what the host said, and a client of what
// kind it was.
func openError(dir string, err error) error {
	if kind := failure(err); kind != err {
		return fmt.Errorf("open %s: %w (%w)", dir, err, kind)
	}
	return fmt.Errorf("open %s: %w", dir, err)
}

// identify finds out what the root is, and how objects can be found again.
func (t *Tree) identify() error {
	var err error
	if t.root, err = handleOf(t.fd); err != nil {
		return err
	}
	var st unix.Statx_t
	if err := statx(t.fd, &st); err != nil {
		return err
	}
	t.dev = deviceOf(&st)
	t.volume = t.host.volumeOf(t.dev)
	if err := t.judge(); err != nil {
		return err
	}
	if t.fsid, err = identityOf(t.fd, &t.root); err != nil {
		return err
	}
	var raw fileHandle
	if !raw.parse(&t.root) {
		t.paths = newPaths(&t.host.places)
		return nil
	}
	switch fd, err := openByHandle(t.fd, &raw); err {
	case nil:
		unix.Close(fd)
	case unix.EPERM, unix.EACCES, unix.ENOSYS, unix.EOPNOTSUPP, unix.ESTALE:
		t.paths = newPaths(&t.host.places)
	default:
		return err
	}
	return nil
}

// judge finds out what can be relied on: of some file systems it is known that their
// inodes have all attributes in memory, where one over a network or in a program may wait
// for those, and that the fsync of a directory commits what was made in it, too.
func (t *Tree) judge() error {
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Fstatfs(t.fd, &st) }); err != nil {
		return err
	}
	switch uint32(st.Type) {
	case unix.EXT4_SUPER_MAGIC: // and that of ext2
		t.local, t.apart = true, !hasJournal(t.dev)
	case unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC, unix.TMPFS_MAGIC:
		t.local = true
	default:
		t.apart = true
	}
	return nil
}

// statx fills st with the attributes of an object in the tree.
func (t *Tree) statx(fd int, st *unix.Statx_t) error {
	if t.local {
		return statxNow(fd, st)
	}
	return statx(fd, st)
}

// identityOf makes an identity of that of the file system and the directory. It
// is the same after the host rebooted.
func identityOf(fd int, root *fs.Handle) (uint64, error) {
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Fstatfs(fd, &st) }); err != nil {
		return 0, err
	}
	sum := fnv.New64a()
	binary.Write(sum, binary.LittleEndian, int64(st.Type))
	id := binary.LittleEndian.AppendUint32(nil, uint32(st.Fsid.Val[0]))
	id = binary.LittleEndian.AppendUint32(id, uint32(st.Fsid.Val[1]))
	switch uint32(st.Type) {
	case unix.EXT4_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.TMPFS_MAGIC: // made of the UUID, with the subvolume
	case unix.XFS_SUPER_MAGIC: // on which f_fsid is the number of the device
		uuid, err := xfsUUID(fd)
		if err != nil {
			return 0, err
		}
		id = uuid[:]
	default: // as it is on F2FS and others
		if uuid, err := uuidOf(fd); err == nil {
			id = uuid[:]
		}
	}
	sum.Write(id)
	sum.Write(root.Bytes[:root.Len])
	return max(sum.Sum64(), 1), nil
}

// ByHandle reports whether handles outlive the server whatever was renamed
// meanwhile. If not, because the process lacks CAP_DAC_READ_SEARCH or the file
// system has no handles, objects are found by the names that they were last
// seen with, and by a walk through the tree.
func (t *Tree) ByHandle() bool { return t.paths == nil }

// FSID implements fs.WritableTree.
func (t *Tree) FSID() uint64 { return t.fsid }

// Root implements fs.WritableTree.
func (t *Tree) Root() fs.Handle { return t.root }

// verifier returns the Verifier of this moment.
func (t *Tree) verifier() (v fs.Verifier) {
	binary.LittleEndian.PutUint64(v[:], t.verf.Load())
	return v
}

// rotate changes the Verifier: content that is not on disk yet may never get there.
func (t *Tree) rotate() {
	var b [8]byte
	rand.Read(b[:])
	t.verf.Store(binary.LittleEndian.Uint64(b[:]))
}

// as is actor.as with no more than a quarter of the Host's threads for the tree:
// those who write much to a slow disk leave the others theirs.
func (t *Tree) as(c *fs.Cred, do func() error) error {
	t.turns <- struct{}{}
	defer func() { <-t.turns }()
	return t.host.actor.as(c, do)
}

// asUser is actor.asUser, likewise.
func (t *Tree) asUser(c *fs.Cred, do func() error) error {
	t.turns <- struct{}{}
	defer func() { <-t.turns }()
	return t.host.actor.asUser(c, do)
}

// Getattr implements fs.WritableTree.
func (t *Tree) Getattr(h fs.Handle, a *fs.Attr) error {
	o, err := t.get(h)
	if err != nil {
		return err
	}
	defer t.put(o)
	var st unix.Statx_t
	if err := o.stat(&st); err != nil {
		return err
	}
	t.fill(a, &st)
	return nil
}

// Access implements fs.WritableTree.
func (t *Tree) Access(c *fs.Cred, h fs.Handle, want fs.Perm) (fs.Perm, error) {
	o, err := t.get(h)
	if err != nil {
		return 0, err
	}
	defer t.put(o)
	var st unix.Statx_t
	if err := o.stat(&st); err != nil {
		return 0, err
	}
	has, err := o.rights(c, &st)
	return has & want, err
}

// Statfs implements fs.WritableTree.
func (t *Tree) Statfs(c *fs.Cred) (fs.Statfs, error) {
	defer runtime.KeepAlive(t)
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Fstatfs(t.fd, &st) }); err != nil {
		return fs.Statfs{}, failure(err)
	}
	free := st.Bavail // what is left without the reserve
	if c.UID == 0 {
		free = st.Bfree
	}
	size := uint64(st.Bsize)
	return fs.Statfs{
		Bytes: (st.Blocks - st.Bfree) * size, FreeBytes: free * size,
		Files: st.Files - st.Ffree, FreeFiles: st.Ffree,
	}, nil
}
