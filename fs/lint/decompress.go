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

	"github.com/rootnfsd/rootnfsd/fs/source/compressed"
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
	return io.NopCloser(compressed.XZ(r, maxWindow)), nil
}

// eofUnexpected turns an end where there should be none into an error.
func eofUnexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
