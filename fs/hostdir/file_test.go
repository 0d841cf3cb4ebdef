package hostdir

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/fstest"
)

// TestExclusive makes a file with a verifier, twice, and after a restart.
func TestExclusive(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	verf := fs.Verifier{0xff, 2, 3, 4, 0xff, 6, 7, 8}
	try := func(w *world, how fs.Create, verf fs.Verifier, s *fs.SetAttr) (fs.Handle, fs.Attr, error) {
		var a fs.Attr
		h, _, err := w.Create(alice, w.Root(), fs.Name("f"), how, s, verf, &a)
		return h, a, err
	}
	h, a, err := try(w, fs.Exclusive, verf, nil)
	if err != nil || a.Mode != 0 || a.UID != alice.UID || a.Size != 0 {
		t.Fatalf("%+v, %v", a, err)
	}
	for _, w := range []*world{w, openWorld(t, w.dir)} {
		if again, _, err := try(w, fs.Exclusive, verf, nil); err != nil || again != h {
			t.Errorf("the same call again: %v", err)
		}
		_, _, err = try(w, fs.Exclusive, fs.Verifier{1}, nil)
		wantErr(t, "another verifier", err, fs.ErrExist)
		_, _, err = try(w, fs.Guarded, verf, nil)
		wantErr(t, "guarded", err, fs.ErrExist)
	}
	if _, err := w.Setattr(alice, h, &fs.SetAttr{Mode: ptr(uint32(0o644)), Mtime: &fs.SetTime{Now: true}, Atime: &fs.SetTime{Now: true}}, nil); err != nil {
		t.Fatal(err)
	}
	_, _, err = try(w, fs.Exclusive, verf, nil)
	wantErr(t, "the call again after its attributes were set", err, fs.ErrExist)

	w.write(alice, h, 0, "content", fs.Unstable)
	if again, a, err := try(w, fs.Unchecked, fs.Verifier{}, &fs.SetAttr{Mode: ptr(uint32(0o600))}); err != nil || again != h || a.Mode != 0o644 || a.Size != 7 {
		t.Errorf("unchecked: %+v, %v", a, err)
	}
	if _, a, err := try(w, fs.Unchecked, fs.Verifier{}, &fs.SetAttr{Size: ptr(uint64(0))}); err != nil || a.Size != 0 {
		t.Errorf("unchecked, truncating: %+v, %v", a, err)
	}
	var b fs.Attr
	_, _, err = w.Create(bob, w.Root(), fs.Name("f"), fs.Unchecked, &fs.SetAttr{Size: ptr(uint64(0))}, fs.Verifier{}, &b)
	wantErr(t, "another's file, truncating", err, fs.ErrAccess)
}

// TestExclusiveRace has many make the same name: one succeeds.
func TestExclusiveRace(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	for i := range 5 {
		var all sync.WaitGroup
		won := make(chan int, 16)
		for n := range 16 {
			all.Go(func() {
				var a fs.Attr
				_, _, err := w.Create(alice, w.Root(), fs.Name(fmt.Sprint("f", i)), fs.Exclusive, nil, fs.Verifier{byte(n)}, &a)
				if err == nil {
					won <- n
				} else if !errors.Is(err, fs.ErrExist) {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if len(won) != 1 {
			t.Errorf("%d made the same file", len(won))
		}
	}
}

// TestUncheckedRace has one create a file, which may be there, over and over while
// others remove it: whoever asks for a file gets one.
func TestUncheckedRace(t *testing.T) {
	needRoot(t)
	t.Setenv("TMPDIR", "/dev/shm") // where nothing waits for a disk
	w := newWorld(t)
	done := make(chan struct{})
	var removers sync.WaitGroup
	for range 2 {
		removers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					os.Remove(w.at("f"))
				}
			}
		})
	}
	for i := range 3000 {
		var a fs.Attr
		s := &fs.SetAttr{Mode: ptr(uint32(0o600))}
		if i%2 == 0 {
			s.Size = ptr(uint64(0))
		}
		_, _, err := w.Create(root, w.Root(), fs.Name("f"), fs.Unchecked, s, fs.Verifier{}, &a)
		if err != nil && !errors.Is(err, fs.ErrWouldBlock) {
			t.Fatalf("create %d: %v", i, err)
		}
		os.WriteFile(w.at("f"), nil, 0o600) // for the next one to find
	}
	close(done)
	removers.Wait()
}

