package image

import (
	"math"
	"os"
	"path/filepath"
	"testing"
)

// TestGroupMemory has limits in the group of the process and in the one above.
func TestGroupMemory(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	expect := func(self string, want uint64) {
		t.Helper()
		if got := groupMemory(dir, self); got != want {
			t.Errorf("%d bytes; want %d", got, want)
		}
	}
	self := write("self", "3:cpu:/other\n0::/a/b\n")
	expect(filepath.Join(dir, "none"), math.MaxUint64)
	expect(self, math.MaxUint64)
	write("a/b/memory.max", "max\n")
	write("a/b/memory.current", "10\n")
	expect(self, math.MaxUint64)
	write("a/memory.max", "1000\n")
	write("a/memory.current", "900\n")
	expect(self, 100)
	write("a/memory.stat", "anon 500\nfile 400\ninactive_file 300\n")
	expect(self, 400)
	write("a/b/memory.max", "50\n")
	expect(self, 40)
	write("a/b/memory.current", "60\n")
	expect(self, 0)
}
