package nfs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	gonfs "github.com/willscott/go-nfs"

	"github.com/rootnfsd/rootnfsd/exports"
	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/fstest"
	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

const (
	exist    = uint32(gonfs.NFSStatusExist)
	xdev     = uint32(gonfs.NFSStatusXDev)
	fbig     = uint32(gonfs.NFSStatusFBig)
	notEmpty = uint32(gonfs.NFSStatusNotEmpty)
	notSync  = uint32(gonfs.NFSStatusNotSync)
	badType  = uint32(gonfs.NFSStatusBadType)
	notSupp  = uint32(gonfs.NFSStatusNotSupp)
)

const (
	unstable = uint32(fs.Unstable)
	fileSync = uint32(fs.FileSync)
)

// TestHomeChanges does one of everything, and looks at what the host has of it.
func TestHomeChanges(t *testing.T) {
	c := startHomes(t, Limits{}, nil).mount(t)
	stat := func(name string) *syscall.Stat_t {
		t.Helper()
		info, err := os.Lstat(c.host(name))
		if err != nil {
			t.Fatal(err)
		}
		return info.Sys().(*syscall.Stat_t)
	}
	made := func(r results, name string, kind fs.Kind, mode uint32) {
		t.Helper()
		st := stat(name)
		be := binary.BigEndian
		if len(r.attr) != attrSize || be.Uint32(r.attr) != uint32(kind) || be.Uint32(r.attr[4:]) != mode || be.Uint64(r.attr[52:]) != st.Ino {
			t.Errorf("%s: attributes % x", name, r.attr)
		}
		if st.Mode&0o7777 != mode || r.after[0] == nil {
			t.Errorf("%s: mode %o on the host, want %o; the directory is % x", name, st.Mode&0o7777, mode, r.after[0])
		}
		if found := c.must(gonfs.NFSProcedureLookup, lookupArgs(c.root, name)); !bytes.Equal(found.handle, r.handle) {
			t.Errorf("%s: LOOKUP finds %x, made was %x", name, found.handle, r.handle)
		}
	}

	file := c.must(gonfs.NFSProcedureCreate, lookupArgs(c.root, "file"), number(1), attributes(0o100640))
	made(file, "file", fs.Regular, 0o640)
	made(c.must(gonfs.NFSProcedureMkDir, lookupArgs(c.root, "dir"), attributes(0o1750)), "dir", fs.Directory, 0o1750)
	made(c.must(gonfs.NFSProcedureMkNod, lookupArgs(c.root, "fifo"), number(7), attributes(0o600)), "fifo", fs.FIFO, 0o600)
	made(c.must(gonfs.NFSProcedureMkNod, lookupArgs(c.root, "socket"), number(6), attributes(0o600)), "socket", fs.Socket, 0o600)
	if os.Geteuid() == 0 {
		made(c.must(gonfs.NFSProcedureMkNod, lookupArgs(c.root, "null"), number(4), attributes(0o666), number(1, 3)), "null", fs.CharDevice, 0o666)
	}
	link := c.must(gonfs.NFSProcedureSymlink, lookupArgs(c.root, "link"), attributes(0o777), text("../../etc/passwd"))
	made(link, "link", fs.Symlink, 0o777)
	if d := c.nfs(gonfs.NFSProcedureReadlink, fileHandle(link.handle)); d.Uint32() != nfsOK || attrOf(d) == nil || string(d.Opaque(4096)) != "../../etc/passwd" {
		t.Error("READLINK")
	}

	hello := []byte("hello, world")
	w := c.must(gonfs.NFSProcedureWrite, writeArgs(file.handle, 3, unstable, hello))
	if w.count != uint32(len(hello)) || w.committed != unstable || w.after[0] == nil {
		t.Errorf("WRITE: %+v", w)
	}
	if r := c.must(gonfs.NFSProcedureCommit, fileHandle(file.handle), number(0, 0, 0)); r.verifier != w.verifier || r.verifier == 0 {
		t.Errorf("COMMIT: verifier %x, of WRITE %x", r.verifier, w.verifier)
	}
	if r := c.must(gonfs.NFSProcedureWrite, writeArgs(file.handle, 0, fileSync, []byte("yes"))); r.committed != fileSync || r.count != 3 {
		t.Errorf("WRITE, FILE_SYNC: %+v", r)
	}
	want := append([]byte("yes"), hello...)
	c.wantFile("file", want)
	if status, data, eof := c.readAt(file.handle, 1, 1<<20); status != nfsOK || !eof || !bytes.Equal(data, want[1:]) {
		t.Errorf("READ: status %d, eof %v, %q", status, eof, data)
	}
	if status, data, eof := c.readAt(file.handle, 1, 4); status != nfsOK || eof || !bytes.Equal(data, want[1:5]) {
		t.Errorf("READ of a part: status %d, eof %v, %q", status, eof, data)
	}

	// SETATTR: all but the times, then the times.
	c.must(gonfs.NFSProcedureSetAttr, fileHandle(file.handle), number(1, 0o100600, 0, 0, 1, 0, 5, 0, 0, 0))
	if st := stat("file"); st.Size != 5 || st.Mode&0o7777 != 0o600 {
		t.Errorf("SETATTR: size %d, mode %o", st.Size, st.Mode)
	}
	after := c.must(gonfs.NFSProcedureSetAttr, fileHandle(file.handle), number(0, 0, 0, 0, 2, 4000000000, 999999999, 2, 5, 6, 0)).after[0]
	if st := stat("file"); st.Mtim != (syscall.Timespec{Sec: 5, Nsec: 6}) || int64(st.Atim.Sec) != 4000000000 {
		t.Errorf("SETATTR: times %v %v", st.Atim, st.Mtim)
	}
	ctime := number(binary.BigEndian.Uint32(after[76:]), binary.BigEndian.Uint32(after[80:]))
	if r := c.do(gonfs.NFSProcedureSetAttr, fileHandle(file.handle), number(1, 0o644, 0, 0, 0, 0, 0, 1, 1, 1)); r.status != notSync || stat("file").Mode&0o777 != 0o600 {
		t.Errorf("SETATTR with a guard that is wrong: status %d", r.status)
	}
	c.must(gonfs.NFSProcedureSetAttr, fileHandle(file.handle), number(1, 0o644, 0, 0, 0, 0, 0, 1), ctime)

	dir := c.find("dir")
	if r := c.must(gonfs.NFSProcedureLink, fileHandle(file.handle), lookupArgs(dir, "again")); r.after[0] == nil || binary.BigEndian.Uint32(r.after[0][8:]) != 2 || r.after[1] == nil {
		t.Errorf("LINK: %+v", r)
	}
	if r := c.must(gonfs.NFSProcedureRename, lookupArgs(c.root, "file"), lookupArgs(dir, "moved")); r.after[0] == nil || r.after[1] == nil {
		t.Errorf("RENAME: %+v", r)
	}
	if found := c.must(gonfs.NFSProcedureLookup, lookupArgs(dir, "moved")); !bytes.Equal(found.handle, file.handle) {
		t.Error("a file has another handle when it was renamed")
	}
	for _, name := range []string{"moved", "again"} {
		c.must(gonfs.NFSProcedureRemove, lookupArgs(dir, name))
	}
	c.must(gonfs.NFSProcedureRmDir, lookupArgs(c.root, "dir"))
	if _, err := os.Lstat(c.host("dir")); !os.IsNotExist(err) {
		t.Error("RMDIR:", err)
	}
	if d := c.nfs(gonfs.NFSProcedureGetAttr, fileHandle(file.handle)); d.Uint32() != stale {
		t.Error("a file that was removed still has its handle")
	}
}

