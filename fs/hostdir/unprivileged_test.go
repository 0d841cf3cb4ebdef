package hostdir

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs"
)

// again runs tests of this program in another process.
func again(t *testing.T, mode, tests string) {
	t.Helper()
	againAs(t, nil, mode, tests)
}

// againAs is again for a process with attributes.
func againAs(t *testing.T, as *syscall.SysProcAttr, mode, tests string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run", tests, "-test.v")
	cmd.SysProcAttr = as
	cmd.Env = append(os.Environ(), "HOSTDIR_TEST="+mode, "TMPDIR="+tempDir(t))
	out, err := cmd.CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("--- SKIP")) || !bytes.Contains(out, []byte("--- PASS: ")) {
		t.Errorf("as %s: %v\n%s", mode, err, out)
	}
}

// TestWithoutHandles runs as root of a container, who may not open files by
// handle: they are found by path, and nothing else differs.
func TestWithoutHandles(t *testing.T) {
	needRoot(t)
	onThread(func() {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_DAC_READ_SEARCH, 0, 0, 0); err != nil {
			t.Error(err)
			return
		}
		again(t, "container", "^(TestFoundByPath|TestPosix|TestListing|TestExclusive|TestChange|TestSymlinksStayText|TestSpecialFilesStayClosed|TestConcurrentWrites|TestBadArguments|TestHandlesLast)$")
	})
}

// TestSecurebits runs with a setfsuid that drops all that must be dropped, and with one
// that drops nothing.
func TestSecurebits(t *testing.T) {
	needRoot(t)
	onThread(func() {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_SYS_RESOURCE, 0, 0, 0); err != nil {
			t.Error(err)
			return
		}
		again(t, "plain", "^TestThreadsGiveUpIdentities$")
		if err := unix.Prctl(unix.PR_SET_SECUREBITS, noSetuidFixup, 0, 0, 0); err != nil {
			t.Error(err)
			return
		}
		again(t, "securebits", "^TestThreadsGiveUpIdentities$")
	})
}

// TestNamespace runs as root of a user namespace, who has all capabilities there, also
// CAP_SYS_RESOURCE, which many containers lack, and lays that down as a server does.
func TestNamespace(t *testing.T) {
	needRoot(t)
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 65536}}
	as := &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true}
	probe := exec.Command("/proc/self/exe", "-test.run", "^$")
	probe.SysProcAttr = as
	if err := probe.Run(); os.Getenv("ROOTNFSD_TEST_ALL") == "" && (errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSPC)) {
		t.Skip("needs a user namespace, which there is none of in a chroot: ", err)
	}
	againAs(t, as, "namespace", "^(TestThreadsGiveUpIdentities|TestActsForRoot|TestPanicGivesUpIdentity)$")
}

// TestAmbient runs as a user who may act for others, which takes no root.
func TestAmbient(t *testing.T) {
	needRoot(t)
	againAs(t, &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: unprivileged.UID, Gid: unprivileged.GID},
		AmbientCaps: []uintptr{unix.CAP_SETUID, unix.CAP_SETGID, unix.CAP_CHOWN, unix.CAP_FOWNER, unix.CAP_FSETID,
			unix.CAP_MKNOD, unix.CAP_DAC_OVERRIDE, unix.CAP_DAC_READ_SEARCH},
	}, "ambient", "^TestActsForRoot$")
}

// onThread runs do on a thread that ends with it, and with what it lacks by then.
func onThread(do func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked
		do()
	}()
	<-done
}

// TestSingleUser runs as a user without privileges: all callers are that one.
func TestSingleUser(t *testing.T) {
	needRoot(t)
	again(t, "single", "^(TestFoundByPath|TestOneUser|TestOwnerKeepsOpenFile)$")
}

