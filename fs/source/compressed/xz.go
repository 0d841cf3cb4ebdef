package compressed

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"runtime"

	"github.com/ulikunitz/xz"
)

// An xz stream is a header, blocks, an index and a footer (The .xz File Format). Where
// several threads have made it (xz -T0, which all large images come from), the header
// of each block says how long the block is, and blocks can be decoded side by side:
// each is given to the decoder as a stream of its own.
const (
	xzMagic      = "\xfd7zXZ\x00"
	xzHeaderSize = 12
	xzFooterSize = 12
	xzFooterEnd  = "YZ"
	xzSizes      = 0xc0 // flags of a block header with both sizes
	// maxBlock is how large a block may be that is decoded as a whole, and maxWorkers
	// how many at a time: xz -6 makes blocks of 24 MiB.
	maxBlock   = 32 << 20
	maxWorkers = 4
)

var errXZ = errors.New("its blocks and index do not agree")

func openXZ(r *bufio.Reader) (io.Reader, error) {
	start, err := r.Peek(peekSize)
	if err != nil && err != io.EOF {
		return nil, err
	}
	if len(start) < xzHeaderSize+2 {
		return nil, io.ErrUnexpectedEOF
	}
	h, err := parseXZBlock(start[xzHeaderSize:])
	if err != nil {
		return nil, err
	}
	if !h.whole {
		end := &tail{r: r}
		out, err := xz.NewReader(end)
		return &complete{out, end}, err
	}
	p := &xzBlocks{r: r, next: make(chan chan decoded, min(maxWorkers, runtime.GOMAXPROCS(0)))}
	go p.split()
	return p, nil
}

// tail knows the last two bytes that were read, zeros left out, which may be padding.
type tail struct {
	r    io.Reader
	last [2]byte
}

func (t *tail) Read(b []byte) (int, error) {
	n, err := t.r.Read(b)
	if end := bytes.TrimRight(b[:n], "\x00"); len(end) > 1 {
		copy(t.last[:], end[len(end)-2:])
	} else if len(end) == 1 {
		t.last = [2]byte{t.last[1], end[0]}
	}
	return n, err
}

// complete sees to it that a stream has an end: the decoder takes one for whole that
// was cut off within the header of a block.
type complete struct {
	io.Reader
	end *tail
}

func (c *complete) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	if err == io.EOF && string(c.end.last[:]) != xzFooterEnd {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// xzBlock is what the header of a block says.
type xzBlock struct {
	header                   int // its size
	compressed, uncompressed uint64
	whole                    bool // it can be decoded as a whole
}

// parseXZBlock parses the header of a block, or the first bytes of the index: then its
// size is 0.
func parseXZBlock(b []byte) (h xzBlock, err error) {
	if len(b) < 2 {
		return h, io.ErrUnexpectedEOF
	}
	if b[0] == 0 {
		return h, nil
	}
	h.header = (int(b[0]) + 1) * 4
	if n := dictionary(b); n > maxWindow {
		return h, fmt.Errorf("it wants %d MiB of memory, more than %d", n>>20, maxWindow>>20)
	}
	if b[1]&xzSizes != xzSizes {
		return h, nil
	}
	var n int
	b = b[2:]
	if h.compressed, n = binary.Uvarint(b); n <= 0 {
		return h, errXZ
	}
	if h.uncompressed, n = binary.Uvarint(b[n:]); n <= 0 {
		return h, errXZ
	}
	h.whole = h.compressed > 0 && h.compressed <= maxBlock && h.uncompressed <= maxBlock
	return h, nil
}

// dictionary is the size of the dictionary that the header of a block asks for, 0 if it
// does not.
func dictionary(b []byte) uint64 {
	const lzma2 = 0x21
	flags := b[1]
	b = b[2:]
	number := func() uint64 {
		n, size := binary.Uvarint(b)
		b = b[max(size, 0):]
		return n
	}
	for _, flag := range []byte{0x40, 0x80} { // the sizes, where they are there
		if flags&flag != 0 {
			number()
		}
	}
	for range flags&3 + 1 {
		id, size := number(), number()
		if size >= uint64(len(b)) {
			return 0
		}
		if id == lzma2 && size == 1 {
			bits := uint64(b[0] & 63)
			if bits > 40 {
				return 0 // which the decoder refuses
			}
			return (2 | bits&1) << (bits/2 + 11)
		}
		b = b[size:]
	}
	return 0
}

// xzBlocks reads a stream whose blocks are decoded side by side.
type xzBlocks struct {
	r    *bufio.Reader
	next chan chan decoded // in order
	now  []byte
	rest io.Reader // what comes behind the last block, if it is of another kind
	err  error
}

// decoded is a block, or what comes behind the last one.
type decoded struct {
	data []byte
	rest io.Reader
	err  error
}

func (p *xzBlocks) Read(b []byte) (int, error) {
	if p.rest != nil {
		return p.rest.Read(b)
	}
	for len(p.now) == 0 {
		if p.err != nil {
			return 0, p.err
		}
		c, ok := <-p.next
		if !ok {
			p.err = io.EOF
			continue
		}
		d := <-c
		p.now, p.err = d.data, d.err
		p.rest = d.rest
		if p.rest != nil {
			return p.rest.Read(b)
		}
	}
	n := copy(b, p.now)
	p.now = p.now[n:]
	return n, nil
}

// split reads streams, and has their blocks decoded.
func (p *xzBlocks) split() {
	defer close(p.next)
	for {
		err := p.stream()
		if err == nil {
			if err = p.padding(); err == io.EOF {
				return
			}
		}
		if err == nil {
			// A stream that was made otherwise.
			start, _ := p.r.Peek(peekSize)
			if len(start) > xzHeaderSize+2 && string(start[:len(xzMagic)]) == xzMagic {
				if h, hErr := parseXZBlock(start[xzHeaderSize:]); hErr == nil && !h.whole && h.header > 0 {
					var rest io.Reader
					rest, err = openXZ(p.r)
					p.emit(decoded{rest: rest, err: err})
					return
				}
			}
		}
		if err != nil {
			p.emit(decoded{err: noEOF(err)})
			return
		}
	}
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (p *xzBlocks) emit(d decoded) {
	c := make(chan decoded, 1)
	c <- d
	p.next <- c
}

// padding skips zeros between streams. It is io.EOF if nothing else follows.
func (p *xzBlocks) padding() error {
	for {
		b, err := p.r.ReadByte()
		if err != nil {
			return err
		}
		if b != 0 {
			return p.r.UnreadByte()
		}
	}
}

// stream reads one stream.
func (p *xzBlocks) stream() error {
	var header [xzHeaderSize]byte
	if _, err := io.ReadFull(p.r, header[:]); err != nil {
		return err
	}
	if string(header[:len(xzMagic)]) != xzMagic {
		return errors.New("something else follows the stream")
	}
	flags := header[len(xzMagic):][:2]
	seen, blocks := sha256.New(), uint64(0)
	for ; ; blocks++ {
		start, err := p.r.Peek(2)
		if err != nil {
			return err
		}
		start, err = p.r.Peek(max(2, min(peekSize, (int(start[0])+1)*4)))
		if err != nil {
			return err
		}
		h, err := parseXZBlock(start)
		if err != nil {
			return err
		}
		if h.header == 0 {
			return p.index(flags, blocks, seen.Sum(nil))
		}
		if !h.whole {
			return errors.New("its blocks are of different kinds: unpack it with xz first")
		}
		unpadded := uint64(h.header) + h.compressed + uint64(checkSize(flags[1]))
		block := make([]byte, (unpadded+3)/4*4)
		// The check is behind the padding.
		if _, err := io.ReadFull(p.r, block); err != nil {
			return err
		}
		addRecord(seen, unpadded, h.uncompressed)
		c := make(chan decoded, 1)
		p.next <- c
		go func() { c <- decodeBlock(header[:], block, unpadded, h.uncompressed) }()
	}
}

// checkSize is the size of the check that a stream's flags ask for.
func checkSize(kind byte) int {
	if kind &= 0xf; kind == 0 {
		return 0
	}
	return 4 << ((kind - 1) / 3)
}

func addRecord(h hash.Hash, unpadded, uncompressed uint64) {
	_, _ = h.Write(binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, unpadded), uncompressed))
}

