package image

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
)

// TestSpool spools data with and without zeros, and more than may be.
func TestSpool(t *testing.T) {
	s, err := OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 5*fileBuffer+123)
	noise := rand.NewChaCha8([32]byte{})
	noise.Read(data[fileBuffer : 2*fileBuffer])
	noise.Read(data[len(data)-200 : len(data)-100])
	f, err := s.Spool(iotest.HalfReader(bytes.NewReader(data)), uint64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<40))
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v; want the %d that were spooled", len(got), err, len(data))
	}
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if taken := info.Sys().(*syscall.Stat_t).Blocks * 512; taken > 3*fileBuffer {
		t.Errorf("it takes %d bytes, and most of it is zeros", taken)
	}
	if _, err := s.Spool(bytes.NewReader(data), uint64(len(data))-1); err == nil || !strings.Contains(err.Error(), "more") {
		t.Errorf("more than may be: %v", err)
	}
	entries, err := os.ReadDir(s.StateDir())
	if err != nil || len(entries) > 0 {
		t.Errorf("left in the store: %v, %v", entries, err)
	}
}
