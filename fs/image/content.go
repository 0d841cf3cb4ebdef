package image

import (
	"os"
	"runtime/debug"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/pagecache"
)

// Content is never handed out unseen. The first time that a chunk is asked for
// since its pack was opened it is read and held against its digest; a bit then
// remembers that it is good, and from then on it is read by pread(2), or its
// place is told, without more ado. So bytes that are wrong by then are an error,
// and good ones cost a few atomic loads.

// piece is a part of a file that lies in one place: a hole, or bytes of a pack.
type piece struct {
	len   uint64       // never zero
	pack  *versionPack // nil for a hole
	off   uint64       // in the pack
	cold  bool         // it is within one chunk, which was never verified:
	chunk uint32       // this one
}

// next makes p the piece at off, which is within the file, that is at most most
// bytes long. It may be shorter than it could be, but never empty. Whatever the
// error, p says which pack it is about.
func (v *Version) next(f *file, off, most uint64, p *piece) error {
	*p = piece{}
	most = min(most, f.size-off)
	number := off / chunkSize
	i := f.seek(number)
	if i == f.numExtents() || f.extent(i).chunk() > f.size/chunkSize {
		p.len = most
		return nil
	}
	e := f.extent(i)
	if e.chunk() > number {
		p.len = min(most, e.chunk()*chunkSize-off)
		return nil
	}
	if uint64(e.pack()) >= uint64(len(v.packs)) {
		return fs.ErrIO
	}
	p.pack = &v.packs[e.pack()]
	if p.pack.err != nil {
		return p.pack.err
	}
	return p.follow(f, e, off, most)
}

// follow makes p the piece of extent e that begins at off. It goes on as long
// as chunks adjoin in the pack and are verified.
func (p *piece) follow(f *file, e *extent, off, most uint64) error {
	number := off / chunkSize
	skip := off % chunkSize
	for last := (f.size - 1) / chunkSize; p.len < most && number <= last && number-e.chunk() < uint64(e.count()); number++ {
		chunk := uint64(e.first()) + number - e.chunk()
		at, length, err := p.pack.place(chunk)
		if err != nil || length != f.chunkLen(number) {
			return fs.ErrIO
		}
		good := p.pack.isVerified(uint32(chunk))
		switch {
		case p.len == 0:
			p.off, p.cold, p.chunk = at+skip, !good, uint32(chunk)
		case at != p.off+p.len || !good:
			return nil
		}
		p.len += length - skip
		if p.cold {
			break
		}
		skip = 0
	}
	p.len = min(p.len, most)
	return nil
}

// Read implements fs.Tree. It waits for a disk only without nowait.
func (v *Version) Read(c *fs.Cred, id fs.NodeID, off uint64, p []byte, nowait bool) (n int, eof bool, err error) {
	var part piece
	defer v.guardContent(debug.SetPanicOnFault(true), id, &part, &err)
	f, err := v.readable(c, id)
	if err != nil {
		return 0, false, err
	}
	if !nowait {
		v.expectContent(&f, off, uint64(len(p)))
	}
	for n < len(p) && off < f.size {
		err := v.next(&f, off, uint64(len(p)-n), &part)
		if err == nil {
			err = part.read(p[n:][:part.len], off, nowait)
		}
		if err != nil {
			return 0, false, v.contentError(id, &part, err)
		}
		n += int(part.len)
		off += part.len
	}
	return n, off >= f.size, nil
}

// expectContent asks the kernel to begin to read what holds n bytes at off: all
// of it at once, and whole chunks, since what else is in one is read soon. That
// some of it cannot be found is for whoever reads it to say.
func (v *Version) expectContent(f *file, off, n uint64) {
	var fault error
	defer v.guard(debug.SetPanicOnFault(true), &fault)
	_ = v.eachChunk(f, off, n, func(c stored) { v.packs[c.place].expect(c.off, c.len) })
}

