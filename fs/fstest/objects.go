package fstest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs"
)

// Object describes one name in a tree.
type Object struct {
	Path     string // "/" or "/a/b"
	Kind     fs.Kind
	Mode     uint32 // within 07777
	UID, GID uint32
	Mtime    fs.Time
	Content  []byte // of a regular file
	Target   string // the text of a symlink
	Major    uint32 // of a device
	Minor    uint32
	// LinkTo is the path of an earlier object, no directory, of which this is
	// another name. The other fields but Path are then not used.
	LinkTo string
}

// Objects describes a tree: the root first, parents before children.
type Objects []Object

// Sample returns a small tree that has one of everything that is hard: all
// kinds, all special mode bits, odd names, odd times, sizes around the borders
// of blocks, hard links.
func Sample() Objects {
	day := fs.Time{Sec: 1_700_000_000, Nsec: 123456789}
	o := Objects{
		{Path: "/", Kind: fs.Directory, Mode: 0o755, Mtime: day},
		{Path: "/tmp", Kind: fs.Directory, Mode: 0o1777, Mtime: day},
		{Path: "/etc", Kind: fs.Directory, Mode: 0o755, Mtime: day},
		{Path: "/etc/passwd", Kind: fs.Regular, Mode: 0o644, Mtime: day, Content: []byte("root:x:0:0::/root:/bin/sh\n")},
		{Path: "/etc/shadow", Kind: fs.Regular, Mode: 0o640, GID: 42, Mtime: day, Content: []byte("root:*:1::::::\n")},
		{Path: "/bin", Kind: fs.Directory, Mode: 0o755, Mtime: day},
		{Path: "/bin/su", Kind: fs.Regular, Mode: 0o4755, Mtime: day, Content: Bytes(70_000)},
		{Path: "/bin/wall", Kind: fs.Regular, Mode: 0o2755, GID: 5, Mtime: day, Content: []byte("wall")},
		{Path: "/bin/secret", Kind: fs.Regular, Mode: 0o711, Mtime: day, Content: []byte("execute only")},
		{Path: "/bin/su-too", LinkTo: "/bin/su"},
		{Path: "/root", Kind: fs.Directory, Mode: 0o700, Mtime: day},
		{Path: "/root/deep", Kind: fs.Directory, Mode: 0o755, Mtime: day},
		{Path: "/root/deep/third-name", LinkTo: "/bin/su"},
		{Path: "/home", Kind: fs.Directory, Mode: 0o751, UID: 1000, GID: 1000, Mtime: day},
		{Path: "/home/mine", Kind: fs.Regular, Mode: 0o000, UID: 1000, GID: 1000, Mtime: day, Content: []byte("mine")},
		{Path: "/home/group", Kind: fs.Regular, Mode: 0o070, UID: 1000, GID: 2000, Mtime: day, Content: []byte("ours")},
		{Path: "/dev", Kind: fs.Directory, Mode: 0o755, Mtime: day},
		{Path: "/dev/null", Kind: fs.CharDevice, Mode: 0o666, Major: 1, Minor: 3, Mtime: day},
		{Path: "/dev/sda", Kind: fs.BlockDevice, Mode: 0o660, GID: 6, Major: 8, Minor: 0, Mtime: day},
		{Path: "/dev/big", Kind: fs.CharDevice, Mode: 0o600, Major: 511, Minor: 0xfffff, Mtime: day},
		{Path: "/dev/fifo", Kind: fs.FIFO, Mode: 0o600, Mtime: day},
		{Path: "/dev/log", Kind: fs.Socket, Mode: 0o666, Mtime: day},
		{Path: "/dev/null-too", LinkTo: "/dev/null"},
		{Path: "/links", Kind: fs.Directory, Mode: 0o755, Mtime: day},
		{Path: "/links/absolute", Kind: fs.Symlink, Mode: 0o777, Mtime: day, Target: "/etc/passwd"},
		{Path: "/links/up", Kind: fs.Symlink, Mode: 0o777, UID: 7, GID: 8, Mtime: day, Target: "../../../.."},
		{Path: "/links/one", Kind: fs.Symlink, Mode: 0o777, Mtime: day, Target: "x"},
		{Path: "/links/bytes", Kind: fs.Symlink, Mode: 0o777, Mtime: day, Target: "\xff\xfe \n"},
		{Path: "/links/longest", Kind: fs.Symlink, Mode: 0o777, Mtime: day, Target: strings.Repeat("a/bcdef/", 512)[:4095]},
		{Path: "/empty", Kind: fs.Directory, Mode: 0o755, Mtime: day},
		{Path: "/names", Kind: fs.Directory, Mode: 0o3755, Mtime: day},
		{Path: "/times", Kind: fs.Directory, Mode: 0o755, Mtime: fs.Time{Sec: -1, Nsec: 999999999}},
		{Path: "/times/1901", Kind: fs.Regular, Mode: 0o644, Mtime: fs.Time{Sec: -2147483647, Nsec: 1}},
		{Path: "/times/epoch", Kind: fs.Regular, Mode: 0o644, Mtime: fs.Time{}},
		{Path: "/times/2038", Kind: fs.Regular, Mode: 0o644, Mtime: fs.Time{Sec: 2147483648, Nsec: 5}},
		{Path: "/times/2400", Kind: fs.Regular, Mode: 0o644, Mtime: fs.Time{Sec: 13569465600, Nsec: 7}},
		{Path: "/sizes", Kind: fs.Directory, Mode: 0o755, Mtime: day},
	}
	for _, name := range []string{
		"a", "A", "aa", " ", "with space", "new\nline", "\xff\xc0invalid", "ümlaut", "-rf", "...", "..a", ".hidden", "*?[",
		strings.Repeat("n", fs.MaxName), strings.Repeat("\x80", fs.MaxName),
	} {
		o = append(o, Object{Path: "/names/" + name, Kind: fs.Regular, Mode: 0o644, UID: 1, GID: 2, Mtime: day, Content: []byte(name)})
	}
	for _, size := range []int{0, 1, 511, 512, 513, 4095, 4096, 4097, 65535, 65536, 65537, 131071, 131072, 131073, 300_000} {
		o = append(o,
			Object{Path: fmt.Sprintf("/sizes/%d", size), Kind: fs.Regular, Mode: 0o644, Mtime: day, Content: Bytes(size)},
			Object{Path: fmt.Sprintf("/sizes/%d.zero", size), Kind: fs.Regular, Mode: 0o644, Mtime: day, Content: make([]byte, size)})
	}
	holes := slices.Concat(make([]byte, 200_000), Bytes(10), make([]byte, 200_000), Bytes(70_000), make([]byte, 131072))
	return append(o, Object{Path: "/sizes/holes", Kind: fs.Regular, Mode: 0o644, Mtime: day, Content: holes})
}

