package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	gonfs "github.com/willscott/go-nfs"

	"github.com/rootnfsd/rootnfsd/bench/rpc"
)

// tree is what a server has, as it shows it. The objects are in an order that
// depends on their names alone, so that it is the same on all servers.
type tree struct {
	objects []object
	// bytes is the sum of the sizes of files, each counted from the start of a
	// page.
	bytes int64
}

type object struct {
	handle []byte
	name   []byte
	parent int32
	kind   gonfs.FileType
	size   uint64

	// Of directories: the objects in it, and the sizes of the replies that list it.
	first, end int32
	listing    []int32
	// Of files: where it would be in a file that has all of them.
	place int64
}

const (
	// listingSize is how much of a listing is asked for at a time. Linux asks for
	// as much as its READ size, up to what the server prefers, but a reply of more
	// than 64 KiB is not kept whole here.
	listingSize = 48 << 10
	pageSize    = 4096
	maxObjects  = 1 << 28
)

// Survey mounts the tree and lists all of it.
func (t *Target) Survey(ctx context.Context) error {
	root, err := rpc.Mount(t.MountAddr, t.Path, t.Options)
	if err != nil {
		return fmt.Errorf("%s: %w", t.Name, err)
	}
	c, err := rpc.Dial(t.Addr, t.Options)
	if err != nil {
		return fmt.Errorf("%s: %w", t.Name, err)
	}
	defer c.Close()
	s := surveyor{conn: c, tree: &tree{objects: []object{{handle: root, kind: gonfs.FileTypeDirectory}}}}
	for i := 0; i < len(s.tree.objects); i++ {
		if s.tree.objects[i].kind != gonfs.FileTypeDirectory {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.list(int32(i)); err != nil {
			return fmt.Errorf("%s: list directory %s: %w", t.Name, s.tree.path(int32(i)), err)
		}
	}
	s.tree.lay()
	t.tree = s.tree
	return nil
}

// surveyor lists a tree over a connection, a call at a time.
type surveyor struct {
	conn *rpc.Conn
	tree *tree
	xid  uint32
	buf  []byte
}

func (s *surveyor) do(call func(b []byte, xid uint32) []byte) (*rpc.Reply, error) {
	s.xid++
	s.buf = call(s.buf[:0], s.xid)
	r, err := s.conn.Do(s.xid, s.buf)
	if err == nil {
		err = r.Err()
	}
	return r, err
}

// list adds what is in a directory to the tree.
func (s *surveyor) list(dir int32) error {
	d := s.tree.objects[dir]
	d.first = int32(len(s.tree.objects))
	var verifier, cookie uint64
	var found []object
	for eof := false; !eof; {
		r, err := s.do(func(b []byte, xid uint32) []byte {
			return s.conn.AppendReaddirplus(b, xid, d.handle, cookie, verifier, listingSize)
		})
		if err != nil {
			return err
		}
		d.listing = append(d.listing, int32(r.Size))
		l := r.Readdirplus()
		var e rpc.Entry
		before := cookie
		for l.Next(&e) {
			cookie = e.Cookie
			if string(e.Name) == "." || string(e.Name) == ".." {
				continue
			}
			found = append(found, object{
				handle: bytes.Clone(e.Handle),
				name:   bytes.Clone(e.Name),
				parent: dir,
				kind:   e.Attr.Type,
				size:   e.Attr.Size,
			})
		}
		if !l.OK() {
			return errors.New("a malformed listing")
		}
		if eof = l.EOF; !eof && cookie == before {
			return errors.New("a listing that does not go on")
		}
		if len(s.tree.objects)+len(found) > maxObjects {
			return fmt.Errorf("more than %d objects", maxObjects)
		}
		verifier = l.Verifier
	}
	slices.SortFunc(found, func(a, b object) int { return bytes.Compare(a.name, b.name) })
	if err := s.complete(d.handle, found); err != nil {
		return err
	}
	s.tree.objects = append(s.tree.objects, found...)
	d.end = int32(len(s.tree.objects))
	s.tree.objects[dir] = d
	return nil
}

// complete looks up what the server left out of a listing.
func (s *surveyor) complete(dir []byte, found []object) error {
	for i := range found {
		o := &found[i]
		if o.kind != 0 && len(o.handle) > 0 {
			continue
		}
		r, err := s.do(func(b []byte, xid uint32) []byte { return s.conn.AppendLookup(b, xid, dir, o.name) })
		if err != nil {
			return fmt.Errorf("look up %q: %w", o.name, err)
		}
		var a rpc.Attr
		h, ok := r.Lookup(&a)
		if !ok || a.Type == 0 {
			return fmt.Errorf("look up %q: no attributes", o.name)
		}
		o.handle, o.kind, o.size = bytes.Clone(h), a.Type, a.Size
	}
	return nil
}

// lay gives each file a place among all.
func (t *tree) lay() {
	for i := range t.objects {
		if o := &t.objects[i]; o.kind == gonfs.FileTypeRegular {
			o.place = t.bytes
			t.bytes += int64(o.size+pageSize-1) &^ (pageSize - 1)
		}
	}
}

// path is for messages.
func (t *tree) path(i int32) string {
	if i == 0 {
		return "/"
	}
	o := &t.objects[i]
	if o.parent == 0 {
		return "/" + string(o.name)
	}
	return t.path(o.parent) + "/" + string(o.name)
}
