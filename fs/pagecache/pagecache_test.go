package pagecache

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("0123456789"), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := make([]byte, 4)
	for off, want := range map[int64]string{0: "0123", 8: "89", 10: "", 1 << 40: ""} {
		if n, err := Read(int(f.Fd()), p, off); err != nil || string(p[:n]) != want {
			t.Errorf("at %d: %q, %v; want %q", off, p[:n], err, want)
		}
	}
	if n, err := Read(-1, p, 0); n != 0 || err != unix.EBADF {
		t.Errorf("no file: %d, %v", n, err)
	}
	if allocs := testing.AllocsPerRun(100, func() { _, _ = Read(int(f.Fd()), p, 0) }); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

// TestCannotTell reads a file whose kernel makes it up while it is read.
func TestCannotTell(t *testing.T) {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if n, err := Read(int(f.Fd()), make([]byte, 4), 0); n != 0 || err != unix.EOPNOTSUPP {
		t.Errorf("%d, %v; want EOPNOTSUPP", n, err)
	}
}
