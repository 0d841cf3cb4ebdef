package hostdir

import (
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs"
)

// TestSymlinksStayText swaps a directory for a symlink that leads out of the
// tree, over and over, while calls go through its name. Nothing comes to be
// outside, and nothing there changes.
func TestSymlinksStayText(t *testing.T) {
	needRoot(t)
	outside := tempDir(t)
	if err := os.WriteFile(outside+"/victim", []byte("victim"), 0o666); err != nil {
		t.Fatal(err)
	}
	before := portrait(t, outside)
	w := newWorld(t)
	w.mkdir(root, "real", 0o777)
	if err := os.Symlink(outside, w.at("link")); err != nil {
		t.Fatal(err)
	}
	w.create(root, "real/victim", 0o666)

	done := make(chan struct{})
	var swaps sync.WaitGroup
	swaps.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				unix.Renameat2(unix.AT_FDCWD, w.at("real"), unix.AT_FDCWD, w.at("link"), unix.RENAME_EXCHANGE)
			}
		}
	})
	reached := 0
	for range 300 {
		var a fs.Attr
		dir, err := w.Lookup(root, w.Root(), fs.Name("real"), &a)
		if err != nil {
			t.Fatal(err)
		}
		if a.Kind == fs.Symlink {
			_, err := w.Lookup(root, dir, fs.Name("victim"), &a)
			if fs.KindOf(err) != fs.ErrNotDir && (w.ByHandle() || !errors.Is(err, fs.ErrWouldBlock)) {
				t.Fatalf("lookup through a symlink: %v", err)
			}
			continue
		}
		reached++
		h, err := w.Lookup(root, dir, fs.Name("victim"), &a)
		if errors.Is(err, fs.ErrWouldBlock) && !w.ByHandle() {
			continue // it is not found where it was a moment ago
		}
		if err != nil {
			t.Fatal(err)
		}
		mode := &fs.SetAttr{Mode: ptr(uint32(0o600))}
		_, _, e1 := w.Write(root, h, 0, []byte("x"), fs.Unstable)
		_, _, _, e2 := createIn(w, dir, "new")
		_, e3 := w.Remove(root, dir, fs.Name("new"))
		_, e4 := w.Setattr(root, h, mode, nil)
		if err := errors.Join(e1, e2, e3, e4); err != nil && w.ByHandle() {
			t.Fatal(err)
		}
	}
	close(done)
	swaps.Wait()
	if reached == 0 || reached == 300 {
		t.Logf("the name was a directory in %d of 300 cases", reached)
	}
	if after := portrait(t, outside); after != before {
		t.Errorf("outside there is\n%s\nwhere there was\n%s", after, before)
	}
	if text, _ := os.ReadFile(outside + "/victim"); string(text) != "victim" {
		t.Errorf("outside was written %q", text)
	}
}

func createIn(w *world, dir fs.Handle, name string) (fs.Handle, fs.Change, fs.Attr, error) {
	var a fs.Attr
	h, c, err := w.Create(root, dir, fs.Name(name), fs.Guarded, &fs.SetAttr{Mode: ptr(uint32(0o644))}, fs.Verifier{}, &a)
	return h, c, a, err
}

