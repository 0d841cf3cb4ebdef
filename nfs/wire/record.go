package wire

import "encoding/binary"

// MarkSize is the size of the mark before each fragment of a record on a
// stream (RFC 5531, section 11).
const MarkSize = 4

const lastFragment = 1 << 31

// ParseMark splits the mark at the start of b, which has at least MarkSize
// bytes, into the length of the fragment that follows and whether that one ends
// the record.
func ParseMark(b []byte) (n uint32, last bool) {
	m := binary.BigEndian.Uint32(b)
	return m &^ lastFragment, m&lastFragment != 0
}

// BeginRecord appends room for the mark of a record that is one fragment and
// returns its position for EndRecord.
func (e *Encoder) BeginRecord() int {
	pos := len(e.buf)
	e.Extend(MarkSize)
	return pos
}

// EndRecord writes the mark of the record that began at pos. The record is what
// was written since, and extra bytes that follow by another way.
func (e *Encoder) EndRecord(pos, extra int) {
	e.SetUint32(pos, lastFragment|uint32(len(e.buf)-pos-MarkSize+extra))
}
