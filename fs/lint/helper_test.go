package lint

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-git/go-billy/v5"

	"github.com/rootnfsd/rootnfsd/fs/source"
)

// files are what is in a made-up tree, by path: a path that ends in "/" is a
// directory, content that begins with "-> " a symlink.
type files map[string]string

// and returns the files with others added or put in their place.
func (f files) and(more files) files {
	all := maps.Clone(f)
	maps.Copy(all, more)
	return all
}

// treeOf makes a tree as a source.
func treeOf(t testing.TB, f files) *source.Dir {
	t.Helper()
	dir := t.TempDir()
	for _, name := range slices.Sorted(maps.Keys(f)) {
		p, content := filepath.Join(dir, name), f[name]
		err := os.MkdirAll(filepath.Dir(p), 0o755)
		switch target, link := strings.CutPrefix(content, "-> "); {
		case err != nil:
		case strings.HasSuffix(name, "/"):
			err = os.MkdirAll(p, 0o755)
		case link:
			err = os.Symlink(target, p)
		default:
			err = os.WriteFile(p, []byte(content), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	d, err := source.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// check returns what is found in a tree, each as "severity rule file".
func check(t testing.TB, root billy.Filesystem) []string {
	t.Helper()
	findings, err := Check(context.Background(), root)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, f := range findings {
		if f.Reason == "" || f.Fix == "" {
			t.Errorf("%s says nothing: %+v", f.Rule, f)
		}
		all = append(all, fmt.Sprintf("%v %s %s", f.Severity, f.Rule, f.File))
	}
	return all
}

// withXattrs is a source in which some files have capabilities, which takes root
// to set.
type withXattrs struct {
	billy.Filesystem
	values map[string]string
}

func (w withXattrs) Xattrs(p string) ([]source.Xattr, error) {
	if v, ok := w.values[p]; ok {
		return []source.Xattr{{Name: "security.capability", Value: []byte(v)}, {Name: "user.comment", Value: []byte("x")}}, nil
	}
	return nil, nil
}

// netRaw is security.capability of cap_net_raw=ep.
const netRaw = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// bzImage is an x86 kernel image as far as its version.
func bzImage(release string) string {
	b := make([]byte, 4096)
	copy(b[0x202:], "HdrS")
	b[0x20f] = 0x04 // 0x400, and 0x200
	copy(b[0x600:], release+" (somebody@somewhere) #1 SMP\x00")
	return string(b)
}

// arm64Image is a kernel image of arm64 that says its release far behind.
func arm64Image(release string) string {
	b := make([]byte, 400<<10)
	copy(b[0x38:], "ARM\x64")
	copy(b[1000:], "Linux version %s (") // what there is of others
	copy(b[300<<10:], "Linux version "+release+" (somebody@somewhere) #1 SMP")
	return string(b)
}

// cpio is an archive of files.
func cpio(f files) string {
	var b bytes.Buffer
	add := func(name, content string) {
		fmt.Fprintf(&b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", 1, 0o100644, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0)
		b.WriteString(name + "\x00")
		b.Write(make([]byte, -b.Len()&3))
		b.WriteString(content)
		b.Write(make([]byte, -b.Len()&3))
	}
	for _, name := range slices.Sorted(maps.Keys(f)) {
		add(name, f[name])
	}
	add("TRAILER!!!", "")
	return b.String()
}

// ramdisk is an initramfs that boots a node with a kernel.
func ramdisk(release string) files {
	mod := "usr/lib/modules/" + release + "/"
	return files{
		"usr/bin/nfsmount":                            "x",
		mod + "kernel/fs/nfs/nfs.ko":                  "x",
		mod + "kernel/fs/nfs/nfsv3.ko":                "x",
		mod + "modules.builtin":                       "kernel/fs/ext4/ext4.ko\n",
		mod + "kernel/drivers/net/usb/smsc95xx.ko.xz": "x",
		mod + "kernel/fs/overlayfs/overlay.ko":        "x",
	}
}

func (f files) without(part string) files {
	all := maps.Clone(f)
	maps.DeleteFunc(all, func(name, _ string) bool { return strings.Contains(name, part) })
	return all
}
