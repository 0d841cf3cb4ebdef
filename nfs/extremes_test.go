package nfs

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	gonfs "github.com/willscott/go-nfs"

	"github.com/rootnfsd/rootnfsd/fs/image"
	"github.com/rootnfsd/rootnfsd/fs/source"
	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

// TestLargeDirectory lists a directory of 200,000 names, as a sealed version has
// it.
func TestLargeDirectory(t *testing.T) {
	const names, linksEach = 200_000, 50_000 // ext4 allows 65,000 links to a file
	dir := t.TempDir()
	for i := range names {
		path := filepath.Join(dir, fmt.Sprintf("name-%06d", i))
		var err error
		if first := i / linksEach * linksEach; i == first {
			err = os.WriteFile(path, []byte("content"), 0o644)
		} else {
			err = os.Link(filepath.Join(dir, fmt.Sprintf("name-%06d", first)), path)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	c := start(t, sealDir(t, dir), Limits{}).dial(t)
	root := c.mount("/")

	seen, cookie := 0, uint64(0)
	for eof := false; !eof; {
		d := c.nfs(gonfs.NFSProcedureReadDirPlus, func(e *wire.Encoder) {
			e.Opaque(root)
			e.Uint64(cookie)
			e.Uint64(0)
			e.Uint32(8 << 10)
			e.Uint32(maxListing)
		})
		if status := d.Uint32(); status != 0 || !d.Bool() {
			t.Fatalf("status %d behind cookie %d", status, cookie)
		}
		decodeAttr(d)
		d.Uint64()
		for d.Bool() {
			d.Uint64()
			name, at := string(d.Opaque(255)), d.Uint64()
			if at <= cookie {
				t.Fatalf("cookie %d of %s follows %d", at, name, cookie)
			}
			cookie = at
			if want := fmt.Sprintf("name-%06d", seen-2); seen >= 2 && name != want {
				t.Fatalf("name %d is %s; want %s", seen, name, want)
			}
			if !d.Bool() || decodeAttr(d).nlink == 0 || !d.Bool() || len(d.Opaque(64)) == 0 {
				t.Fatalf("%s comes without attributes or handle", name)
			}
			seen++
		}
		eof = d.Bool()
	}
	if seen != names+2 {
		t.Errorf("%d names; want %d, with . and ..", seen, names+2)
	}
	if h := c.handle("name-199999"); len(h) == 0 {
		t.Error("the last name is not found")
	}
}

// TestHugeSparseFile reads around in a file of nearly 16 TiB, the largest that
// ext4 has, with a few bytes here and there.
func TestHugeSparseFile(t *testing.T) {
	const size = 16<<40 - 4096
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "huge"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	marks := map[int64][]byte{0: []byte("first"), 1 << 40: []byte("middle"), size - 4: []byte("last")}
	for off, b := range marks {
		if _, err := f.WriteAt(b, off); err != nil {
			t.Skipf("this file system has no files of 16 TiB: %v", err)
		}
	}
	c := start(t, sealDir(t, dir), Limits{}).dial(t)
	huge := c.handle("huge")
	for off, want := range marks {
		status, data, eof := c.readAt(huge, uint64(off), 1<<20)
		if status != 0 || !bytes.HasPrefix(data, want) || eof != (off+int64(len(data)) == size) {
			t.Errorf("at %d: status %d, %.10q, eof %v; want %q", off, status, data, eof, want)
		}
		if len(bytes.Trim(data[len(want):], "\x00")) > 0 {
			t.Errorf("at %d: more than %q is not zero", off, want)
		}
	}
	status, data, eof := c.readAt(huge, 8<<40, 1<<20)
	if status != 0 || eof || len(data) != 1<<20 || len(bytes.Trim(data, "\x00")) > 0 {
		t.Errorf("in a hole: status %d, %d bytes, eof %v; want 1 MiB of zeros", status, len(data), eof)
	}
}

// sealDir makes a version of a directory.
func sealDir(t *testing.T, dir string) *image.Version {
	t.Helper()
	src, err := source.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	store, err := image.OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Seal(t.Context(), "v1", src, image.SealOptions{}); err != nil {
		t.Fatal(err)
	}
	v, err := store.Open("v1")
	if err != nil {
		t.Fatal(err)
	}
	return v
}
