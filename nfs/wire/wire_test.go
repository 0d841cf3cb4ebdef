package wire

import (
	"bytes"
	"testing"
)

// message is every kind of item, as an Encoder writes it.
func message(e *Encoder) {
	e.Uint32(7)
	e.Uint64(1 << 40)
	e.Bool(true)
	e.Opaque([]byte("abcde"))
	e.String("")
	e.String("abcd")
	e.Bool(false)
}

// readMessage reads it back and reports whether that worked.
func readMessage(d *Decoder) bool {
	a, b, c := d.Uint32(), d.Uint64(), d.Bool()
	s, empty, t := d.Opaque(5), d.Opaque(0), d.FixedOpaque(8) // length and text
	z := d.Bool()
	return d.Done() && a == 7 && b == 1<<40 && c && string(s) == "abcde" &&
		empty != nil && len(empty) == 0 && string(t) == "\x00\x00\x00\x04abcd" && !z
}

func TestRoundTrip(t *testing.T) {
	var e Encoder
	e.Reset(make([]byte, 100))
	message(&e)
	want := "\x00\x00\x00\x07" + "\x00\x00\x01\x00\x00\x00\x00\x00" + "\x00\x00\x00\x01" +
		"\x00\x00\x00\x05abcde\x00\x00\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x04abcd" + "\x00\x00\x00\x00"
	if string(e.Bytes()) != want {
		t.Fatalf("encoded %x, want %x", e.Bytes(), want)
	}
	d := NewDecoder(e.Bytes())
	if !readMessage(&d) {
		t.Error("not read back")
	}
	for n := range e.Len() {
		d := NewDecoder(e.Bytes()[:n])
		if readMessage(&d) || d.OK() {
			t.Errorf("cut to %d bytes it is still good", n)
		}
	}
}

func TestEncoderOverflow(t *testing.T) {
	var e Encoder
	e.Reset(make([]byte, 100))
	message(&e)
	full := e.Len()
	for n := range full {
		buf := bytes.Repeat([]byte{0xee}, 100)
		e.Reset(buf[:0:n])
		message(&e)
		if !e.Overflow() || e.Len() > n {
			t.Errorf("room of %d: overflow %v with %d bytes", n, e.Overflow(), e.Len())
		}
		if !bytes.Equal(buf[n:], bytes.Repeat([]byte{0xee}, 100-n)) {
			t.Errorf("room of %d: wrote beyond it", n)
		}
		e.Truncate(0)
		if e.Overflow() {
			t.Error("Truncate does not take the overflow back")
		}
	}
}

// Padding is zeros even where the buffer held something else.
func TestPaddingIsZero(t *testing.T) {
	var e Encoder
	e.Reset(bytes.Repeat([]byte{0xee}, 64))
	e.Opaque([]byte{1})
	e.String("22")
	e.Extend(1)[0] = 3
	e.Padding(1)
	if want := []byte{0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 2, '2', '2', 0, 0, 3, 0, 0, 0}; !bytes.Equal(e.Bytes(), want) {
		t.Errorf("% x", e.Bytes())
	}
}

func TestDecoderRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		in   string
		read func(d *Decoder)
	}{
		"a bool of 2":             {"\x00\x00\x00\x02", func(d *Decoder) { d.Bool() }},
		"a length of 4 GiB":       {"\xff\xff\xff\xff" + "abcd", func(d *Decoder) { d.Opaque(1 << 30) }},
		"a length over the limit": {"\x00\x00\x00\x04" + "abcd", func(d *Decoder) { d.Opaque(3) }},
		"missing padding":         {"\x00\x00\x00\x03" + "abc", func(d *Decoder) { d.Opaque(10) }},
		"a negative size":         {"abcd", func(d *Decoder) { d.FixedOpaque(-4) }},
		"a huge size":             {"abcd", func(d *Decoder) { d.FixedOpaque(1<<31 - 1) }},
		"what follows a failure":  {"abcd", func(d *Decoder) { d.Fail(); d.Uint32() }},
	} {
		d := NewDecoder([]byte(c.in))
		c.read(&d)
		if d.OK() || d.Done() {
			t.Errorf("%s is taken", name)
		}
	}
}

func TestDecoderToleratesPadding(t *testing.T) {
	d := NewDecoder([]byte("\x00\x00\x00\x03abc\xff"))
	if s := d.Opaque(3); string(s) != "abc" || cap(s) != 3 || !d.Done() {
		t.Errorf("%q, cap %d, done %v", s, cap(s), d.Done())
	}
}

func TestMark(t *testing.T) {
	var e Encoder
	e.Reset(make([]byte, 64))
	e.Uint32(1)
	pos := e.BeginRecord()
	e.Uint64(2)
	e.EndRecord(pos, 100)
	if n, last := ParseMark(e.Bytes()[pos:]); n != 108 || !last {
		t.Errorf("mark of %d bytes, last %v", n, last)
	}
	if n, last := ParseMark([]byte{0, 0, 0, 5}); n != 5 || last {
		t.Errorf("mark of %d bytes, last %v", n, last)
	}
}
