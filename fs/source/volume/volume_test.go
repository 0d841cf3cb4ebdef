package volume_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/source"
	"github.com/rootnfsd/rootnfsd/fs/source/volume"
)

// crowd is a volume whose root has directories with so many files in each.
type crowd struct {
	files  int
	listed map[uint64]int // how often a directory was listed
}

const (
	crowdDirs = 70 // with numbers from 2
	crowdFile = 1000
)

func (c *crowd) Root() uint64 { return 1 }

func (c *crowd) Meta(ino uint64) (source.Meta, error) {
	if ino < crowdFile {
		return source.Meta{Kind: fs.Directory, Nlink: 1}, nil
	}
	return source.Meta{Kind: fs.Regular, Nlink: 1}, nil
}

func (c *crowd) List(dir, _ uint64) ([]volume.Entry, error) {
	c.listed[dir]++
	n, first := c.files, uint64(crowdFile)
	if dir == 1 {
		n, first = crowdDirs, 2
	}
	all := make([]volume.Entry, n)
	for i := range all {
		all[i] = volume.Entry{Name: strconv.Itoa(i), Ino: first + uint64(i)}
	}
	return all, nil
}

func (c *crowd) Readlink(uint64) (string, error)       { return "", nil }
func (c *crowd) Xattrs(uint64) ([]source.Xattr, error) { return nil, nil }
func (c *crowd) Open(uint64) (volume.Content, error)   { return nil, nil }

// TestCrowd: a directory with more names than are kept in memory is refused.
func TestCrowd(t *testing.T) {
	for n, want := range map[int]string{1000: "", 1 << 20: "", 1<<20 + 1: "1048577 names"} {
		_, err := volume.New(&crowd{n, map[uint64]int{}}).Lstat("/0/0")
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%d names: %v; want %q", n, err, want)
		}
	}
}

// TestKept: listings are kept, so that looking a path up lists nothing, but not more than
// one of many names.
func TestKept(t *testing.T) {
	for files, most := range map[int]int{10: 1, 1 << 19: 2} {
		c := &crowd{files, map[uint64]int{}}
		v := volume.New(c)
		for _, p := range []string{"/0/0", "/0/1", "/1/0", "/2/0", "/2/1", "/2/2", "/1/1", "/0/2"} {
			if _, err := v.Lstat(p); err != nil {
				t.Error(err)
			}
		}
		// Of the large ones there is room for one beside the root's.
		if c.listed[1] > 2 || c.listed[2] != most || c.listed[3] != most || c.listed[4] != 1 {
			t.Errorf("%d files in each: listed %v; want %d times where another was listed between", files, c.listed, most)
		}
	}
}
