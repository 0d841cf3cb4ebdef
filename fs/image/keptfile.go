package image

import (
	"io"
	"runtime"
	"runtime/debug"
	"sort"

	"github.com/go-git/go-billy/v5"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/source"
)

// keptFile is an open file of a catalog. It may be read while content is added to the
// new pack, by many goroutines at once.
type keptFile struct {
	source.ReadOnlyFile
	*io.SectionReader
	name string
}

var _ billy.File = (*keptFile)(nil)

func (f *keptFile) Name() string { return f.name }
func (f *keptFile) Close() error { return nil }

// keptContent is where the content of a file lies in packs.
type keptContent struct {
	extents []storedExtent
	new     *packWriter // what stands in extents as nil
}

// ReadAt implements io.ReaderAt within the file.
func (c *keptContent) ReadAt(p []byte, off int64) (n int, err error) {
	defer guard(debug.SetPanicOnFault(true), &err)
	for n < len(p) {
		at := uint64(off) + uint64(n)
		part := p[n:][:min(uint64(len(p)-n), chunkSize-at%chunkSize)]
		if err := c.readChunk(part, at/chunkSize, at%chunkSize); err != nil {
			return n, err
		}
		n += len(part)
	}
	return n, nil
}

// readChunk fills p with what is behind skip in a chunk of the file.
func (c *keptContent) readChunk(p []byte, number, skip uint64) error {
	i := sort.Search(len(c.extents), func(i int) bool {
		e := &c.extents[i]
		return e.chunk()+uint64(e.count()) > number
	})
	if i == len(c.extents) || c.extents[i].chunk() > number {
		clear(p)
		return nil
	}
	e := &c.extents[i]
	chunk := e.first() + uint32(number-e.chunk())
	if e.in == nil {
		return c.new.readChunk(p, chunk, skip)
	}
	defer runtime.KeepAlive(e.in)
	off, length, err := e.in.place(uint64(chunk))
	switch {
	case err != nil:
		return err
	case skip+uint64(len(p)) > length:
		return fs.ErrIO
	case e.in.isVerified(chunk):
		return readFull(e.in.fd, p, int64(off+skip))
	}
	all, err := e.in.verify(chunk)
	if err != nil {
		return err
	}
	copy(p, all[skip:])
	return nil
}
