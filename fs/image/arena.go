package image

import (
	"errors"
	"fmt"
	"unsafe"
)

// arena is bytes of a growing number, of which none moves: pieces of scratch.
type arena struct {
	store  *Store
	pieces []scratch
	used   uint64
}

// arenaPiece is the size of a piece, and the most that can be added at a time.
const arenaPiece = 1 << 20

// add appends b, all of it in one piece, and returns where it is.
func (a *arena) add(b []byte) (at uint64, err error) {
	m, at, err := a.alloc(uint64(len(b)))
	if err != nil {
		return 0, err
	}
	copy(m, b)
	return at, nil
}

// alloc is add for n bytes that are zero.
func (a *arena) alloc(n uint64) (m []byte, at uint64, err error) {
	if n > arenaPiece {
		return nil, 0, fmt.Errorf("%d bytes at a time are more than %d", n, arenaPiece)
	}
	if end := uint64(len(a.pieces)) * arenaPiece; a.used+n > end {
		more, err := newScratch(a.store, arenaPiece)
		if err != nil {
			return nil, 0, err
		}
		a.pieces = append(a.pieces, more)
		a.used = end
	}
	at = a.used
	a.used += n
	return a.bytes(at, n), at, nil
}

// bytes returns what was added at a place.
func (a *arena) bytes(at, n uint64) []byte {
	return a.pieces[at/arenaPiece].data[at%arenaPiece:][:n:n]
}

func (a *arena) close() {
	for _, m := range a.pieces {
		m.close()
	}
	a.pieces = nil
}

// records is records of type T, which has no pointers, in an arena, numbered from 1.
type records[T any] struct {
	arena
	n uint32
}

// perPiece is how many records a piece holds: they do not cross its end.
func (r *records[T]) perPiece() uint32 {
	var t T
	return uint32(arenaPiece / unsafe.Sizeof(t))
}

// add makes a record that is zero.
func (r *records[T]) add() (number uint32, t *T, err error) {
	if uint64(r.n) >= maxObjects {
		return 0, nil, errors.New("too many objects")
	}
	if _, _, err := r.alloc(uint64(unsafe.Sizeof(*t))); err != nil {
		return 0, nil, err
	}
	r.n++
	return r.n, r.at(r.n), nil
}

// at returns the record with that number.
func (r *records[T]) at(number uint32) *T {
	var t T
	i := number - 1
	off := uintptr(i%r.perPiece()) * unsafe.Sizeof(t)
	return (*T)(unsafe.Pointer(&r.pieces[i/r.perPiece()].data[off]))
}
