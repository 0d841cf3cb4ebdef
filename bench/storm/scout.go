package storm

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"

	gonfs "github.com/willscott/go-nfs"

	"github.com/rootnfsd/rootnfsd/bench/rpc"
	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

// maxListing is what a listing may ask for: its reply must fit into what package rpc
// keeps whole.
const maxListing = 63 << 10

// scout finds out what a server makes of a trace.
type scout struct {
	conn     *rpc.Conn
	objects  map[string]*object // by path; nil for what is not there
	listings map[listingKey]*listing
	planner
}

// object is a file of the server's.
type object struct {
	handle []byte
	kind   gonfs.FileType
	size   uint64
}

// listing is how far a directory has been listed.
type listing struct {
	cookie, verifier uint64
	ended            bool
}

type listingKey struct {
	path string
	proc Proc
}

// Scout mounts path, makes every call of a trace of one client once, and returns the
// plan for a Config. The error says what a server does that no storm can be built
// upon.
func Scout(t *Trace, path string, c Config) (*Plan, error) {
	mount, err := scoutMount(path, c)
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", path, err)
	}
	conn, err := rpc.Dial(c.Target, c.Options)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	plan := &Plan{mount: mount}
	s := &scout{
		conn:     conn,
		objects:  map[string]*object{},
		listings: map[listingKey]*listing{},
		planner:  planner{plan: plan},
	}
	if s.objects["/"], err = s.getattr(mount.handle); err != nil {
		return nil, fmt.Errorf("the root: %w", err)
	}
	for i := range t.Calls {
		call := &t.Calls[i]
		if call.Proc == Mnt {
			continue // every node mounts, once
		}
		if err := s.follow(call); err != nil {
			return nil, fmt.Errorf("%s %s: %w", call.Proc, call.Path, err)
		}
	}
	if plan.Calls == 0 {
		return nil, fmt.Errorf("of %d calls of the trace none can be made: nothing that it names is below %s", len(t.Calls), path)
	}
	plan.spread(max(1, c.Connections))
	return plan, nil
}

// scoutMount mounts a path as all nodes will: without credentials, as klibc's
// nfsmount does, of which a server may conclude that they boot.
func scoutMount(path string, c Config) (step, error) {
	conn, err := rpc.Dial(c.MountTarget, c.Options)
	if err != nil {
		return step{}, err
	}
	defer conn.Close()
	conn.Caller = rpc.Caller{}
	const xid = 0
	call := conn.AppendMount(nil, xid, path)
	r, err := conn.Do(xid, call)
	if err == nil {
		err = r.Err()
	}
	if err != nil {
		return step{}, err
	}
	handle, ok := r.Mount()
	if !ok || len(handle) == 0 {
		return step{}, errMalformed
	}
	return step{proc: Mnt, size: r.Size, handle: bytes.Clone(handle), call: call}, nil
}

// follow makes a call and adds it to the plan, or counts why not.
func (s *scout) follow(c *Call) error {
	skipped := &s.plan.Skipped
	path, name := c.target()
	var o *object
	if c.Proc != Null {
		var err error
		if o, err = s.find(path); err != nil {
			return err
		}
		if o == nil {
			skipped.Missing++
			return nil
		}
	}
	xid := uint32(len(s.plan.steps))
	call, why := s.call(c, o, name, xid)
	if why != nil {
		*why++
		return nil
	}
	reply, err := s.conn.Do(xid, call)
	if err != nil {
		return err
	}
	var refused rpc.RPCError
	if (c.Proc == Getacl || c.Proc == Null) && errors.As(reply.Err(), &refused) {
		skipped.Unserved++
		return nil
	}
	st, err := s.judge(c, o, reply)
	if err != nil {
		return err
	}
	st.call = call
	s.add(c, st)
	return nil
}

// call encodes a call about o, or says where to count that it is not made.
func (s *scout) call(c *Call, o *object, name string, xid uint32) (call []byte, skipped *int) {
	k := s.conn
	if kind := wantedKind(c.Proc); kind != 0 && o.kind != kind {
		return nil, &s.plan.Skipped.Unfit
	}
	switch c.Proc {
	case Null:
		return k.AppendNull(nil, xid), nil
	case Getattr:
		return k.AppendGetattr(nil, xid, o.handle), nil
	case Lookup:
		return k.AppendLookup(nil, xid, o.handle, []byte(name)), nil
	case Access:
		return k.AppendAccess(nil, xid, o.handle, c.Count), nil
	case Readlink:
		return k.AppendReadlink(nil, xid, o.handle), nil
	case Read:
		return k.AppendRead(nil, xid, o.handle, c.Offset, c.Count), nil
	case Readdir, Readdirplus:
		return s.listingCall(c, o, xid)
	case Fsstat:
		return k.AppendFsstat(nil, xid, o.handle), nil
	case Fsinfo:
		return k.AppendFsinfo(nil, xid, o.handle), nil
	case Pathconf:
		return k.AppendPathconf(nil, xid, o.handle), nil
	case Getacl:
		return s.arguments(xid, progACL, 1, func(e *wire.Encoder) {
			e.Opaque(o.handle)
			e.Uint32(c.Count)
		}), nil
	}
	return nil, &s.plan.Skipped.Writes
}

// wantedKind is the type of object that a procedure is for, or 0 for any.
func wantedKind(p Proc) gonfs.FileType {
	switch p {
	case Read:
		return gonfs.FileTypeRegular
	case Readlink:
		return gonfs.FileTypeLink
	case Lookup, Readdir, Readdirplus:
		return gonfs.FileTypeDirectory
	}
	return 0
}

