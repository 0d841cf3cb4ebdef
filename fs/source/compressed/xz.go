package compressed

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"
	"runtime"

	"github.com/rootnfsd/rootnfsd/fs/source/compressed/lzma2"
)

// The format of a stream is here, for a library would allocate whatever dictionary a
// block asks for, up to 4 GiB, and decode one block after the other. Where several
// threads have made a stream (xz -T0, which all large images come from), the header of
// each block says how long it is, and blocks can be decoded side by side.
//
// A stream is a header, blocks, an index and a footer (The .xz File Format).
const (
	xzMagic      = "\xfd7zXZ\x00"
	xzHeaderSize = 12
	xzFooterSize = 12
	xzFooterEnd  = "YZ"
	xzLZMA2      = 0x21 // the only filter that is known here
	// maxBlock is how large a block may be that is decoded beside others, and maxWorkers
	// how many at a time: xz -6 makes blocks of 24 MiB.
	maxBlock   = 32 << 20
	maxWorkers = 4
)

var le = binary.LittleEndian

var errXZ = errors.New("its parts do not agree")

// XZ returns what is in the xz stream that r begins with, and ends where the stream does.
// Its blocks may ask for a dictionary of not more than window bytes.
func XZ(r *bufio.Reader, window int64) io.Reader {
	return &xzReader{r: r, window: window, single: true}
}

func openXZ(r *bufio.Reader) (io.Reader, error) {
	return &xzReader{r: r, window: maxWindow, workers: min(maxWorkers, runtime.GOMAXPROCS(0))}, nil
}

// xzReader reads a stream, or several with padding between them.
type xzReader struct {
	r       *bufio.Reader
	window  int64
	workers int  // how many blocks may be decoded ahead
	single  bool // the stream is the only one

	stream *xzStream
	ahead  []chan xzDecoded // blocks that are being decoded, in order
	now    io.Reader        // the content of a block
	err    error            // when there is nothing ahead any more
}

type xzDecoded struct {
	data []byte
	err  error
}

// Read implements io.Reader.
func (x *xzReader) Read(p []byte) (int, error) {
	for {
		if x.now != nil {
			n, err := x.now.Read(p)
			if err != nil {
				x.now = nil
			}
			if err != io.EOF && err != nil {
				x.err = err
			}
			if n > 0 || x.now != nil || len(p) == 0 {
				return n, nil
			}
		}
		if x.err == nil {
			x.err = x.begin()
		}
		switch {
		case len(x.ahead) > 0:
			d := <-x.ahead[0]
			x.ahead = x.ahead[1:]
			if d.err != nil {
				x.ahead, x.err = nil, d.err
				return 0, d.err
			}
			x.now = bytes.NewReader(d.data)
		case x.now == nil && x.err != nil:
			return 0, x.err
		}
	}
}

// begin begins with as many blocks as may be decoded ahead, or with one that can only be
// decoded as it comes. The error is io.EOF where everything ends.
func (x *xzReader) begin() error {
	for len(x.ahead) == 0 || len(x.ahead) < x.workers {
		if x.stream == nil {
			if err := x.open(); err != nil {
				return err
			}
		}
		h, err := x.stream.header(x.window)
		switch {
		case err == io.EOF && !x.single:
			x.stream = nil
			if err := skipPadding(x.r); err != nil {
				return err
			}
			continue
		case err != nil:
			return err
		case x.workers == 0 || !h.isWhole():
			if len(x.ahead) == 0 {
				x.now, err = x.stream.block(h)
			}
			return err
		}
		c := make(chan xzDecoded, 1)
		if err := x.stream.decode(h, c); err != nil {
			return err
		}
		x.ahead = append(x.ahead, c)
	}
	return nil
}

// skipPadding skips zeros between streams. It is io.EOF if nothing else follows.
func skipPadding(r *bufio.Reader) error {
	for {
		b, err := r.ReadByte()
		if err != nil {
			return err
		}
		if b != 0 {
			return r.UnreadByte()
		}
	}
}

// open reads the header of a stream.
func (x *xzReader) open() error {
	var b [xzHeaderSize]byte
	if _, err := io.ReadFull(x.r, b[:]); err != nil {
		return noEOF(err)
	}
	const flags = len(xzMagic)
	if string(b[:flags]) != xzMagic {
		return errors.New("something else follows the stream")
	}
	if le.Uint32(b[flags+2:]) != crc32.ChecksumIEEE(b[flags:][:2]) {
		return errXZ
	}
	x.stream = &xzStream{r: x.r, flags: [2]byte(b[flags:]), seen: sha256.New()}
	_, err := newCheck(x.stream.flags)
	return err
}

// xzStream is a stream whose header was read.
type xzStream struct {
	r      *bufio.Reader
	flags  [2]byte
	blocks uint64
	seen   hash.Hash // of the records that the index must have
}

