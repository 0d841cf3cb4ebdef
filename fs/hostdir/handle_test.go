package hostdir

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs"
)

// TestHandlesLast renames a file and opens the tree anew: the handle is the same.
func TestHandlesLast(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	h := w.create(alice, "f", 0o600)
	w.write(alice, h, 0, "content", fs.FileSync)
	w.mkdir(alice, "d", 0o700)
	w.mkdir(alice, "d/e", 0o700)
	deep := w.must("d/e")
	if _, _, err := w.Rename(alice, w.Root(), fs.Name("f"), deep, fs.Name("g")); err != nil {
		t.Fatal(err)
	}
	again := openWorld(t, w.dir)
	if again.FSID() != w.FSID() || again.Root() != w.Root() {
		t.Error("the tree is another after it was opened anew")
	}
	for _, w := range []*world{w, again} {
		text := make([]byte, 10)
		n, eof, err := w.Read(alice, h, 0, text)
		if err != nil || !eof || string(text[:n]) != "content" {
			t.Errorf("read %q, %v, %v", text[:n], eof, err)
		}
		if w.must("d/e/g") != h {
			t.Error("a name leads to another handle after the rename")
		}
	}
}

// TestHandlesGoStale removes files until an inode number serves again: the old
// handle must not lead to the new file, whatever removed the old one.
func TestHandlesGoStale(t *testing.T) {
	needRoot(t)
	for _, place := range []string{os.TempDir(), "/dev/shm"} {
		t.Setenv("TMPDIR", place)
		w := newWorld(t)
		for i := range 4 {
			h := w.create(root, "f", 0o600)
			var a, b fs.Attr
			if err := w.Getattr(h, &a); err != nil {
				t.Fatal(err)
			}
			if i%2 == 0 {
				if _, err := w.Remove(root, w.Root(), fs.Name("f")); err != nil {
					t.Fatal(err)
				}
			} else if err := os.Remove(w.at("f")); err != nil {
				t.Fatal(err)
			}
			wantErr(t, "attributes of what is removed", w.Getattr(h, &a), fs.ErrStale)
			next := w.create(root, "f", 0o600)
			if err := w.Getattr(next, &b); err != nil {
				t.Fatal(err)
			}
			if next == h {
				t.Error("two files have the same handle")
			}
			wantErr(t, "attributes of what another took the place of", w.Getattr(h, &a), fs.ErrStale)
			if _, _, err := w.Write(root, h, 0, []byte("x"), fs.Unstable); fs.KindOf(err) != fs.ErrStale {
				t.Errorf("write to what is removed: %v", err)
			}
			os.Remove(w.at("f"))
		}
	}
}

// TestSpaceComesBack removes a file that is open in the cache.
func TestSpaceComesBack(t *testing.T) {
	needRoot(t)
	w := openWorld(t, newDisk(t, tempDir(t), "ext4", 32).dir)
	h := w.create(root, "big", 0o600)
	w.write(root, h, 0, string(make([]byte, 8<<20)), fs.FileSync)
	before, err := w.Statfs(root)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Remove(root, w.Root(), fs.Name("big")); err != nil {
		t.Fatal(err)
	}
	after, err := w.Statfs(root)
	if err != nil || after.FreeBytes < before.FreeBytes+7<<20 {
		t.Errorf("%d bytes free before and %d after 8 MiB were removed, %v", before.FreeBytes, after.FreeBytes, err)
	}
}

