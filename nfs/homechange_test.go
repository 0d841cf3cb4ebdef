package nfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"testing"
	"time"

	gonfs "github.com/willscott/go-nfs"
	"golang.org/x/sys/unix"
)

// coherent is within which time a change by a program on the server must be seen.
const coherent = time.Second

// TestHomeChangedOnServer changes what is open and known already by means of the host,
// and wants the node to see that when it asks next.
func TestHomeChangedOnServer(t *testing.T) {
	c := startHomes(t, Limits{}, nil).mount(t)
	file, dir := c.file("file"), c.must(gonfs.NFSProcedureMkDir, lookupArgs(c.root, "dir"), attributes(0o777)).handle
	c.must(gonfs.NFSProcedureWrite, writeArgs(file, 0, fileSync, []byte("what the node wrote")))
	path := c.host("file")
	getattr := func(handle []byte) (status, mode uint32, size uint64) {
		d := c.nfs(gonfs.NFSProcedureGetAttr, fileHandle(handle))
		if status = d.Uint32(); status == nfsOK {
			a := d.FixedOpaque(attrSize)
			mode, size = binary.BigEndian.Uint32(a[4:]), binary.BigEndian.Uint64(a[20:])
		}
		return status, mode, size
	}
	lookup := func(name string) results { return c.do(gonfs.NFSProcedureLookup, lookupArgs(c.root, name)) }
	holds := func(want string) bool {
		_, _, size := getattr(file)
		status, data, eof := c.readAt(file, 0, 4096)
		return status == nfsOK && string(data) == want && eof && size == uint64(len(want))
	}
	for _, change := range []struct {
		what string
		make func() error
		seen func() bool
	}{
		{"other content", func() error { return os.WriteFile(path, []byte("written on the server"), 0o644) },
			func() bool { return holds("written on the server") }},
		{"more content", func() error {
			f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteString(", and more")
			return errors.Join(err, f.Close())
		}, func() bool { return holds("written on the server, and more") }},
		{"less", func() error { return os.Truncate(path, 7) }, func() bool { return holds("written") }},
		{"another mode", func() error { return os.Chmod(path, 0o600) },
			func() bool { _, mode, _ := getattr(file); return mode == 0o600 }},
		{"a mode without rights", func() error { return os.Chmod(c.host("dir"), 0) }, func() bool {
			d := c.nfs(gonfs.NFSProcedureAccess, joined(fileHandle(dir), number(accessRead)))
			return d.Uint32() == nfsOK && d.Bool() && binary.BigEndian.Uint32(d.FixedOpaque(attrSize)[4:]) == 0
		}},
		{"a new file", func() error { return os.WriteFile(c.host("new"), []byte("new"), 0o644) },
			func() bool { return lookup("new").status == nfsOK }},
		{"another name", func() error { return os.Rename(path, c.host("renamed")) }, func() bool {
			r := lookup("renamed")
			return lookup("file").status == uint32(unix.ENOENT) && bytes.Equal(r.handle, file) && holds("written")
		}},
		{"another file of that name", func() error { return os.Rename(c.host("new"), c.host("renamed")) }, func() bool {
			status, _, _ := getattr(file)
			r := lookup("renamed")
			return status == uint32(gonfs.NFSStatusStale) && r.status == nfsOK && !bytes.Equal(r.handle, file)
		}},
		{"nothing", func() error { return os.Remove(c.host("renamed")) },
			func() bool { return lookup("renamed").status == uint32(unix.ENOENT) }},
	} {
		if change.seen() {
			t.Errorf("%s: it is there before it is made", change.what)
		}
		if err := change.make(); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(coherent); !change.seen(); {
			if time.Now().After(end) {
				t.Errorf("%s: it is not seen", change.what)
				break
			}
		}
	}
	if err := os.Chmod(c.host("dir"), 0o755); err != nil { // so that it can be removed
		t.Error(err)
	}
}