// TestSpecialFilesStayClosed does everything to a FIFO and a device that is
// done to files. To open a FIFO for reading would wait for a writer.
func TestSpecialFilesStayClosed(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	for kind, name := range map[fs.Kind]string{fs.FIFO: "fifo", fs.Socket: "sock", fs.CharDevice: "tty", fs.BlockDevice: "disk", fs.Symlink: "link"} {
		var a fs.Attr
		var h fs.Handle
		var err error
		if kind == fs.Symlink {
			h, _, err = w.Symlink(root, w.Root(), fs.Name(name), []byte("fifo"), nil, &a)
		} else {
			h, _, err = w.Mknod(root, w.Root(), fs.Name(name), kind, 5, 0, &fs.SetAttr{Mode: ptr(uint32(0o666))}, &a)
		}
		if err != nil || a.Kind != kind {
			t.Fatalf("%s: %v, %v", name, a, err)
		}
		_, _, err = w.Read(root, h, 0, make([]byte, 10))
		wantErr(t, "read of "+name, err, fs.ErrInvalid)
		_, _, err = w.Write(root, h, 0, []byte("x"), fs.FileSync)
		wantErr(t, "write to "+name, err, fs.ErrInvalid)
		_, _, err = w.Commit(root, h)
		wantErr(t, "commit of "+name, err, fs.ErrInvalid)
		_, err = w.Setattr(root, h, &fs.SetAttr{Size: ptr(uint64(0))}, nil)
		wantErr(t, "truncate of "+name, err, fs.ErrInvalid)
		_, _, err = w.Create(root, w.Root(), fs.Name(name), fs.Unchecked, &fs.SetAttr{Size: ptr(uint64(0))}, fs.Verifier{}, &a)
		wantErr(t, "create over "+name, err, fs.ErrExist)
		_, _, err = w.Create(root, w.Root(), fs.Name(name), fs.Exclusive, nil, fs.Verifier{1}, &a)
		wantErr(t, "exclusive create over "+name, err, fs.ErrExist)
		_, err = w.Lookup(root, h, fs.Name("x"), &a)
		wantErr(t, "lookup in "+name, err, fs.ErrNotDir)
		_, _, err = w.ReadDir(root, h, 0, true, make([]fs.HostEntry, 5))
		wantErr(t, "list of "+name, err, fs.ErrNotDir)
		if _, err = w.Setattr(root, h, &fs.SetAttr{UID: ptr(uint32(7)), Mtime: &fs.SetTime{Time: fs.Time{Sec: 5}}}, nil); err != nil {
			t.Errorf("owner and time of %s: %v", name, err)
		}
	}
	if _, err := w.names(root, w.Root()); err != nil {
		t.Error(err)
	}
}

// TestBadArguments are values that no client has a reason to send.
func TestBadArguments(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	h := w.create(alice, "f", 0o600)
	d := w.mkdir(alice, "d", 0o755)
	var a fs.Attr
	set := func(s fs.SetAttr) error {
		_, err := w.Setattr(root, h, &s, nil)
		return err
	}
	at := func(sec int64, nsec uint32) *fs.SetTime { return &fs.SetTime{Time: fs.Time{Sec: sec, Nsec: nsec}} }
	wantErr(t, "size 2^64-1", set(fs.SetAttr{Size: ptr(^uint64(0))}), fs.ErrTooLarge)
	wantErr(t, "mode with a type", set(fs.SetAttr{Mode: ptr(uint32(0o100644))}), fs.ErrInvalid)
	wantErr(t, "1e9 nanoseconds", set(fs.SetAttr{Mtime: at(1, 1e9)}), fs.ErrInvalid)
	wantErr(t, "UTIME_NOW for nanoseconds", set(fs.SetAttr{Atime: at(1, unix.UTIME_NOW)}), fs.ErrInvalid)
	wantErr(t, "UTIME_OMIT for nanoseconds", set(fs.SetAttr{Atime: at(1, unix.UTIME_OMIT)}), fs.ErrInvalid)
	wantErr(t, "owner -1", set(fs.SetAttr{UID: ptr(^uint32(0))}), fs.ErrInvalid)
	wantErr(t, "group -1", set(fs.SetAttr{GID: ptr(^uint32(0))}), fs.ErrInvalid)
	for _, off := range []uint64{1<<63 - 1, 1 << 63, ^uint64(0)} {
		_, _, err := w.Write(alice, h, off, []byte("xy"), fs.Unstable)
		wantErr(t, "write beyond 2^63", err, fs.ErrTooLarge)
		if n, eof, err := w.Read(alice, h, off, make([]byte, 5)); n != 0 || !eof || err != nil {
			t.Errorf("read at %d: %d, %v, %v", off, n, eof, err)
		}
	}
	_, _, err := w.ReadDir(root, d, 1<<63, false, make([]fs.HostEntry, 5))
	wantErr(t, "cookie 2^63", err, fs.ErrInvalid)
	for _, dots := range []string{".", ".."} {
		name := fs.Name(dots)
		_, _, err = w.Mkdir(root, d, name, nil, &a)
		wantErr(t, "mkdir "+dots, err, fs.ErrExist)
		_, _, err = w.Create(root, d, name, fs.Guarded, nil, fs.Verifier{}, &a)
		wantErr(t, "create "+dots, err, fs.ErrExist)
		_, err = w.Link(root, h, d, name, &a)
		wantErr(t, "link "+dots, err, fs.ErrExist)
		_, _, err = w.Rename(root, d, name, d, fs.Name("x"))
		wantErr(t, "rename "+dots, err, fs.ErrInvalid)
		_, _, err = w.Rename(root, w.Root(), fs.Name("f"), d, name)
		wantErr(t, "rename to "+dots, err, fs.ErrInvalid)
		_, err = w.Remove(root, d, name)
		wantErr(t, "remove "+dots, err, fs.ErrIsDir)
	}
	_, err = w.Link(root, d, w.Root(), fs.Name("x"), &a)
	wantErr(t, "link of a directory", err, fs.ErrIsDir)
	_, _, err = w.Mknod(root, d, fs.Name("x"), fs.Regular, 0, 0, nil, &a)
	wantErr(t, "mknod of a file", err, fs.ErrBadType)
	_, _, err = w.Mknod(root, d, fs.Name("x"), fs.CharDevice, 1<<12, 0, nil, &a)
	wantErr(t, "a device number beyond Linux", err, fs.ErrInvalid)
	_, _, err = w.Create(&fs.Cred{UID: ^uint32(0), GID: 1}, w.Root(), fs.Name("x"), fs.Guarded, nil, fs.Verifier{}, &a)
	wantErr(t, "user -1", err, fs.ErrAccess)
	_, _, err = w.Create(&fs.Cred{UID: 5, GID: ^uint32(0)}, w.Root(), fs.Name("x"), fs.Guarded, nil, fs.Verifier{}, &a)
	wantErr(t, "group -1", err, fs.ErrAccess)
	_, _, err = w.Create(&fs.Cred{UID: 5, GID: 5, Groups: []uint32{^uint32(0)}}, w.Root(), fs.Name("x"), fs.Guarded, nil, fs.Verifier{}, &a)
	wantErr(t, "groups of -1", err, fs.ErrAccess)
}

