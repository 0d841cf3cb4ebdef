package image

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sort"
	"sync"
	"sync/atomic"
	"weak"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/cache"
	"github.com/rootnfsd/rootnfsd/fs"
)

// A pack file holds the chunks that one seal added to the store:
//
//	header   magic, padded with zeros to 64 bytes
//	data     the chunks
//	table    a record for each chunk, by offset: offset (64 bits), length (32
//	         bits), 32 zero bits, SHA-256 of the chunk
//	sorted   the numbers of the chunks (32 bits each), by digest
//	footer   magic, offset of the table, number of chunks (64 bits each),
//	         SHA-256 of the table, zeros to 64 bytes
//
// The table begins at a multiple of eight. The name of the file is the SHA-256
// of the table, which in turn vouches for every chunk. The order by digest is a
// help for finding a chunk and vouched for by nobody: what is found is compared.
const (
	packMagic    = "rnfspak\x01"
	packHeader   = 64
	packFooter   = 64
	packSuffix   = ".pack"
	chunkRecord  = 48
	sortedRecord = 4
)

// chunkSize is the length of all chunks of a file but its last.
const chunkSize = 64 << 10

// pack is an open pack file. It is shared by all versions of a Store that refer
// to it and closed by the garbage collector when none is left. All methods may
// be called by many goroutines at once.
type pack struct {
	digest   Digest
	path     string
	file     *os.File
	fd       int    // of file, for system calls that must not allocate
	resident []byte // the whole file mapped, to ask what of it is in memory; nil on 32-bit machines
	table    []byte // mapped
	sorted   []byte // mapped
	dataEnd  uint64
	count    uint32
	// verified has a bit for each chunk that was read and found good since the
	// pack was opened. Bits are set, never cleared.
	verified []atomic.Uint32
	loads    cache.Flights[uint32, []byte] // of chunks that are being verified
}

// openPack opens the pack file with this digest in dir and checks all but the
// chunks themselves.
func openPack(dir string, digest Digest) (*pack, error) {
	f, err := os.Open(packPath(dir, digest))
	if err != nil {
		return nil, err
	}
	p := &pack{digest: digest, path: f.Name(), file: f, fd: int(f.Fd())}
	// What nodes ask for lies all over a pack, and what they ask for next is not
	// behind it. Reading ahead by 8 MiB (read_ahead_kb; most disks have 128 KiB),
	// the kernel read three times as much as eight booting nodes wanted, and they
	// took 2.9 s instead of 1.0 s from a disk of 40 MB/s (rootnfsd bench cold, 3
	// runs). So it is told what will be wanted: see expect.
	_ = unix.Fadvise(p.fd, 0, 0, unix.FADV_RANDOM)
	if err := p.load(); err != nil {
		f.Close()
		return nil, fmt.Errorf("pack %s: %w", p.path, err)
	}
	return p, nil
}

func packPath(dir string, digest Digest) string {
	return filepath.Join(dir, hex.EncodeToString(digest[:])+packSuffix)
}

var (
	errNoPack   = errors.New("not a pack, or cut short")
	errBadTable = errors.New("its table of chunks is damaged, or another pack's")
)

// isLost reports whether an error of openPack says that the content is gone or
// damaged, and not just out of reach for now.
func isLost(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, errNoPack) || errors.Is(err, errBadTable)
}

func (p *pack) load() (err error) {
	stat, err := p.file.Stat()
	if err != nil {
		return err
	}
	if !stat.Mode().IsRegular() {
		return errNoPack
	}
	size := stat.Size()
	tableOff, err := p.readFooter(size)
	if err != nil {
		return err
	}
	from := tableOff
	if math.MaxInt > math.MaxInt32 {
		from = 0
	}
	m, err := mapFile(p.file, from, size-from)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			m.unmap()
		}
	}()
	defer guard(debug.SetPanicOnFault(true), &err)
	if from == 0 {
		p.resident = m.data
	}
	tail := m.data[tableOff-from:]
	tableLen := int(p.count) * chunkRecord
	p.table, p.sorted = tail[:tableLen], tail[tableLen:][:int(p.count)*sortedRecord]
	if sha256.Sum256(p.table) != p.digest {
		return errBadTable
	}
	p.verified = make([]atomic.Uint32, (p.count+31)/32)
	runtime.AddCleanup(p, mapping.unmap, m)
	return nil
}

// readFooter checks header, footer and length of the file and returns where
// its table begins.
func (p *pack) readFooter(size int64) (tableOff int64, err error) {
	var head, foot [packFooter]byte
	if size < packHeader+packFooter {
		return 0, errNoPack
	}
	if err := readFull(p.fd, head[:], 0); err != nil {
		return 0, err
	}
	if err := readFull(p.fd, foot[:], size-packFooter); err != nil {
		return 0, err
	}
	if string(head[:8]) != packMagic || string(foot[:8]) != packMagic || Digest(foot[24:56]) != p.digest {
		return 0, errNoPack
	}
	end, count := le.Uint64(foot[8:]), le.Uint64(foot[16:])
	if end < packHeader || end%8 != 0 || end > uint64(size) || count > math.MaxUint32 ||
		uint64(size) != end+count*chunkRecord+padded(count*sortedRecord)+packFooter {
		return 0, errNoPack
	}
	p.dataEnd, p.count = end, uint32(count)
	return int64(end), nil
}

func (p *pack) record(i uint32) []byte { return p.table[uint64(i)*chunkRecord:][:chunkRecord] }

