package fat_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/rootnfsd/rootnfsd/fs/source/fat"
	"github.com/rootnfsd/rootnfsd/fs/source/volume"
	"github.com/rootnfsd/rootnfsd/fs/source/volume/volumetest"
)

// run runs programs that make an image.
func run(t *testing.T, commands ...[]string) {
	t.Helper()
	for _, args := range commands {
		volumetest.Need(t, false, args[0])
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
	}
}

// TestSmallFAT32 has FAT32 with fewer clusters than Microsoft's document wants of it, as
// mkfs makes it when it is told to, and Linux mounts it. What a directory says to be in
// may be the root by its cluster, too. Mtools does not know such, so it is filled here.
func TestSmallFAT32(t *testing.T) {
	const sector, copies, root, dir, file, last = 512, 2, 2, 3, 4, "\xff\xff\xff\x0f"
	for _, size := range []int{2 << 20, 16 << 20, 40 << 20} {
		img := t.TempDir() + "/img"
		run(t, []string{"truncate", "-s", fmt.Sprint(size), img}, []string{"mkfs.vfat", "-F", "32", "-s", "1", "-i", "0123abcd", "-n", "SMALL", img})
		b, err := os.ReadFile(img)
		if err != nil {
			t.Fatal(err)
		}
		le := binary.LittleEndian
		table := int(le.Uint16(b[14:])) * sector
		data := table + copies*int(le.Uint32(b[36:]))*sector
		at := func(cluster int) []byte { return b[data+(cluster-2)*sector:] }
		entry := func(to []byte, name string, attr byte, cluster, size int) {
			copy(to, name)
			to[11], to[12], to[26], to[28] = attr, 0x18, byte(cluster), byte(size) // in lower case
		}
		copy(b[table+4*dir:], last)
		copy(b[table+4*file:], last)
		entry(at(root)[32:], "DIR        ", 0x10, dir, 0) // behind the label
		entry(at(dir), ".          ", 0x10, dir, 0)
		entry(at(dir)[64:], "FILE       ", 0x20, file, len("content"))
		copy(at(file), "content")
		for _, up := range []int{0, root} {
			entry(at(dir)[32:], "..         ", 0x10, up, 0)
			v, err := fat.Open(bytes.NewReader(b), int64(size), fat.DefaultOptions)
			if err != nil {
				t.Fatal(err)
			}
			if label, err := v.Label(); err != nil || label != "SMALL" || v.ID() != "0123-ABCD" {
				t.Errorf("%d bytes: it is called %q (%v) and %q", size, label, err, v.ID())
			}
			if f, err := volume.New(v).Open("/dir/file"); err != nil {
				t.Errorf("%d bytes, the root in it is %d: %v", size, up, err)
			} else if got, err := io.ReadAll(f); err != nil || string(got) != "content" {
				t.Errorf("%d bytes: read %q, %v", size, got, err)
			}
		}
	}
}

// TestSharedDirectories has directories share their clusters, by which a small image
// could have names without number.
func TestSharedDirectories(t *testing.T) {
	img := t.TempDir() + "/img"
	const size, dirs, tableAt = 128 << 10, 40, 512
	args := []string{"mmd", "-i", img}
	for i := range dirs {
		args = append(args, fmt.Sprintf("::d%d", i))
	}
	run(t, []string{"truncate", "-s", fmt.Sprint(size), img}, []string{"mkfs.vfat", "-F", "12", "-S", "512", "-s", "1", "-R", "1", img}, args)
	b, err := os.ReadFile(img)
	if err != nil {
		t.Fatal(err)
	}
	readAll := func() error {
		v, err := fat.Open(bytes.NewReader(b), int64(len(b)), fat.DefaultOptions)
		if err != nil {
			t.Fatal(err)
		}
		tree := volume.New(v)
		for i := range dirs {
			if _, err := tree.ReadDir(fmt.Sprintf("/d%d", i)); err != nil {
				return err
			}
		}
		return nil
	}
	if err := readAll(); err != nil {
		t.Fatalf("as mtools made it: %v", err)
	}
	// Each goes on in the one behind it. Two entries of 12 bits take 3 bytes.
	for cluster := uint32(2); cluster < dirs; cluster += 2 {
		e := (cluster + 1) | (cluster+2)<<12
		copy(b[tableAt+cluster*3/2:], []byte{byte(e), byte(e >> 8), byte(e >> 16)})
	}
	if err := readAll(); err == nil || !strings.Contains(err.Error(), "larger in all") {
		t.Errorf("shared: %v", err)
	}
}