// xzHeader is what the header of a block says.
type xzHeader struct {
	size                     int
	compressed, uncompressed int64 // -1 if it does not say
	dictionary               int64
}

// isWhole reports whether the block can be decoded as a whole.
func (h *xzHeader) isWhole() bool {
	return h.compressed > 0 && h.compressed <= maxBlock && h.uncompressed >= 0 && h.uncompressed <= maxBlock
}

// header looks at the header of the next block and leaves it where it is. Where there is
// none it reads to the end of the stream; the error is then io.EOF if all is well.
func (s *xzStream) header(window int64) (h xzHeader, err error) {
	b, err := s.r.Peek(1)
	if err != nil {
		return h, noEOF(err)
	}
	if b[0] == 0 {
		if err := s.end(); err != nil {
			return h, noEOF(err)
		}
		return h, io.EOF
	}
	b, err = s.r.Peek((int(b[0]) + 1) * 4)
	if err != nil {
		return h, noEOF(err)
	}
	return parseXZHeader(b, window)
}

// parseXZHeader parses the header of a block, all of it.
func parseXZHeader(b []byte, window int64) (h xzHeader, err error) {
	h = xzHeader{size: len(b), compressed: -1, uncompressed: -1}
	flags, rest := b[1], b[2:len(b)-4]
	number := func() int64 {
		n, size := binary.Uvarint(rest)
		if size <= 0 || n > 1<<62 {
			err, rest = errXZ, nil
			return 0
		}
		rest = rest[size:]
		return int64(n)
	}
	if flags&0x40 != 0 {
		h.compressed = number()
	}
	if flags&0x80 != 0 {
		h.uncompressed = number()
	}
	if filter, size := number(), number(); err == nil && (flags&0x3f != 0 || filter != xzLZMA2 || size != 1 || len(rest) == 0) {
		err = errors.New("it has filters for machine code, which are not known here: unpack it with xz first")
	}
	if err != nil {
		return h, err
	}
	if h.dictionary, err = lzma2.DictionarySize(rest[0]); err != nil {
		return h, err
	}
	if h.dictionary > window {
		return h, fmt.Errorf("it wants a dictionary of %d bytes, more than %d", h.dictionary, window)
	}
	if le.Uint32(b[len(b)-4:]) != crc32.ChecksumIEEE(b[:len(b)-4]) {
		return h, errXZ
	}
	return h, nil
}

// block returns the content of the block that is next, to be read as it comes.
func (s *xzStream) block(h xzHeader) (io.Reader, error) {
	if _, err := s.r.Discard(h.size); err != nil {
		return nil, err
	}
	return newBlock(s.r, h, s.flags, s.record)
}

// decode reads the block that is next, and has it decoded.
func (s *xzStream) decode(h xzHeader, to chan<- xzDecoded) error {
	if _, err := s.r.Discard(h.size); err != nil {
		return err
	}
	data := make([]byte, (h.compressed+3)&^3+int64(checkSize(s.flags)))
	if _, err := io.ReadFull(s.r, data); err != nil {
		return noEOF(err)
	}
	s.record(h, h.compressed, h.uncompressed)
	flags := s.flags
	go func() {
		var d xzDecoded
		d.data, d.err = decodeXZ(data, h, flags)
		to <- d
	}()
	return nil
}

// decodeXZ decodes a block, which is followed by padding and its check.
func decodeXZ(block []byte, h xzHeader, flags [2]byte) ([]byte, error) {
	b, err := newBlock(bufio.NewReader(bytes.NewReader(block)), h, flags, func(xzHeader, int64, int64) {})
	if err != nil {
		return nil, err
	}
	data := make([]byte, h.uncompressed)
	if _, err := io.ReadFull(b, data); err != nil {
		return nil, noEOF(err)
	}
	if n, err := io.Copy(io.Discard, b); err != nil || n != 0 {
		return nil, errors.Join(errXZ, err)
	}
	return data, nil
}

// record takes note of a block for the index.
func (s *xzStream) record(h xzHeader, compressed, uncompressed int64) {
	s.blocks++
	addRecord(s.seen, uint64(h.size)+uint64(compressed)+uint64(checkSize(s.flags)), uint64(uncompressed))
}

func addRecord(h hash.Hash, unpadded, uncompressed uint64) {
	_, _ = h.Write(le.AppendUint64(le.AppendUint64(nil, unpadded), uncompressed))
}

