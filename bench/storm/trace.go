package storm

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	magic  = "rootnfsd trace "
	format = "1"
	fields = "# microseconds\tclient\tprocedure\toffset\tcount\tpath"

	// Bounds on what is read. A boot makes some thousand calls.
	maxLine  = 64 << 10
	maxCalls = 4 << 20
)

// MaxPath is the longest path that a trace may have, in bytes: each may be
// written as four.
const MaxPath = maxLine/4 - 1024

// Call is a line of a trace. The package's documentation says what the fields are.
type Call struct {
	At     time.Duration // of whole microseconds, never negative
	Client netip.Addr
	Proc   Proc
	Offset uint64
	Count  uint32
	Path   string
}

// Trace is a recording: calls in the order in which they arrived.
type Trace struct {
	Calls []Call
}

// Load reads the trace in a file.
func Load(path string) (*Trace, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	t, err := Parse(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

// Parse reads a trace. It puts the calls in order of time, which a recording of
// several connections may have got wrong by some microseconds.
func Parse(r io.Reader) (*Trace, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	if err := parseHeader(lines); err != nil {
		return nil, err
	}
	t := &Trace{}
	paths := map[string]string{} // to keep one copy of each
	for n := 2; lines.Scan(); n++ {
		line := lines.Text()
		if line == "" || line[0] == '#' {
			continue
		}
		if len(t.Calls) == maxCalls {
			return nil, fmt.Errorf("more than %d calls", maxCalls)
		}
		c, err := parseCall(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		path, known := paths[c.Path]
		if !known {
			path = strings.Clone(c.Path)
			paths[path] = path
		}
		c.Path = path
		t.Calls = append(t.Calls, c)
	}
	slices.SortStableFunc(t.Calls, func(a, b Call) int { return cmp.Compare(a.At, b.At) })
	return t, lines.Err()
}

func parseHeader(lines *bufio.Scanner) error {
	if !lines.Scan() {
		return cmp.Or(lines.Err(), errors.New("an empty file is not a trace"))
	}
	version, ok := strings.CutPrefix(lines.Text(), magic)
	switch {
	case !ok:
		return errors.New("not a trace: rootnfsd serve --record makes one")
	case version != format:
		return fmt.Errorf("a trace of format %.20q; this program reads format %s", version, format)
	}
	return nil
}

// parseCall reads a line that is no comment.
func parseCall(line string) (Call, error) {
	var c Call
	f := strings.SplitN(line, "\t", 6)
	if len(f) != 6 {
		return c, fmt.Errorf("%d fields, want 6 with tabs between them", len(f))
	}
	micros, err := strconv.ParseUint(f[0], 10, 53) // as a Duration it does not overflow
	if err != nil {
		return c, err
	}
	c.At = time.Duration(micros) * time.Microsecond
	if c.Client, err = netip.ParseAddr(f[1]); err != nil {
		return c, err
	}
	var known bool
	if c.Proc, known = procNamed(f[2]); !known {
		return c, fmt.Errorf("no procedure %.20q", f[2])
	}
	if c.Offset, err = strconv.ParseUint(f[3], 10, 64); err != nil {
		return c, err
	}
	count, err := strconv.ParseUint(f[4], 10, 32)
	if err != nil {
		return c, err
	}
	c.Count = uint32(count)
	c.Path, err = parsePath(f[5])
	return c, err
}

var errPathTooLong = fmt.Errorf("a path of more than %d bytes", MaxPath)

func parsePath(s string) (string, error) {
	if s == "" {
		return "", errors.New("no path")
	}
	path := s
	if s[0] == '"' {
		var err error
		if path, err = strconv.Unquote(s); err != nil {
			return "", fmt.Errorf("path %.80s: %w", s, err)
		}
	}
	if len(path) > MaxPath {
		return "", errPathTooLong
	}
	return path, nil
}

// appendPath appends a path as a trace has it.
func appendPath(b []byte, path string) []byte {
	start := len(b)
	b = strconv.AppendQuote(b, path)
	if path != "" && len(b)-start == len(path)+len(`""`) { // nothing was escaped
		b = append(b[:start], path...)
	}
	return b
}

// Writer writes a trace. It is for one goroutine.
type Writer struct {
	out  *bufio.Writer
	line []byte
}

// NewWriter returns a Writer to w that has written the header.
func NewWriter(w io.Writer) *Writer {
	out := bufio.NewWriterSize(w, 64<<10)
	out.WriteString(magic + format + "\n" + fields + "\n") // an error comes back with the next write
	return &Writer{out: out}
}

// Write writes a call. It is buffered until Flush. A path of more than
// MaxPath bytes is an error, and nothing is written.
func (w *Writer) Write(c Call) error {
	if len(c.Path) > MaxPath {
		return errPathTooLong
	}
	b := w.line[:0]
	b = strconv.AppendInt(b, c.At.Microseconds(), 10)
	b = append(b, '\t')
	b = c.Client.AppendTo(b)
	b = append(b, '\t')
	b = append(b, c.Proc.String()...)
	b = append(b, '\t')
	b = strconv.AppendUint(b, c.Offset, 10)
	b = append(b, '\t')
	b = strconv.AppendUint(b, uint64(c.Count), 10)
	b = append(b, '\t')
	b = appendPath(b, c.Path)
	w.line = append(b, '\n')
	_, err := w.out.Write(w.line)
	return err
}

// Comment writes a line that Parse ignores.
func (w *Writer) Comment(text string) error {
	_, err := fmt.Fprintf(w.out, "# %s\n", strings.ReplaceAll(text, "\n", " "))
	return err
}

// Flush writes what is buffered.
func (w *Writer) Flush() error { return w.out.Flush() }