// TestCreateWays tells the three ways to create a file apart.
func TestCreateWays(t *testing.T) {
	c := startHomes(t, Limits{}, nil).mount(t)
	create := func(name string, how ...func(*wire.Encoder)) results {
		return c.do(gonfs.NFSProcedureCreate, append([]func(*wire.Encoder){lookupArgs(c.root, name)}, how...)...)
	}
	unchecked, guarded := joined(number(0), attributes(0o600)), joined(number(1), attributes(0o600))
	first := create("a", guarded)
	if r := create("a", guarded); first.status != nfsOK || r.status != exist || r.after[0] == nil {
		t.Errorf("guarded: status %d, then %d", first.status, r.status)
	}
	c.must(gonfs.NFSProcedureWrite, writeArgs(first.handle, 0, fileSync, []byte("content")))
	if r := create("a", unchecked); r.status != nfsOK || !bytes.Equal(r.handle, first.handle) {
		t.Errorf("unchecked, of what is there: status %d", r.status)
	}
	c.wantFile("a", []byte("content"))
	if r := create("a", number(0, 0, 0, 0, 1, 0, 0, 0, 0)); r.status != nfsOK {
		t.Errorf("unchecked, with a size: status %d", r.status)
	}
	c.wantFile("a", nil)

	one := create("x", number(2, 17, 18))
	again := create("x", number(2, 17, 18))
	if one.status != nfsOK || again.status != nfsOK || !bytes.Equal(one.handle, again.handle) {
		t.Errorf("exclusive: status %d, the same again %d", one.status, again.status)
	}
	if r := create("x", number(2, 17, 19)); r.status != exist {
		t.Errorf("exclusive, by another: status %d", r.status)
	}
	if r := create("a", number(2, 17, 18)); r.status != exist {
		t.Errorf("exclusive, of what is there: status %d", r.status)
	}
}