// index reads the index and the footer, and compares them with what was seen.
func (p *xzBlocks) index(flags []byte, blocks uint64, seen []byte) error {
	in := &checked{r: p.r, crc: crc32.NewIEEE()}
	if _, err := in.ReadByte(); err != nil { // the zero that it begins with
		return err
	}
	n, err := binary.ReadUvarint(in)
	if err != nil {
		return err
	}
	if n != blocks {
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
		if _, err := in.ReadByte(); err != nil {
			return err
		}
	}
	sum := in.crc.Sum32()
	var end [4 + xzFooterSize]byte
	if _, err := io.ReadFull(p.r, end[:]); err != nil {
		return err
	}
	footer := end[4:]
	if !bytes.Equal(records.Sum(nil), seen) || sum != binary.LittleEndian.Uint32(end[:]) ||
		crc32.ChecksumIEEE(footer[4:10]) != binary.LittleEndian.Uint32(footer) ||
		!bytes.Equal(footer[8:10], flags) || string(footer[10:]) != xzFooterEnd {
		return errXZ
	}
	return nil
}

// checked takes the CRC of the bytes that are read.
type checked struct {
	r   *bufio.Reader
	crc hash.Hash32
	n   uint64
}

func (c *checked) ReadByte() (byte, error) {
	b, err := c.r.ReadByte()
	if err == nil {
		_, _ = c.crc.Write([]byte{b})
		c.n++
	}
	return b, err
}

// decodeBlock decodes a block, which is made a stream of its own.
func decodeBlock(header, block []byte, unpadded, uncompressed uint64) (d decoded) {
	defer func() {
		if r := recover(); r != nil {
			d = decoded{err: fmt.Errorf("%v", r)}
		}
	}()
	index := []byte{0, 1}
	index = binary.AppendUvarint(binary.AppendUvarint(index, unpadded), uncompressed)
	for len(index)%4 != 0 {
		index = append(index, 0)
	}
	index = binary.LittleEndian.AppendUint32(index, crc32.ChecksumIEEE(index))
	footer := binary.LittleEndian.AppendUint32(nil, uint32(len(index)/4-1))
	footer = append(footer, header[len(xzMagic):][:2]...)
	footer = append(binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE(footer)), footer...)
	footer = append(footer, xzFooterEnd...)
	r, err := xz.NewReader(io.MultiReader(bytes.NewReader(header), bytes.NewReader(block), bytes.NewReader(index), bytes.NewReader(footer)))
	if err != nil {
		return decoded{err: noEOF(err)}
	}
	data := make([]byte, uncompressed)
	if _, err := io.ReadFull(r, data); err != nil {
		return decoded{err: noEOF(err)}
	}
	if n, err := io.Copy(io.Discard, r); err != nil || n != 0 {
		return decoded{err: errors.Join(errXZ, err)}
	}
	return decoded{data: data}
}
