package nfs

import (
	"bytes"
	"testing"

	"github.com/rootnfsd/rootnfsd/fs/fstest"
)

func TestMountAndRead(t *testing.T) {
	h := start(t, sample(), Limits{})
	c := h.dial(t)
	want := fstest.Bytes(70_000)
	status, data, eof := c.readAt(c.handle("/bin/su"), 0, 1<<20)
	if status != 0 || !eof || !bytes.Equal(data, want) {
		t.Fatalf("status %d, %d bytes, eof %v", status, len(data), eof)
	}
	status, data, eof = c.readAt(c.handle("/bin/su"), 1, 4097)
	if status != 0 || eof || !bytes.Equal(data, want[1:4098]) {
		t.Fatalf("status %d, %d bytes, eof %v", status, len(data), eof)
	}
}