// Bytes returns n bytes that do not compress or repeat, the same for the same n.
func Bytes(n int) []byte {
	b := make([]byte, n)
	var seed [32]byte
	copy(seed[:], fmt.Sprint(n))
	_, _ = rand.NewChaCha8(seed).Read(b) // its documentation says that it cannot fail
	return b
}

// Mem makes the tree in memory.
func (o Objects) Mem(fsid uint64) *MemTree {
	t := NewMemTree(fsid)
	for _, x := range o {
		id := t.Root()
		switch {
		case x.LinkTo != "":
			t.Link(x.Path, t.ID(x.LinkTo))
			continue
		case x.Path == "/":
		case x.Kind == fs.Directory:
			id = t.Mkdir(x.Path, x.Mode)
		case x.Kind == fs.Regular:
			id = t.WriteFile(x.Path, x.Mode, x.Content)
		case x.Kind == fs.Symlink:
			id = t.Symlink(x.Path, x.Target)
		default:
			id = t.Mknod(x.Path, x.Kind, x.Mode, x.Major, x.Minor)
		}
		t.SetAttr(id, func(a *fs.Attr) {
			a.Mode, a.UID, a.GID = x.Mode, x.UID, x.GID
			a.Mtime, a.Atime, a.Ctime = x.Mtime, x.Mtime, x.Mtime
		})
	}
	return t
}

