package compressed_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"testing"

	"github.com/rootnfsd/rootnfsd/fs/fstest"
	"github.com/rootnfsd/rootnfsd/fs/source/compressed"
)

// pipe runs a program on some bytes.
func pipe(t testing.TB, in []byte, name string, args ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		if os.Getenv("ROOTNFSD_TEST_ALL") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	cmd := exec.Command(name, args...)
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return out
}

func unpack(b []byte) ([]byte, string, error) {
	r, format, err := compressed.Open(bytes.NewReader(b))
	if err != nil {
		return nil, format, err
	}
	out, err := io.ReadAll(r)
	return out, format, err
}

// TestFormats unpacks what the usual programs make, also two streams behind each other.
func TestFormats(t *testing.T) {
	content := append(fstest.Bytes(150_000), bytes.Repeat([]byte("text that repeats\n"), 5_000)...)
	for _, c := range [][]string{
		{"gzip", "-c"}, {"bzip2", "-c"}, {"zstd", "-c"}, {"zstd", "-c", "--long=27"}, {"xz", "-c"},
		{"xz", "-c", "-T2", "--block-size=100KiB"}, {"xz", "-c", "-T2", "--block-size=100KiB", "--check=none"},
		{"xz", "-c", "-T2", "--block-size=100KiB", "--check=sha256"}, {"xz", "-c", "-T1", "--block-size=100KiB"},
	} {
		b := pipe(t, content, c[0], c[1:]...)
		for n, want := range map[int][]byte{1: content, 2: append(bytes.Clone(content), content...)} {
			got, format, err := unpack(bytes.Repeat(b, n))
			if err != nil || format != c[0] || !bytes.Equal(got, want) {
				t.Errorf("%q, %d times: %s, %d bytes, %v; want %d", c, n, format, len(got), err, len(want))
			}
		}
		for _, n := range []int{len(b) - 1, len(b) / 2, 20} {
			if got, _, err := unpack(b[:n]); err == nil {
				t.Errorf("%q: %d of %d bytes are taken for all: %d bytes", c, n, len(b), len(got))
			}
		}
		if c[len(c)-1] == "--check=none" {
			continue
		}
		damaged := bytes.Clone(b)
		for i := range 8 {
			damaged[len(b)/2+i] ^= 0x55
		}
		if got, _, err := unpack(damaged); err == nil {
			t.Errorf("%q: damaged, and %d bytes come of it", c, len(got))
		}
	}
	several, one := pipe(t, content, "xz", "-c", "-T2", "--block-size=100KiB"), pipe(t, content, "xz", "-c", "-T1")
	for _, b := range [][]byte{append(bytes.Clone(several), one...), append(bytes.Clone(one), several...)} {
		if got, _, err := unpack(b); err != nil || len(got) != 2*len(content) {
			t.Errorf("streams of two kinds: %d bytes, %v", len(got), err)
		}
	}
	if got, format, err := unpack(content); err != nil || format != "" || !bytes.Equal(got, content) {
		t.Errorf("not compressed: %q, %d bytes, %v", format, len(got), err)
	}
}

// TestTails: zeros behind gzip's last member are no damage, as when a file was written in
// whole blocks, and anything else is. In zstd, frames without content may come first.
func TestTails(t *testing.T) {
	content := fstest.Bytes(150_000)
	b := pipe(t, content, "gzip", "-c")
	twice := append(bytes.Clone(b), b...)
	for name, c := range map[string]struct {
		packed []byte
		times  int // that the content is in it; 0 if it is damaged
	}{
		"one zero":          {append(bytes.Clone(b), 0), 1},
		"a block of zeros":  {append(bytes.Clone(twice), make([]byte, 300<<10)...), 2},
		"a byte":            {append(bytes.Clone(b), 1), 0},
		"the magic alone":   {append(bytes.Clone(b), 0x1f, 0x8b), 0},
		"zeros and a byte":  {append(append(bytes.Clone(b), 0, 0), 1), 0},
		"zeros and gzip":    {append(append(bytes.Clone(b), 0, 0), b...), 0},
		"a member cut off":  {twice[:len(twice)-9], 0},
		"half a name":       {append(bytes.Clone(b), "\x1f\x8b\x08\x08\x00\x00\x00\x00\x00\x03na"...), 0},
		"one, and no zeros": {b, 1},
	} {
		got, _, err := unpack(c.packed)
		if c.times == 0 && err == nil || c.times > 0 && (err != nil || !bytes.Equal(got, bytes.Repeat(content, c.times))) {
			t.Errorf("%s: %d bytes, %v; want the content %d times", name, len(got), err, c.times)
		}
	}
	frame := pipe(t, content, "zstd", "-c")
	for _, first := range []byte{0x50, 0x5F} {
		skipped := []byte{first, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4}
		if got, format, err := unpack(append(skipped, frame...)); err != nil || format != "zstd" || !bytes.Equal(got, content) {
			t.Errorf("a frame %#x first: %s, %d bytes, %v", first, format, len(got), err)
		}
	}
}

