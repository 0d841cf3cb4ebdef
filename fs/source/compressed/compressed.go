// Package compressed takes the compression off a stream, whichever of the usual ones
// it is by its first bytes. It knows nothing of what is in the stream.
package compressed

import (
	"bufio"
	"cmp"
	"compress/bzip2"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// maxWindow bounds what a stream can have a decoder remember. It is what zstd and xz
// themselves accept without being asked (zstd --long=27, xz -9 is half of it).
const maxWindow = 128 << 20

// peekSize is how much of a stream its kind is told by.
const peekSize = 64

var formats = []struct {
	name   string
	begins func(start []byte) bool
	open   func(*bufio.Reader) (io.Reader, error)
}{
	{"gzip", magic("\x1f\x8b"), openGzip},
	{"bzip2", magic("BZh"), func(r *bufio.Reader) (io.Reader, error) { return bzip2.NewReader(r), nil }},
	{"xz", magic(xzMagic), openXZ},
	{"zstd", magic("\x28\xb5\x2f\xfd"), openZstd},
	{"zstd", isSkippable, openZstd},
}

// magic is of streams that begin with some bytes.
func magic(bytes string) func(start []byte) bool {
	return func(start []byte) bool { return strings.HasPrefix(string(start), bytes) }
}

// Open returns what is in a stream and by what it is compressed, which is "" if it is
// not by any that is known.
func Open(r io.Reader) (io.Reader, string, error) {
	in := bufio.NewReaderSize(r, 256<<10)
	start, err := in.Peek(peekSize)
	if err != nil && err != io.EOF {
		return nil, "", err
	}
	for _, f := range formats {
		if !f.begins(start) {
			continue
		}
		out, err := f.open(in)
		if err != nil {
			return nil, "", fmt.Errorf("%s: %w", f.name, explain(err))
		}
		return &named{out, f.name}, f.name, nil
	}
	return in, "", nil
}

// isSkippable reports whether a stream begins with a frame of zstd that has no content,
// as pzstd writes one before each that has.
func isSkippable(b []byte) bool {
	return len(b) >= 4 && b[0]&0xF0 == 0x50 && string(b[1:4]) == "\x2a\x4d\x18"
}

// named says in its errors by what the stream is compressed.
type named struct {
	io.Reader
	format string
}

func (n *named) Read(b []byte) (int, error) {
	k, err := n.Reader.Read(b)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("%s: %w", n.format, explain(err))
	}
	return k, err
}

func explain(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return fmt.Errorf("the stream was cut short: %w", io.ErrUnexpectedEOF)
	}
	return fmt.Errorf("the stream is damaged: %w", err)
}

// members reads what gzip packed, one piece behind the other. Behind the last there may
// be zeros, by which a block of a tape or of a disk is filled up: gzip(1) takes them, too.
type members struct {
	in *bufio.Reader
	z  *gzip.Reader
}

func openGzip(r *bufio.Reader) (io.Reader, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, err
	}
	z.Multistream(false)
	return &members{r, z}, nil
}

func (m *members) Read(b []byte) (int, error) {
	for {
		n, err := m.z.Read(b)
		if err == io.EOF && n > 0 {
			err = nil // it says so again
		}
		if err != io.EOF {
			return n, err
		}
		if err := m.next(); err != nil {
			return 0, err
		}
	}
}

// next begins the next member. It is io.EOF if there is none.
func (m *members) next() error {
	for zeros := false; ; zeros = true {
		first, err := m.in.Peek(1)
		if err != nil {
			return err
		}
		if first[0] != 0 && zeros {
			return gzip.ErrHeader
		}
		if first[0] != 0 {
			break
		}
		if _, err := m.in.Discard(1); err != nil {
			return err
		}
	}
	if err := m.z.Reset(m.in); err != nil {
		if err == io.EOF { // in the header's name
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	m.z.Multistream(false)
	return nil
}

func openZstd(r *bufio.Reader) (io.Reader, error) {
	d, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, err
	}
	return d.IOReadCloser(), nil
}

// aheadSize is how much is read ahead in a piece, of which there are a few.
const (
	aheadSize  = 128 << 10
	aheadDepth = 8
)

// Ahead reads r on a goroutine of its own, so that decoding goes on beside what is
// done with the content. What it returns ends with ctx, even while r waits; r must then
// not be used by anybody else.
func Ahead(ctx context.Context, r io.Reader) *AheadReader {
	a := &AheadReader{ctx: ctx, full: make(chan filled, aheadDepth), empty: make(chan []byte, aheadDepth+2)}
	go func() {
		defer close(a.full)
		for {
			var buf []byte
			select {
			case buf = <-a.empty:
			default:
				buf = make([]byte, aheadSize)
			}
			var n int
			var err error
			for n < len(buf) && err == nil {
				var more int
				more, err = r.Read(buf[n:])
				n += more
			}
			select {
			case a.full <- filled{buf, n, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return a
}

type filled struct {
	buf []byte
	n   int
	err error
}

// AheadReader is what Ahead returns.
type AheadReader struct {
	ctx   context.Context
	full  chan filled
	empty chan []byte
	now   filled
	off   int
}

// Read implements io.Reader.
func (a *AheadReader) Read(b []byte) (int, error) {
	if err := a.fill(); err != nil {
		return 0, err
	}
	n := copy(b, a.now.buf[a.off:a.now.n])
	a.off += n
	return n, nil
}

// Peek returns what the stream begins with and leaves it there, for who has read nothing
// yet: n bytes, which are a few thousand at most. There are fewer, and no error, where
// the stream is shorter. They are good until something is read.
func (a *AheadReader) Peek(n int) ([]byte, error) {
	_ = a.fill() // whose error is that of now, or of ctx
	have := a.now.buf[a.off:a.now.n]
	if len(have) >= n {
		return have[:n], nil
	}
	if a.now.err == io.EOF {
		return have, nil
	}
	return nil, cmp.Or(a.now.err, context.Cause(a.ctx))
}

// fill waits until there is something to be read.
func (a *AheadReader) fill() error {
	for a.off == a.now.n {
		if a.now.err != nil {
			return a.now.err
		}
		if a.now.buf != nil {
			select {
			case a.empty <- a.now.buf:
			default:
			}
			a.now, a.off = filled{}, 0
		}
		select {
		case next, ok := <-a.full:
			if !ok {
				return context.Cause(a.ctx)
			}
			a.now, a.off = next, 0
		case <-a.ctx.Done():
			return context.Cause(a.ctx)
		}
	}
	return nil
}
