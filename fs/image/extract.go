package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/durable"
)

// ExtractOptions say what of an object is not to be kept. The zero value keeps
// all that a version knows: what comes out has the same digest when it is
// sealed.
type ExtractOptions struct {
	// NoOwner gives all objects to the user, and leaves out what belongs to
	// owners: devices, file capabilities and, where an owner is not kept, setuid
	// and setgid bits. It needs no rights.
	NoOwner bool
	// NoXattrs leaves out extended attributes, which not all file systems have.
	NoXattrs bool
	// Plain makes files as any program makes them: today, with the permissions
	// that the umask leaves. It implies the other two.
	Plain bool
	// Progress, if not nil, is called a few times in a second, by one goroutine.
	Progress func(Progress)
}

// Privileged counts what only root can keep of objects.
type Privileged struct {
	Owners       uint64 // objects that are somebody else's
	Devices      uint64
	Capabilities uint64 // files that have some
}

func (p Privileged) String() string {
	var all []string
	for _, k := range []struct {
		n    uint64
		what string
	}{{p.Owners, "owner"}, {p.Devices, "device"}, {p.Capabilities, "file capability"}} {
		switch {
		case k.n == 1:
			all = append(all, "1 "+k.what)
		case k.n > 1:
			all = append(all, fmt.Sprintf("%d %s", k.n, strings.Replace(k.what, "capability", "capabilitie", 1)+"s"))
		}
	}
	return strings.Join(all, ", ")
}

// Extracted tells what an extraction made, and what it left out.
type Extracted struct {
	Objects uint64
	Bytes   uint64 // of content, holes left out
	LeftOut Privileged
}

// Object returns what the version says of an object.
func (v *Version) Object(id fs.NodeID) (_ *Object, err error) {
	defer v.guard(debug.SetPanicOnFault(true), &err)
	n, err := v.index.inode(id)
	if err != nil {
		return nil, err
	}
	return v.index.describe(id, n)
}

// NeedsRoot tells what an ordinary user could not keep of the object id and of
// what is in it.
func (v *Version) NeedsRoot(id fs.NodeID) (Privileged, error) {
	s := newSurvey(v)
	err := s.object(id)
	return s.privileged, err
}

// Extract makes on the host, at to, what the object id is, with all that is in
// it. What is at to must be something that rename(2) replaces: nothing, an empty
// directory or, for what is no directory, an object of that kind.
//
// It is made beside to under a temporary name and renamed when it is complete
// and on the disk. Whatever the error, and when ctx ends, nothing is left; what
// a process leaves that was killed the next extraction to the same place deletes.
func (v *Version) Extract(ctx context.Context, id fs.NodeID, to string, opts ExtractOptions) (done Extracted, err error) {
	opts.NoOwner = opts.NoOwner || opts.Plain
	opts.NoXattrs = opts.NoXattrs || opts.Plain
	s := newSurvey(v)
	if err := s.object(id); err != nil {
		return done, err
	}
	if err := checkRoom(filepath.Dir(to), s.bytes); err != nil {
		return done, err
	}
	temp, err := newPlace(to)
	if err != nil {
		return done, err
	}
	defer func() {
		temp.close()
		if err != nil {
			err = errors.Join(err, removeTree(temp.path))
		}
	}()
	e := &extractor{
		v: v, ctx: ctx, opts: opts, temp: temp, links: make(map[fs.NodeID]string), buf: make([]byte, 1<<20), self: s.self,
		meter: newMeter(opts.Progress, totals{s.objects, s.bytes}),
	}
	if err := e.object(id, temp.path); err != nil {
		return done, err
	}
	e.meter.finish()
	if !opts.Plain { // otherwise it is as durable as what any program writes
		if err := syncFS(filepath.Dir(to)); err != nil {
			return done, err
		}
	}
	if err := unix.Rename(temp.path, to); err != nil { // os.Rename replaces no directory
		return done, &os.LinkError{Op: "rename", Old: temp.path, New: to, Err: err}
	}
	done = Extracted{Objects: e.meter.now.Files, Bytes: e.meter.now.Bytes}
	if opts.NoOwner {
		done.LeftOut = s.privileged
	}
	return done, durable.SyncDir(filepath.Dir(to))
}

