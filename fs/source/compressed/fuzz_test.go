package compressed

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"io"
	"testing"
)

// FuzzXZ gives what we read of the format ourselves anything.
func FuzzXZ(f *testing.F) {
	f.Add([]byte("\x03\xc0\xa0\x1f\xa0\x1f\x21\x01\x16\x00\x00\x00\x00\x00\x00\x00"), uint64(0))
	f.Add([]byte("\x00\x01\xac\x02\x90\x4e\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x04YZ"), uint64(1))
	f.Fuzz(func(t *testing.T, b []byte, blocks uint64) {
		if len(b) >= 8 {
			h, err := parseXZHeader(b[:len(b)&^3], maxWindow)
			if err == nil && h.dictionary > maxWindow {
				t.Errorf("a dictionary of %d bytes", h.dictionary)
			}
			if err == nil && h.isWhole() && (h.compressed > maxBlock || h.uncompressed > maxBlock) {
				t.Errorf("a block of %d and %d bytes is decoded as a whole", h.compressed, h.uncompressed)
			}
			h.size, h.compressed, h.uncompressed, h.dictionary = 12, int64(len(b)), 100, 4096
			_, _ = decodeXZ(b, h, [2]byte{0, checkNone})
		}
		r := bufio.NewReader(io.MultiReader(bytes.NewReader([]byte{0}), bytes.NewReader(b)))
		s := &xzStream{r: r, flags: [2]byte{0, checkCRC64}, blocks: blocks, seen: sha256.New()}
		if err := s.end(); err == nil && blocks > 0 {
			t.Error("an index of nothing is accepted")
		}
	})
}
