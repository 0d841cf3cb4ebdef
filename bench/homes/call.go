package homes

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/rootnfsd/rootnfsd/bench/rpc"
)

// node is an object of a server, whose handle is known once it is made.
type node struct {
	handle   []byte
	verifier uint64 // of what was written and is not committed
	written  bool
}

type procedure uint8

const (
	lookup procedure = iota // of a name that must be free, as before each create
	create
	createExclusive
	mkdir
	symlink
	setattr
	write
	read
	commit
	remove
)

func (p procedure) String() string {
	return [...]string{"LOOKUP", "CREATE", "CREATE", "MKDIR", "SYMLINK", "SETATTR", "WRITE", "READ", "COMMIT", "REMOVE"}[p]
}

// call is a call to be made. Several make a job, in which each is made when the one
// before has been answered.
type call struct {
	proc procedure
	dir  *node // of the calls that have a name
	name string
	node *node // the object, also where the call makes it

	off    uint64
	count  uint32
	data   []byte // of WRITE; the text of a symlink; what READ must bring, unless nil
	stable rpc.Stability
	attr   rpc.SetAttr

	extra bool // it is there for durability alone, and not counted
}

// encode appends the call.
func (q *call) encode(b []byte, c *rpc.Caller, xid uint32) []byte {
	name := []byte(q.name)
	switch q.proc {
	case lookup:
		return c.AppendLookup(b, xid, q.dir.handle, name)
	case create:
		return c.AppendCreate(b, xid, q.dir.handle, name, q.attr)
	case createExclusive:
		return c.AppendCreateExclusive(b, xid, q.dir.handle, name, 1<<32|uint64(xid))
	case mkdir:
		return c.AppendMkdir(b, xid, q.dir.handle, name, q.attr)
	case symlink:
		return c.AppendSymlink(b, xid, q.dir.handle, name, q.data, q.attr)
	case setattr:
		return c.AppendSetattr(b, xid, q.node.handle, q.attr)
	case write:
		return c.AppendWrite(b, xid, q.node.handle, q.off, q.data, q.stable)
	case read:
		return c.AppendRead(b, xid, q.node.handle, q.off, q.count)
	case commit:
		return c.AppendCommit(b, xid, q.node.handle)
	default:
		return c.AppendRemove(b, xid, q.dir.handle, name)
	}
}

var (
	errMalformed = errors.New("malformed results")
	errLost      = errors.New("another verifier than that of what was written, which may be lost")
)

// accept takes the reply to the call: how many bytes of content it moved, and what is
// wrong with it.
func (q *call) accept(r *rpc.Reply) (n int, err error) {
	if q.proc == lookup {
		const noEnt = rpc.StatusError(2)
		if err := r.Err(); err != noEnt {
			return 0, fmt.Errorf("it is there already (%v)", err)
		}
		return 0, nil
	}
	if err := r.Err(); err != nil {
		return 0, err
	}
	switch q.proc {
	case create, createExclusive, mkdir, symlink:
		handle, ok := r.Made()
		if !ok || len(handle) == 0 && q.node != nil {
			return 0, errMalformed
		}
		if q.node != nil {
			q.node.handle = bytes.Clone(handle)
		}
	case write:
		return q.acceptWrite(r)
	case read:
		return q.acceptRead(r)
	case commit:
		verifier, ok := r.Committed()
		switch {
		case !ok:
			return 0, errMalformed
		case q.node.written && verifier != q.node.verifier:
			return 0, errLost
		}
	default:
		if !r.Changed() {
			return 0, errMalformed
		}
	}
	return 0, nil
}

func (q *call) acceptWrite(r *rpc.Reply) (n int, err error) {
	n, how, verifier, ok := r.Written()
	switch {
	case !ok:
		return 0, errMalformed
	case n != len(q.data):
		return n, fmt.Errorf("%d of %d bytes were written", n, len(q.data))
	case how < q.stable:
		return n, errors.New("what was written is less safe than was asked for")
	}
	if how == rpc.Unstable {
		if q.node.written && verifier != q.node.verifier {
			return n, errLost
		}
		q.node.verifier, q.node.written = verifier, true
	}
	return n, nil
}

func (q *call) acceptRead(r *rpc.Reply) (n int, err error) {
	n, _, ok := r.Read()
	switch {
	case !ok:
		return 0, errMalformed
	case n != int(q.count):
		return n, fmt.Errorf("%d of %d bytes were read", n, q.count)
	case q.data == nil:
		return n, nil
	}
	if data, ok := r.Data(n); !ok || !bytes.Equal(data, q.data) {
		return n, errors.New("other content than was written")
	}
	return n, nil
}