// owner is a user and a group.
type owner struct{ uid, gid uint32 }

// self is who this process makes files as.
func self() owner { return owner{uint32(os.Geteuid()), uint32(os.Getegid())} }

// survey goes through objects to see what there is.
type survey struct {
	v    *Version
	self owner
	dirs uint64
	seen map[fs.NodeID]bool // of those with several names
	totals
	privileged Privileged
}

func newSurvey(v *Version) *survey {
	return &survey{v: v, self: self(), seen: make(map[fs.NodeID]bool)}
}

func (s *survey) object(id fs.NodeID) error {
	o, err := s.v.Object(id)
	if err != nil || s.seen[id] {
		return err
	}
	s.objects++
	s.count(o)
	if o.Kind != fs.Directory {
		if o.Nlink > 1 {
			s.seen[id] = true
		}
		return nil
	}
	if s.dirs++; s.dirs > s.v.index.counts[secDirs] { // directories that contain each other
		return fs.ErrIO
	}
	entries, err := s.v.entries(id)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := s.object(entry.ID); err != nil {
			return err
		}
	}
	return nil
}

func (s *survey) count(o *Object) {
	if (owner{o.UID, o.GID}) != s.self {
		s.privileged.Owners++
	}
	switch o.Kind {
	case fs.Regular:
		s.bytes += o.Used
	case fs.BlockDevice, fs.CharDevice:
		s.privileged.Devices++
	}
	for _, x := range o.Xattrs {
		if x.Name == capabilityXattr {
			s.privileged.Capabilities++
		}
	}
}

const capabilityXattr = "security.capability"

// entries lists a directory, "." and ".." left out. No name leads out of it.
func (v *Version) entries(dir fs.NodeID) ([]fs.DirEntry, error) {
	var all []fs.DirEntry
	entries := make([]fs.DirEntry, 256)
	for cookie, eof := uint64(firstCookie-1), false; !eof; {
		n, end, err := v.ReadDir(rootCred, dir, cookie, entries)
		if err != nil {
			return nil, err
		}
		for _, e := range entries[:n] {
			if name, err := fs.ParseName(e.Name); err != nil || name.IsDot() || name.IsDotDot() {
				return nil, fs.ErrIO
			}
			cookie = e.Cookie
		}
		all, eof = append(all, entries[:n]...), end
	}
	return all, nil
}

// checkRoom fails if there is no room for n bytes in a directory.
func checkRoom(dir string, n uint64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	if free := st.Bavail * uint64(st.Bsize); n > free {
		return fmt.Errorf("%s of content, but only %s are free on the disk of %s: %w", formatBytes(n), formatBytes(free), dir, unix.ENOSPC)
	}
	return nil
}

// syncFS makes durable all that was written to the file system of a directory:
// quicker than one file after the other.
func syncFS(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return fmt.Errorf("sync the disk of %s: %w", dir, err)
	}
	return nil
}

// place is where something is made, beside where it will be.
type place struct {
	path string
	file *os.File // of path, locked so that nobody takes it for a leftover; nil before there is something
	dir  *os.File // the directory above, locked until then
}

// newPlace finds a place for what will be at to, and deletes what those who were
// killed have left there.
func newPlace(to string) (*place, error) {
	above, base := filepath.Split(filepath.Clean(to))
	dir, err := os.Open(filepath.Clean(above + "."))
	if err != nil {
		return nil, err
	}
	p := &place{dir: dir}
	if err := flock(dir, unix.LOCK_EX); err != nil {
		p.close()
		return nil, err
	}
	// Long names leave no room for more.
	base = base[:min(len(base), 200)]
	prefix := filepath.Join(dir.Name(), durable.TempPattern+base+"-")
	left, err := filepath.Glob(escapeGlob(prefix) + "*")
	for _, path := range left {
		if err == nil && isLeft(path) {
			err = removeTree(path)
		}
	}
	if err != nil {
		p.close()
		return nil, err
	}
	p.path = fmt.Sprintf("%s%x", prefix, time.Now().UnixNano())
	return p, nil
}