// TestFoundByPath has files renamed behind the server's back, and the tree opened anew.
func TestFoundByPath(t *testing.T) {
	if os.Getenv("HOSTDIR_TEST") == "" {
		t.Skip("is run by others")
	}
	w := newWorld(t)
	if w.ByHandle() {
		t.Fatal("the test tests nothing: objects are opened by handle")
	}
	me := &fs.Cred{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}
	w.mkdir(me, "d", 0o755)
	w.mkdir(me, "d/e", 0o755)
	h := w.create(me, "d/e/f", 0o644)
	w.write(me, h, 0, "content", fs.FileSync)
	if err := os.Rename(w.at("d/e"), w.at("e")); err != nil {
		t.Fatal(err)
	}
	for _, w := range []*world{w, openWorld(t, w.dir)} {
		w.host.objects.Sweep()
		w.host.objects.Sweep()
		text := make([]byte, 10)
		if n, _, err := w.Read(me, h, 0, text); err != nil || string(text[:n]) != "content" {
			t.Errorf("read %q, %v", text[:n], err)
		}
	}
	old := w.must("e")
	if _, _, err := w.Rename(me, w.Root(), fs.Name("e"), w.must("d"), fs.Name("g")); err != nil {
		t.Fatal(err)
	}
	if got := w.must("d/g/f"); got != h || w.must("d/g") != old {
		t.Error("a rename made another handle")
	}
	if err := os.Remove(w.at("d/g/f")); err != nil {
		t.Fatal(err)
	}
	w.host.objects.Sweep()
	w.host.objects.Sweep()
	time.Sleep(20 * time.Millisecond)           // until directories get other times
	w.paths.again = w.paths.again.Add(-1 << 40) // it was long ago
	var a fs.Attr
	wantErr(t, "what is removed", w.Getattr(h, &a), fs.ErrStale)
	wantErr(t, "what is removed, at once again", w.Getattr(h, &a), fs.ErrWouldBlock)
	h = w.create(me, "moving", 0o644)
	w.host.objects.Sweep()
	w.host.objects.Sweep()
	for i := range maxMissed {
		// Now that the directory changes whenever one looks, the file may be anywhere.
		if err := errors.Join(os.RemoveAll(w.at("moving")), os.WriteFile(w.at("other"), nil, 0o600), os.Remove(w.at("other"))); err != nil {
			t.Fatal(err)
		}
		w.paths.again = time.Time{}
		want := fs.ErrWouldBlock
		if i == maxMissed-1 {
			want = fs.ErrStale
		}
		wantErr(t, "what may have moved", w.Getattr(h, &a), want)
	}
	for _, bad := range []fs.Handle{{}, {Len: 33}, {Len: 255}} {
		wantErr(t, "no handle", w.Getattr(bad, &a), fs.ErrBadHandle)
	}
}

// TestPlacesBounded has two trees learn places: the second finds the room taken,
// has its share, and the room is given back with the first.
func TestPlacesBounded(t *testing.T) {
	var all atomic.Int64
	big, small := newPaths(&all), newPaths(&all)
	for i := range maxPlaces + 10 {
		var h fs.Handle
		h.Len = 8
		binary.LittleEndian.PutUint64(h.Bytes[:], uint64(i))
		big.learn(h, fs.Handle{}, "x")
		big.learn(h, fs.Handle{}, "y")
		if i < 2*fairPlaces {
			small.learn(h, fs.Handle{}, "x")
		}
	}
	if n := len(big.places) + len(small.places); n != maxPlaces || int64(n) != all.Load() {
		t.Errorf("%d places are remembered and %d counted, want %d", n, all.Load(), maxPlaces)
	}
	late := newPaths(&all)
	for i := range 2 * fairPlaces {
		late.learn(fs.Handle{Len: 8, Bytes: [fs.MaxHandle]byte{byte(i), byte(i >> 8)}}, fs.Handle{}, "x")
	}
	if n := len(late.places); n != fairPlaces {
		t.Errorf("a tree has room for %d places, want %d", n, fairPlaces)
	}
	big.forget()
	if n := int(all.Load()); n != len(small.places)+len(late.places) {
		t.Errorf("%d places are counted when a tree is gone", n)
	}
}

// TestOneUser holds that the user that a call names makes no difference.
func TestOneUser(t *testing.T) {
	if os.Getenv("HOSTDIR_TEST") != "single" {
		t.Skip("is run by TestSingleUser")
	}
	w := newWorld(t)
	if w.host.Privileged() {
		t.Fatal("a host without privileges says that it has them")
	}
	h := w.create(alice, "f", 0o600)
	var a fs.Attr
	if err := w.Getattr(h, &a); err != nil || a.UID != unprivileged.UID || a.GID != unprivileged.GID {
		t.Errorf("%+v, %v", a, err)
	}
	w.write(bob, h, 0, "content", fs.FileSync)
	if n, _, err := w.Read(root, h, 0, make([]byte, 10)); n != 7 || err != nil {
		t.Errorf("read %d, %v", n, err)
	}
	_, err := w.Setattr(root, h, &fs.SetAttr{UID: ptr(uint32(0))}, nil)
	wantErr(t, "chown", err, fs.ErrPermission)
	if _, _, err = w.Mkdir(root, w.Root(), fs.Name("given"), &fs.SetAttr{UID: ptr(uint32(0)), GID: ptr(uint32(0))}, &a); err != nil || a.UID != unprivileged.UID {
		t.Errorf("a directory for another user: %+v, %v", a, err)
	}
	_, _, err = w.Mknod(root, w.Root(), fs.Name("null"), fs.CharDevice, 1, 3, nil, &a)
	wantErr(t, "mknod", err, fs.ErrPermission)
	if err := os.Mkdir(w.at("locked"), 0); err != nil {
		t.Fatal(err)
	}
	_, err = w.Lookup(root, w.must("locked"), fs.Name("x"), &a)
	wantErr(t, "lookup as a caller who says that it is root", err, fs.ErrAccess)
}
