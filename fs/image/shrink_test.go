package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/rootnfsd/rootnfsd/fs"
)

// TestNamesShrinkInUse cuts an index off behind the records, while it is open:
// names and texts are gone, in part, and who asks for one gets it or ErrIO, but
// never bytes that are a fault to look at.
func TestNamesShrinkInUse(t *testing.T) {
	s, err := OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	tree := filepath.Join(s.Dir(), "v1")
	if err := os.Mkdir(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	text := strings.Repeat("x", 4095)
	for i := range 200 {
		path := fmt.Sprintf("%s/%03d%s", tree, i, strings.Repeat("n", 200))
		if err := errors.Join(os.WriteFile(path, []byte("content"), 0o644), os.Symlink(text, path+"-link")); err != nil {
			t.Fatal(err)
		}
	}
	mustSeal(t, s, "v1")
	v, err := s.Open("v1")
	if err != nil {
		t.Fatal(err)
	}
	pack := v.packs[0].path
	if err := os.Truncate(pack, 0); err != nil {
		t.Fatal(err)
	}
	_, _, readErr := v.Read(rootCred, 2, 0, make([]byte, 7), false)

	h := &v.index.header
	texts := int64(headerSize)
	for _, n := range h.lengths[:secTexts] {
		texts += int64(padded(n))
	}
	names := texts - int64(padded(h.lengths[secNames]))
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true)) // of the test, to fail and go on
	for _, size := range []int64{texts + 4096*10, names + 4096*5} {
		if err := os.Truncate(s.indexPath("v1"), size); err != nil {
			t.Fatal(err)
		}
		bad := 0
		var entry [1]fs.DirEntry
		for cookie := uint64(firstCookie - 1); cookie < firstCookie-1+400; cookie++ {
			if _, _, err := v.ReadDir(rootCred, 1, cookie, entry[:]); err == fs.ErrIO {
				bad++
			} else if name := string(entry[0].Name); err != nil || !strings.Contains(name, "nnn") {
				t.Fatalf("ReadDir: %q, %v", name, err)
			}
			id := fs.NodeID(cookie) // the root is 1, its entries follow
			if got, err := v.Readlink(id); err == fs.ErrIO {
				bad++
			} else if err == nil && string(got) != text || err != nil && err != fs.ErrInvalid {
				t.Fatalf("Readlink of %d: %q, %v", id, got, err)
			}
		}
		if bad == 0 {
			t.Errorf("cut to %d bytes, everything can be read", size)
		}
	}
	if !strings.Contains(readErr.Error(), pack) {
		t.Errorf("Read: %v, want it to name %s", readErr, pack)
	}
}