// TestFull fills a file system as a user, who cannot have the reserve of root.
func TestFull(t *testing.T) {
	needRoot(t)
	w := openWorld(t, newDisk(t, tempDir(t), "ext4", 24, "-m", "20").dir)
	h := w.create(alice, "f", 0o666)
	fill := func(c *fs.Cred) (size uint64, err error) {
		var a fs.Attr
		if err := w.Getattr(h, &a); err != nil {
			t.Fatal(err)
		}
		for err == nil {
			_, _, err = w.Write(c, h, a.Size, make([]byte, 256<<10), fs.FileSync)
			if e := w.Getattr(h, &a); e != nil {
				t.Fatal(e)
			}
		}
		return a.Size, err
	}
	byUser, err := fill(alice)
	wantErr(t, "alice fills it", err, fs.ErrNoSpace)
	free, _ := w.Statfs(alice)
	if free.FreeBytes > 256<<10 {
		t.Errorf("%d bytes free for alice", free.FreeBytes)
	}
	if rootFree, _ := w.Statfs(root); rootFree.FreeBytes < free.FreeBytes+2<<20 {
		t.Errorf("%d bytes free for root, who has a reserve", rootFree.FreeBytes)
	}
	byRoot, err := fill(root)
	wantErr(t, "root fills it", err, fs.ErrNoSpace)
	if byRoot < byUser+2<<20 {
		t.Errorf("alice got %d bytes into it and root %d: the reserve is gone", byUser, byRoot)
	}
	var a fs.Attr
	for i := 0; err == nil || errors.Is(err, fs.ErrExist); i++ {
		_, _, err = w.Mkdir(alice, w.Root(), fs.Name(fmt.Sprint("d", i)), nil, &a)
	}
	wantErr(t, "a directory in what is full", err, fs.ErrNoSpace)
	if _, err := w.Remove(root, w.Root(), fs.Name("f")); err != nil {
		t.Errorf("remove from what is full: %v", err)
	}
}

// filledPipe returns the end to read from of a pipe that has those bytes in it.
func filledPipe(t testing.TB, p []byte) int {
	t.Helper()
	var fd [2]int
	if err := unix.Pipe2(fd[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd[0]); unix.Close(fd[1]) })
	if _, err := unix.FcntlInt(uintptr(fd[1]), unix.F_SETPIPE_SZ, 1<<20); err != nil {
		t.Fatal(err)
	}
	if n, err := unix.Write(fd[1], p); err != nil || n != len(p) {
		t.Fatalf("%d bytes go into a pipe, %v", n, err)
	}
	return fd[0]
}

// TestWriteSpliced writes out of pipes what Write writes, by the same rights.
func TestWriteSpliced(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	h := w.create(alice, "f", 0o600)
	p := fstest.Bytes(1 << 20)
	model := make([]byte, 0, 3<<20)
	for _, at := range []struct{ off, n int }{{0, 1 << 20}, {1 << 20, 1 << 20}, {4095, 100_001}, {1<<20 + 1, 1 << 20}, {7, 1}} {
		change, verf, err := w.WriteSpliced(alice, h, uint64(at.off), at.n, filledPipe(t, p[:at.n]))
		if err != nil || verf != w.verifier() || change.Before == nil || !change.HasAfter {
			t.Fatalf("%d bytes at %d: %v, %+v", at.n, at.off, err, change)
		}
		model = model[:max(len(model), at.off+at.n)]
		copy(model[at.off:], p[:at.n])
		if is, err := os.ReadFile(w.at("f")); err != nil || !bytes.Equal(is, model) {
			t.Fatalf("%d bytes at %d: %v, the file has %d bytes and not what was written", at.n, at.off, err, len(is))
		}
	}
	pipe := filledPipe(t, p)
	_, _, err := w.WriteSpliced(bob, h, 0, len(p), pipe)
	wantErr(t, "as another", err, fs.ErrAccess)
	_, _, err = w.WriteSpliced(alice, h, math.MaxInt64-5, len(p), pipe)
	wantErr(t, "too far", err, fs.ErrTooLarge)
	_, _, err = w.WriteSpliced(alice, w.Root(), 0, len(p), pipe)
	wantErr(t, "to a directory", err, fs.ErrIsDir)
	_, _, err = w.WriteSpliced(alice, h, 0, len(p)+1, pipe)
	if err == nil {
		t.Error("more was written than was in the pipe")
	}
	if is, err := os.ReadFile(w.at("f")); err != nil || len(is) != len(model) {
		t.Errorf("%d bytes, %v; want %d", len(is), err, len(model))
	}
}

