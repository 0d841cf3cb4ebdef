package wire

import "encoding/binary"

// Encoder appends XDR to a buffer and never grows it. What does not fit is left
// out and remembered, so a list of fields is written straight through and
// checked once, with Overflow.
type Encoder struct {
	buf      []byte
	overflow bool
}

// Reset makes e append to b[:0], up to the capacity of b.
func (e *Encoder) Reset(b []byte) { *e = Encoder{buf: b[:0]} }

// Bytes returns what was written since Reset. It is valid until the next Reset.
func (e *Encoder) Bytes() []byte { return e.buf }

// Len returns the number of bytes written: a position to Truncate to.
func (e *Encoder) Len() int { return len(e.buf) }

// Room returns how many more bytes fit.
func (e *Encoder) Room() int { return cap(e.buf) - len(e.buf) }

// Overflow reports whether something did not fit since Reset, or since a
// Truncate to before it.
func (e *Encoder) Overflow() bool { return e.overflow }

// Truncate takes back everything written after position n, and an overflow with
// it.
func (e *Encoder) Truncate(n int) {
	e.buf = e.buf[:n]
	e.overflow = false
}

// Extend appends n bytes and returns them for the caller to fill: they hold
// whatever the buffer held before. It returns nil if they do not fit.
func (e *Encoder) Extend(n int) []byte {
	old := len(e.buf)
	if e.overflow || n > cap(e.buf)-old {
		e.overflow = true
		return nil
	}
	e.buf = e.buf[:old+n]
	return e.buf[old:]
}

// Uint32 appends an unsigned integer.
func (e *Encoder) Uint32(v uint32) {
	if p := e.Extend(4); p != nil {
		binary.BigEndian.PutUint32(p, v)
	}
}

// Uint64 appends an unsigned hyper integer.
func (e *Encoder) Uint64(v uint64) {
	if p := e.Extend(8); p != nil {
		binary.BigEndian.PutUint64(p, v)
	}
}

// Bool appends a boolean.
func (e *Encoder) Bool(v bool) {
	if v {
		e.Uint32(1)
	} else {
		e.Uint32(0)
	}
}

// Opaque appends variable-length bytes with length and padding.
func (e *Encoder) Opaque(b []byte) {
	if p := e.Extend(4 + len(b) + Pad(len(b))); p != nil {
		binary.BigEndian.PutUint32(p, uint32(len(b)))
		clear(p[4+copy(p[4:], b):])
	}
}

// String appends a string, which XDR writes as opaque bytes.
func (e *Encoder) String(s string) {
	if p := e.Extend(4 + len(s) + Pad(len(s))); p != nil {
		binary.BigEndian.PutUint32(p, uint32(len(s)))
		clear(p[4+copy(p[4:], s):])
	}
}

// Padding appends the zeros that follow n bytes of opaque data.
func (e *Encoder) Padding(n int) { clear(e.Extend(Pad(n))) }

// SetUint32 overwrites the integer at position pos, which must have been
// written.
func (e *Encoder) SetUint32(pos int, v uint32) {
	binary.BigEndian.PutUint32(e.buf[pos:], v)
}
