package squashfs

import (
	"bytes"
	"os"
	"os/exec"
	"testing"

	"github.com/rootnfsd/rootnfsd/fs/source/volume/volumetest"
)

// TestDirRoom has an image say that it has no table of fragments, which lies behind that
// of directories otherwise. What is behind all tables gives these no room, though it looks
// like blocks of metadata, of which the shortest say most.
func TestDirRoom(t *testing.T) {
	volumetest.Need(t, false, "mksquashfs")
	dir := t.TempDir()
	if err := os.MkdirAll(dir+"/root/etc", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, more := range []string{"-exports", "-no-exports"} {
		if out, err := exec.Command("mksquashfs", dir+"/root", dir+"/img", "-quiet", "-no-progress", "-noappend", "-no-fragments", more).CombinedOutput(); err != nil {
			t.Fatalf("mksquashfs: %v\n%s", err, out)
		}
		b, err := os.ReadFile(dir + "/img")
		if err != nil {
			t.Fatal(err)
		}
		b = append(b[:le.Uint64(b[40:])], bytes.Repeat([]byte{1, 0x80, 0}, 20_000)...)
		le.PutUint64(b[40:], uint64(len(b)))
		le.PutUint64(b[80:], noTable)
		v, err := Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		if room := v.dirRoom((*[superSize]byte)(b)); room > 4*metaSize {
			t.Errorf("%s: room for %d bytes in an image of %d", more, room, len(b))
		}
	}
}
