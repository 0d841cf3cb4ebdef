package lint

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz/lzma"
)

const (
	// maxUnpacked is how much is unpacked of one file.
	maxUnpacked = 1 << 30
	// maxWindow is what a decompressor may take for what it looks back at. The
	// kernel's own limit for zstd is 128 MiB; what makes an initramfs takes 8.
	maxWindow = 64 << 20
)

// errFormat is the error for what is in no format that is known here.
var errFormat = errors.New("unknown format")

// compressions are the formats that Linux unpacks, by how their streams begin
// (lib/decompress.c), but for bzip2 and LZO, which nobody uses any more.
func compressions() []compression {
	return []compression{
		{"gzip", "\x1f\x8b\x08", openGzip},
		{"xz", "\xfd7zXZ\x00", openXZ},
		{"zstd", "\x28\xb5\x2f\xfd", openZstd},
		{"lz4", "\x02\x21\x4c\x18", openLZ4},
		{"lz4", "\x04\x22\x4d\x18", openLZ4},
		{"lzma", "\x5d\x00\x00", openLZMA},
	}
}

type compression struct {
	name  string
	magic string
	open  func(*bufio.Reader) (io.ReadCloser, error)
}

// compressionOf returns the compression of what begins so, nil if there is none.
func compressionOf(head []byte) *compression {
	for _, c := range compressions() {
		if bytes.HasPrefix(head, []byte(c.magic)) {
			return &c
		}
	}
	return nil
}

// decompress opens a compressed stream.
func decompress(r *bufio.Reader) (io.ReadCloser, error) {
	head, err := r.Peek(6)
	if c := compressionOf(head); c != nil {
		return c.open(r)
	}
	if err == io.EOF {
		err = errFormat
	}
	return nil, errors.Join(err, errFormat)
}

func openGzip(r *bufio.Reader) (io.ReadCloser, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, err
	}
	z.Multistream(false) // so that it stops where the stream ends
	return z, nil
}

func openZstd(r *bufio.Reader) (io.ReadCloser, error) {
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		return nil, err
	}
	return z.IOReadCloser(), nil
}

func openLZ4(r *bufio.Reader) (io.ReadCloser, error) { return io.NopCloser(lz4.NewReader(r)), nil }

func openLZMA(r *bufio.Reader) (io.ReadCloser, error) {
	head, err := r.Peek(lzma.HeaderLen)
	if err != nil {
		return nil, err
	}
	if size := binary.LittleEndian.Uint32(head[1:]); size > maxWindow {
		return nil, fmt.Errorf("lzma: a dictionary of %d bytes: %w", size, errFormat)
	}
	z, err := lzma.NewReader(r)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(z), nil
}

func openXZ(r *bufio.Reader) (io.ReadCloser, error) {
	const streamHeader = 12
	head := make([]byte, streamHeader)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	// Sizes of a block's check, by its kind (the .xz file format, section 2.1.1.2).
	sizes := [16]int{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64}
	return io.NopCloser(&xzReader{r: r, check: sizes[head[7]&15]}), nil
}

// xzReader unpacks an xz stream. It is here because a library would allocate
// whatever dictionary a block's header asks for, up to 4 GiB. It compares no
// checksums.
type xzReader struct {
	r     *bufio.Reader
	check int // bytes behind each block
	read  int64
	block io.Reader // nil between blocks
	err   error
}

// Read implements io.Reader.
func (x *xzReader) Read(p []byte) (int, error) {
	for x.err == nil {
		if x.block == nil {
			x.err = x.next()
			continue
		}
		n, err := x.block.Read(p)
		if err == io.EOF {
			x.block, err = nil, x.finish()
		}
		if x.err = err; n > 0 || len(p) == 0 {
			return n, nil
		}
	}
	return 0, x.err
}

// next begins a block (section 3.1). The error is io.EOF if there is none.
func (x *xzReader) next() error {
	size, err := x.r.ReadByte()
	if err != nil {
		return eofUnexpected(err)
	}
	if size == 0 { // the index, of which nobody knows the end; nothing worth reading follows
		return io.EOF
	}
	header := make([]byte, int(size)*4+3) // without its first byte
	if _, err := io.ReadFull(x.r, header); err != nil {
		return eofUnexpected(err)
	}
	flags, rest := header[0], header[1:]
	for range flags>>6&1 + flags>>7&1 { // the sizes, if they are given
		_, n := binary.Uvarint(rest)
		if n <= 0 {
			return fmt.Errorf("xz: %w", errFormat)
		}
		rest = rest[n:]
	}
	const lzma2 = 0x21
	if flags&3 != 0 || len(rest) < 3 || rest[0] != lzma2 || rest[1] != 1 {
		return fmt.Errorf("xz: filters for machine code: %w", errFormat)
	}
	dict, err := lzma.DecodeDictCap(rest[2])
	if err != nil || dict > maxWindow {
		return fmt.Errorf("xz: a dictionary of %d bytes: %w", dict, errFormat)
	}
	x.read = 0
	x.block, err = lzma.Reader2Config{DictCap: int(max(dict, lzma.MinDictCap))}.NewReader2(&counter{x.r, &x.read})
	return err
}

// finish passes over what is behind a block's data: padding to 4 bytes, and the check.
func (x *xzReader) finish() error {
	_, err := x.r.Discard(int(-x.read&3) + x.check)
	return eofUnexpected(err)
}

// counter counts what is read.
type counter struct {
	r *bufio.Reader
	n *int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	*c.n += int64(n)
	return n, err
}

// ReadByte implements io.ByteReader: without it the decompressor would read ahead.
func (c *counter) ReadByte() (byte, error) {
	b, err := c.r.ReadByte()
	if err == nil {
		*c.n++
	}
	return b, err
}

// eofUnexpected turns an end where there should be none into an error.
func eofUnexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
