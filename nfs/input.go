package nfs

import (
	"errors"

	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

// What is wrong with a stream. After any of these nothing that follows has a
// meaning, so the connection is closed.
var (
	errRecordTooLarge = errors.New("record too large, or not RPC at all")
	errRecordEmpty    = errors.New("empty record")
	errFragments      = errors.New("too many empty fragments in a record")
)

// maxEmptyFragments is how many fragments of a record may be empty. None need
// be, but they are legal, and each costs its sender four bytes.
const maxEmptyFragments = 1024

// input cuts a stream into records (RFC 5531, section 11). Bytes go into what
// space returns, records come out of next. A record that is one fragment is
// returned where it lies; the fragments of others are moved together in place,
// so a record never needs a second buffer.
//
// buf is laid out as: [0,start) records returned already; [start,end) what has
// been put together of the next record; [end,pos) marks taken out of it;
// [pos,fill) bytes that have not been looked at.
type input struct {
	buf                   []byte
	start, end, pos, fill int
	missing               int  // bytes of the current fragment that are to come
	inFragment            bool // the mark of the current fragment has been read
	last                  bool // the current fragment ends the record
	empty                 int  // empty fragments in this record
}

// next returns the next record, valid until the next call of pack, or nil if
// more bytes are needed first.
func (in *input) next() ([]byte, error) {
	for {
		if !in.inFragment {
			if in.fill-in.pos < wire.MarkSize {
				return nil, nil
			}
			if err := in.beginFragment(); err != nil {
				return nil, err
			}
		}
		in.takeBytes()
		if in.missing > 0 {
			return nil, nil
		}
		in.inFragment = false
		if in.last {
			record := in.buf[in.start:in.end:in.end]
			in.start, in.end, in.empty = in.pos, in.pos, 0
			return record, nil
		}
	}
}

// beginFragment reads a mark.
func (in *input) beginFragment() error {
	n, last := wire.ParseMark(in.buf[in.pos:])
	in.pos += wire.MarkSize
	have := in.end - in.start
	if have == 0 {
		in.start, in.end = in.pos, in.pos
	}
	switch {
	case n > uint32(maxRecord-have):
		return errRecordTooLarge
	case n == 0 && last && have == 0:
		return errRecordEmpty
	case n == 0:
		if in.empty++; in.empty > maxEmptyFragments {
			return errFragments
		}
	}
	in.missing, in.last, in.inFragment = int(n), last, true
	return nil
}

// takeBytes adds what is there of the current fragment to the record.
func (in *input) takeBytes() {
	n := min(in.missing, in.fill-in.pos)
	if in.end != in.pos {
		copy(in.buf[in.end:], in.buf[in.pos:in.pos+n])
	}
	in.end += n
	in.pos += n
	in.missing -= n
}

// pending reports whether a part of a record has arrived.
func (in *input) pending() bool {
	return in.inFragment || in.fill > in.pos || in.end > in.start
}

// space returns where the next bytes go; filled says how many came. After pack
// there is no space only if the record in hand has outgrown the buffer.
func (in *input) space() []byte { return in.buf[in.fill:] }

func (in *input) filled(n int) { in.fill += n }

// pack moves what is pending to the start of the buffer, where most of it stays
// however often it is called.
func (in *input) pack() {
	have, rest := in.end-in.start, in.fill-in.pos
	if in.start > 0 {
		copy(in.buf, in.buf[in.start:in.end])
	}
	if have != in.pos {
		copy(in.buf[have:], in.buf[in.pos:in.fill])
	}
	in.start, in.end, in.pos, in.fill = 0, have, have, have+rest
}

// move goes on in another buffer, which must have room for what is pending. It
// leaves the old one as it is, records and all.
func (in *input) move(buf []byte) {
	have := copy(buf, in.buf[in.start:in.end])
	rest := copy(buf[have:], in.buf[in.pos:in.fill])
	in.buf = buf
	in.start, in.end, in.pos, in.fill = 0, have, have, have+rest
}

// partial returns what has come of the record in hand, which is where pack put it, and
// how many bytes are to come. It reports false if that is not known, or if those have
// come, too.
func (in *input) partial() (record []byte, rest int, ok bool) {
	return in.buf[in.start:in.end], in.missing, in.inFragment && in.last && in.missing > 0
}

// holds says that what is kept of the record in hand are the first n bytes of buf. Nothing
// must be pending that has not been looked at.
func (in *input) holds(buf []byte, n int) {
	in.buf = buf
	in.start, in.end, in.pos, in.fill = 0, n, n, n
}

// unread is how many bytes are pending when next has just returned a record.
func (in *input) unread() int { return in.fill - in.pos }

// unreadRecord reports whether the whole of another record is pending when next has
// just returned one, as far as that can be told from its first mark.
func (in *input) unreadRecord() bool {
	if in.unread() < wire.MarkSize {
		return false
	}
	size, _ := wire.ParseMark(in.buf[in.pos:])
	return uint64(in.unread()) >= wire.MarkSize+uint64(size)
}

// reset forgets the buffer. Nothing must be pending.
func (in *input) reset() { *in = input{} }
