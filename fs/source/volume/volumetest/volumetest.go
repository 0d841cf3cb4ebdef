// Package volumetest holds what tests of volumes share. It knows no format.
package volumetest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/source"
	"github.com/rootnfsd/rootnfsd/fs/source/volume"
)

// Need skips a test that needs root or tools that are not there, unless all tests must
// be run (ROOTNFSD_TEST_ALL).
func Need(t testing.TB, root bool, tools ...string) {
	t.Helper()
	if os.Getenv("ROOTNFSD_TEST_ALL") != "" {
		return
	}
	if root && os.Getuid() != 0 {
		t.Skip("needs root")
	}
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("needs " + tool)
		}
	}
}

// ReadTree reads all of a tree, but only some of each file. It returns all errors.
func ReadTree(v *volume.FS) error { return readDir(v, "/", 0) }

func readDir(v *volume.FS, dir string, depth int) error {
	infos, err := v.ReadDir(dir)
	if err != nil {
		return err
	}
	if depth > 100 {
		return errors.New("directories without end")
	}
	for _, info := range infos {
		p := dir + "/" + info.Name()
		_, err1 := v.Xattrs(p)
		var err2 error
		switch m := source.MetaOf(info); m.Kind {
		case fs.Directory:
			err2 = readDir(v, p, depth+1)
		case fs.Symlink:
			_, err2 = v.Readlink(p)
		case fs.Regular:
			err2 = readFile(v, p)
		}
		err = errors.Join(err, err1, err2)
	}
	return err
}

func readFile(v *volume.FS, p string) error {
	f, err := v.Open(p)
	if err != nil {
		return err
	}
	finder := f.(source.DataFinder)
	var buf [4096]byte
	for off, n := int64(0), 0; n < 64; n++ {
		from, to, err := finder.NextData(off)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if from < off || to <= from {
			return fmt.Errorf("NextData(%d) = %d, %d", off, from, to)
		}
		if _, err := f.ReadAt(buf[:min(to-from, 4096)], from); err != nil && err != io.EOF {
			return err
		}
		off = to
	}
	return nil
}