// TestSpliceFull is TestFull out of pipes: the error is told, however much went into it.
func TestSpliceFull(t *testing.T) {
	needRoot(t)
	w := openWorld(t, newDisk(t, tempDir(t), "ext4", 24, "-m", "20").dir)
	h := w.create(alice, "f", 0o666)
	p := fstest.Bytes(1 << 20)
	var off uint64
	var err error
	for ; err == nil; off += uint64(len(p)) {
		_, _, err = w.WriteSpliced(alice, h, off, len(p), filledPipe(t, p))
		if _, _, e := w.Commit(alice, h); e != nil {
			t.Fatal(e)
		}
	}
	wantErr(t, "alice fills it", err, fs.ErrNoSpace)
	if free, _ := w.Statfs(alice); free.FreeBytes >= 1<<20 {
		t.Errorf("%d bytes free for alice", free.FreeBytes)
	}
	is, err := os.ReadFile(w.at("f"))
	if written := int(off) - len(p); err != nil || len(is) < written || !bytes.Equal(is[:written], bytes.Repeat(p, written>>20)) {
		t.Errorf("%v: %d bytes are there, %d were written", err, len(is), written)
	}
}

// TestConcurrentWrites writes a file in pieces, all at once, of all degrees of safety.
func TestConcurrentWrites(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	h := w.create(alice, "f", 0o600)
	const piece = 10000
	var all sync.WaitGroup
	for i := range 32 {
		all.Go(func() {
			p := bytes.Repeat([]byte{byte(i + 1)}, piece)
			if _, _, err := w.Write(alice, h, uint64(i*piece), p, fs.Stability(i%3)); err != nil {
				t.Error(err)
			}
			if _, _, err := w.Commit(alice, h); err != nil {
				t.Error(err)
			}
			got := make([]byte, piece)
			if n, _, err := w.Read(alice, h, uint64(i*piece), got); n != piece || err != nil || !bytes.Equal(got, p) {
				t.Errorf("piece %d: read %d, %v", i, n, err)
			}
		})
	}
	all.Wait()
	is, err := os.ReadFile(w.at("f"))
	if err != nil || len(is) != 32*piece {
		t.Fatalf("%d bytes, %v", len(is), err)
	}
	for i, b := range is {
		if int(b) != i/piece+1 {
			t.Fatalf("byte %d is %d", i, b)
		}
	}
}

