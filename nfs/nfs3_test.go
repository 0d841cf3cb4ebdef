package nfs

import (
	"bytes"
	"math"
	"slices"
	"strings"
	"testing"

	gonfs "github.com/willscott/go-nfs"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/fstest"
	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

const (
	nfsOK       = uint32(gonfs.NFSStatusOk)
	noEnt       = uint32(gonfs.NFSStatusNoEnt)
	ioError     = uint32(gonfs.NFSStatusIO)
	acces       = uint32(gonfs.NFSStatusAccess)
	notDir      = uint32(gonfs.NFSStatusNotDir)
	isDir       = uint32(gonfs.NFSStatusIsDir)
	inval       = uint32(gonfs.NFSStatusInval)
	rofs        = uint32(gonfs.NFSStatusROFS)
	nameTooLong = uint32(gonfs.NFSStatusNameTooLong)
	stale       = uint32(gonfs.NFSStatusStale)
	badHandle   = uint32(gonfs.NFSStatusBadHandle)
	badCookie   = uint32(gonfs.NFSStatusBadCookie)
	tooSmall    = uint32(gonfs.NFSStatusTooSmall)
)

// TestEncodeAttributes holds a fattr3 against bytes written by hand from
// RFC 1813, section 2.5.
func TestEncodeAttributes(t *testing.T) {
	var c call
	c.out.Reset(make([]byte, attrSize))
	c.putAttr(&fs.Attr{
		Kind: fs.CharDevice, Mode: 0o6755, Nlink: 3, UID: 4, GID: 5,
		Size: 1<<40 + 6, Used: 1<<40 + 7, Major: 8, Minor: 9, FSID: 1<<63 + 10, FileID: 1<<32 + 11,
		Atime: fs.Time{Sec: -1, Nsec: 999}, Mtime: fs.Time{Sec: 1 << 31, Nsec: 12}, Ctime: fs.Time{Sec: 1 << 32, Nsec: 13},
	})
	want := words(4, 0o6755, 3, 4, 5, 256, 6, 256, 7, 8, 9, 1<<31, 10, 1, 11, 0, 0, 1<<31, 12, math.MaxUint32, 999_999_999)
	if !bytes.Equal(c.out.Bytes(), want) {
		t.Errorf("\n% x, want\n% x", c.out.Bytes(), want)
	}
}

// attrOf reads a post_op_attr and returns it, or nil if there is none.
func attrOf(d *wire.Decoder) []byte {
	if d.Bool() {
		return d.FixedOpaque(attrSize)
	}
	return nil
}

// wantAttr fails unless b is the fattr3 of the object at a path.
func wantAttr(t *testing.T, what string, b []byte, tree *fstest.MemTree, path string) {
	t.Helper()
	var c call
	var a fs.Attr
	if err := tree.Getattr(tree.ID(path), &a); err != nil {
		t.Fatal(err)
	}
	c.out.Reset(make([]byte, attrSize))
	c.putAttr(&a)
	if !bytes.Equal(b, c.out.Bytes()) {
		t.Errorf("%s: attributes are not those of %s:\n% x, want\n% x", what, path, b, c.out.Bytes())
	}
}

// Every object has the same attributes by GETATTR, by LOOKUP and by what comes
// with other replies, and they are the tree's.
func TestAttributesOfEverything(t *testing.T) {
	tree := sample()
	c := start(t, tree, Limits{}).dial(t)
	for _, o := range fstest.Sample() {
		h := c.handle(o.Path)
		d := c.nfs(gonfs.NFSProcedureGetAttr, func(e *wire.Encoder) { e.Opaque(h) })
		if s := d.Uint32(); s != nfsOK {
			t.Fatalf("GETATTR %s: status %d", o.Path, s)
		}
		wantAttr(t, "GETATTR", d.FixedOpaque(attrSize), tree, o.Path)
		for _, proc := range []gonfs.NFSProcedure{gonfs.NFSProcedureFSStat, gonfs.NFSProcedureFSInfo, gonfs.NFSProcedurePathConf} {
			d := c.nfs(proc, func(e *wire.Encoder) { e.Opaque(h) })
			if s := d.Uint32(); s != nfsOK {
				t.Fatalf("%v %s: status %d", proc, o.Path, s)
			}
			wantAttr(t, proc.String(), attrOf(d), tree, o.Path)
		}
		if o.Kind != fs.Symlink || o.LinkTo != "" {
			continue
		}
		d = c.nfs(gonfs.NFSProcedureReadlink, func(e *wire.Encoder) { e.Opaque(h) })
		if s := d.Uint32(); s != nfsOK {
			t.Fatalf("READLINK %s: status %d", o.Path, s)
		}
		wantAttr(t, "READLINK", attrOf(d), tree, o.Path)
		if text := d.Opaque(5000); string(text) != o.Target || !d.Done() {
			t.Errorf("READLINK %s: %q, want %q", o.Path, text, o.Target)
		}
	}
}

func lookupArgs(dir []byte, name string) func(*wire.Encoder) {
	return func(e *wire.Encoder) {
		e.Opaque(dir)
		e.String(name)
	}
}

func TestLookup(t *testing.T) {
	tree := sample()
	h := start(t, tree, Limits{})
	c := h.dial(t)
	for _, test := range []struct {
		dir, name string
		status    uint32
		found     string // path of what is found
	}{
		{"/", "etc", nfsOK, "/etc"},
		{"/", ".", nfsOK, "/"},
		{"/", "..", nfsOK, "/"},
		{"/etc", ".", nfsOK, "/etc"},
		{"/etc", "..", nfsOK, "/"},
		{"/root/deep", "..", nfsOK, "/root"},
		{"/links", "absolute", nfsOK, "/links/absolute"},
		{"/", "nothing", noEnt, ""},
		{"/", strings.Repeat("n", 255), noEnt, ""},
		{"/", strings.Repeat("n", 256), nameTooLong, ""},
		{"/", strings.Repeat("n", 5000), nameTooLong, ""},
		{"/", "", inval, ""},
		{"/", "/", inval, ""},
		{"/", "etc/passwd", inval, ""},
		{"/links", "up/etc", inval, ""},
		{"/", "etc\x00", inval, ""},
		{"/", "\xff\xfe", noEnt, ""},
		{"/etc/passwd", "name", notDir, ""},
		{"/etc/passwd", "..", notDir, ""},
		{"/links/up", "etc", notDir, ""},
		{"/dev/fifo", "x", notDir, ""},
	} {
		dir, found := c.handle(test.dir), c.handle(test.found)
		d := c.nfs(gonfs.NFSProcedureLookup, lookupArgs(dir, test.name))
		what := "LOOKUP " + test.name + " in " + test.dir
		if s := d.Uint32(); s != test.status {
			t.Errorf("%s: status %d, want %d", what, s, test.status)
			continue
		}
		if test.status == nfsOK {
			if got := d.Opaque(64); !bytes.Equal(got, found) {
				t.Errorf("%s: not the handle of %s", what, test.found)
			}
			wantAttr(t, what, attrOf(d), tree, test.found)
		}
		wantAttr(t, what+" (directory)", attrOf(d), tree, test.dir)
		if !d.Done() {
			t.Errorf("%s: %d bytes left", what, d.Len())
		}
	}
}

// Rights are the same whether a call is answered at once or has to wait.
func TestPermissions(t *testing.T) {
	t.Run("at once", func(t *testing.T) { testPermissions(t, sample()) })
	t.Run("later", func(t *testing.T) { testPermissions(t, coldTree(sample())) })
}

func testPermissions(t *testing.T, tree fs.Tree) {
	c := start(t, tree, Limits{}).dial(t)
	const r, l, x = accessRead, accessLookup, accessExecute
	type who struct {
		name string
		cred func(*wire.Encoder)
	}
	root := who{"root", authSys(0, 0)}
	user := who{"user", authSys(1000, 1000)}
	other := who{"other", authSys(7, 7)}
	shadow := who{"group shadow", authSys(7, 7, 42)}
	last := who{"16th group", authSys(7, 7, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 42)}
	nobody := who{"AUTH_NONE", authNone}
	for _, test := range []struct {
		path   string
		who    who
		access uint32
		read   uint32
	}{
		{"/etc/shadow", root, r, nfsOK},
		{"/etc/shadow", user, 0, acces},
		{"/etc/shadow", shadow, r, nfsOK},
		{"/etc/shadow", last, r, nfsOK},
		{"/etc/shadow", nobody, 0, acces},
		{"/etc/passwd", nobody, r, nfsOK},
		{"/etc/passwd", root, r, nfsOK}, // nobody may execute it, so root may not
		{"/bin/su", user, r | x, nfsOK},
		{"/bin/secret", user, x, nfsOK}, // to run it is to read it
		{"/bin/secret", root, r | x, nfsOK},
		{"/home/mine", user, 0, nfsOK}, // the owner may read what it has open
		{"/home/mine", other, 0, acces},
		{"/root", user, 0, isDir},
		{"/root", root, r | l, isDir},
		{"/home", other, l, isDir},
		{"/tmp", other, r | l, isDir},
		{"/links/up", other, r | x, inval},
		{"/dev/null", other, r, inval},
		{"/dev/fifo", root, r, inval},
		{"/dev/log", root, r, inval},
	} {
		c.cred = root.cred
		handle := c.handle(test.path)
		c.cred = test.who.cred
		for _, asked := range []uint32{0x3f, 0xffffffff, 0, test.access} {
			d := c.nfs(gonfs.NFSProcedureAccess, func(e *wire.Encoder) { e.Opaque(handle); e.Uint32(asked) })
			if s := d.Uint32(); s != nfsOK || attrOf(d) == nil {
				t.Fatalf("ACCESS %s: status %d", test.path, s)
			}
			if got := d.Uint32(); got != test.access&asked || !d.Done() {
				t.Errorf("ACCESS %s by %s: %#x, want %#x", test.path, test.who.name, got, test.access&asked)
			}
		}
		if s, _, _ := c.readAt(handle, 0, 100); s != test.read {
			t.Errorf("READ %s by %s: status %d, want %d", test.path, test.who.name, s, test.read)
		}
	}

	// The way to what one may not reach is closed too.
	c.cred = root.cred
	dir := c.handle("/root")
	c.cred = user.cred
	for proc, args := range map[gonfs.NFSProcedure]func(*wire.Encoder){
		gonfs.NFSProcedureLookup:      lookupArgs(dir, "deep"),
		gonfs.NFSProcedureReadDir:     func(e *wire.Encoder) { e.Opaque(dir); e.Uint64(0); e.Uint64(0); e.Uint32(4096) },
		gonfs.NFSProcedureReadDirPlus: func(e *wire.Encoder) { e.Opaque(dir); e.Uint64(0); e.Uint64(0); e.Uint32(4096); e.Uint32(4096) },
	} {
		if d := c.nfs(proc, args); d.Uint32() != acces || attrOf(d) == nil || !d.Done() {
			t.Errorf("%v of /root by a user is not refused", proc)
		}
	}
}

// TestHandles presents handles of every bad kind with every call.
func TestHandles(t *testing.T) {
	h := start(t, sample(), Limits{})
	c := h.dial(t)
	good := c.handle("/etc/passwd")
	flip := func(i int) []byte {
		b := bytes.Clone(good)
		b[i] ^= 1
		return b
	}
	for name, bad := range map[string][]byte{
		"first bit flipped": flip(0),
		"inode changed":     flip(len(good) - 12),
		"last bit flipped":  flip(len(good) - 1),
		"cut":               good[:len(good)-4],
		"too long":          append(bytes.Clone(good), 0, 0, 0, 0),
		"zeros":             make([]byte, 32),
		"64 bytes":          make([]byte, 64),
		"one byte":          {1},
	} {
		for proc := gonfs.NFSProcedureGetAttr; proc <= gonfs.NFSProcedureCommit; proc++ {
			call := goodCall(c, proc, bad)
			d := c.nfs(proc, call)
			if s := d.Uint32(); s != badHandle {
				t.Errorf("%v with a handle %s: status %d", proc, name, s)
			}
			for d.Len() > 0 {
				if d.Uint32() != 0 {
					t.Errorf("%v with a handle %s: there are attributes", proc, name)
				}
			}
		}
	}
}

// goodCall returns arguments of a call whose first object is handle.
func goodCall(c *client, proc gonfs.NFSProcedure, handle []byte) func(*wire.Encoder) {
	for _, call := range everyCall(c) {
		if call.prog != progNFS || call.proc != uint32(proc) {
			continue
		}
		return func(e *wire.Encoder) {
			var args wire.Encoder
			args.Reset(make([]byte, 1000))
			call.args(&args)
			d := wire.NewDecoder(args.Bytes())
			d.Opaque(64)
			e.Opaque(handle)
			rest := args.Bytes()[args.Len()-d.Len():]
			copy(e.Extend(len(rest)), rest)
		}
	}
	panic("no such call")
}

func TestStatic(t *testing.T) {
	tree := sample()
	c := start(t, tree, Limits{}).dial(t)
	root := c.mount("/")
	results := func(proc gonfs.NFSProcedure) []byte {
		d := c.nfs(proc, func(e *wire.Encoder) { e.Opaque(root) })
		if d.Uint32() != nfsOK || attrOf(d) == nil {
			t.Fatalf("%v failed", proc)
		}
		return slices.Clone(d.FixedOpaque(d.Len()))
	}
	const mib = 1 << 20
	if got, want := results(gonfs.NFSProcedureFSInfo), words(mib, mib, 4096, mib, mib, 4096, 65536, 0x7fffffff, 0xffffffff, 0, 1, 0x1b); !bytes.Equal(got, want) {
		t.Errorf("FSINFO % x, want % x", got, want)
	}
	if got, want := results(gonfs.NFSProcedurePathConf), words(65000, 255, 1, 1, 0, 1); !bytes.Equal(got, want) {
		t.Errorf("PATHCONF % x, want % x", got, want)
	}
	s := tree.Statfs()
	if got, want := results(gonfs.NFSProcedureFSStat), words(0, uint32(s.Bytes), 0, 0, 0, 0, 0, uint32(s.Files), 0, 0, 0, 0, 0); !bytes.Equal(got, want) {
		t.Errorf("FSSTAT % x, want % x", got, want)
	}
}

func TestReadlinkOfOthers(t *testing.T) {
	tree := sample()
	c := start(t, tree, Limits{}).dial(t)
	for _, path := range []string{"/", "/etc/passwd", "/dev/null", "/dev/fifo"} {
		h := c.handle(path)
		d := c.nfs(gonfs.NFSProcedureReadlink, func(e *wire.Encoder) { e.Opaque(h) })
		if s := d.Uint32(); s != inval {
			t.Errorf("READLINK %s: status %d", path, s)
		}
		wantAttr(t, "READLINK", attrOf(d), tree, path)
	}
}

// TestReadOnly makes every call that changes something, and wants it refused
// with the attributes that RFC 1813 has for it.
func TestReadOnly(t *testing.T) {
	tree := sample()
	c := start(t, tree, Limits{}).dial(t)
	for _, call := range everyCall(c) {
		if call.prog != progNFS || mutations[min(int(call.proc), len(mutations)-1)].args == nil {
			continue
		}
		first, second := "/", ""
		switch gonfs.NFSProcedure(call.proc) {
		case gonfs.NFSProcedureSetAttr, gonfs.NFSProcedureWrite, gonfs.NFSProcedureCommit:
			first = "/etc/passwd"
		case gonfs.NFSProcedureRename:
			second = "/"
		case gonfs.NFSProcedureLink:
			first, second = "/etc/passwd", "/"
		}
		d := c.call(call.prog, call.vers, call.proc, call.args)
		if s := d.Uint32(); s != rofs {
			t.Errorf("%s: status %d", call.name, s)
			continue
		}
		wcc := func(path string) {
			if d.Bool() {
				t.Errorf("%s: claims to know what was before", call.name)
			}
			wantAttr(t, call.name, attrOf(d), tree, path)
		}
		if call.proc == uint32(gonfs.NFSProcedureLink) {
			wantAttr(t, call.name, attrOf(d), tree, first)
		} else {
			wcc(first)
		}
		if second != "" {
			wcc(second)
		}
		if !d.Done() {
			t.Errorf("%s: %d bytes left", call.name, d.Len())
		}
	}
}

func TestMutationsWithBadNames(t *testing.T) {
	c := start(t, sample(), Limits{}).dial(t)
	root := c.mount("/")
	for name, want := range map[string]uint32{"": inval, "a/b": inval, "a\x00": inval, strings.Repeat("n", 256): nameTooLong, "good": rofs} {
		if d := c.nfs(gonfs.NFSProcedureRemove, lookupArgs(root, name)); d.Uint32() != want {
			t.Errorf("REMOVE %q: not status %d", name, want)
		}
		d := c.nfs(gonfs.NFSProcedureRename, func(e *wire.Encoder) {
			lookupArgs(root, "good")(e)
			lookupArgs(root, name)(e)
		})
		if s := d.Uint32(); s != want {
			t.Errorf("RENAME to %q: status %d, want %d", name, s, want)
		}
	}
}

func TestLargeWriteIsRefused(t *testing.T) {
	h := start(t, sample(), Limits{})
	c := h.dial(t)
	file := c.handle("/etc/passwd")
	data := make([]byte, maxIO)
	for range 3 {
		d := c.nfs(gonfs.NFSProcedureWrite, func(e *wire.Encoder) {
			e.Opaque(file)
			e.Uint64(0)
			e.Uint32(maxIO)
			e.Uint32(2)
			e.Opaque(data)
		})
		if s := d.Uint32(); s != rofs {
			t.Errorf("status %d", s)
		}
	}
	c.wantAlive()
}

// A status for each kind of error, and none left out.
func TestStatuses(t *testing.T) {
	seen := map[gonfs.NFSStatus]fs.Error{}
	for e := fs.ErrPermission; e.Error() != "unknown error"; e++ {
		s := nfsStatus(e)
		if other, dup := seen[s]; dup {
			t.Errorf("%v and %v are both %v", e, other, s)
		}
		seen[s] = e
		if s == gonfs.NFSStatusIO && e != fs.ErrIO {
			t.Errorf("%v has no status of its own", e)
		}
	}
	if nfsStatus(nil) != gonfs.NFSStatusOk || nfsStatus(bytes.ErrTooLarge) != gonfs.NFSStatusIO {
		t.Error("nil, or an error of no kind")
	}
	for e, want := range map[error]gonfs.MountStatus{
		nil: 0, fs.ErrNotExist: gonfs.MountStatusErrNoEnt, fs.ErrAccess: gonfs.MountStatusErrAcces, fs.ErrStale: gonfs.MountStatusErrServerFault,
		fs.ErrNameTooLong: gonfs.MountStatusErrNameTooLong, fs.ErrIO: gonfs.MountStatusErrIO,
	} {
		if got := mountStatus(e); got != want {
			t.Errorf("mount status of %v is %d, want %d", e, got, want)
		}
	}
}
