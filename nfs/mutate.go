package nfs

import (
	gonfs "github.com/willscott/go-nfs"

	"github.com/rootnfsd/rootnfsd/exports"
	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

// The calls that change something are decoded the same way whatever they are
// about. An image cannot be changed, so there what they do is the same for all:
// check what can be checked without the tree's help, and say that the file system
// is read-only. What they do to a home is in change.go.

// mutation is what a call that changes something is made of.
type mutation struct {
	args []argument
	// apply does it to home and home2. What it learns for the reply it leaves in
	// the arguments.
	apply func(c *call, m *mutationArgs) error
	// once: it must not be done twice when a call comes twice (dupreq.go).
	once bool
	// plainFirst: the first object comes back as post_op_attr, not wcc_data.
	plainFirst bool
	// dots is what is wrong with the names "." and "..", where there is a name.
	dots [2]fs.Error
	// makes: it makes an object, whose handle and attributes come back first.
	makes bool
	// results appends what comes after the attributes of its objects.
	results func(c *call, m *mutationArgs)
}

// argument decodes an argument of a mutation into m.
type argument func(c *call, m *mutationArgs)

// mutationArgs are the decoded arguments, and what became of the call.
type mutationArgs struct {
	handles  [2][]byte
	nhandles int
	names    [2]fs.Name
	nnames   int
	nameErr  error
	valueErr error // a value that XDR allows and the procedure does not

	attr         fs.SetAttr
	guard        *fs.Time // of SETATTR
	off          uint64
	count        uint32 // of WRITE
	stable       fs.Stability
	create       fs.Create
	verifier     fs.Verifier // of CREATE, and of what was written
	data         []byte      // of WRITE, or the text of a symlink
	kind         fs.Kind     // of MKNOD
	major, minor uint32

	made    fs.Handle
	changes [2]fs.Change // of the objects
}

// Names that are no names of something in a directory. Those that make something
// find it to be there already, as nfsd has it (fs/nfsd/vfs.c); RMDIR is told what
// RFC 1813, section 3.3.13 says, and the others that it makes no sense.
var (
	dotsExist   = [2]fs.Error{fs.ErrExist, fs.ErrExist}
	dotsAreDirs = [2]fs.Error{fs.ErrIsDir, fs.ErrIsDir}
	dotsOfRmdir = [2]fs.Error{fs.ErrInvalid, fs.ErrExist}
	dotsInvalid = [2]fs.Error{fs.ErrInvalid, fs.ErrInvalid}
)

// mutations are RFC 1813, sections 3.3.2, 3.3.7 to 3.3.15 and 3.3.21.
var mutations = [...]mutation{
	gonfs.NFSProcedureSetAttr: {args: []argument{argHandle, argAttributes, argGuard}, apply: (*call).setattr, once: true},
	gonfs.NFSProcedureWrite:   {args: []argument{argHandle, argWrite}, apply: (*call).write, results: (*call).putWritten, once: true},
	gonfs.NFSProcedureCreate:  {args: []argument{argHandle, argName, argCreate}, apply: (*call).create, once: true, dots: dotsExist, makes: true},
	gonfs.NFSProcedureMkDir:   {args: []argument{argHandle, argName, argAttributes}, apply: (*call).mkdir, once: true, dots: dotsExist, makes: true},
	gonfs.NFSProcedureSymlink: {args: []argument{argHandle, argName, argAttributes, argText}, apply: (*call).symlink, once: true, dots: dotsExist, makes: true},
	gonfs.NFSProcedureMkNod:   {args: []argument{argHandle, argName, argNode}, apply: (*call).mknod, once: true, dots: dotsExist, makes: true},
	gonfs.NFSProcedureRemove:  {args: []argument{argHandle, argName}, apply: (*call).remove, once: true, dots: dotsAreDirs},
	gonfs.NFSProcedureRmDir:   {args: []argument{argHandle, argName}, apply: (*call).rmdir, once: true, dots: dotsOfRmdir},
	gonfs.NFSProcedureRename:  {args: []argument{argHandle, argName, argHandle, argName}, apply: (*call).rename, once: true, dots: dotsInvalid},
	gonfs.NFSProcedureLink:    {args: []argument{argHandle, argHandle, argName}, apply: (*call).link, once: true, dots: dotsExist, plainFirst: true},
	gonfs.NFSProcedureCommit:  {args: []argument{argHandle, argRange}, apply: (*call).commit, results: (*call).putCommitted},
}

// decode decodes the arguments of a mutation and reports whether they are all
// there.
func (m *mutation) decode(c *call, args *mutationArgs) bool {
	for _, decode := range m.args {
		decode(c, args)
	}
	return c.args.Done()
}

// mutate answers a call that would change something in an image.
func (c *call) mutate() wire.AcceptStat {
	m := &mutations[c.header.Proc]
	var args mutationArgs
	if !m.decode(c, &args) {
		return wire.GarbageArgs
	}
	objects := [2]*exports.Object{&c.obj, &c.obj2}
	c.obj, c.obj2 = exports.Object{}, exports.Object{}
	var err error
	for i, handle := range args.handles[:args.nhandles] {
		if err == nil {
			err = c.resolveImage(handle, objects[i])
		}
	}
	if err == nil {
		err = args.nameErr
	}
	if err == nil {
		err = fs.ErrReadOnly
	}
	c.status(err)
	for i, o := range objects[:args.nhandles] {
		c.putUnchanged(o, m.plainFirst && i == 0)
	}
	return wire.Success
}

// resolveImage is resolveLive, but says of the handle of a home that nothing gets
// from an image to there.
func (c *call) resolveImage(handle []byte, o *exports.Object) error {
	if exports.IsHome(handle) {
		if err := c.srv.exports.CheckHome(c.peer, handle); err != nil {
			return err
		}
		return fs.ErrXDev
	}
	return c.resolveLive(handle, o)
}

// putUnchanged appends how an object is after a call that changed nothing, as
// post_op_attr or as wcc_data. The latter could say how it was before, too, but
// need not: nothing is better than something that another call may overtake.
func (c *call) putUnchanged(o *exports.Object, plain bool) {
	if !plain {
		c.out.Bool(false) // pre_op_attr
	}
	if o.Tree == nil || o.Tree.Getattr(o.ID, &c.attr) != nil {
		c.out.Bool(false)
		return
	}
	c.out.Bool(true)
	c.putAttr(&c.attr)
}

func argHandle(c *call, m *mutationArgs) {
	m.handles[m.nhandles] = c.fileHandle()
	m.nhandles++
}

func argName(c *call, m *mutationArgs) {
	name, err := fs.ParseName(c.name())
	if err != nil && m.nameErr == nil {
		m.nameErr = err
	}
	m.names[m.nnames] = name
	m.nnames++
}

func argText(c *call, m *mutationArgs) { m.data = c.args.Opaque(c.args.Len()) }

// refuse notes that a value makes no sense.
func (m *mutationArgs) refuse(err error) {
	if m.valueErr == nil {
		m.valueErr = err
	}
}

// enum reads one of the values 0 to last.
func (c *call) enum(last uint32) uint32 {
	v := c.args.Uint32()
	if v > last {
		c.args.Fail()
	}
	return v
}

// argAttributes decodes a sattr3 (RFC 1813, section 2.5.3).
func argAttributes(c *call, m *mutationArgs) {
	s := &m.attr
	if c.args.Bool() {
		mode := c.args.Uint32() & 0o7777 // what a mode has besides is the type
		s.Mode = &mode
	}
	s.UID, s.GID = c.optionalID(), c.optionalID()
	if c.args.Bool() {
		size := c.args.Uint64()
		if size > maxFileSize {
			m.refuse(fs.ErrTooLarge)
		}
		s.Size = &size
	}
	s.Atime, s.Mtime = c.optionalTime(m), c.optionalTime(m)
}

// optionalID decodes a set_uid3 or set_gid3. There is no user 2^32-1: to chown(2)
// it says to leave the owner alone, and so it does here.
func (c *call) optionalID() *uint32 {
	if !c.args.Bool() {
		return nil
	}
	id := c.args.Uint32()
	if id == 1<<32-1 {
		return nil
	}
	return &id
}

// optionalTime decodes a set_atime or set_mtime.
func (c *call) optionalTime(m *mutationArgs) *fs.SetTime {
	const (
		leave = iota
		serverTime
		clientTime
	)
	switch c.enum(clientTime) {
	case serverTime:
		return &fs.SetTime{Now: true}
	case clientTime:
		t := c.time()
		if t.Nsec >= 1e9 {
			m.refuse(fs.ErrInvalid)
		}
		return &fs.SetTime{Time: t}
	}
	return nil
}

// time decodes an nfstime3.
func (c *call) time() fs.Time {
	sec := c.args.Uint32()
	return fs.Time{Sec: int64(sec), Nsec: c.args.Uint32()}
}

// argGuard decodes a sattrguard3: the ctime that the object must have.
func argGuard(c *call, m *mutationArgs) {
	if c.args.Bool() {
		t := c.time()
		m.guard = &t
	}
}

// argWrite decodes what follows the handle in the arguments of a WRITE.
func argWrite(c *call, m *mutationArgs) {
	m.off, m.count = c.args.Uint64(), c.args.Uint32()
	m.stable = fs.Stability(c.enum(uint32(fs.FileSync)))
	var length uint32
	if c.pipe != nil { // as pipeableData has found
		length = c.args.Uint32()
		c.args.FixedOpaque(c.args.Len()) // is in the pipe, too
	} else {
		m.data = c.args.Opaque(c.args.Len())
		length = uint32(len(m.data))
	}
	switch {
	case m.count != length || length > maxIO:
		m.refuse(fs.ErrInvalid)
	case m.off > maxFileSize-uint64(length):
		m.refuse(fs.ErrTooLarge)
	}
}

// argRange decodes the range of a COMMIT. It is not used: what is safe to do for a
// part is no less safe for the whole.
func argRange(c *call, _ *mutationArgs) {
	c.args.Uint64()
	c.args.Uint32()
}

// argCreate decodes a createhow3.
func argCreate(c *call, m *mutationArgs) {
	m.create = fs.Create(c.enum(uint32(fs.Exclusive)))
	if m.create == fs.Exclusive {
		copy(m.verifier[:], c.args.FixedOpaque(verifierSize))
		return
	}
	argAttributes(c, m)
}

// argNode decodes a mknoddata3.
func argNode(c *call, m *mutationArgs) {
	m.kind = fs.Kind(c.enum(uint32(fs.FIFO)))
	switch m.kind {
	case fs.CharDevice, fs.BlockDevice:
		argAttributes(c, m)
		m.major, m.minor = c.args.Uint32(), c.args.Uint32()
	case fs.Socket, fs.FIFO:
		argAttributes(c, m)
	case 0:
		c.args.Fail()
	default:
		m.refuse(fs.ErrBadType) // MKNOD is not for these
	}
}