// escapeGlob makes a pattern that matches a path.
func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// flock is flock(2). It waits unless how says otherwise.
func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); err != unix.EINTR {
			if err != nil {
				return fmt.Errorf("lock %s: %w", f.Name(), err)
			}
			return nil
		}
	}
}

// isLeft reports whether nobody is making what is at path.
func isLeft(path string) bool {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return false // not what an extraction leaves
	}
	defer f.Close()
	return flock(f, unix.LOCK_EX|unix.LOCK_NB) == nil
}

// taken is called when there is something at the place. Others may then look.
func (p *place) taken() error {
	if p.dir == nil {
		return nil
	}
	f, err := os.OpenFile(p.path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err == nil {
		p.file = f
		err = flock(f, unix.LOCK_EX)
	}
	p.dir.Close()
	p.dir = nil
	return err
}

func (p *place) close() {
	for _, f := range []*os.File{p.file, p.dir} {
		if f != nil {
			f.Close()
		}
	}
}

// removeTree is os.RemoveAll also of directories that are closed to their owner.
func removeTree(path string) error {
	if os.Geteuid() != 0 {
		_ = filepath.WalkDir(path, func(p string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				err = os.Chmod(p, 0o700)
			}
			return err
		})
	}
	return os.RemoveAll(path)
}

// extractor makes objects of a version on the host.
type extractor struct {
	v     *Version
	ctx   context.Context
	opts  ExtractOptions
	temp  *place
	self  owner
	links map[fs.NodeID]string // where those with several names were made
	buf   []byte
	meter *meter
}

// object makes the object id at a path, where nothing is.
func (e *extractor) object(id fs.NodeID, path string) error {
	if err := e.ctx.Err(); err != nil {
		return err
	}
	if first, ok := e.links[id]; ok {
		return os.Link(first, path)
	}
	o, err := e.v.Object(id)
	if err != nil {
		return err
	}
	if o.Kind == fs.Directory {
		return e.directory(id, o, path)
	}
	made, err := e.make(id, o, path)
	if err != nil || !made {
		return err
	}
	if o.Nlink > 1 {
		e.links[id] = path
	}
	return e.finish(o, path)
}

// directory makes a directory. What it is said to be comes last: its time
// changes with each name in it, and it may be closed to who makes it.
func (e *extractor) directory(id fs.NodeID, o *Object, path string) error {
	mode := uint32(0o700)
	if e.opts.Plain {
		mode |= o.Mode & 0o777
	}
	if err := unix.Mkdir(path, mode); err != nil {
		return &os.PathError{Op: "mkdir", Path: path, Err: err}
	}
	if path == e.temp.path {
		// What is in it must not inherit ACLs that the version has not.
		_ = unix.Removexattr(path, "system.posix_acl_default")
		_ = unix.Removexattr(path, "system.posix_acl_access")
		if err := e.temp.taken(); err != nil {
			return err
		}
	}
	entries, err := e.v.entries(id)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := e.object(entry.ID, path+"/"+string(entry.Name)); err != nil {
			return err
		}
	}
	return e.finish(o, path)
}

// make makes what is no directory, unless it is left out.
func (e *extractor) make(id fs.NodeID, o *Object, path string) (made bool, err error) {
	switch o.Kind {
	case fs.Regular:
		return true, e.file(id, o, path)
	case fs.Symlink:
		return true, os.Symlink(o.Target, path)
	case fs.FIFO:
		err = e.mknod(unix.S_IFIFO, o, path)
	case fs.Socket:
		err = e.mknod(unix.S_IFSOCK, o, path)
	case fs.CharDevice, fs.BlockDevice:
		if e.opts.NoOwner {
			return false, nil
		}
		kind := uint32(unix.S_IFCHR)
		if o.Kind == fs.BlockDevice {
			kind = unix.S_IFBLK
		}
		err = e.mknod(kind, o, path)
	default:
		err = fs.ErrIO
	}
	return true, err
}