// listingCall goes on with a listing where the server's last reply ended: the
// cookies of the trace were those of another server.
func (s *scout) listingCall(c *Call, o *object, xid uint32) (call []byte, skipped *int) {
	key := listingKey{c.Path, c.Proc}
	l := s.listings[key]
	switch {
	case c.Offset == 0:
		l = &listing{}
		s.listings[key] = l
	case l == nil || l.ended:
		return nil, &s.plan.Skipped.Unfit
	}
	count := min(c.Count, maxListing)
	if c.Proc == Readdir {
		return s.conn.AppendReaddir(nil, xid, o.handle, l.cookie, l.verifier, count), nil
	}
	return s.arguments(xid, progNFS, uint32(Readdirplus), func(e *wire.Encoder) {
		e.Opaque(o.handle)
		e.Uint64(l.cookie)
		e.Uint64(l.verifier)
		e.Uint32(count / 8) // dircount, as Linux has it (encode_readdirplus3args in fs/nfs/nfs3xdr.c)
		e.Uint32(count)
	}), nil
}

// arguments encodes a call that package rpc does not have.
func (s *scout) arguments(xid, program, procedure uint32, encode func(e *wire.Encoder)) []byte {
	var e wire.Encoder
	e.Reset(make([]byte, 128))
	encode(&e)
	return s.conn.AppendCall(nil, xid, program, 3, procedure, e.Bytes())
}

// judge holds a reply against what is known of the object, and returns what the
// nodes are to hold theirs against.
func (s *scout) judge(c *Call, o *object, r *rpc.Reply) (step, error) {
	st := step{proc: c.Proc, status: r.Status, size: r.Size}
	if c.Proc == Null {
		return st, r.Err()
	}
	missing := rpc.StatusError(gonfs.NFSStatusNoEnt)
	if err := r.Err(); err != nil && !(c.Proc == Lookup && err == missing) {
		return st, err
	}
	switch c.Proc {
	case Lookup:
		return st, judgeLookup(&st, r)
	case Read:
		return st, judgeRead(&st, c, o, r)
	case Readdir, Readdirplus:
		return st, s.judgeListing(c, r)
	}
	return st, nil
}

func judgeLookup(st *step, r *rpc.Reply) error {
	if st.status != 0 {
		return nil
	}
	var a rpc.Attr
	handle, ok := r.Lookup(&a)
	if !ok {
		return errMalformed
	}
	st.handle = bytes.Clone(handle)
	return nil
}

// judgeRead wants as many bytes as the file has.
func judgeRead(st *step, c *Call, o *object, r *rpc.Reply) error {
	n, _, ok := r.Read()
	want := min(uint64(c.Count), o.size-min(o.size, c.Offset))
	switch {
	case !ok:
		return errMalformed
	case uint64(n) != want:
		return fmt.Errorf("%d bytes at offset %d of %d, where %d were asked for; if the server allows no larger READs, record with a smaller rsize", n, c.Offset, o.size, c.Count)
	}
	st.payload = n
	return nil
}

func (s *scout) judgeListing(c *Call, r *rpc.Reply) error {
	l := s.listings[listingKey{c.Path, c.Proc}]
	entries := r.Readdir
	if c.Proc == Readdirplus {
		entries = r.Readdirplus
	}
	in := entries()
	var e rpc.Entry
	for in.Next(&e) {
		l.cookie = e.Cookie
	}
	if !in.OK() {
		return errMalformed
	}
	l.verifier, l.ended = in.Verifier, in.EOF
	return nil
}

var errMalformed = errors.New("malformed results")

// find resolves a path. It returns nil if nothing is there.
func (s *scout) find(path string) (*object, error) {
	path = cmp.Or(path, "/")
	if o, known := s.objects[path]; known {
		return o, nil
	}
	dir, name := split(path)
	parent, err := s.find(dir)
	if err != nil {
		return nil, err
	}
	var o *object
	if parent != nil && parent.kind == gonfs.FileTypeDirectory && name != "" {
		if o, err = s.lookup(parent, name); err != nil {
			return nil, fmt.Errorf("resolve %s: %w", path, err)
		}
	}
	s.objects[path] = o
	return o, nil
}

func (s *scout) lookup(dir *object, name string) (*object, error) {
	const xid = 1 << 31 // not one of the plan's
	r, err := s.conn.Do(xid, s.conn.AppendLookup(nil, xid, dir.handle, []byte(name)))
	if err == nil {
		err = r.Err()
	}
	if err == rpc.StatusError(gonfs.NFSStatusNoEnt) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var a rpc.Attr
	handle, ok := r.Lookup(&a)
	if !ok {
		return nil, errMalformed
	}
	handle = bytes.Clone(handle)
	if a.Type == 0 {
		return s.getattr(handle)
	}
	return &object{handle, a.Type, a.Size}, nil
}

func (s *scout) getattr(handle []byte) (*object, error) {
	const xid = 1 << 31
	r, err := s.conn.Do(xid, s.conn.AppendGetattr(nil, xid, handle))
	if err == nil {
		err = r.Err()
	}
	if err != nil {
		return nil, err
	}
	var a rpc.Attr
	if !r.Getattr(&a) {
		return nil, errMalformed
	}
	return &object{handle, a.Type, a.Size}, nil
}
