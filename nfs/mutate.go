package nfs

import (
	gonfs "github.com/willscott/go-nfs"

	"github.com/rootnfsd/rootnfsd/exports"
	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

// The calls that change something. No tree can be changed, so what they do is
// the same for all: decode all arguments, check what can be checked without the
// tree's help, and say that the file system is read-only.

// mutation is what a call that changes something is made of.
type mutation struct {
	args []argument
	// plainFirst: the first object comes back as post_op_attr, not wcc_data.
	plainFirst bool
}

// argument decodes an argument of a mutation into m.
type argument func(c *call, m *mutationArgs)

// mutationArgs are the arguments that matter for the answer.
type mutationArgs struct {
	handles [2][]byte
	n       int // of handles
	nameErr error
}

// mutations are the arguments of RFC 1813, sections 3.3.2, 3.3.7 to 3.3.15 and
// 3.3.21.
var mutations = [...]mutation{
	gonfs.NFSProcedureSetAttr: {args: []argument{argHandle, argAttributes, argGuard}},
	gonfs.NFSProcedureWrite:   {args: []argument{argHandle, argUint64, argUint32, argStable, argOpaque}},
	gonfs.NFSProcedureCreate:  {args: []argument{argHandle, argName, argCreate}},
	gonfs.NFSProcedureMkDir:   {args: []argument{argHandle, argName, argAttributes}},
	gonfs.NFSProcedureSymlink: {args: []argument{argHandle, argName, argAttributes, argOpaque}},
	gonfs.NFSProcedureMkNod:   {args: []argument{argHandle, argName, argNode}},
	gonfs.NFSProcedureRemove:  {args: []argument{argHandle, argName}},
	gonfs.NFSProcedureRmDir:   {args: []argument{argHandle, argName}},
	gonfs.NFSProcedureRename:  {args: []argument{argHandle, argName, argHandle, argName}},
	gonfs.NFSProcedureLink:    {args: []argument{argHandle, argHandle, argName}, plainFirst: true},
	gonfs.NFSProcedureCommit:  {args: []argument{argHandle, argUint64, argUint32}},
}

// mutate answers a call that changes something.
func (c *call) mutate() wire.AcceptStat {
	m := &mutations[c.header.Proc]
	var args mutationArgs
	for _, decode := range m.args {
		decode(c, &args)
	}
	if !c.args.Done() {
		return wire.GarbageArgs
	}

	objects := [2]*exports.Object{&c.obj, &c.obj2}
	c.obj, c.obj2 = exports.Object{}, exports.Object{}
	var err error
	for i, handle := range args.handles[:args.n] {
		if err == nil {
			err = c.resolveLive(handle, objects[i])
		}
	}
	if err == nil {
		err = args.nameErr
	}
	if err == nil {
		err = fs.ErrReadOnly
	}
	c.status(err)
	for i, o := range objects[:args.n] {
		c.putUnchanged(o, m.plainFirst && i == 0)
	}
	return wire.Success
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
	m.handles[m.n] = c.fileHandle()
	m.n++
}

func argName(c *call, m *mutationArgs) {
	if _, err := fs.ParseName(c.name()); err != nil && m.nameErr == nil {
		m.nameErr = err
	}
}

func argUint32(c *call, _ *mutationArgs) { c.args.Uint32() }
func argUint64(c *call, _ *mutationArgs) { c.args.Uint64() }
func argOpaque(c *call, _ *mutationArgs) { c.args.Opaque(c.args.Len()) }

// enum reads one of the values 0 to last.
func (c *call) enum(last uint32) uint32 {
	v := c.args.Uint32()
	if v > last {
		c.args.Fail()
	}
	return v
}

// argAttributes decodes a sattr3 (RFC 1813, section 2.5.3).
func argAttributes(c *call, _ *mutationArgs) {
	for range 3 { // mode, uid, gid
		if c.args.Bool() {
			c.args.Uint32()
		}
	}
	if c.args.Bool() { // size
		c.args.Uint64()
	}
	const clientTime = 2 // after "leave it" and "the server's"
	for range 2 {        // atime, mtime
		if c.enum(clientTime) == clientTime {
			c.args.Uint64()
		}
	}
}

// argGuard decodes a sattrguard3: the ctime that the object must have.
func argGuard(c *call, _ *mutationArgs) {
	if c.args.Bool() {
		c.args.Uint64()
	}
}

// argStable decodes a stable_how.
func argStable(c *call, _ *mutationArgs) {
	const fileSync = 2
	c.enum(fileSync)
}

// argCreate decodes a createhow3.
func argCreate(c *call, m *mutationArgs) {
	const exclusive = 2
	if c.enum(exclusive) == exclusive {
		c.args.Uint64() // the verifier
		return
	}
	argAttributes(c, m)
}

// argNode decodes a mknoddata3.
func argNode(c *call, m *mutationArgs) {
	kind := fs.Kind(c.enum(uint32(fs.FIFO)))
	switch kind {
	case fs.CharDevice, fs.BlockDevice:
		argAttributes(c, m)
		c.args.Uint64() // the device
	case fs.Socket, fs.FIFO:
		argAttributes(c, m)
	case 0:
		c.args.Fail()
	}
}