// TestChange compares what calls say of before and after with the truth.
func TestChange(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	d := w.mkdir(root, "d", 0o755)
	e := w.mkdir(root, "e", 0o755)
	f := w.create(root, "f", 0o644)
	for _, name := range []string{"d/old", "d/here", "d/out", "d/file"} {
		w.create(root, name, 0o644)
	}
	w.mkdir(root, "d/olddir", 0o755)
	w.mkdir(root, "e/dir", 0o755)
	var a fs.Attr
	for name, call := range map[string]func() (fs.Handle, fs.Change, error){
		"write": func() (fs.Handle, fs.Change, error) {
			c, _, err := w.Write(root, f, 0, []byte("x"), fs.Unstable)
			return f, c, err
		},
		"setattr": func() (fs.Handle, fs.Change, error) {
			c, err := w.Setattr(root, f, &fs.SetAttr{Mode: ptr(uint32(0o600))}, nil)
			return f, c, err
		},
		"create": func() (fs.Handle, fs.Change, error) {
			_, c, err := w.Create(root, d, fs.Name("x"), fs.Guarded, nil, fs.Verifier{}, &a)
			return d, c, err
		},
		"symlink": func() (fs.Handle, fs.Change, error) {
			_, c, err := w.Symlink(root, d, fs.Name("l"), []byte("x"), nil, &a)
			return d, c, err
		},
		"link": func() (fs.Handle, fs.Change, error) {
			c, err := w.Link(root, f, d, fs.Name("hard"), &a)
			return d, c, err
		},
		"mkdir": func() (fs.Handle, fs.Change, error) {
			_, c, err := w.Mkdir(root, d, fs.Name("sub"), nil, &a)
			return d, c, err
		},
		"mknod": func() (fs.Handle, fs.Change, error) {
			_, c, err := w.Mknod(root, d, fs.Name("fifo"), fs.FIFO, 0, 0, nil, &a)
			return d, c, err
		},
		"remove": func() (fs.Handle, fs.Change, error) {
			c, err := w.Remove(root, d, fs.Name("old"))
			return d, c, err
		},
		"rmdir": func() (fs.Handle, fs.Change, error) {
			c, err := w.Rmdir(root, d, fs.Name("olddir"))
			return d, c, err
		},
		"rename": func() (fs.Handle, fs.Change, error) {
			c, to, err := w.Rename(root, d, fs.Name("here"), d, fs.Name("there"))
			if c.After != to.After || c.Before == nil || to.Before == nil || *c.Before != *to.Before {
				t.Errorf("rename in a directory tells two things of it: %+v, %+v", c, to)
			}
			return d, c, err
		},
		"rename out": func() (fs.Handle, fs.Change, error) {
			c, _, err := w.Rename(root, d, fs.Name("out"), e, fs.Name("in"))
			return d, c, err
		},
		"rename in": func() (fs.Handle, fs.Change, error) { // of a directory, which changes the link count
			_, c, err := w.Rename(root, e, fs.Name("dir"), d, fs.Name("dir"))
			return d, c, err
		},
		"exclusive create": func() (fs.Handle, fs.Change, error) {
			_, c, err := w.Create(root, d, fs.Name("exclusive"), fs.Exclusive, nil, fs.Verifier{1}, &a)
			return d, c, err
		},
		"create of what is there": func() (fs.Handle, fs.Change, error) {
			_, c, err := w.Create(root, d, fs.Name("file"), fs.Unchecked, &fs.SetAttr{Size: ptr(uint64(0))}, fs.Verifier{}, &a)
			return d, c, err
		},
		"failed remove": func() (fs.Handle, fs.Change, error) {
			c, err := w.Remove(root, d, fs.Name("none"))
			if !errors.Is(err, fs.ErrNotExist) {
				return d, c, fmt.Errorf("remove: %w", err)
			}
			return d, c, nil
		},
	} {
		// Whatever ran before was by this server, so Before is always told.
		var before, after fs.Attr
		h := d
		if name == "write" || name == "setattr" {
			h = f
		}
		for told := false; !told; { // until the clock of the kernel's timestamps moves
			c, err := w.Setattr(root, h, &fs.SetAttr{Mode: ptr(uint32(0o755))}, nil)
			if err != nil {
				t.Fatal(err)
			}
			told = c.Before != nil && c.Before.Ctime != c.After.Ctime
		}
		if err := w.Getattr(h, &before); err != nil {
			t.Fatal(err)
		}
		of, c, err := call()
		if err != nil || of != h {
			t.Fatalf("%s: %v", name, err)
		}
		if err := w.Getattr(h, &after); err != nil {
			t.Fatal(err)
		}
		if c.Before == nil || *c.Before != (fs.BeforeAttr{Size: before.Size, Mtime: before.Mtime, Ctime: before.Ctime}) {
			t.Errorf("%s: before %+v, was %+v", name, c.Before, before)
		}
		if !c.HasAfter || c.After != after {
			t.Errorf("%s: after %+v, is %+v", name, c.After, after)
		}
	}
	fresh := w.mkdir(root, "fresh", 0o755)
	if _, c, err := w.Mkdir(root, fresh, fs.Name("x"), nil, &a); err != nil || c.Before == nil {
		t.Errorf("nothing is told of a directory that was just made, %v", err)
	}
	if err := os.Chmod(w.at("f"), 0o640); err != nil { // by another program
		t.Fatal(err)
	}
	for range 2 { // the second comes after a change of our own
		c, _, err := w.Write(root, f, 0, []byte("x"), fs.Unstable)
		if err != nil || c.Before != nil {
			t.Errorf("before %+v is told of a file that another program changes, %v", c.Before, err)
		}
	}
}

// TestBlur holds that nothing is told of before when two changes left the same
// ctime behind.
func TestBlur(t *testing.T) {
	at := func(ms int64) fs.Time { return fs.Time{Sec: 100, Nsec: uint32(ms * 1e6)} }
	after := func(ms int64) time.Time { return time.Unix(100, ms*1e6) }
	o := &object{ours: at(0), alone: time.Unix(0, 0)}
	for _, c := range []struct {
		before, after, now int64 // milliseconds
		told               bool
	}{
		{0, 0, 5000, true}, // changed nothing
		{0, 10, 12, true},
		{10, 10, 15, true}, // the second in this tick
		{10, 10, 18, false},
		{10, 20, 21, false},
		{20, 30, 31, true},
	} {
		st := unix.Statx_t{Ctime: unix.StatxTimestamp{Sec: 100, Nsec: at(c.before).Nsec}}
		if told := o.before(&st) != nil; told != c.told {
			t.Errorf("at %d: told %v, want %v", c.now, told, c.told)
		}
		o.left(at(c.after), after(c.now))
	}
}