// TestBadChanges makes calls that must change nothing.
func TestBadChanges(t *testing.T) {
	c := startHomes(t, Limits{}, nil).mount(t)
	file := c.file("file")
	c.must(gonfs.NFSProcedureWrite, writeArgs(file, 0, fileSync, []byte("as it was")))
	dir := c.must(gonfs.NFSProcedureMkDir, lookupArgs(c.root, "dir"), attributes(0o755)).handle
	c.must(gonfs.NFSProcedureMkDir, lookupArgs(dir, "inner"), attributes(0o755))
	link := c.must(gonfs.NFSProcedureSymlink, lookupArgs(c.root, "link"), attributes(0o777), text("file")).handle
	fifo := c.must(gonfs.NFSProcedureMkNod, lookupArgs(c.root, "fifo"), number(7), attributes(0o666)).handle
	before := homeListing(t, c)

	in := func(name string) func(*wire.Encoder) { return lookupArgs(c.root, name) }
	fh, mode := fileHandle, attributes(0o644)
	type row struct {
		name string
		proc gonfs.NFSProcedure
		args []func(*wire.Encoder)
		want uint32
	}
	args := func(a ...func(*wire.Encoder)) []func(*wire.Encoder) { return a }
	rows := []row{
		{"more than there is", gonfs.NFSProcedureWrite, args(fh(file), number(0, 0, 100, 2), text("few")), inval},
		{"less than there is", gonfs.NFSProcedureWrite, args(fh(file), number(0, 0, 1, 2), text("many")), inval},
		{"4 GiB", gonfs.NFSProcedureWrite, args(fh(file), number(0, 0, 0xffffffff, 2), text("few")), inval},
		{"at 2^63", gonfs.NFSProcedureWrite, args(writeArgs(file, 1<<63, 2, []byte("x"))), fbig},
		{"up to 2^63", gonfs.NFSProcedureWrite, args(writeArgs(file, 1<<63-1, 2, []byte("x"))), fbig},
		{"beyond 2^64", gonfs.NFSProcedureWrite, args(writeArgs(file, 1<<64-1, 2, []byte("xy"))), fbig},
		{"to a directory", gonfs.NFSProcedureWrite, args(writeArgs(dir, 0, 2, []byte("x"))), isDir},
		{"to a symlink", gonfs.NFSProcedureWrite, args(writeArgs(link, 0, 2, []byte("x"))), inval},
		{"to a FIFO", gonfs.NFSProcedureWrite, args(writeArgs(fifo, 0, 2, []byte("x"))), inval},
		{"2^64-1 bytes", gonfs.NFSProcedureSetAttr, args(fh(file), number(0, 0, 0, 1, 0xffffffff, 0xffffffff, 0, 0, 0)), fbig},
		{"2^63 bytes", gonfs.NFSProcedureSetAttr, args(fh(file), number(0, 0, 0, 1, 1<<31, 0, 0, 0, 0)), fbig},
		{"nanoseconds of atime", gonfs.NFSProcedureSetAttr, args(fh(file), number(0, 0, 0, 0, 2, 1, 1000000000, 0, 0)), inval},
		{"nanoseconds of mtime", gonfs.NFSProcedureSetAttr, args(fh(file), number(0, 0, 0, 0, 0, 2, 1, 0xffffffff, 0)), inval},
		{"a guard", gonfs.NFSProcedureSetAttr, args(fh(file), number(1, 0o777, 0, 0, 0, 0, 0, 1, 0, 0xffffffff)), notSync},
		{"size of a directory", gonfs.NFSProcedureSetAttr, args(fh(dir), number(0, 0, 0, 1, 0, 0, 0, 0, 0)), isDir},
		{"a regular file", gonfs.NFSProcedureMkNod, args(in("new"), number(1)), badType},
		{"a directory", gonfs.NFSProcedureMkNod, args(in("new"), number(2)), badType},
		{"a symlink", gonfs.NFSProcedureMkNod, args(in("new"), number(5)), badType},
		{"no text", gonfs.NFSProcedureSymlink, args(in("new"), mode, text("")), inval},
		{"a NUL", gonfs.NFSProcedureSymlink, args(in("new"), mode, text("a\x00b")), inval},
		{"too long a text", gonfs.NFSProcedureSymlink, args(in("new"), mode, text(strings.Repeat("t", 4096))), nameTooLong},
		{"a directory", gonfs.NFSProcedureRemove, args(in("dir")), isDir},
		{"nothing", gonfs.NFSProcedureRemove, args(in("nothing")), noEnt},
		{"a file", gonfs.NFSProcedureRmDir, args(in("file")), notDir},
		{"a symlink", gonfs.NFSProcedureRmDir, args(in("link")), notDir},
		{"what is not empty", gonfs.NFSProcedureRmDir, args(in("dir")), notEmpty},
		{"nothing", gonfs.NFSProcedureRmDir, args(in("nothing")), noEnt},
		{"a directory into itself", gonfs.NFSProcedureRename, args(in("dir"), lookupArgs(dir, "new")), inval},
		{"a directory over a file", gonfs.NFSProcedureRename, args(lookupArgs(dir, "inner"), in("file")), notDir},
		{"over what is not empty", gonfs.NFSProcedureRename, args(lookupArgs(dir, "inner"), in("dir")), notEmpty},
		{"nothing", gonfs.NFSProcedureRename, args(in("nothing"), in("new")), noEnt},
		{"to a taken name", gonfs.NFSProcedureLink, args(fh(file), in("link")), exist},
		{"in a file", gonfs.NFSProcedureMkDir, args(lookupArgs(file, "new"), mode), notDir},
		{"in a symlink", gonfs.NFSProcedureMkDir, args(lookupArgs(link, "new"), mode), notDir},
		{"a range", gonfs.NFSProcedureCommit, args(fh(dir), number(0xffffffff, 0xffffffff, 0xffffffff)), isDir},
	}
	// Names, in all places where one can be.
	named := []struct {
		proc gonfs.NFSProcedure
		args func(name func(*wire.Encoder)) []func(*wire.Encoder)
		dots [2]uint32
	}{
		{gonfs.NFSProcedureCreate, func(n func(*wire.Encoder)) []func(*wire.Encoder) { return args(n, number(0), mode) }, [2]uint32{exist, exist}},
		{gonfs.NFSProcedureCreate, func(n func(*wire.Encoder)) []func(*wire.Encoder) { return args(n, number(2, 1, 1)) }, [2]uint32{exist, exist}},
		{gonfs.NFSProcedureMkDir, func(n func(*wire.Encoder)) []func(*wire.Encoder) { return args(n, mode) }, [2]uint32{exist, exist}},
		{gonfs.NFSProcedureSymlink, func(n func(*wire.Encoder)) []func(*wire.Encoder) { return args(n, mode, text("t")) }, [2]uint32{exist, exist}},
		{gonfs.NFSProcedureMkNod, func(n func(*wire.Encoder)) []func(*wire.Encoder) { return args(n, number(7), mode) }, [2]uint32{exist, exist}},
		{gonfs.NFSProcedureRemove, func(n func(*wire.Encoder)) []func(*wire.Encoder) { return args(n) }, [2]uint32{isDir, isDir}},
		{gonfs.NFSProcedureRmDir, func(n func(*wire.Encoder)) []func(*wire.Encoder) { return args(n) }, [2]uint32{inval, exist}},
		{gonfs.NFSProcedureRename, func(n func(*wire.Encoder)) []func(*wire.Encoder) { return args(n, in("new")) }, [2]uint32{inval, inval}},
		{gonfs.NFSProcedureRename, func(n func(*wire.Encoder)) []func(*wire.Encoder) { return args(in("file"), n) }, [2]uint32{inval, inval}},
		{gonfs.NFSProcedureLink, func(n func(*wire.Encoder)) []func(*wire.Encoder) { return args(fh(file), n) }, [2]uint32{exist, exist}},
	}
	for _, n := range named {
		for name, want := range map[string]uint32{
			"": inval, "a/b": inval, "../x": inval, "/": inval, "a\x00": inval, strings.Repeat("n", 256): nameTooLong, ".": n.dots[0], "..": n.dots[1],
		} {
			rows = append(rows, row{fmt.Sprintf("%.9q", name), n.proc, n.args(in(name)), want})
		}
	}
	// Attributes of what is to be made.
	for what, bad := range map[string]struct {
		attr func(*wire.Encoder)
		want uint32
	}{
		"2^64-1 bytes":         {number(0, 0, 0, 1, 0xffffffff, 0xffffffff, 0, 0), fbig},
		"2^63 bytes":           {number(0, 0, 0, 1, 1<<31, 0, 0, 0), fbig},
		"nanoseconds of atime": {number(1, 0o644, 0, 0, 0, 2, 1, 1000000000, 0), inval},
		"nanoseconds of mtime": {number(1, 0o644, 0, 0, 0, 0, 2, 1, 0xffffffff), inval},
	} {
		rows = append(rows,
			row{what, gonfs.NFSProcedureCreate, args(in("new"), number(0), bad.attr), bad.want},
			row{what, gonfs.NFSProcedureCreate, args(in("new"), number(1), bad.attr), bad.want},
			row{what, gonfs.NFSProcedureMkDir, args(in("new"), bad.attr), bad.want},
			row{what, gonfs.NFSProcedureSymlink, args(in("new"), bad.attr, text("t")), bad.want},
			row{what, gonfs.NFSProcedureMkNod, args(in("new"), number(7), bad.attr), bad.want},
			row{what, gonfs.NFSProcedureCreate, args(in("file"), number(0), bad.attr), bad.want}) // which is there
	}
	for _, r := range rows {
		got := c.do(r.proc, r.args...)
		if got.status != r.want {
			t.Errorf("%v, %s: status %d, want %d", r.proc, r.name, got.status, r.want)
		}
		if got.after[0] == nil {
			t.Errorf("%v, %s: no attributes", r.proc, r.name)
		}
	}
	if after := homeListing(t, c); after != before {
		t.Errorf("something was changed:\n%s\n%s", before, after)
	}
	c.wantFile("file", []byte("as it was"))

	// Values that are none of their type.
	for _, r := range []row{
		{"stable", gonfs.NFSProcedureWrite, args(fh(file), number(0, 0, 1, 3), text("x")), 0},
		{"createmode", gonfs.NFSProcedureCreate, args(in("new"), number(3), mode), 0},
		{"time", gonfs.NFSProcedureSetAttr, args(fh(file), number(0, 0, 0, 0, 3, 0, 0)), 0},
		{"kind", gonfs.NFSProcedureMkNod, args(in("new"), number(8), mode), 0},
		{"kind", gonfs.NFSProcedureMkNod, args(in("new"), number(0), mode), 0},
		{"bool", gonfs.NFSProcedureSetAttr, args(fh(file), number(2, 0, 0, 0, 0, 0, 0)), 0},
	} {
		c.push(progNFS, 3, uint32(r.proc), joined(r.args...))
		c.flush()
		if _, stat, _ := c.outcome(); stat != wire.GarbageArgs {
			t.Errorf("%v, %s: accept_stat %d", r.proc, r.name, stat)
		}
	}
}