// place returns where chunk i lies. It is ErrIO if there is no such chunk or
// the table is nonsense.
func (p *pack) place(i uint64) (off, length uint64, err error) {
	if i >= uint64(p.count) {
		return 0, 0, fs.ErrIO
	}
	r := p.record(uint32(i))
	off, length = le.Uint64(r), uint64(le.Uint32(r[8:]))
	if length == 0 || length > chunkSize || off < packHeader || off > p.dataEnd || length > p.dataEnd-off {
		return 0, 0, fs.ErrIO
	}
	return off, length, nil
}

func (p *pack) chunkDigest(i uint32) *Digest { return (*Digest)(p.record(i)[16:]) }

// holds reports whether chunk i of the pack is ch.
func (p *pack) holds(i uint32, ch *chunk) bool {
	var err error
	defer guard(debug.SetPanicOnFault(true), &err)
	_, length, err := p.place(uint64(i))
	return err == nil && length == uint64(len(ch.data)) && *p.chunkDigest(i) == ch.digest
}

// find returns the number of the chunk with this digest, if the order by digest
// can be believed.
func (p *pack) find(d *Digest) (i uint32, ok bool) {
	var err error
	defer guard(debug.SetPanicOnFault(true), &err)
	at := func(k int) uint32 { return le.Uint32(p.sorted[k*sortedRecord:]) }
	k := sort.Search(int(p.count), func(k int) bool {
		i := at(k)
		return i >= p.count || bytes.Compare(p.chunkDigest(i)[:], d[:]) >= 0
	})
	if k == int(p.count) {
		return 0, false
	}
	return at(k), true
}

func (p *pack) isVerified(i uint32) bool {
	return p.verified[i/32].Load()&(1<<(i%32)) != 0
}

// verify returns chunk i, read from disk and held against its digest. All who
// ask at the same time share one read and one computing of the digest: 64
// readers of 32 MiB on a disk took 100 ms, and 150 ms each for itself
// (BenchmarkReadColdTogether).
func (p *pack) verify(i uint32) ([]byte, error) {
	return p.loads.Get(i, func() (b []byte, err error) {
		defer guard(debug.SetPanicOnFault(true), &err)
		off, length, err := p.place(uint64(i))
		if err != nil {
			return nil, err
		}
		b = make([]byte, length)
		if p.isVerified(i) { // by somebody who came just before
			return b, readFull(p.fd, b, int64(off))
		}
		if err := p.readChunk(i, b, off); err != nil {
			return nil, err
		}
		p.verified[i/32].Or(1 << (i % 32))
		return b, nil
	})
}

// expect asks the kernel to begin to read n bytes at off. It does so on its own
// time, and not at all if they are in memory.
func (p *pack) expect(off, n uint64) {
	_ = unix.Fadvise(p.fd, int64(off), int64(n), unix.FADV_WILLNEED)
}

// readChunk reads chunk i at off into b, which has its length, and checks it.
func (p *pack) readChunk(i uint32, b []byte, off uint64) error {
	if err := readFull(p.fd, b, int64(off)); err != nil {
		return err
	}
	checks.bytes.Add(uint64(len(b)))
	if sha256.Sum256(b) != *p.chunkDigest(i) {
		checks.damaged.Add(1)
		return fmt.Errorf("chunk %d is damaged", i)
	}
	runtime.KeepAlive(p)
	return nil
}

// readFull is pread(2) until p is full.
func readFull(fd int, p []byte, off int64) error {
	for len(p) > 0 {
		n, err := unix.Pread(fd, p, off)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return err
		case n == 0:
			return io.ErrUnexpectedEOF
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// guard is deferred by what reads mapped files, with the result of
// debug.SetPanicOnFault(true). A file that somebody cuts short or a disk that
// fails then makes an ErrIO of the access, not the end of the process.
func guard(old bool, err *error) {
	debug.SetPanicOnFault(old)
	if isFault(recover()) {
		*err = fs.ErrIO
	}
}

// isFault reports whether what was recovered is the runtime's panic for a fault.
// It lets any other go on.
func isFault(recovered any) bool {
	switch recovered.(type) {
	case nil:
		return false
	case interface{ Addr() uintptr }:
		return true
	}
	panic(recovered)
}

// packSet opens each pack of a store once, for as long as somebody holds it.
type packSet struct {
	dir  string
	mu   sync.Mutex // guards open
	open map[Digest]weak.Pointer[pack]
}

func newPackSet(dir string) *packSet {
	return &packSet{dir: dir, open: make(map[Digest]weak.Pointer[pack])}
}

// get returns the pack with this digest.
func (s *packSet) get(digest Digest) (*pack, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.open[digest].Value(); p != nil {
		return p, nil
	}
	p, err := openPack(s.dir, digest)
	if err != nil {
		delete(s.open, digest)
		return nil, err
	}
	s.open[digest] = weak.Make(p)
	return p, nil
}

// all returns the packs in the store, and what is wrong with those that are
// damaged.
func (s *packSet) all() (packs []*pack, problems []error, err error) {
	digests, err := s.list()
	if err != nil {
		return nil, nil, err
	}
	for _, d := range digests {
		p, err := s.get(d)
		switch {
		case err == nil:
			packs = append(packs, p)
		case isLost(err):
			problems = append(problems, err)
		default:
			return nil, nil, err
		}
	}
	return packs, problems, nil
}

// list returns the digests of all packs in the store, good or bad, in order.
func (s *packSet) list() ([]Digest, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var digests []Digest
	for _, e := range entries {
		var d Digest
		hex, ok := bytes.CutSuffix([]byte(e.Name()), []byte(packSuffix))
		if ok && d.UnmarshalText(hex) == nil {
			digests = append(digests, d)
		}
	}
	return digests, nil
}