// TestShort makes things with few descriptors left: what a client is told to try
// again was not done.
func TestShort(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	w.create(root, "f", 0o644)
	for free := range 8 {
		for kind, mk := range map[string]func(name fs.Name, a *fs.Attr) (fs.Handle, fs.Change, error){
			"file": func(name fs.Name, a *fs.Attr) (fs.Handle, fs.Change, error) {
				return w.Create(root, w.Root(), name, fs.Guarded, nil, fs.Verifier{}, a)
			},
			"dir": func(name fs.Name, a *fs.Attr) (fs.Handle, fs.Change, error) {
				return w.Mkdir(root, w.Root(), name, nil, a)
			},
			"symlink": func(name fs.Name, a *fs.Attr) (fs.Handle, fs.Change, error) {
				return w.Symlink(root, w.Root(), name, []byte("text"), &fs.SetAttr{UID: ptr(uint32(9))}, a)
			},
			"fifo": func(name fs.Name, a *fs.Attr) (fs.Handle, fs.Change, error) {
				return w.Mknod(root, w.Root(), name, fs.FIFO, 0, 0, nil, a)
			},
		} {
			name := fmt.Sprint(kind, free)
			var a fs.Attr
			release := useDescriptors(t, free)
			_, _, err := mk(fs.Name(name), &a)
			release()
			made := stat(w.at(name)).Nlink != 0
			if want := err == nil; made != want || err != nil && fs.KindOf(err) != fs.ErrWouldBlock {
				t.Errorf("%s with %d descriptors: %v, made %v", kind, free, err, made)
			}
		}
	}
}

// TestGuard changes attributes only if the ctime is what the client thinks.
func TestGuard(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	h := w.create(alice, "f", 0o644)
	var a fs.Attr
	if err := w.Getattr(h, &a); err != nil {
		t.Fatal(err)
	}
	wrong := a.Ctime
	wrong.Nsec ^= 1
	change, err := w.Setattr(alice, h, &fs.SetAttr{Mode: ptr(uint32(0o600))}, &wrong)
	wantErr(t, "wrong guard", err, fs.ErrNotSync)
	if change.After.Mode != 0o644 {
		t.Errorf("mode %o after a wrong guard", change.After.Mode)
	}
	if change, err = w.Setattr(alice, h, &fs.SetAttr{Mode: ptr(uint32(0o600))}, &a.Ctime); err != nil || change.After.Mode != 0o600 {
		t.Errorf("right guard: %+v, %v", change.After, err)
	}
}

