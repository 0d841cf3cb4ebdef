package compressed

import (
	"bufio"
	"bytes"
	"testing"
)

// FuzzXZ gives what we read of the format ourselves anything.
func FuzzXZ(f *testing.F) {
	f.Add([]byte("\x03\xc0\xa0\x1f\xa0\x1f\x21\x01\x16\x00\x00\x00\x00\x00\x00\x00"), uint64(0))
	f.Add([]byte("\x00\x01\xac\x02\x90\x4e\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x04YZ"), uint64(1))
	f.Fuzz(func(t *testing.T, b []byte, blocks uint64) {
		h, err := parseXZBlock(b)
		if err == nil && h.whole && (h.compressed > maxBlock || h.uncompressed > maxBlock) {
			t.Errorf("a block of %d and %d bytes is decoded as a whole", h.compressed, h.uncompressed)
		}
		p := &xzBlocks{r: bufio.NewReader(bytes.NewReader(b))}
		if err := p.index([]byte{0, 4}, blocks, nil); err == nil {
			t.Error("an index of nothing is accepted")
		}
	})
}
