package wire

import "encoding/binary"

// Decoder reads XDR from a byte slice. The first item that is not there, or that
// breaks a bound, makes every later one fail too, so a list of fields is read
// straight through and checked once, with Done.
//
// What it returns aliases the input. The zero Decoder has nothing to read.
type Decoder struct {
	rest []byte
	bad  bool
}

// NewDecoder returns a Decoder of b.
func NewDecoder(b []byte) Decoder { return Decoder{rest: b} }

// Fail marks the input as bad, for a value that XDR allows and its type does not.
func (d *Decoder) Fail() { d.rest, d.bad = nil, true }

// OK reports whether everything asked for so far was there.
func (d *Decoder) OK() bool { return !d.bad }

// Done reports whether everything asked for was there and nothing is left over.
func (d *Decoder) Done() bool { return !d.bad && len(d.rest) == 0 }

// Len returns how many bytes are left.
func (d *Decoder) Len() int { return len(d.rest) }

// Uint32 reads an unsigned integer, or 0 if there is none.
func (d *Decoder) Uint32() uint32 {
	if len(d.rest) < 4 {
		d.Fail()
		return 0
	}
	v := binary.BigEndian.Uint32(d.rest)
	d.rest = d.rest[4:]
	return v
}

// Uint64 reads an unsigned hyper integer, or 0 if there is none.
func (d *Decoder) Uint64() uint64 {
	if len(d.rest) < 8 {
		d.Fail()
		return 0
	}
	v := binary.BigEndian.Uint64(d.rest)
	d.rest = d.rest[8:]
	return v
}

// Bool reads a boolean. Anything but 0 and 1 is bad (RFC 4506, section 4.4).
func (d *Decoder) Bool() bool {
	v := d.Uint32()
	if v > 1 {
		d.Fail()
	}
	return v == 1
}

// FixedOpaque reads n bytes and their padding. Padding may hold any bytes:
// RFC 4506 wants zeros, but no peer in use checks, and they mean nothing.
func (d *Decoder) FixedOpaque(n int) []byte {
	padded := n + Pad(n)
	if n < 0 || padded < n || len(d.rest) < padded {
		d.Fail()
		return nil
	}
	p := d.rest[:n:n]
	d.rest = d.rest[padded:]
	return p
}

// Opaque reads variable-length bytes, at most limit of them. A string is read
// the same way. It returns nil if there is none, and never nil for an empty one
// that is there.
func (d *Decoder) Opaque(limit int) []byte {
	n := d.Uint32()
	if d.bad || uint64(n) > uint64(limit) || uint64(n) > uint64(len(d.rest)) {
		d.Fail()
		return nil
	}
	return d.FixedOpaque(int(n))
}

// Pad returns how many bytes of padding follow n bytes of opaque data.
func Pad(n int) int { return -n & 3 }