// TestOtherTrees holds that directories of other trees are refused, by
// handle, by "..", and after an administrator moved one over there.
func TestOtherTrees(t *testing.T) {
	needRoot(t)
	base := newWorld(t)
	base.mkdir(root, "a", 0o755)
	base.mkdir(root, "b", 0o755)
	base.mkdir(root, "b/secret", 0o755)
	moving := base.mkdir(root, "a/moving", 0o755)
	a, err := base.host.Open(base.at("a"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := base.host.Open(base.at("b"))
	if err != nil {
		t.Fatal(err)
	}
	if a.FSID() == b.FSID() {
		t.Error("two trees have the same identity")
	}
	var attr fs.Attr
	for _, h := range []fs.Handle{base.Root(), b.Root(), base.must("b/secret")} {
		wantErr(t, "a directory of another tree", a.Getattr(h, &attr), fs.ErrStale)
		_, err := a.Lookup(root, h, fs.Name("secret"), &attr)
		wantErr(t, "lookup there", err, fs.ErrStale)
		_, _, err = a.Rename(root, a.Root(), fs.Name("moving"), h, fs.Name("x"))
		wantErr(t, "rename to there", err, fs.ErrStale)
		_, _, err = a.Create(root, h, fs.Name("x"), fs.Guarded, nil, fs.Verifier{}, &attr)
		wantErr(t, "create there", err, fs.ErrStale)
	}
	if h, err := a.Lookup(root, a.Root(), fs.Name(".."), &attr); err != nil || h != a.Root() {
		t.Errorf(".. in the root is %v, %v", h, err)
	}
	if h, err := a.Lookup(root, moving, fs.Name(".."), &attr); err != nil || h != a.Root() {
		t.Errorf(".. below the root is %v, %v", h, err)
	}
	if err := os.Rename(base.at("a/moving"), base.at("b/moving")); err != nil {
		t.Fatal(err)
	}
	_, err = a.Lookup(root, moving, fs.Name(".."), &attr)
	wantErr(t, ".. of what was moved out", err, fs.ErrStale)
	base.host.objects.Sweep() // instead of the time that a check is trusted for
	base.host.objects.Sweep()
	wantErr(t, "what was moved out", a.Getattr(moving, &attr), fs.ErrStale)
	if err := b.Getattr(moving, &attr); err != nil {
		t.Errorf("what was moved in: %v", err)
	}
}

// TestOpenShort opens a tree when the process is short of descriptors: the
// client asks again, and nothing is left open.
func TestOpenShort(t *testing.T) {
	h := newHost(t, Options{})
	dir := t.TempDir()
	release := useDescriptors(t, 0)
	defer release()
	_, err := h.Open(dir)
	wantErr(t, "open", err, fs.ErrWouldBlock)
	if !errors.Is(err, unix.EMFILE) {
		t.Errorf("%v does not say what the host said", err)
	}
	release()
	_, err = h.Open(dir + "/none")
	wantErr(t, "open of nothing", err, fs.ErrNotExist)
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v does not say what the host said", err)
	}
}

// TestUUID asks for the identity of a file system that was made with a known one.
func TestUUID(t *testing.T) {
	want := [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	disk := newDisk(t, tempDir(t), "ext4", 12, "-U", "01020304-0506-0708-090a-0b0c0d0e0f10")
	fd, err := unix.Open(disk.dir, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	switch uuid, err := uuidOf(fd); {
	case err == unix.ENOTTY:
		t.Log("the kernel is older than 6.9")
	case err != nil || uuid != want:
		t.Errorf("%x, %v", uuid, err)
	}
}

// TestMounts holds that what is mounted in the tree is no part of it.
func TestMounts(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	w.mkdir(root, "m", 0o755)
	if err := unix.Mount("tmpfs", w.at("m"), "tmpfs", 0, ""); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { unix.Unmount(w.at("m"), unix.MNT_DETACH) })
	w.mkdir(root, "bound", 0o755)
	w.mkdir(root, "there", 0o755)
	if err := unix.Mount(w.at("there"), w.at("bound"), "", unix.MS_BIND, ""); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { unix.Unmount(w.at("bound"), unix.MNT_DETACH) })
	var a fs.Attr
	for _, name := range []string{"m", "bound"} {
		_, err := w.Lookup(root, w.Root(), fs.Name(name), &a)
		wantErr(t, "lookup of a mount point", err, fs.ErrAccess)
	}
	if _, err := w.Rmdir(root, w.Root(), fs.Name("m")); err == nil {
		t.Error("a mount point was removed")
	}
	if names, err := w.names(root, w.Root()); err != nil || fmt.Sprint(names) != "[bound m there]" {
		t.Errorf("listed %v, %v", names, err)
	}
}

// FuzzHandle throws bytes at the tree: nothing but errors of the right kinds
// comes back, or an object.
func FuzzHandle(f *testing.F) {
	needRoot(f)
	w := newWorld(f)
	h := w.create(root, "f", 0o600)
	f.Add(h.Len, h.Bytes[:])
	f.Add(w.Root().Len, w.root.Bytes[:])
	f.Add(uint8(255), h.Bytes[:])
	f.Add(uint8(9), []byte{1, 2, 0, 0, 0, 0, 0, 0, 0})
	f.Add(uint8(21), []byte{0xff, 2, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, size uint8, b []byte) {
		h := fs.Handle{Len: size}
		copy(h.Bytes[:], b)
		var a fs.Attr
		switch err := w.Getattr(h, &a); fs.KindOf(err) {
		case 0:
			if a.Kind == fs.Directory && h != w.Root() {
				t.Errorf("a directory outside: %v", a)
			}
		case fs.ErrBadHandle, fs.ErrStale, fs.ErrAccess, fs.ErrPermission, fs.ErrNotSupported:
		default:
			t.Error(err)
		}
	})
}

// TestXFS has a file system whose statfs(2) tells another identity when its
// device has another number.
func TestXFS(t *testing.T) {
	disk := newDisk(t, tempDir(t), "xfs", 320)
	w := openWorld(t, disk.dir)
	h := w.create(alice, "f", 0o600)
	w.write(alice, h, 0, "content", fs.FileSync)
	fsid := w.FSID()
	if uuid, err := xfsUUID(w.fd); err != nil || uuid == [16]byte{} {
		t.Errorf("uuid %x, %v", uuid, err)
	}
	other := openWorld(t, disk.copy(t).dir)
	if other.FSID() != fsid {
		t.Error("the same file system on another device has another identity")
	}
	if n, _, err := other.Read(alice, h, 0, make([]byte, 10)); n != 7 || err != nil {
		t.Errorf("read %d bytes by the old handle, %v", n, err)
	}
}

func TestFileID(t *testing.T) {
	for _, ino := range []uint64{2, 1<<32 - 1, 1 << 32, 0x123456789a, 1 << 63, 1<<64 - 1} {
		id := fileID(ino)
		if id == 0 || id>>32 != 0 || ino>>32 == 0 && id != ino || id != fileID(ino) {
			t.Errorf("inode %#x is %#x to clients", ino, id)
		}
	}
}
