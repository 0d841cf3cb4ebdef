package tftp

import (
	"io"
	"sort"
)

// maxNetascii is the size of the largest file that is translated. To know how
// long the translation is, all of it is read; who wants more than a text that
// way has forgotten to ask for octet.
const maxNetascii = 1 << 20

// netasciiPiece is how much is translated at once.
const netasciiPiece = 2 << 10

// netascii is a File as text for the network (RFC 1350, section 1, and RFC 764):
// a line ends with CR LF, and a CR that ends none is CR NUL.
type netascii struct {
	File
	ends  []int64 // where the translation of each piece ends
	piece [netasciiPiece]byte
}

// translate returns f as netascii, and closes it if that cannot be. It waits for disks.
func translate(f File) (text File, err error) {
	defer func() {
		if text == nil { // by a panic, too
			f.Close()
		}
	}()
	size := f.Size()
	if size > maxNetascii {
		return nil, &Error{CodeUndefined, "too large for netascii: ask for octet, which some clients call binary"}
	}
	t := &netascii{File: f}
	end := int64(0)
	for off := int64(0); off < size; off += netasciiPiece {
		p, err := t.read(off, false)
		if err != nil {
			return nil, err
		}
		for _, c := range p {
			_, n := translated(c)
			end += int64(n)
		}
		t.ends = append(t.ends, end)
	}
	return t, nil
}

// translated is what c is sent as: one byte of the two, or both.
func translated(c byte) ([2]byte, int) {
	switch c {
	case '\n':
		return [2]byte{'\r', '\n'}, 2
	case '\r':
		return [2]byte{'\r', 0}, 2
	}
	return [2]byte{c}, 1
}

// read reads the piece at off.
func (t *netascii) read(off int64, nowait bool) ([]byte, error) {
	p := t.piece[:min(netasciiPiece, t.File.Size()-off)]
	n, err := t.File.ReadAt(p, off, nowait)
	switch {
	case n == len(p):
		return p, nil
	case err == nil || err == io.EOF:
		return nil, io.ErrUnexpectedEOF
	}
	return nil, err
}

// Confirmed implements Confirmer for a file that is one.
func (t *netascii) Confirmed() {
	if f, ok := t.File.(Confirmer); ok {
		f.Confirmed()
	}
}

// Size is the length of the translation.
func (t *netascii) Size() int64 {
	if len(t.ends) == 0 {
		return 0
	}
	return t.ends[len(t.ends)-1]
}

// ReadAt reads the translation.
func (t *netascii) ReadAt(p []byte, off int64, nowait bool) (int, error) {
	n := 0
	for i := sort.Search(len(t.ends), func(i int) bool { return t.ends[i] > off }); i < len(t.ends) && n < len(p); i++ {
		piece, err := t.read(int64(i)*netasciiPiece, nowait)
		if err != nil {
			return n, err
		}
		skip := off + int64(n) // in the translation of this piece
		if i > 0 {
			skip -= t.ends[i-1]
		}
		for _, c := range piece {
			two, k := translated(c)
			if skip >= int64(k) {
				skip -= int64(k)
				continue
			}
			n += copy(p[n:], two[skip:k])
			skip = 0
			if n == len(p) {
				return n, nil
			}
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