// TestTouch sets one time to now, which utimensat(2) lets nobody but the owner do.
func TestTouch(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	h := w.create(alice, "f", 0o646)
	old := &fs.SetTime{Time: fs.Time{Sec: 5}}
	for _, s := range []*fs.SetAttr{{Mtime: &fs.SetTime{Now: true}}, {Atime: &fs.SetTime{Now: true}}} {
		if _, err := w.Setattr(alice, h, &fs.SetAttr{Atime: old, Mtime: old}, nil); err != nil {
			t.Fatal(err)
		}
		change, err := w.Setattr(carol, h, s, nil)
		if err != nil || (change.After.Mtime.Sec == 5) == (s.Mtime != nil) || (change.After.Atime.Sec == 5) == (s.Atime != nil) {
			t.Errorf("%+v, %v", change.After, err)
		}
		_, err = w.Setattr(alice, h, &fs.SetAttr{Mode: ptr(uint32(0o640))}, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.Setattr(carol, h, s, nil)
		wantErr(t, "touch without the right to write", err, fs.ErrAccess)
		if _, err = w.Setattr(alice, h, &fs.SetAttr{Mode: ptr(uint32(0o646))}, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// TestListing lists a directory in small pieces while names are removed: those
// that stay come once.
func TestListing(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	d := w.mkdir(root, "d", 0o755)
	for i := range 300 {
		if err := os.WriteFile(w.at(fmt.Sprintf("d/file-%03d", i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	seen := make(map[string]int)
	entries := make([]fs.HostEntry, 7)
	for cookie, eof, calls := uint64(0), false, 0; !eof; calls++ {
		n, e, err := w.ReadDir(alice, d, cookie, calls%2 == 0, entries)
		if err != nil || n == 0 && !e || calls > 1000 {
			t.Fatalf("call %d: %d, %v, %v", calls, n, e, err)
		}
		eof = e
		for i := range entries[:n] {
			x := &entries[i]
			cookie = x.Cookie
			seen[string(x.Name)]++
			var a fs.Attr
			if x.Handle != (fs.Handle{}) {
				err := w.Getattr(x.Handle, &a)
				a.Atime = x.Attr.Atime // listing changes it
				if err != nil || a != x.Attr || a.FileID != x.FileID {
					t.Errorf("%s: %+v, is %+v, %v", x.Name, x.Attr, a, err)
				}
			} else if calls%2 == 0 && string(x.Name) != ".." {
				t.Errorf("%s has no handle", x.Name)
			}
		}
		if n > 0 && calls < 30 { // one that was listed already
			os.Remove(w.at("d/" + string(entries[0].Name)))
		}
	}
	for i := range 300 {
		if n := seen[fmt.Sprintf("file-%03d", i)]; n != 1 {
			t.Errorf("file %d was listed %d times", i, n)
		}
	}
	if seen["."] != 1 || seen[".."] != 1 {
		t.Errorf("dots: %d, %d", seen["."], seen[".."])
	}
	var a fs.Attr
	if err := w.Getattr(w.Root(), &a); err != nil {
		t.Fatal(err)
	}
	n, _, err := w.ReadDir(root, w.Root(), 0, false, entries)
	for i := range entries[:n] {
		if name := fs.Name(entries[i].Name); (name.IsDot() || name.IsDotDot()) && entries[i].FileID != a.FileID {
			t.Errorf("%s of the root is %d, not %d", name, entries[i].FileID, a.FileID)
		}
	}
	if err != nil {
		t.Error(err)
	}
	if err := os.Chmod(w.at("d"), 0o744); err != nil {
		t.Fatal(err)
	}
	n, _, err = w.ReadDir(alice, d, 0, true, entries) // without the right to look names up
	for i := range entries[:n] {
		if entries[i].Handle != (fs.Handle{}) {
			t.Errorf("%s has a handle", entries[i].Name)
		}
	}
	if err != nil || n == 0 {
		t.Errorf("%d entries, %v", n, err)
	}
}

// TestListingWhileItChanges lists a directory in small pieces while other names come
// and go: those that nobody touches come once.
func TestListingWhileItChanges(t *testing.T) {
	needRoot(t)
	w := openWorld(t, newDisk(t, tempDir(t), "ext4", 32).dir) // large directories are trees, which are split
	d := w.mkdir(root, "d", 0o755)
	const stay = 2000
	for i := range stay {
		if err := os.WriteFile(w.at(fmt.Sprintf("d/stay-%04d", i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	changes := 0
	change := func() { // many come, and then go again
		name := w.at(fmt.Sprintf("d/passing-%04d", changes%3000))
		if changes/3000%2 == 0 {
			os.WriteFile(name, nil, 0o644)
		} else {
			os.Remove(name)
		}
		changes++
	}
	for range 3 {
		seen := make(map[string]int)
		entries := make([]fs.HostEntry, 9)
		for cookie, eof := uint64(0), false; !eof; {
			n, e, err := w.ReadDir(root, d, cookie, false, entries)
			if err != nil {
				t.Fatal(err)
			}
			eof = e
			for i := range entries[:n] {
				seen[string(entries[i].Name)]++
				cookie = entries[i].Cookie
			}
			for range 11 {
				change()
			}
		}
		for i := range stay {
			if name := fmt.Sprintf("stay-%04d", i); seen[name] != 1 {
				t.Errorf("%s was listed %d times", name, seen[name])
			}
		}
	}
}

// TestCookies lists from places that no listing gave out, or whose name is gone: it
// comes to an end, and no name comes twice.
func TestCookies(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	d := w.mkdir(root, "d", 0o755)
	for i := range 50 {
		w.create(root, fmt.Sprint("d/", i), 0o644)
	}
	entries := make([]fs.HostEntry, 10)
	n, _, err := w.ReadDir(root, d, 0, false, entries)
	if err != nil || n != len(entries) {
		t.Fatalf("%d entries, %v", n, err)
	}
	gone := entries[n-1]
	os.Remove(w.at("d/" + string(gone.Name)))
	for _, cookie := range []uint64{1, 2, 3, 4095, 1<<31 - 1, 1 << 32, 1<<62 + 12345, 1<<63 - 1, gone.Cookie} {
		seen := make(map[string]bool)
		for at, eof := cookie, false; !eof; {
			n, e, err := w.ReadDir(root, d, at, true, entries)
			if fs.KindOf(err) == fs.ErrInvalid {
				break
			}
			if err != nil || n == 0 && !e {
				t.Fatalf("cookie %d: %d entries, %v", cookie, n, err)
			}
			eof = e
			for i := range entries[:n] {
				name := string(entries[i].Name)
				if seen[name] {
					t.Fatalf("cookie %d: %s comes twice", cookie, name)
				}
				seen[name] = true
				at = entries[i].Cookie
			}
		}
		if cookie == gone.Cookie && len(seen) != 50+2-len(entries) {
			t.Errorf("%d names after one that is gone", len(seen))
		}
	}
}

// TestManyLinks gives a file as many names as it can have.
func TestManyLinks(t *testing.T) {
	needRoot(t)
	w := openWorld(t, newDisk(t, tempDir(t), "ext4", 12).dir)
	h := w.create(root, "f", 0o644)
	const most = 65000 // EXT4_LINK_MAX
	for i := range most - 1 {
		if err := os.Link(w.at("f"), w.at(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	var a fs.Attr
	_, err := w.Link(root, h, w.Root(), fs.Name("more"), &a)
	wantErr(t, "one more", err, fs.ErrTooManyLinks)
	if err := w.Getattr(h, &a); err != nil || a.Nlink != most {
		t.Errorf("%d links, %v", a.Nlink, err)
	}
}

// TestFailure holds what the host says against what a client is told of it.
func TestFailure(t *testing.T) {
	for errno, want := range map[unix.Errno]fs.Error{
		unix.EPERM: fs.ErrPermission, unix.ENOENT: fs.ErrNotExist, unix.EACCES: fs.ErrAccess, unix.EEXIST: fs.ErrExist,
		unix.ENOTDIR: fs.ErrNotDir, unix.EISDIR: fs.ErrIsDir, unix.EINVAL: fs.ErrInvalid, unix.EROFS: fs.ErrReadOnly,
		unix.ENAMETOOLONG: fs.ErrNameTooLong, unix.ESTALE: fs.ErrStale, unix.EOPNOTSUPP: fs.ErrNotSupported, unix.EXDEV: fs.ErrXDev,
		unix.ENOTEMPTY: fs.ErrNotEmpty, unix.ENOSPC: fs.ErrNoSpace, unix.EDQUOT: fs.ErrQuota, unix.EFBIG: fs.ErrTooLarge,
		unix.EMLINK: fs.ErrTooManyLinks, unix.EIO: fs.ErrIO, unix.ENXIO: fs.ErrIO, unix.EBUSY: fs.ErrAccess, unix.ETXTBSY: fs.ErrAccess,
		unix.EMFILE: fs.ErrWouldBlock, unix.ENFILE: fs.ErrWouldBlock, unix.ENOMEM: fs.ErrWouldBlock, unix.EAGAIN: fs.ErrWouldBlock,
	} {
		if got := failure(fmt.Errorf("host: %w", errno)); got != want {
			t.Errorf("%v: %v, want %v", errno, got, want)
		}
		after := want
		if want == fs.ErrWouldBlock {
			after = fs.ErrIO
		}
		if got := failure(done(errno)); got != after {
			t.Errorf("%v after a change: %v, want %v", errno, got, after)
		}
	}
}

// TestOwnerKeepsOpenFile makes a file that its mode forbids to write, as git
// does, and writes it.
func TestOwnerKeepsOpenFile(t *testing.T) {
	w := newWorld(t)
	me := &fs.Cred{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}
	h := w.create(me, "object", 0o444)
	w.write(me, h, 0, "content", fs.Unstable)
	if _, _, err := w.Commit(me, h); err != nil {
		t.Fatal(err)
	}
	if is, err := os.ReadFile(w.at("object")); string(is) != "content" {
		t.Errorf("%q, %v", is, err)
	}
}