// TestRightsAreFresh holds that a change of mode by a program on the host is
// seen at once, and that of an ACL after a second at most.
func TestRightsAreFresh(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	h := w.create(alice, "f", 0o644)
	read := func(c *fs.Cred) error {
		_, _, err := w.Read(c, h, 0, make([]byte, 1))
		return err
	}
	wantErr(t, "bob reads 0644", read(bob), 0)
	if err := os.Chmod(w.at("f"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantErr(t, "bob reads 0600", read(bob), fs.ErrAccess)
	wantErr(t, "alice reads 0600", read(alice), 0)
	if err := os.Chown(w.at("f"), 1002, 1002); err != nil {
		t.Fatal(err)
	}
	wantErr(t, "bob reads his own", read(bob), 0)
	wantErr(t, "alice reads bob's", read(alice), fs.ErrAccess)

	o, err := w.get(h)
	if err != nil {
		t.Fatal(err)
	}
	defer w.put(o)
	for i := range o.grants {
		if left := time.Until(o.grants[i].until); left > time.Second {
			t.Errorf("rights are trusted for %v", left)
		}
	}
}

// TestBoundTree has a tree whose mount shows no more of its file system, as a container
// has it: what is moved out of it is gone, like anywhere else.
func TestBoundTree(t *testing.T) {
	needRoot(t)
	dir, bound := tempDir(t), tempDir(t)
	if err := os.Mkdir(dir+"/tree", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(dir+"/tree", bound, "", unix.MS_BIND, ""); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { unix.Unmount(bound, unix.MNT_DETACH) })
	w := openWorld(t, bound)
	stays, goes := w.mkdir(root, "stays", 0o755), w.mkdir(root, "goes", 0o755)
	if err := os.Rename(dir+"/tree/goes", dir+"/goes"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(trust)
	var a fs.Attr
	if err := w.Getattr(stays, &a); err != nil {
		t.Error(err)
	}
	if w.ByHandle() {
		wantErr(t, "a directory that was moved out", w.Getattr(goes, &a), fs.ErrStale)
	}
}