// TestHomeModes: what a mode has besides its twelve bits is not for the file system,
// and those are kept as mkdir(2) and the like keep them.
func TestHomeModes(t *testing.T) {
	c := startHomes(t, Limits{}, nil).mount(t)
	for i, mode := range []uint32{0, 0o777, 0o4711, 0o1777, 0o100644, 0o040755, 0o170600, 0xfffff000 | 0o600} {
		for kind, proc := range map[string]gonfs.NFSProcedure{"file": gonfs.NFSProcedureCreate, "dir": gonfs.NFSProcedureMkDir, "fifo": gonfs.NFSProcedureMkNod} {
			name, args := fmt.Sprint(kind, i), []func(*wire.Encoder){attributes(mode)}
			want := mode & 0o7777
			switch kind {
			case "file":
				args = append([]func(*wire.Encoder){number(1)}, args...)
			case "dir":
				want &= 0o1777
			case "fifo":
				args = append([]func(*wire.Encoder){number(7)}, args...)
			}
			r := c.must(proc, append([]func(*wire.Encoder){lookupArgs(c.root, name)}, args...)...)
			if got := binary.BigEndian.Uint32(r.attr[4:]); got != want {
				t.Errorf("%s of mode %o has %o, want %o", kind, mode, got, want)
			}
			set := c.must(gonfs.NFSProcedureSetAttr, fileHandle(r.handle), attributes(mode), number(0))
			if got := binary.BigEndian.Uint32(set.after[0][4:]); got != mode&0o7777 {
				t.Errorf("%s set to mode %o has %o", kind, mode, got)
			}
		}
	}
}

