package nfs

import (
	"bytes"
	"testing"

	gonfs "github.com/willscott/go-nfs"
	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs/fstest"
	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

// TestHomeLargeReads asks for more than the socket holds before it takes the first
// reply, from offsets that fit pages and others, to the end of the file and beyond.
func TestHomeLargeReads(t *testing.T) {
	s := startHomes(t, Limits{}, nil)
	c := s.mount(t)
	file := c.file("file")
	want := fstest.Bytes(3<<20 + 5)
	for off := 0; off < len(want); off += maxIO {
		c.must(gonfs.NFSProcedureWrite, writeArgs(file, uint64(off), fileSync, want[off:min(off+maxIO, len(want))]))
	}
	type read struct {
		off   uint64
		count uint32
	}
	asked := map[uint32]read{}
	for round := range 4 {
		for _, off := range []uint64{0, 4096, 1 << 20, 5, 3 << 20, 3<<20 - 1, 3<<20 + 5, 1 << 40} {
			for _, count := range []uint32{maxIO, 512 << 10, copyLimit + 1, 100_003} {
				c.push(progNFS, 3, uint32(gonfs.NFSProcedureRead), func(e *wire.Encoder) {
					e.Opaque(file)
					e.Uint64(off)
					e.Uint32(count)
				})
				asked[c.xid] = read{off, count}
			}
		}
		c.flush()
		if round%2 == 0 {
			continue // the next ones, too, before the replies
		}
		for len(asked) > 0 {
			xid, d := c.reply()
			q, ok := asked[xid]
			if !ok {
				t.Fatalf("a reply to call %d, which was not made", xid)
			}
			delete(asked, xid)
			from := min(q.off, uint64(len(want)))
			part := want[from:min(from+uint64(q.count), uint64(len(want)))]
			status, attr := d.Uint32(), attrOf(d)
			count, eof, data := d.Uint32(), d.Bool(), d.Opaque(maxIO)
			if status != nfsOK || attr == nil || int(count) != len(part) || eof != (from+uint64(count) == uint64(len(want))) || !bytes.Equal(data, part) || !d.Done() {
				t.Errorf("%d bytes at %d: status %d, %d bytes, eof %v", q.count, q.off, status, count, eof)
			}
		}
	}
	if status, _, _ := c.readAt(c.root, 0, maxIO); status != uint32(gonfs.NFSStatusIsDir) {
		t.Errorf("READ of a directory: status %d", status)
	}
}

// TestPipes holds what pipes are given to what they hold.
func TestPipes(t *testing.T) {
	pool := pipes{spare: make(chan *pipe, 1)}
	a, b := pool.get(), pool.get()
	if a == nil || b == nil {
		t.Fatal("no pipe")
	}
	pool.put(a)
	pool.put(b) // there is no room for it
	if pool.get() != a {
		t.Error("a pipe is not used again")
	}
	if _, err := unix.Write(b.in, []byte("x")); err != unix.EBADF {
		t.Errorf("a pipe that is not kept: %v", err)
	}
	all := []*pipe{a}
	for p := pool.get(); p != nil; p = pool.get() {
		all = append(all, p)
	}
	if len(all) != maxPipes {
		t.Errorf("there can be %d pipes, want %d", len(all), maxPipes)
	}
	for _, p := range all {
		pool.drop(p)
	}
	if n := pool.made.Load(); n != 0 {
		t.Errorf("%d pipes are left", n)
	}
	for _, c := range []struct {
		off   uint64
		count uint32
		want  bool
	}{{0, maxIO, true}, {4096, maxIO, true}, {4096, 1<<32 - 1, true}, {1, maxIO, false}, {1, maxIO - 4096, true}, {0, copyLimit, false}} {
		if got := pipeHolds(c.off, c.count); got != c.want {
			t.Errorf("%d bytes at %d: %v", c.count, c.off, got)
		}
	}
}