func (e *extractor) mknod(kind uint32, o *Object, path string) error {
	if err := unix.Mknod(path, kind|e.firstMode(o), int(unix.Mkdev(o.Major, o.Minor))); err != nil {
		return &os.PathError{Op: "mknod", Path: path, Err: err}
	}
	return nil
}

// firstMode is what an object is made with: closed to all others, or as it stays.
func (e *extractor) firstMode(o *Object) uint32 {
	if e.opts.Plain {
		return o.Mode & 0o777
	}
	return 0o600
}

// file makes a file with its content, and no holes filled.
func (e *extractor) file(id fs.NodeID, o *Object, path string) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, os.FileMode(e.firstMode(o)))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if path == e.temp.path {
		if err := e.temp.taken(); err != nil {
			return err
		}
	}
	from := &viewFile{v: e.v, id: id}
	for off := int64(0); ; {
		start, end, err := from.NextData(off)
		if err == io.EOF {
			return f.Truncate(int64(o.Size))
		}
		if err != nil {
			return err
		}
		for off = start; off < end; {
			n, err := e.copy(f, id, off, end)
			if err != nil {
				return err
			}
			off += int64(n)
		}
	}
}

// copy writes what a file has at off, as far as the buffer goes.
func (e *extractor) copy(f *os.File, id fs.NodeID, off, end int64) (int, error) {
	if err := e.ctx.Err(); err != nil {
		return 0, err
	}
	n, _, err := e.v.Read(rootCred, id, uint64(off), e.buf[:min(int64(len(e.buf)), end-off)], false)
	if err == nil && n == 0 {
		err = fs.ErrIO // the index says that there is more
	}
	if err != nil {
		return 0, err
	}
	e.meter.add(0, uint64(n))
	return f.WriteAt(e.buf[:n], off)
}

// finish gives what was made its attributes. The order matters: a new owner
// takes away capabilities and setuid bits, and what is closed to its owner gets
// no more attributes.
func (e *extractor) finish(o *Object, path string) error {
	e.meter.add(1, 0)
	if e.opts.Plain {
		return nil
	}
	if !e.opts.NoOwner {
		if err := os.Lchown(path, int(o.UID), int(o.GID)); err != nil {
			return err
		}
	}
	if !e.opts.NoXattrs {
		if err := e.setXattrs(o, path); err != nil {
			return err
		}
	}
	if o.Kind != fs.Symlink {
		if err := unix.Chmod(path, e.lastMode(o)); err != nil {
			return &os.PathError{Op: "chmod", Path: path, Err: err}
		}
	}
	ts, err := unix.TimeToTimespec(time.Unix(o.Mtime.Sec, int64(o.Mtime.Nsec)))
	if err == nil {
		err = unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err != nil {
		return &os.PathError{Op: "set time of", Path: path, Err: err}
	}
	return nil
}

// lastMode is the mode of an object. Without its owner a setuid program would be
// one of the user's.
func (e *extractor) lastMode(o *Object) uint32 {
	if e.opts.NoOwner && (owner{o.UID, o.GID}) != e.self {
		return o.Mode &^ (unix.S_ISUID | unix.S_ISGID)
	}
	return o.Mode
}

func (e *extractor) setXattrs(o *Object, path string) error {
	for _, x := range o.Xattrs {
		if x.Name == capabilityXattr && e.opts.NoOwner {
			continue
		}
		if err := unix.Lsetxattr(path, x.Name, x.Value, 0); err != nil {
			return &os.PathError{Op: "setxattr " + x.Name, Path: path, Err: err}
		}
	}
	return nil
}