// TestHomeNames makes, finds, lists and removes names that a host allows and people
// do not expect.
func TestHomeNames(t *testing.T) {
	c := startHomes(t, Limits{}, nil).mount(t)
	for _, name := range []string{strings.Repeat("n", 255), "\xff\xfe\x80", "\n\t\x01\x7f", "...", " ", "-rf", "*", "127.0.0.2", "..\x01", strings.Repeat("\u00e4", 127)} {
		h := c.file(name)
		if found := c.find(name); !bytes.Equal(found, h) {
			t.Errorf("%q: LOOKUP finds %x, made was %x", name, found, h)
		}
		if p := c.listHome(0, 4096, 4096); !slices.ContainsFunc(p.entries, func(e listed) bool { return e.name == name && bytes.Equal(e.handle, h) }) {
			t.Errorf("%q is not listed", name)
		}
		if _, err := os.Lstat(c.host(name)); err != nil {
			t.Error(err)
		}
		c.must(gonfs.NFSProcedureRemove, lookupArgs(c.root, name))
	}
	if entries, _ := os.ReadDir(c.dir); len(entries) != 0 {
		t.Errorf("left: %v", entries)
	}
}

// homeListing names what is in a home, with its attributes.
func homeListing(t *testing.T, c *homeClient) string {
	t.Helper()
	var b strings.Builder
	for _, dir := range []string{"", "dir"} {
		entries, err := os.ReadDir(c.host(dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			info, _ := e.Info()
			fmt.Fprintf(&b, "%s %v %d; ", e.Name(), info.Mode(), info.Size())
		}
	}
	return b.String()
}

// TestHomesAreApart: nothing gets from one export to another, and a node gets
// nothing with the handles of another.
func TestHomesAreApart(t *testing.T) {
	s := startHomes(t, Limits{}, nil)
	mine, theirs := s.mountFrom(t, "127.0.0.1"), s.mountFrom(t, "127.0.0.2")
	file, secret := mine.file("file"), theirs.file("secret")
	image := mine.handle("/etc/passwd")
	imageRoot := mine.mount("/")
	for name, c := range map[string]struct {
		proc gonfs.NFSProcedure
		args func(*wire.Encoder)
		want uint32
	}{
		"LINK from an image":          {gonfs.NFSProcedureLink, joined(fileHandle(image), lookupArgs(mine.root, "new")), xdev},
		"LINK to an image":            {gonfs.NFSProcedureLink, joined(fileHandle(file), lookupArgs(imageRoot, "new")), xdev},
		"RENAME from an image":        {gonfs.NFSProcedureRename, joined(lookupArgs(imageRoot, "etc"), lookupArgs(mine.root, "new")), xdev},
		"RENAME to an image":          {gonfs.NFSProcedureRename, joined(lookupArgs(mine.root, "file"), lookupArgs(imageRoot, "new")), xdev},
		"LINK of another's":           {gonfs.NFSProcedureLink, joined(fileHandle(secret), lookupArgs(mine.root, "new")), acces},
		"LINK to another's":           {gonfs.NFSProcedureLink, joined(fileHandle(file), lookupArgs(theirs.root, "new")), acces},
		"RENAME of another's":         {gonfs.NFSProcedureRename, joined(lookupArgs(theirs.root, "secret"), lookupArgs(mine.root, "new")), acces},
		"RENAME to another's":         {gonfs.NFSProcedureRename, joined(lookupArgs(mine.root, "file"), lookupArgs(theirs.root, "new")), acces},
		"LINK of an image to another": {gonfs.NFSProcedureLink, joined(fileHandle(image), lookupArgs(theirs.root, "new")), acces},
	} {
		if r := mine.do(c.proc, c.args); r.status != c.want {
			t.Errorf("%s: status %d, want %d", name, r.status, c.want)
		}
	}
	for _, call := range everyCall(mine.client) {
		if call.prog != progNFS {
			continue
		}
		d := mine.nfs(gonfs.NFSProcedure(call.proc), goodCall(mine.client, gonfs.NFSProcedure(call.proc), secret))
		if s := d.Uint32(); s != acces {
			t.Errorf("%s with a handle of another node: status %d", call.name, s)
		}
	}
	for dir, want := range map[string]int{mine.dir: 1, theirs.dir: 1} {
		if entries, _ := os.ReadDir(dir); len(entries) != want {
			t.Errorf("%s has %v", dir, entries)
		}
	}
}

// TestHomeCredentials: files belong to who makes them, and squashed is who should.
func TestHomeCredentials(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to act for others")
	}
	for name, c := range map[string]struct {
		squash   exports.Squash
		cred     func(*wire.Encoder)
		uid, gid uint32
	}{
		"root":                 {exports.SquashRoot, authSys(0, 0), 4242, 4343},
		"root without squash":  {exports.SquashNone, authSys(0, 0), 0, 0},
		"a user":               {exports.SquashRoot, authSys(1000, 1001), 1000, 1001},
		"a user who is nobody": {exports.SquashAll, authSys(1000, 1001), 4242, 4343},
		"who does not say":     {exports.SquashNone, authNone, 4242, 4343},
		"user -1":              {exports.SquashNone, authSys(1<<32-1, 1<<32-1), 4242, 4343},
	} {
		s := startHomes(t, Limits{}, func(h *exports.Homes) { h.Squash, h.AnonUID, h.AnonGID = c.squash, 4242, 4343 })
		n := s.mount(t)
		if err := os.Chmod(n.dir, 0o777); err != nil {
			t.Fatal(err)
		}
		n.cred = c.cred
		n.file("file")
		info, err := os.Stat(n.host("file"))
		if err != nil {
			t.Fatal(err)
		}
		if st := info.Sys().(*syscall.Stat_t); st.Uid != c.uid || st.Gid != c.gid {
			t.Errorf("%s: the file is of %d:%d; want %d:%d", name, st.Uid, st.Gid, c.uid, c.gid)
		}
	}
}