// read fills b with the piece, which begins at off in its file.
func (p *piece) read(b []byte, off uint64, nowait bool) error {
	switch {
	case p.pack == nil:
		clear(b)
		return nil
	case p.cold && nowait:
		return fs.ErrWouldBlock
	case p.cold:
		chunk, err := p.pack.verify(p.chunk)
		if err != nil {
			return err
		}
		copy(b, chunk[off%chunkSize:])
		return nil
	case nowait:
		return readNow(p.pack.fd, b, int64(p.off))
	default:
		return readFull(p.pack.fd, b, int64(p.off))
	}
}

// readNow is readFull for what is in memory: ErrWouldBlock if not all of it is.
func readNow(fd int, b []byte, off int64) error {
	for len(b) > 0 {
		n, err := pagecache.Read(fd, b, off)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EOPNOTSUPP:
			return readFull(fd, b, off) // it is in memory nearly always
		case err == unix.EAGAIN:
			return fs.ErrWouldBlock
		case err != nil:
			return err
		case n == 0:
			return readFull(fd, b, off) // says that the file was cut short
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}

// Spans implements fs.Spanner. With nowait it answers ErrWouldBlock if not all
// of the bytes are in memory, as far as the kernel tells.
func (v *Version) Spans(c *fs.Cred, id fs.NodeID, off uint64, count uint32, spans []fs.Span, nowait bool) (n int, eof bool, err error) {
	var part piece
	defer v.guardContent(debug.SetPanicOnFault(true), id, &part, &err)
	f, err := v.readable(c, id)
	if err != nil {
		return 0, false, err
	}
	left := uint64(count)
	for left > 0 && off < f.size && n < len(spans) {
		err := v.next(&f, off, left, &part)
		if err == nil {
			err = part.makeReady(nowait)
		}
		if err != nil {
			return 0, false, v.contentError(id, &part, err)
		}
		n = appendSpan(spans, n, &part)
		off += part.len
		left -= part.len
	}
	return n, off >= f.size, nil
}

// makeReady sees to it that the bytes of the piece can be sent.
func (p *piece) makeReady(nowait bool) error {
	switch {
	case p.pack == nil:
		return nil
	case nowait && (p.cold || !p.pack.inMemory(p.off, p.len)):
		return fs.ErrWouldBlock
	case p.cold:
		_, err := p.pack.verify(p.chunk)
		return err
	}
	return nil
}

// appendSpan adds the piece behind the first n spans, to the last of them if
// the two adjoin, and returns how many there are then.
func appendSpan(spans []fs.Span, n int, p *piece) int {
	s := fs.Span{Len: int64(p.len)}
	if p.pack != nil {
		s.File, s.Off = p.pack.file, int64(p.off)
	}
	if n > 0 {
		if last := &spans[n-1]; last.File == s.File && (s.File == nil || last.Off+last.Len == s.Off) {
			last.Len += s.Len
			return n
		}
	}
	spans[n] = s
	return n + 1
}

// inMemory reports whether n bytes at off are in the page cache, as far as the
// kernel tells: it says yes to who could not write to the pack. Cachestat (since
// Linux 6.5) takes a fifth of the time of mincore, but counts too few pages if a
// large folio begins before off, so its no is not the last word.
func (p *pack) inMemory(off, n uint64) bool {
	page := uint64(os.Getpagesize())
	var stat unix.Cachestat_t
	err := unix.Cachestat(uint(p.fd), &unix.CachestatRange{Off: off, Len: n}, &stat, 0)
	return err == nil && stat.Cache > (off+n-1)/page-off/page || p.mapped(off, n, page)
}

// mapped is inMemory by mincore, 1 MiB at a time.
func (p *pack) mapped(off, n, page uint64) bool {
	const window = 1 << 20
	var vec [window/4096 + 1]byte // pages have at least 4096 bytes
	if p.resident == nil {
		return true // a large pack cannot be mapped on a 32-bit machine
	}
	for from, end := off&^(page-1), min(off+n, uint64(len(p.resident))); from < end; from += window {
		size := min(window, end-from)
		_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&p.resident[from])), uintptr(size), uintptr(unsafe.Pointer(&vec)))
		if errno != 0 {
			return errno != unix.EAGAIN
		}
		for _, resident := range vec[:(size+page-1)/page] {
			if resident&1 == 0 {
				return false
			}
		}
	}
	return true
}
