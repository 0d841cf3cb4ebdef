package tftp

import (
	"bytes"
	"strconv"
	"testing"

	pin "github.com/pin/tftp/v3"
)

// TestPin fetches by the client of github.com/pin/tftp, which knows no blocks of less than 512 bytes.
func TestPin(t *testing.T) {
	h := start(t, nil)
	for _, block := range []int{0, 512, 1024, 1428, 1468, 8192, 65464} {
		c, err := pin.NewClient(h.addr.String())
		if err != nil {
			t.Fatal(err)
		}
		size := defaultBlock
		if block != 0 {
			size = block
			c.SetBlockSize(block)
		}
		c.SetTimeout(long)
		c.RequestTSize(true)
		for _, n := range []int{0, 1, size - 1, size, size + 1, 10*size - 1, 10 * size, 10*size + 1} {
			name := strconv.Itoa(n)
			want := pattern(n)
			h.add(name, want)
			from, err := c.Receive(name, "octet")
			if err != nil {
				t.Errorf("%d bytes, blocks of %d: %v", n, block, err)
				continue
			}
			if told, ok := from.(pin.IncomingTransfer).Size(); !ok || told != int64(n) {
				t.Errorf("%d bytes, blocks of %d: the client is told of %d, %v", n, block, told, ok)
			}
			var got bytes.Buffer
			if _, err := from.WriteTo(&got); err != nil || !bytes.Equal(got.Bytes(), want) {
				t.Errorf("%d bytes, blocks of %d: %d bytes, %v", n, block, got.Len(), err)
			}
			if r := h.result(t); r.Err != nil || r.Sent != int64(n) {
				t.Errorf("%d bytes, blocks of %d: %+v", n, block, r)
			}
		}
		if _, err := c.Receive("missing", "octet"); err == nil {
			t.Error("a file that is missing is received")
		}
	}
}