// TestHomeAccess holds ACCESS to what each bit means for files and directories.
func TestHomeAccess(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to act for others")
	}
	c := startHomes(t, Limits{}, nil).mount(t)
	c.file("file")
	c.must(gonfs.NFSProcedureMkDir, lookupArgs(c.root, "dir"), attributes(0o755))
	for _, r := range []struct {
		name string
		mode os.FileMode
		want uint32
	}{
		{"file", 0o700, 0}, {"file", 0o004, 0x01}, {"file", 0o002, 0x0c}, {"file", 0o001, 0x20}, {"file", 0o007, 0x2d},
		{"dir", 0o700, 0}, {"dir", 0o004, 0x01}, {"dir", 0o002, 0}, {"dir", 0o001, 0x02}, {"dir", 0o003, 0x1e}, {"dir", 0o007, 0x1f},
	} {
		c.cred = authSys(0, 0)
		h := c.find(r.name)
		c.must(gonfs.NFSProcedureSetAttr, fileHandle(h), attributes(uint32(r.mode)), number(0))
		c.cred = authSys(1000, 1000)
		d := c.nfs(gonfs.NFSProcedureAccess, joined(fileHandle(h), number(0x3f)))
		if status, attr, bits := d.Uint32(), attrOf(d), d.Uint32(); status != nfsOK || attr == nil || bits != r.want || !d.Done() {
			t.Errorf("%s of mode %o: status %d, bits %#x, want %#x", r.name, r.mode, status, bits, r.want)
		}
	}
}

