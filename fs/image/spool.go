package image

import (
	"fmt"
	"io"
	"os"

	"github.com/rootnfsd/rootnfsd/fs/durable"
)

// spool is a section of an index in the making: a file without a name, so that
// what a seal holds in memory does not grow with the tree.
type spool struct {
	f   *os.File
	w   frugal
	buf []byte // what is not in the file yet
	n   uint64 // bytes written, those in buf among them
	err error
}

// spoolBuffer is how much a spool collects before it writes.
const spoolBuffer = 64 << 10

// fileBuffer is the same for the files that stay.
const fileBuffer = 256 << 10

func newSpool(s *Store) (*spool, error) {
	f, err := nameless(s.versionsDir())
	if err != nil {
		return nil, err
	}
	return &spool{f: f, w: frugal{s, f}, buf: make([]byte, 0, spoolBuffer)}, nil
}

// nameless makes a file without a name in a directory of the store.
func nameless(dir string) (*os.File, error) {
	f, err := durable.CreateTemp(dir, 0o600)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Spool copies a stream into a file without a name on the disk of the store, for whom it
// is to be read from anywhere: not more than most bytes. Blocks of zeros take no room. As
// a seal does, it leaves a reserve free on the disk. The caller closes the file.
func (s *Store) Spool(from io.Reader, most uint64) (*os.File, error) {
	if err := makeDir(s.StateDir(), 0o755); err != nil {
		return nil, err
	}
	f, err := nameless(s.StateDir())
	if err != nil {
		return nil, err
	}
	if err := (frugal{s, f}).copy(from, most); err != nil {
		f.Close()
		return nil, s.explainSpace(err)
	}
	return f, nil
}

// copy writes a stream to the file, which is empty, and leaves holes in it.
func (w frugal) copy(from io.Reader, most uint64) error {
	buf := make([]byte, fileBuffer)
	for at := uint64(0); ; {
		n, err := io.ReadFull(from, buf)
		b := buf[:n]
		if at+uint64(n) > most {
			return fmt.Errorf("there are more than %s of it: %w", formatBytes(most), ErrTooMuch)
		}
		if !isZero(b) {
			if err := w.check(uint64(n)); err != nil {
				return err
			}
			if _, err := w.f.WriteAt(b, int64(at)); err != nil {
				return err
			}
		}
		at += uint64(n)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return w.f.Truncate(int64(at))
		}
		if err != nil {
			return err
		}
	}
}

// write appends b. An error shows at finish. Unlike a bufio.Writer it hands b to
// nobody, so that the records of an object need no memory of their own.
func (s *spool) write(b []byte) {
	s.n += uint64(len(b))
	s.makeRoom(len(b))
	s.buf = append(s.buf, b...)
}

// writeString is write.
func (s *spool) writeString(text string) {
	s.n += uint64(len(text))
	s.makeRoom(len(text))
	s.buf = append(s.buf, text...)
}

// makeRoom empties the buffer if n bytes more are too many for it.
func (s *spool) makeRoom(n int) {
	if len(s.buf)+n > spoolBuffer {
		_ = s.finish()
	}
}

// finish makes all that was written readable.
func (s *spool) finish() error {
	if s.err == nil && len(s.buf) > 0 {
		_, s.err = s.w.Write(s.buf)
	}
	s.buf = s.buf[:0]
	return s.err
}

// readAt reads what was written at off.
func (s *spool) readAt(b []byte, off int64) error {
	if err := s.finish(); err != nil {
		return err
	}
	_, err := s.f.ReadAt(b, off)
	return err
}

// patch overwrites what was written at off. It is for after finish.
func (s *spool) patch(b []byte, off int64) error {
	_, err := s.f.WriteAt(b, off)
	return err
}

// behind reads at off what may be in the buffer still, and returns how much that was.
func (s *spool) behind(b []byte, off uint64) (int, error) {
	if inFile := s.n - uint64(len(s.buf)); off < inFile {
		n, err := s.f.ReadAt(b[:min(uint64(len(b)), inFile-off)], int64(off))
		return n, err
	} else if n := copy(b, s.buf[off-inFile:]); n > 0 {
		return n, nil
	}
	return 0, io.EOF
}

// reader reads all that was written. It is for after finish.
func (s *spool) reader() io.Reader { return io.NewSectionReader(s.f, 0, int64(s.n)) }

// copyTo writes the section with its padding.
func (s *spool) copyTo(w io.Writer) error {
	if _, err := io.Copy(w, s.reader()); err != nil {
		return err
	}
	_, err := w.Write(make([]byte, padded(s.n)-s.n))
	return err
}

func (s *spool) close() { s.f.Close() }