// end reads the index and the footer, and compares them with what was seen.
func (s *xzStream) end() error {
	in := &checked{counter: counter{r: s.r}, crc: crc32.NewIEEE()}
	if _, err := in.ReadByte(); err != nil { // the zero that it begins with
		return err
	}
	n, err := binary.ReadUvarint(in)
	if err != nil {
		return err
	}
	if n != s.blocks {
		return errXZ
	}
	records := sha256.New()
	for range n {
		unpadded, err := binary.ReadUvarint(in)
		if err != nil {
			return err
		}
		uncompressed, err := binary.ReadUvarint(in)
		if err != nil {
			return err
		}
		addRecord(records, unpadded, uncompressed)
	}
	for in.n%4 != 0 {
		if b, err := in.ReadByte(); err != nil || b != 0 {
			return cmp.Or(err, errXZ)
		}
	}
	size := in.n + 4 // with its sum
	var end [4 + xzFooterSize]byte
	if _, err := io.ReadFull(s.r, end[:]); err != nil {
		return err
	}
	footer := end[4:]
	if !bytes.Equal(records.Sum(nil), s.seen.Sum(nil)) || in.crc.Sum32() != le.Uint32(end[:]) ||
		crc32.ChecksumIEEE(footer[4:10]) != le.Uint32(footer) || (int64(le.Uint32(footer[4:]))+1)*4 != size ||
		!bytes.Equal(footer[8:10], s.flags[:]) || string(footer[10:]) != xzFooterEnd {
		return errXZ
	}
	return nil
}

// checked takes the CRC of the bytes that are read.
type checked struct {
	counter
	crc hash.Hash32
}

func (c *checked) ReadByte() (byte, error) {
	b, err := c.counter.ReadByte()
	if err == nil {
		_, _ = c.crc.Write([]byte{b})
	}
	return b, err
}

// Kinds of checks.
const (
	checkNone   = 0
	checkCRC32  = 1
	checkCRC64  = 4
	checkSHA256 = 10
)

// newCheck returns what computes the check of a stream's blocks, nil if they have none.
func newCheck(flags [2]byte) (hash.Hash, error) {
	switch flags[1] {
	case checkNone:
		return nil, nil
	case checkCRC32:
		return crc32.NewIEEE(), nil
	case checkCRC64:
		return crc64.New(crc64.MakeTable(crc64.ECMA)), nil
	case checkSHA256:
		return sha256.New(), nil
	}
	return nil, fmt.Errorf("checks of kind %d are not known", flags[1])
}

// checkSize is the size of a check.
func checkSize(flags [2]byte) int {
	if flags[1] == checkNone {
		return 0
	}
	return 4 << ((flags[1] - 1) / 3)
}

// xzBlock reads the content of a block, and compares it with what is said of it.
type xzBlock struct {
	in      *counter
	content io.Reader
	h       xzHeader
	flags   [2]byte
	check   hash.Hash
	n       int64 // bytes of content
	record  func(h xzHeader, compressed, uncompressed int64)
}

func newBlock(r *bufio.Reader, h xzHeader, flags [2]byte, record func(xzHeader, int64, int64)) (*xzBlock, error) {
	b := &xzBlock{in: &counter{r: r}, h: h, flags: flags, record: record}
	var err error
	if b.check, err = newCheck(flags); err != nil {
		return nil, err
	}
	b.content = lzma2.NewReader(b.in, int(h.dictionary))
	return b, nil
}

// Read implements io.Reader.
func (b *xzBlock) Read(p []byte) (int, error) {
	n, err := b.content.Read(p)
	b.n += int64(n)
	if b.check != nil {
		_, _ = b.check.Write(p[:n])
	}
	if err == io.EOF {
		err = cmp.Or(b.finish(), io.EOF)
	}
	return n, err
}

// finish reads what is behind the content: padding to 4 bytes, and the check.
func (b *xzBlock) finish() error {
	if b.h.compressed >= 0 && b.h.compressed != b.in.n || b.h.uncompressed >= 0 && b.h.uncompressed != b.n {
		return errXZ
	}
	padding := int(-b.in.n & 3)
	rest := make([]byte, padding+checkSize(b.flags))
	if _, err := io.ReadFull(b.in.r, rest); err != nil {
		return noEOF(err)
	}
	if !bytes.Equal(rest[:padding], make([]byte, padding)) {
		return errXZ
	}
	if b.check != nil && !bytes.Equal(rest[padding:], b.sum()) {
		return errors.New("its content is not what its check says")
	}
	b.record(b.h, b.in.n, b.n)
	return nil
}

// sum returns the check as it lies in the stream.
func (b *xzBlock) sum() []byte {
	switch h := b.check.(type) {
	case hash.Hash32:
		return le.AppendUint32(nil, h.Sum32())
	case hash.Hash64:
		return le.AppendUint64(nil, h.Sum64())
	default:
		return h.Sum(nil)
	}
}

// counter counts what is read.
type counter struct {
	r *bufio.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// ReadByte implements io.ByteReader: without it the decompressor would read ahead.
func (c *counter) ReadByte() (byte, error) {
	b, err := c.r.ReadByte()
	if err == nil {
		c.n++
	}
	return b, err
}

// noEOF turns an end where there should be none into an error.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