// TestHomeStatic looks at what does not change.
func TestHomeStatic(t *testing.T) {
	c := startHomes(t, Limits{}, nil).mount(t)
	results := func(prog uint32, proc gonfs.NFSProcedure, args ...func(*wire.Encoder)) []byte {
		d := c.call(prog, 3, uint32(proc), joined(append([]func(*wire.Encoder){fileHandle(c.root)}, args...)...))
		if d.Uint32() != nfsOK || attrOf(d) == nil {
			t.Fatalf("%v failed", proc)
		}
		return slices.Clone(d.FixedOpaque(d.Len()))
	}
	const mib = 1 << 20
	if got, want := results(progNFS, gonfs.NFSProcedureFSInfo), words(mib, mib, 4096, mib, mib, 4096, 65536, 0x7fffffff, 0xffffffff, 0, 1, 0x1b); !bytes.Equal(got, want) {
		t.Errorf("FSINFO % x, want % x", got, want)
	}
	if got, want := results(progNFS, gonfs.NFSProcedurePathConf), words(65000, 255, 1, 1, 0, 1); !bytes.Equal(got, want) {
		t.Errorf("PATHCONF % x, want % x", got, want)
	}
	if got, want := results(progACL, 1, number(0xf)), words(0xf, 0, 0, 0, 0); !bytes.Equal(got, want) {
		t.Errorf("GETACL % x, want % x", got, want)
	}
	if d := c.call(progACL, 3, 2, joined(fileHandle(c.root), number(0, 0, 0, 0, 0))); d.Uint32() != notSupp || attrOf(d) == nil || !d.Done() {
		t.Error("SETACL")
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(c.dir, &st); err != nil {
		t.Fatal(err)
	}
	stat := results(progNFS, gonfs.NFSProcedureFSStat)
	total, free := binary.BigEndian.Uint64(stat), binary.BigEndian.Uint64(stat[8:])
	if size := st.Blocks * uint64(st.Bsize); len(stat) != 52 || total == 0 || total > size || total < free {
		t.Errorf("FSSTAT %d and %d bytes, the host has %d", total, free, size)
	}
}

// TestHomeListing lists a home in replies of all sizes.
func TestHomeListing(t *testing.T) {
	c := startHomes(t, Limits{}, nil).mount(t)
	want := map[string]bool{".": true, "..": true}
	for i := range 300 {
		name := fmt.Sprintf("%03d%s", i, strings.Repeat("x", i%250))
		if err := os.WriteFile(c.host(name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		want[name] = true
	}
	for _, room := range []struct{ dircount, count int }{{-1, 512}, {-1, 65536}, {100, 1000}, {1 << 20, 1 << 20}} {
		seen := map[string]bool{}
		for cookie, eof := uint64(0), false; !eof; {
			p := c.listHome(cookie, room.dircount, room.count)
			if p.status != nfsOK || len(p.entries) == 0 || p.size > room.count {
				t.Fatalf("%v: status %d, %d entries, %d bytes", room, p.status, len(p.entries), p.size)
			}
			for _, e := range p.entries {
				if seen[e.name] || !want[e.name] || e.cookie == 0 || e.cookie>>63 != 0 {
					t.Fatalf("%v: %q again, or never made; cookie %x", room, e.name, e.cookie)
				}
				seen[e.name] = true
				if room.dircount >= 0 && (e.attr == nil || e.handle == nil || binary.BigEndian.Uint64(e.attr[52:]) != e.id) {
					t.Errorf("%v: %q has attributes % x and handle %x", room, e.name, e.attr, e.handle)
				}
				cookie = e.cookie
			}
			eof = p.eof
		}
		if len(seen) != len(want) {
			t.Errorf("%v: %d names, want %d", room, len(seen), len(want))
		}
	}
	if p := c.listHome(0, -1, 16); p.status != tooSmall {
		t.Errorf("room for nothing: status %d", p.status)
	}
	h := c.file("file")
	if d := c.nfs(gonfs.NFSProcedureReadDir, joined(fileHandle(h), number(0, 0, 0, 0, 4096))); d.Uint32() != notDir {
		t.Error("a file is listed")
	}
}

// listHome is list, whose verifier is that of the home.
func (c *homeClient) listHome(cookie uint64, dircount, count int) page {
	c.t.Helper()
	d := c.nfs(gonfs.NFSProcedureGetAttr, fileHandle(c.root))
	d.Uint32()
	fsid := binary.BigEndian.Uint64(d.FixedOpaque(attrSize)[44:])
	return c.listWant(c.root, cookie, dircount, count, fsid)
}

// TestHomeSizes writes pieces of all sizes, many at once, in one stream and in
// fragments, and wants each byte where it belongs.
func TestHomeSizes(t *testing.T) {
	c := startHomes(t, Limits{}, nil).mount(t)
	file := c.file("file")
	sizes := []int{1 << 20, 0, 1, 3, 4096, 15 << 10, 16 << 10, 17 << 10, 1 << 20, 1 << 20, 128 << 10, 131 << 10, 133 << 10, 1<<20 - 1, 5, 700_001}
	var want []byte
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		off := uint64(0)
		for i, n := range sizes {
			c.push(progNFS, 3, uint32(gonfs.NFSProcedureWrite), writeArgs(file, off, uint32(i%3), fstest.Bytes(n)))
			c.conn.Write(c.out.Bytes())
			c.out.Truncate(0)
			off += uint64(n)
		}
	}()
	for _, n := range sizes {
		want = append(want, fstest.Bytes(n)...)
		_, d := c.reply()
		if r := decodeResults(t, gonfs.NFSProcedureWrite, d); r.status != nfsOK {
			t.Errorf("status %d", r.status)
		}
	}
	<-sent
	c.wantFile("file", want)
	c.must(gonfs.NFSProcedureCommit, fileHandle(file), number(0, 0, 0))
	var got []byte
	for off, step := 0, 1; off < len(want); off, step = off+step, min(step*7, maxIO) {
		_, data, _ := c.readAt(file, uint64(off), uint32(step))
		got = append(got, data...)
	}
	if !bytes.Equal(got, want) {
		t.Error("what is read is not what was written")
	}
}

// TestHomePortsByDefault: a home is closed to connections from ports that any user
// can have, as all in these tests are.
func TestHomePortsByDefault(t *testing.T) {
	s := startHomes(t, Limits{}, func(h *exports.Homes) { h.AnyPort = false })
	c := s.dial(t)
	d := c.call(progMount, 3, uint32(gonfs.MountProcMount), text("/home"))
	if status := d.Uint32(); status != uint32(gonfs.MountStatusErrAcces) {
		t.Errorf("MNT: status %d", status)
	}
	c.mount("/")
}
