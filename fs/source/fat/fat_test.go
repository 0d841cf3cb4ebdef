package fat_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/rootnfsd/rootnfsd/fs/source/fat"
	"github.com/rootnfsd/rootnfsd/fs/source/volume"
)

// TestSharedDirectories has directories share their clusters, by which a small image
// could have names without number.
func TestSharedDirectories(t *testing.T) {
	img := t.TempDir() + "/img"
	const size, dirs, tableAt = 128 << 10, 40, 512
	args := []string{"mmd", "-i", img}
	for i := range dirs {
		args = append(args, fmt.Sprintf("::d%d", i))
	}
	for _, args := range [][]string{{"truncate", "-s", fmt.Sprint(size), img}, {"mkfs.vfat", "-F", "12", "-S", "512", "-s", "1", "-R", "1", img}, args} {
		if _, err := exec.LookPath(args[0]); err != nil && os.Getenv("ROOTNFSD_TEST_ALL") == "" {
			t.Skip("needs " + args[0])
		}
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
	}
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
