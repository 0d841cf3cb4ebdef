package image

import (
	"bufio"
	"io"
	"os"

	"github.com/rootnfsd/rootnfsd/fs/durable"
)

// spool is a section of an index in the making: a file without a name, so that
// a seal holds in memory only a few bytes for each new chunk.
type spool struct {
	f *os.File
	w *bufio.Writer
	n uint64 // bytes written
}

func newSpool(s *Store) (*spool, error) {
	f, err := durable.CreateTemp(s.versionsDir(), 0o600)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return &spool{f: f, w: bufio.NewWriterSize(frugal{s, f}, 64<<10)}, nil
}

// write appends b. An error shows at finish.
func (s *spool) write(b []byte) {
	s.n += uint64(len(b))
	_, _ = s.w.Write(b) // a bufio.Writer keeps its first error for Flush
}

// finish makes all that was written readable.
func (s *spool) finish() error { return s.w.Flush() }

// readAt reads what was written at off.
func (s *spool) readAt(b []byte, off int64) error {
	if err := s.w.Flush(); err != nil {
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