// TestBounds: a stream that asks for much memory is refused before it gets any.
func TestBounds(t *testing.T) {
	b := pipe(t, []byte("x"), "xz", "-c", "--lzma2=preset=0,dict=256MiB")
	if _, _, err := unpack(b); err == nil {
		t.Error("a dictionary of 256 MiB is accepted")
	}
	modest := pipe(t, []byte("x"), "xz", "-c", "-T1")
	if _, _, err := unpack(append(modest, b...)); err == nil {
		t.Error("a dictionary of 256 MiB is accepted in a later block")
	}
	if _, _, err := unpack(pipe(t, bytes.Repeat([]byte("x"), 1<<20), "zstd", "-c", "-1", "--long=28")); err == nil {
		t.Error("a window of 256 MiB is accepted")
	}
}

// TestIndex: an index that is whole, but not that of the blocks, is noticed.
func TestIndex(t *testing.T) {
	const footer = 12
	for _, flag := range []string{"-T1", "-T2"} {
		b := pipe(t, fstest.Bytes(5000), "xz", "-c", flag)
		end := len(b) - footer
		index := b[end-(int(binary.LittleEndian.Uint32(b[end+4:]))+1)*4 : end]
		index[2] ^= 1 // the size of the first block
		binary.LittleEndian.PutUint32(index[len(index)-4:], crc32.ChecksumIEEE(index[:len(index)-4]))
		if _, _, err := unpack(b); err == nil {
			t.Errorf("%s: an index of other blocks is accepted", flag)
		}
	}
}

func TestAhead(t *testing.T) {
	content := fstest.Bytes(1_000_000)
	broken := errors.New("broken")
	got, err := io.ReadAll(compressed.Ahead(t.Context(), io.MultiReader(bytes.NewReader(content), failing{broken})))
	if err != broken || !bytes.Equal(got, content) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	for n, want := range map[int]error{0: io.EOF, 100: io.EOF, 5000: io.EOF, 101: broken, 5001: broken} {
		there := min(n, 5000) / 100 * 100
		ahead := compressed.Ahead(t.Context(), io.MultiReader(bytes.NewReader(content[:there]), failing{want}))
		start, err := ahead.Peek(4096)
		if short := there < 4096; short && want == broken {
			if err != broken {
				t.Errorf("%d bytes, then %v: %d begin it, %v", there, want, len(start), err)
			}
			continue
		}
		if err != nil || !bytes.Equal(start, content[:min(there, 4096)]) {
			t.Errorf("%d bytes, then %v: %d begin it, %v", there, want, len(start), err)
		}
		if all, err := io.ReadAll(ahead); !bytes.Equal(all, content[:there]) || want == io.EOF && err != nil || want != io.EOF && err != want {
			t.Errorf("%d bytes, then %v: %d read, %v", there, want, len(all), err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe() // into which nobody writes
	defer w.Close()
	ahead := compressed.Ahead(ctx, r)
	cancel()
	if _, err := ahead.Read(make([]byte, 1)); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped: %v", err)
	}
	if _, err := ahead.Peek(1); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped: Peek: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
