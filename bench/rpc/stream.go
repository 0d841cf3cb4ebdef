package rpc

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

const (
	// keepLimit is the largest reply that is kept whole. All replies are
	// smaller but those of READs, of which the head says everything.
	keepLimit = 64 << 10
	// headSize is what is kept of a larger one: more than comes before the data
	// of a READ, which is an RPC header of 28 bytes, or of 424 with the longest
	// verifier, and 104 bytes of results.
	headSize = 1 << 10
	// recordLimit is the largest reply that is believed: the largest READ that
	// any server offers, and its head.
	recordLimit = 64<<20 + headSize
	// fragmentLimit is how many fragments a record may be cut into.
	fragmentLimit = 1 << 16
)

// Errors of streams that are no longer good for anything.
var (
	errLongRecord    = fmt.Errorf("a reply of more than %d bytes", recordLimit)
	errManyFragments = fmt.Errorf("a reply of more than %d fragments", fragmentLimit)
)

// Stream finds the replies in what a connection receives, however it is cut into
// segments and fragments (RFC 5531, section 11). Who has the connection reads
// into Space, reports it by Filled, and takes replies from Next until there is
// none; it may throw away Excess bytes instead of reading them. The zero Stream
// is ready to use.
type Stream struct {
	buf  []byte
	r, w int // what is in buf and not parsed yet

	skip int // bytes of the current fragment that are of no interest
	bulk bool

	// A record of several fragments is put together here.
	parts     []byte
	fragment  int  // bytes of the current fragment still to come
	last      bool // the current fragment ends the record
	fragments int
	total     int // bytes of the record, dropped ones included
}

// Space returns where to read to: room for a whole reply, or for just the head
// of one where large ones arrive, so that the rest can be skipped.
func (s *Stream) Space() []byte {
	if s.buf == nil {
		s.buf = make([]byte, wire.MarkSize+keepLimit)
	}
	if s.r == s.w {
		s.r, s.w = 0, 0
	} else if s.r > 0 {
		s.w = copy(s.buf, s.buf[s.r:s.w])
		s.r = 0
	}
	if s.bulk && s.w < headSize {
		return s.buf[s.w:headSize]
	}
	return s.buf[s.w:]
}

// Filled says that n bytes were read into Space.
func (s *Stream) Filled(n int) { s.w += n }

// Excess returns how many of the bytes that arrive next are of no interest.
func (s *Stream) Excess() int {
	if s.r < s.w {
		return 0 // Next has not seen them all
	}
	return s.skip
}

// Skipped says that n of the Excess bytes were thrown away.
func (s *Stream) Skipped(n int) { s.skip -= n }

// Next decodes the next reply into r and reports whether one is there. The reply
// is valid until Next or Space is called. After an error the stream is useless.
func (s *Stream) Next(r *Reply) (bool, error) {
	for {
		n := min(s.skip, s.w-s.r)
		s.r += n
		s.skip -= n
		if s.skip > 0 {
			return false, nil
		}
		if s.fragments > 0 {
			if !s.gather() {
				return false, nil
			}
			if s.fragment == 0 && s.last {
				return true, s.finish(r)
			}
		}
		if s.w-s.r < wire.MarkSize {
			return false, nil
		}
		size, last := wire.ParseMark(s.buf[s.r:])
		if size > recordLimit {
			return false, errLongRecord
		}
		if last && s.fragments == 0 {
			return s.whole(r, int(size))
		}
		if err := s.beginFragment(int(size), last); err != nil {
			return false, err
		}
	}
}

// whole decodes a record that is one fragment, as nearly all are, in place.
func (s *Stream) whole(r *Reply, size int) (bool, error) {
	need := size
	if size > keepLimit {
		need = headSize
	}
	body := s.buf[s.r+wire.MarkSize : s.w]
	if len(body) < need {
		s.bulk = s.bulk || size > keepLimit
		return false, nil
	}
	s.bulk = size > keepLimit
	body = body[:min(size, len(body))]
	s.r += wire.MarkSize + len(body)
	s.skip = size - len(body)
	return true, r.decode(body, size)
}

// beginFragment starts on a fragment of a record that has several.
func (s *Stream) beginFragment(size int, last bool) error {
	s.r += wire.MarkSize
	s.fragment, s.last = size, last
	s.fragments++
	s.total += size
	switch {
	case s.total > recordLimit:
		return errLongRecord
	case s.fragments > fragmentLimit:
		return errManyFragments
	}
	return nil
}

// gather copies what is there of the current fragment, up to the limit of what
// is kept, and reports whether that was the last of it.
func (s *Stream) gather() bool {
	n := min(s.fragment, s.w-s.r, keepLimit-len(s.parts))
	s.parts = append(s.parts, s.buf[s.r:s.r+n]...)
	s.r += n
	s.fragment -= n
	if len(s.parts) == keepLimit {
		s.skip, s.fragment = s.fragment, 0
		n = min(s.skip, s.w-s.r)
		s.r += n
		s.skip -= n
	}
	return s.fragment == 0 && s.skip == 0
}

// finish decodes a record of several fragments.
func (s *Stream) finish(r *Reply) error {
	body, total := s.parts, s.total
	s.parts, s.fragments, s.total = s.parts[:0], 0, 0
	return r.decode(body, total)
}

// errNotReply says that a peer sends something that no server sends.
var errNotReply = errors.New("a record that is no reply")

// ReadFrom reads once from a socket: into Space, or away if there is Excess.
func (s *Stream) ReadFrom(fd int) (n int, err error) {
	for {
		if excess := s.Excess(); excess > 0 {
			n, err = discard(fd, excess)
			s.Skipped(n)
		} else {
			n, err = unix.Read(fd, s.Space())
			n = max(n, 0)
			s.Filled(n)
		}
		if err != unix.EINTR {
			return n, err
		}
	}
}

// discard takes at most n bytes off a TCP socket without copying them: that is
// what MSG_TRUNC does there (tcp(7)).
func discard(fd, n int) (int, error) {
	got, _, errno := unix.Syscall6(unix.SYS_RECVFROM, uintptr(fd), 0, uintptr(n), unix.MSG_TRUNC, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(got), nil
}

// wants returns how many bytes the next ReadFrom asks for.
func (s *Stream) wants() int {
	if excess := s.Excess(); excess > 0 {
		return excess
	}
	return len(s.Space())
}