// Create makes the tree on the host below the directory dir, which exists.
// Owners and devices need root. Runs of zeros become holes.
func (o Objects) Create(dir string) error {
	for _, x := range o {
		if err := x.create(dir); err != nil {
			return fmt.Errorf("create %q: %w", x.Path, err)
		}
	}
	// Children change the mtime of their directory, so times come last.
	for _, x := range slices.Backward(o) {
		if x.LinkTo != "" {
			continue
		}
		ts, err := unix.TimeToTimespec(time.Unix(x.Mtime.Sec, int64(x.Mtime.Nsec)))
		if err == nil {
			err = unix.UtimesNanoAt(unix.AT_FDCWD, x.host(dir), []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
		}
		if err != nil {
			return fmt.Errorf("set time of %q: %w", x.Path, err)
		}
	}
	return nil
}

// host is the path of x below dir. It is not cleaned: names are bytes.
func (x *Object) host(dir string) string { return dir + x.Path }

func (x *Object) create(dir string) error {
	p := x.host(dir)
	if x.LinkTo != "" {
		return os.Link(filepath.Join(dir, x.LinkTo), p)
	}
	var err error
	switch x.Kind {
	case fs.Directory:
		if x.Path != "/" {
			err = os.Mkdir(p, 0o700)
		}
	case fs.Regular:
		err = writeSparse(p, x.Content)
	case fs.Symlink:
		err = os.Symlink(x.Target, p)
	case fs.BlockDevice:
		err = mknod(p, unix.S_IFBLK, x)
	case fs.CharDevice:
		err = mknod(p, unix.S_IFCHR, x)
	case fs.FIFO:
		err = mknod(p, unix.S_IFIFO, x)
	case fs.Socket:
		err = mknod(p, unix.S_IFSOCK, x)
	}
	if err != nil {
		return err
	}
	if err := os.Lchown(p, int(x.UID), int(x.GID)); err != nil {
		return err
	}
	if x.Kind == fs.Symlink {
		return nil
	}
	return unix.Chmod(p, x.Mode) // after chown, which clears setuid
}

func mknod(p string, kind uint32, x *Object) error {
	return unix.Mknod(p, kind|0o600, int(unix.Mkdev(x.Major, x.Minor)))
}

// writeSparse writes content to a new file and seeks over blocks of zeros.
func writeSparse(p string, content []byte) (err error) {
	f, err := os.OpenFile(p, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	off := int64(0)
	for block := range slices.Chunk(content, 4096) {
		if bytes.Count(block, []byte{0}) < len(block) {
			if _, err := f.WriteAt(block, off); err != nil {
				return err
			}
		}
		off += int64(len(block))
	}
	return f.Truncate(off)
}

// resolved returns the objects by path, hard links replaced by what they name,
// and how many names each object has.
func (o Objects) resolved() (byPath map[string]*Object, names map[*Object]uint32) {
	byPath, names = make(map[string]*Object), make(map[*Object]uint32)
	for i := range o {
		x := &o[i]
		if x.LinkTo != "" {
			byPath[x.Path] = byPath[x.LinkTo]
		} else {
			byPath[x.Path] = x
		}
		names[byPath[x.Path]]++
	}
	return byPath, names
}

// children returns the names in the directory at p.
func (o Objects) children(p string) []string {
	var names []string
	for _, x := range o {
		if x.Path != "/" && path.Dir(x.Path) == p {
			names = append(names, path.Base(x.Path))
		}
	}
	return names
}
