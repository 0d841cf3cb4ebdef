package store

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	gonfs "github.com/willscott/go-nfs"

	"github.com/rootnfsd/rootnfsd/bench"
	"github.com/rootnfsd/rootnfsd/bench/rpc"
)

// fleet is nodes that run a version. Each has a connection and one call in
// flight: a GETATTR, or a READ of the start of a file, of which there are as many.
// It is for one goroutine.
type fleet struct {
	loop    *rpc.Loop
	lines   []*rpc.Line // by number
	files   []file
	sent    []time.Time // by number of the line
	asked   []*file     // by number of the line: what a READ is of, or nil
	next    int
	waiting int
	ending  bool

	count   bench.Run
	latency *hdrhistogram.Histogram
	failed  error // the first failure
}

const (
	fewFiles = 500
	compared = 50 // of them, byte for byte
	readSize = 4096
	patience = 10 * time.Second // for a reply
)

// file is one that nodes read the start of.
type file struct {
	handle  []byte
	length  int    // of what is read
	content []byte // as it was read first; nil of all but a few
}

// newNodes connects the nodes to a server.
func newNodes(addr string, root []byte) (*fleet, error) {
	f := &fleet{latency: hdrhistogram.New(1, time.Minute.Nanoseconds(), 3), sent: make([]time.Time, nodes), asked: make([]*file, nodes)}
	c, err := rpc.Dial(addr, rpc.Options{})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if f.files, err = someFiles(c, root); err != nil {
		return nil, err
	}
	if err := readFirst(c, f.files[:min(len(f.files), compared)]); err != nil {
		return nil, err
	}
	if f.loop, err = rpc.NewLoop(); err != nil {
		return nil, err
	}
	for range nodes {
		l, err := f.loop.Dial(addr, rpc.Options{})
		if err != nil {
			f.close()
			return nil, err
		}
		f.lines = append(f.lines, l)
	}
	return f, nil
}

func (f *fleet) close() { f.loop.Close() }

// someFiles returns a few files, from the top of the tree.
func someFiles(c *rpc.Conn, root []byte) (files []file, err error) {
	dirs := [][]byte{root}
	for xid := uint32(1); len(dirs) > 0 && len(files) < fewFiles; xid++ {
		dir := dirs[0]
		dirs = dirs[1:]
		r, err := c.Do(xid, c.AppendReaddirplus(nil, xid, dir, 0, 0, 48<<10)) // the start of a large one will do
		if err == nil {
			err = r.Err()
		}
		if err != nil {
			return nil, fmt.Errorf("list: %w", err)
		}
		l := r.Readdirplus()
		var e rpc.Entry
		for l.Next(&e) {
			switch {
			case e.Attr.Type == gonfs.FileTypeRegular:
				files = append(files, file{handle: bytes.Clone(e.Handle), length: int(min(e.Attr.Size, readSize))})
			case e.Attr.Type == gonfs.FileTypeDirectory && string(e.Name) != "." && string(e.Name) != "..":
				dirs = append(dirs, bytes.Clone(e.Handle))
			}
		}
		if !l.OK() {
			return nil, fmt.Errorf("a malformed listing")
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("the tree has no files")
	}
	return files, nil
}

// readFirst reads what is later compared.
func readFirst(c *rpc.Conn, files []file) error {
	for i := range files {
		f := &files[i]
		xid := uint32(i)
		r, err := c.Do(xid, c.AppendRead(nil, xid, f.handle, 0, readSize))
		if err == nil {
			err = r.Err()
		}
		if err == nil {
			err = f.check(r)
		}
		if err != nil {
			return fmt.Errorf("read before any promote: %w", err)
		}
		content, _ := r.Data(f.length)
		f.content = bytes.Clone(content)
	}
	return nil
}

// check holds a READ against the size of the file, and against its content if that
// is known.
func (f *file) check(r *rpc.Reply) error {
	n, _, ok := r.Read()
	if !ok || n != f.length {
		return fmt.Errorf("a READ of %d bytes, where the file has %d", n, f.length)
	}
	if f.content == nil {
		return nil
	}
	if data, ok := r.Data(n); !ok || !bytes.Equal(data, f.content) {
		return errors.New("a READ of other bytes than before")
	}
	return nil
}

// run makes calls until stop is closed, and waits for the last replies.
func (f *fleet) run(stop <-chan struct{}) error {
	begun := time.Now()
	for _, l := range f.lines {
		f.call(l, begun)
		if err := l.Flush(); err != nil {
			return err
		}
	}
	for last := time.Now(); f.waiting > 0; {
		select {
		case <-stop:
			f.ending = true
		default:
		}
		before := f.count.Calls + f.count.Errors
		if err := f.loop.Turn(50*time.Millisecond, f); err != nil {
			return err
		}
		switch now := time.Now(); {
		case f.count.Calls+f.count.Errors > before:
			last = now
		case now.Sub(last) > patience:
			f.fail(fmt.Errorf("%d calls got no reply", f.waiting))
			f.waiting = 0
		}
	}
	f.count.Wall = time.Since(begun)
	return nil
}

// call queues the next call of a node. Its number is that of the line's calls
// before it, which nobody needs: there is one in flight.
func (f *fleet) call(l *rpc.Line, now time.Time) {
	f.next++
	of := &f.files[f.next/2%len(f.files)]
	xid := uint32(f.next)
	if f.next%2 == 0 {
		f.asked[l.Number] = nil
		l.Queue(l.AppendGetattr(l.Buffer(), xid, of.handle))
	} else {
		f.asked[l.Number] = of
		l.Queue(l.AppendRead(l.Buffer(), xid, of.handle, 0, readSize))
	}
	f.sent[l.Number] = now
	f.waiting++
}

// Reply is what the loop calls.
func (f *fleet) Reply(l *rpc.Line, r *rpc.Reply, at time.Time) {
	f.waiting--
	f.latency.RecordValue(int64(at.Sub(f.sent[l.Number])))
	err := r.Err()
	if read := f.asked[l.Number]; err == nil && read != nil {
		err = read.check(r)
	}
	if err != nil {
		f.fail(err)
	} else {
		f.count.Calls++
	}
	if !f.ending {
		f.call(l, at)
	}
}

// Broken is what the loop calls.
func (f *fleet) Broken(_ *rpc.Line, err error) {
	f.waiting--
	f.fail(fmt.Errorf("a connection broke: %w", err))
}

func (f *fleet) fail(err error) {
	f.count.Errors++
	if f.failed == nil {
		f.failed = err
	}
}

// summary is what came of all calls.
func (f *fleet) summary() bench.Run {
	r := f.count
	r.SetLatency(f.latency)
	return r
}
