package lzma2_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/ulikunitz/xz/lzma"

	"github.com/rootnfsd/rootnfsd/fs/source/compressed/lzma2"
)

// encode has xz encode some bytes, without anything around the chunks.
func encode(t testing.TB, content []byte, options string) []byte {
	t.Helper()
	if _, err := exec.LookPath("xz"); err != nil {
		if os.Getenv("ROOTNFSD_TEST_ALL") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	cmd := exec.Command("xz", "-c", "--format=raw", "--lzma2="+options)
	cmd.Stdin = bytes.NewReader(content)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("xz --lzma2=%s: %v", options, err)
	}
	return out
}

// sample is some text, some of a program, what is random and what repeats from near and far.
func sample(t testing.TB) []byte {
	t.Helper()
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	program = program[:min(len(program), 400<<10)]
	random := make([]byte, 100<<10)
	for i, r := 0, rand.New(rand.NewPCG(1, 2)); i < len(random); i++ {
		random[i] = byte(r.Uint32())
	}
	var text strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&text, "line %d of %x\n", i, i*i)
	}
	return bytes.Join([][]byte{[]byte(text.String()), program, random, make([]byte, 500<<10), random[:70<<10], program[:300<<10],
		bytes.Repeat([]byte("abc"), 50_000)}, nil)
}

// TestReader decodes what xz makes of all of its presets and parameters, and of a
// dictionary that is much smaller than the content.
func TestReader(t *testing.T) {
	content := sample(t)
	options := []string{"lc=0,lp=4,pb=0", "lc=4,lp=0,pb=4", "lc=1,lp=3,pb=1", "lc=0,lp=0,pb=3", "dict=4KiB", "dict=6KiB", "dict=96KiB",
		"dict=384KiB", "mode=fast,mf=hc3", "nice=273,mf=bt3"}
	for i := range 10 {
		options = append(options, fmt.Sprintf("preset=%d,dict=1MiB", i))
	}
	options = append(options, "preset=0e,dict=2MiB", "preset=9e,dict=2MiB")
	if testing.Short() {
		options = options[:10]
	}
	for _, o := range options {
		t.Run(o, func(t *testing.T) {
			t.Parallel()
			dict := 8 << 20
			if _, size, ok := strings.Cut(o, "dict="); ok {
				unit := ""
				if _, err := fmt.Sscanf(size, "%d%s", &dict, &unit); err != nil {
					t.Fatal(err)
				}
				dict <<= map[string]int{"KiB": 10, "MiB": 20}[unit]
			}
			b := encode(t, content, o)
			r := bufio.NewReader(bytes.NewReader(append(b, "behind"...)))
			got, err := io.ReadAll(lzma2.NewReader(r, dict))
			if err != nil || !bytes.Equal(got, content) {
				t.Errorf("%d bytes, %v; want %d", len(got), err, len(content))
			}
			if rest, _ := io.ReadAll(r); string(rest) != "behind" {
				t.Errorf("it read too much, or too little: %q is left", rest)
			}
		})
	}
}

// TestPieces: how much is read at a time makes no difference, and how much there is of a
// chunk neither.
func TestPieces(t *testing.T) {
	content := sample(t)[100<<10 : 700<<10]
	b := encode(t, content, "preset=1,dict=64KiB")
	for _, r := range []io.Reader{
		iotest.OneByteReader(lzma2.NewReader(bytes.NewReader(b), 64<<10)),
		iotest.HalfReader(lzma2.NewReader(bufio.NewReader(iotest.HalfReader(bytes.NewReader(b))), 64<<10)),
	} {
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	}
}

// TestCorrupt: what is cut short or says what cannot be is refused.
func TestCorrupt(t *testing.T) {
	content := []byte(strings.Repeat("some text that repeats, ", 100))
	b := encode(t, content, "preset=6")
	for n := range len(b) {
		if _, err := io.ReadAll(lzma2.NewReader(bytes.NewReader(b[:n]), 1<<20)); err != io.ErrUnexpectedEOF {
			t.Fatalf("%d of %d bytes: %v", n, len(b), err)
		}
	}
	change := func(what string, f func(b []byte)) {
		t.Helper()
		c := bytes.Clone(b)
		f(c)
		if got, err := io.ReadAll(lzma2.NewReader(bytes.NewReader(c), 1<<20)); err == nil {
			t.Errorf("%s: %d bytes, and no error", what, len(got))
		}
	}
	change("no dictionary yet", func(b []byte) { b[0] -= 0x20 })
	change("an unknown chunk", func(b []byte) { b[0] = 3 })
	change("lc and lp too large", func(b []byte) { b[5] = 4*9 + 4 })
	change("pb too large", func(b []byte) { b[5] = 225 })
	change("first byte", func(b []byte) { b[6] = 1 })
	change("a byte less than there is", func(b []byte) { binary.BigEndian.PutUint16(b[1:], uint16(len(content)-2)) })
	change("a byte more than there is", func(b []byte) { binary.BigEndian.PutUint16(b[1:], uint16(len(content))) })
	longer := append(bytes.Clone(b[:len(b)-1]), 0, 0) // a byte behind the content, in the chunk
	binary.BigEndian.PutUint16(longer[3:], binary.BigEndian.Uint16(b[3:])+1)
	if _, err := io.ReadAll(lzma2.NewReader(bytes.NewReader(longer), 1<<20)); err == nil {
		t.Error("a chunk that is longer than its content is accepted")
	}
	// A match further back than the dictionary reaches.
	far := encode(t, bytes.Repeat(sample(t)[:8<<10], 2), "preset=0,dict=64KiB")
	if got, err := io.ReadAll(lzma2.NewReader(bytes.NewReader(far), 4<<10)); err == nil {
		t.Errorf("a match too far back: %d bytes", len(got))
	}
}

// TestMemory: what a stream claims is not allocated before there is content.
func TestMemory(t *testing.T) {
	b := encode(t, []byte("x"), "preset=0")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := io.ReadAll(lzma2.NewReader(bytes.NewReader(b), 128<<20)); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
		t.Errorf("%d bytes for one of content", n)
	}
}

// FuzzReader compares with another decoder: what is taken here must be taken there, and
// be the same.
func FuzzReader(f *testing.F) {
	content := sample(f)
	for _, o := range []string{"preset=0", "lc=0,lp=4,pb=0", "dict=4KiB"} {
		f.Add(encode(f, content[:3000], o))
		f.Add(encode(f, content[len(content)-3000:], o))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		const dict, most = 4 << 10, 64 << 10
		got, err := io.ReadAll(io.LimitReader(lzma2.NewReader(bytes.NewReader(b), dict), most))
		if err != nil || len(got) == most {
			return
		}
		r, err := lzma.Reader2Config{DictCap: dict}.NewReader2(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		want, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes; by the other decoder %d, %v", len(got), len(want), err)
		}
	})
}
