package load

import (
	"os"
	"strings"
	"testing"
)

// TestChill holds it to saying that a file which is nowhere but in memory stays there.
func TestChill(t *testing.T) {
	f, err := os.CreateTemp("/dev/shm", "rootnfsd-test")
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.Write(make([]byte, 3<<20)); err != nil {
		t.Fatal(err)
	}
	if err := Chill(f.Name()); err == nil || !strings.Contains(err.Error(), "3 MiB of it stay") {
		t.Errorf("a file of 3 MiB in memory: %v", err)
	}
}
