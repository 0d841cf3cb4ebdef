package hostdir

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs"
)

// TestPowerCut does one thing at a time and cuts the power of the disk as soon
// as that is acknowledged.
func TestPowerCut(t *testing.T) {
	t.Run("ext4", func(t *testing.T) { cutPower(t, newDisk(t, tempDir(t), "ext4", 12)) })
	t.Run("xfs", func(t *testing.T) { cutPower(t, newDisk(t, tempDir(t), "xfs", 320)) })
}

// change is something that is done to a disk and acknowledged, and how to see it there.
type change struct {
	name  string
	do    func() error
	check func(dir string) bool
}

// cutAfter makes changes to a disk, and looks after each at what a power cut leaves of it.
func (d *disk) cutAfter(t *testing.T, changes []change) {
	t.Helper()
	for _, c := range changes {
		if err := c.do(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else if !c.check(d.copy(t).dir) {
			t.Errorf("%s: lost", c.name)
		}
	}
}

func cutPower(t *testing.T, disk *disk) {
	w := openWorld(t, disk.dir)
	var a fs.Attr
	content := bytes.Repeat([]byte("durable "), 5000)
	f := w.create(root, "f", 0o600)
	d := w.mkdir(root, "d", 0o755)
	disk.cutAfter(t, []change{
		{"create", func() error {
			_, _, err := w.Create(alice, w.Root(), fs.Name("new"), fs.Guarded, &fs.SetAttr{Mode: ptr(uint32(0o640))}, fs.Verifier{}, &a)
			return err
		}, func(dir string) bool { return stat(dir+"/new").Mode == unix.S_IFREG|0o640 }},
		{"exclusive create", func() error {
			_, _, err := w.Create(alice, w.Root(), fs.Name("only"), fs.Exclusive, nil, fs.Verifier{0, 0, 1, 0, 0, 0, 2, 0}, &a)
			return err
		}, func(dir string) bool { st := stat(dir + "/only"); return st.Mtim.Sec == 256 && st.Atim.Sec == 512 }},
		{"exclusive create, again", func() error { // after a server was killed that had not answered it
			const mtime, atime = 3, 4
			if err := touch(w.at("half"), mtime, atime); err != nil {
				return err
			}
			_, _, err := w.Create(root, w.Root(), fs.Name("half"), fs.Exclusive, nil, fs.Verifier{3: mtime, 7: atime}, &a)
			return err
		}, func(dir string) bool { st := stat(dir + "/half"); return st.Mtim.Sec == 3 && st.Atim.Sec == 4 }},
		{"create of what is there", func() error {
			if err := touch(w.at("there"), 3, 4); err != nil {
				return err
			}
			_, _, err := w.Create(root, w.Root(), fs.Name("there"), fs.Unchecked, nil, fs.Verifier{}, &a)
			return err
		}, func(dir string) bool { return stat(dir+"/there").Mode == unix.S_IFREG|0o600 }},
		{"mkdir", func() error {
			_, _, err := w.Mkdir(alice, d, fs.Name("sub"), &fs.SetAttr{Mode: ptr(uint32(0o750))}, &a)
			if err == nil {
				return nil
			}
			_, _, err = w.Mkdir(root, d, fs.Name("sub"), &fs.SetAttr{Mode: ptr(uint32(0o750))}, &a)
			return err
		}, func(dir string) bool { return stat(dir+"/d/sub").Mode == unix.S_IFDIR|0o750 }},
		{"symlink", func() error {
			_, _, err := w.Symlink(root, d, fs.Name("l"), []byte("text"), nil, &a)
			return err
		}, func(dir string) bool { text, _ := os.Readlink(dir + "/d/l"); return text == "text" }},
		{"mknod", func() error {
			_, _, err := w.Mknod(root, d, fs.Name("fifo"), fs.FIFO, 0, 0, nil, &a)
			return err
		}, func(dir string) bool { return stat(dir+"/d/fifo").Mode == unix.S_IFIFO }},
		{"write, file sync", func() error {
			_, _, err := w.Write(root, f, 0, content, fs.FileSync)
			return err
		}, func(dir string) bool { return holds(dir+"/f", content) }},
		{"write, data sync", func() error {
			_, _, err := w.Write(root, f, uint64(len(content)), content, fs.DataSync)
			return err
		}, func(dir string) bool { return holds(dir+"/f", append(content, content...)) }},
		{"write and commit", func() error {
			if _, _, err := w.Write(root, f, 0, bytes.ToUpper(content), fs.Unstable); err != nil {
				return err
			}
			_, _, err := w.Commit(root, f)
			return err
		}, func(dir string) bool { return holds(dir+"/f", append(bytes.ToUpper(content), content...)) }},
		{"overwrite and commit", func() error { // of which only the times need the journal
			if _, _, err := w.Write(root, f, 0, bytes.ToUpper(content), fs.Unstable); err != nil {
				return err
			}
			c, _, err := w.Commit(root, f)
			a = c.After
			return err
		}, func(dir string) bool {
			st := stat(dir + "/f")
			return fs.Time{Sec: int64(st.Mtim.Sec), Nsec: uint32(st.Mtim.Nsec)} == a.Mtime
		}},
		{"mode and owner", func() error {
			_, err := w.Setattr(root, f, &fs.SetAttr{Mode: ptr(uint32(0o4711)), UID: ptr(uint32(9))}, nil)
			return err
		}, func(dir string) bool { st := stat(dir + "/f"); return st.Mode == unix.S_IFREG|0o4711 && st.Uid == 9 }},
		{"times", func() error {
			_, err := w.Setattr(root, f, &fs.SetAttr{Mtime: &fs.SetTime{Time: fs.Time{Sec: 77}}}, nil)
			return err
		}, func(dir string) bool { return stat(dir+"/f").Mtim.Sec == 77 }},
		{"owner of a symlink", func() error {
			_, err := w.Setattr(root, w.must("d/l"), &fs.SetAttr{UID: ptr(uint32(9))}, nil)
			return err
		}, func(dir string) bool { return stat(dir+"/d/l").Uid == 9 }},
		{"size", func() error {
			_, err := w.Setattr(root, f, &fs.SetAttr{Size: ptr(uint64(5))}, nil)
			return err
		}, func(dir string) bool { return stat(dir+"/f").Size == 5 }},
		{"link", func() error {
			_, err := w.Link(root, f, d, fs.Name("hard"), &a)
			return err
		}, func(dir string) bool { return stat(dir+"/d/hard").Nlink == 2 }},
		{"rename", func() error {
			_, _, err := w.Rename(root, d, fs.Name("hard"), w.Root(), fs.Name("renamed"))
			return err
		}, func(dir string) bool { return stat(dir+"/d/hard").Nlink == 0 && stat(dir+"/renamed").Nlink == 2 }},
		{"remove", func() error {
			_, err := w.Remove(root, w.Root(), fs.Name("renamed"))
			return err
		}, func(dir string) bool { return stat(dir+"/renamed").Nlink == 0 && stat(dir+"/f").Nlink == 1 }},
		{"rmdir", func() error {
			_, err := w.Rmdir(root, d, fs.Name("sub"))
			return err
		}, func(dir string) bool { return stat(dir+"/d/sub").Nlink == 0 && stat(dir+"/d").Nlink == 2 }},
	})
	// That the above can fail:
	w.write(root, f, 0, "written", fs.Unstable)
	if holds(disk.copy(t).dir+"/f", []byte("written")) {
		t.Error("unstable content is on the disk at once: the test tests nothing")
	}
}

// touch makes a file with those times, in seconds, that is on no disk yet.
func touch(path string, mtime, atime int64) error {
	return errors.Join(os.WriteFile(path, nil, 0o600), os.Chtimes(path, time.Unix(atime, 0), time.Unix(mtime, 0)))
}

// TestPowerCutShared cuts the power when several have shared a flush. What the first of
// them changed was on the disk by itself when the others came.
func TestPowerCutShared(t *testing.T) {
	disk := newDisk(t, tempDir(t), "ext4", 12)
	w := openWorld(t, disk.dir)
	if w.marker < 0 {
		t.Fatal("an ext4 with a journal, and no flush is shared")
	}
	first, mode, file := w.create(root, "first", 0o600), w.create(root, "mode", 0o600), w.create(root, "file", 0o600)
	content := bytes.Repeat([]byte("shared "), 5000)
	var all sync.WaitGroup
	do := func(what string, f func() error) {
		all.Go(func() {
			if err := f(); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		})
	}
	set := func(h fs.Handle, mode uint32) func() error {
		return func() error { _, err := w.Setattr(root, h, &fs.SetAttr{Mode: &mode}, nil); return err }
	}
	until := func(condition func() bool) {
		for !condition() {
			runtime.Gosched()
		}
	}
	commit := &w.volume.commit
	w.volume.waiting.Add(1) // for a flush that is under way
	commit.turn.Lock()
	do("set the first", set(first, 0o640))
	awaitNext(commit, whole)
	if err := unix.Syncfs(w.fd); err != nil {
		t.Fatal(err)
	}
	do("set", set(mode, 0o644))
	do("write", func() error { _, _, err := w.Write(root, file, 0, content, fs.FileSync); return err })
	do("create", func() error {
		var a fs.Attr
		_, _, err := w.Create(root, w.Root(), fs.Name("new"), fs.Exclusive, nil, fs.Verifier{3: 3, 7: 4}, &a)
		return err
	})
	until(func() bool {
		return stat(w.at("mode")).Mode == unix.S_IFREG|0o644 && stat(w.at("file")).Size > 0 && stat(w.at("new")).Nlink > 0
	})
	commit.turn.Unlock()
	all.Wait()
	dir := disk.copy(t).dir
	if m := stat(dir + "/mode").Mode; m != unix.S_IFREG|0o644 {
		t.Errorf("mode %o", m)
	}
	if !holds(dir+"/file", content) {
		t.Error("the content is lost")
	}
	if st := stat(dir + "/new"); st.Mtim.Sec != 3 || st.Atim.Sec != 4 {
		t.Error("the new file is lost, or its verifier")
	}
}

// awaitNext waits until somebody waits for the next round, which is to do so much at least.
func awaitNext(r *rounds, how extent) {
	for waits := false; !waits; runtime.Gosched() {
		r.mu.Lock()
		waits = r.next != nil && r.next.how >= how
		r.mu.Unlock()
	}
}

// TestPowerCutJoined cuts the power when somebody who came alone was acknowledged by a
// flush of those who were not, and who have yet to commit.
func TestPowerCutJoined(t *testing.T) {
	disk := newDisk(t, tempDir(t), "ext4", 12)
	w := openWorld(t, disk.dir)
	h := w.create(root, "f", 0o600)
	o, err := w.get(h)
	if err != nil {
		t.Fatal(err)
	}
	defer w.put(o)
	var others sync.WaitGroup
	w.volume.commit.turn.Lock() // nobody's commit ends
	o.flush.turn.Lock()         // a flush is under way
	w.volume.waiting.Add(1)
	others.Go(func() {
		if _, _, err := w.Write(root, h, 0, []byte("x"), fs.FileSync); err != nil {
			t.Error(err)
		}
	})
	awaitNext(&o.flush, pages)
	w.volume.waiting.Store(0)
	alone := make(chan error)
	go func() {
		_, err := w.Setattr(root, h, &fs.SetAttr{Mode: ptr(uint32(0o644))}, nil)
		alone <- err
	}()
	awaitNext(&o.flush, whole)
	o.flush.turn.Unlock()
	if err := <-alone; err != nil {
		t.Error(err)
	}
	if m := stat(disk.copy(t).dir + "/f").Mode; m != unix.S_IFREG|0o644 {
		t.Errorf("the mode that was acknowledged is lost: %o", m)
	}
	w.volume.commit.turn.Unlock()
	others.Wait()
}

// TestPowerCutWithoutJournal makes one of each on file systems where the fsync of a
// directory does not take along what is in it.
func TestPowerCutWithoutJournal(t *testing.T) {
	long := strings.Repeat("long", 100) // which has a block of its own
	for name, disk := range map[string]*disk{
		"ext2": newDisk(t, tempDir(t), "ext2", 12),
		"ext4": newDisk(t, tempDir(t), "ext2", 12, "-O", "extents,64bit,metadata_csum", "-b", "1024", "-I", "1024"), // no block has two inodes
	} {
		t.Run(name, func(t *testing.T) {
			w := openWorld(t, disk.dir)
			var a fs.Attr
			disk.cutAfter(t, []change{
				{"create", func() error { w.create(root, "f", 0o640); return nil }, func(dir string) bool { return stat(dir+"/f").Mode == unix.S_IFREG|0o640 }},
				{"mkdir", func() error { w.mkdir(root, "d", 0o750); return nil }, func(dir string) bool { return stat(dir+"/d").Mode == unix.S_IFDIR|0o750 }},
				{"symlink", func() error {
					_, _, err := w.Symlink(root, w.Root(), fs.Name("l"), []byte("text"), nil, &a)
					return err
				}, func(dir string) bool { text, _ := os.Readlink(dir + "/l"); return text == "text" }},
				{"long symlink", func() error {
					_, _, err := w.Symlink(root, w.Root(), fs.Name("long"), []byte(long), nil, &a)
					return err
				}, func(dir string) bool { text, _ := os.Readlink(dir + "/long"); return text == long }},
				{"mknod", func() error {
					_, _, err := w.Mknod(root, w.Root(), fs.Name("fifo"), fs.FIFO, 0, 0, nil, &a)
					return err
				}, func(dir string) bool { return stat(dir+"/fifo").Mode == unix.S_IFIFO }},
				{"link", func() error {
					_, err := w.Link(root, w.must("f"), w.Root(), fs.Name("hard"), &a)
					return err
				}, func(dir string) bool { return stat(dir+"/f").Nlink == 2 && stat(dir+"/hard").Nlink == 2 }},
				{"link of what cannot be opened", func() error {
					_, err := w.Link(root, w.must("l"), w.Root(), fs.Name("l2"), &a)
					return err
				}, func(dir string) bool { return stat(dir+"/l").Nlink == 2 && stat(dir+"/l2").Nlink == 2 }},
			})
		})
	}
}

// TestOneFlush holds that trees on one file system share its flushes.
func TestOneFlush(t *testing.T) {
	h := newHost(t, Options{})
	open := func(dir string) *Tree {
		tree, err := h.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		return tree
	}
	dir := tempDir(t)
	if err := os.Mkdir(dir+"/d", 0o755); err != nil {
		t.Fatal(err)
	}
	a, b, c := open(dir), open(dir+"/d"), open("/proc")
	if a.volume != b.volume || a.volume == c.volume {
		t.Error("trees do not share flushes, or those of different file systems do")
	}
}

// TestLocal holds that the attributes of what is not on a disk of the host may be waited for.
func TestLocal(t *testing.T) {
	for dir, want := range map[string]bool{"/proc": false, "/dev/shm": true} {
		tree, err := newHost(t, Options{}).Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		if tree.local != want {
			t.Errorf("%s: local is %v", dir, tree.local)
		}
	}
}

// stat returns what lstat(2) tells, or nothing.
func stat(path string) (st unix.Stat_t) {
	if unix.Lstat(path, &st) != nil {
		return unix.Stat_t{}
	}
	return st
}

func holds(path string, content []byte) bool {
	is, err := os.ReadFile(path)
	return err == nil && bytes.Equal(is, content)
}

// brokenDisk mounts an ext4 whose disk takes no more blocks after a while: it
// is a sparse file on a file system that is full.
func brokenDisk(t *testing.T) (dir string, breakIt func()) {
	t.Helper()
	store := tempDir(t)
	if err := unix.Mount("tmpfs", store, "tmpfs", 0, "size=20m"); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { unix.Unmount(store, unix.MNT_DETACH) })
	return newDisk(t, store, "ext4", 64).dir, func() {
		f, err := os.Create(store + "/ballast")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		io.Copy(f, io.LimitReader(zeros{}, 64<<20)) // until it is full
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestLostWrites has a disk fail to take what was written: COMMIT says so, once
// the verifier is another; and a file whose descriptor was closed before the
// commit has it found out too.
func TestLostWrites(t *testing.T) {
	needRoot(t)
	for name, way := range map[string]func(*world, fs.Handle) error{
		"commit": func(w *world, h fs.Handle) error {
			_, _, err := w.Commit(root, h)
			return err
		},
		"file sync": func(w *world, h fs.Handle) error {
			_, _, err := w.Write(root, h, 0, []byte("x"), fs.FileSync)
			return err
		},
		"closed meanwhile": func(w *world, h fs.Handle) error {
			w.host.objects.Sweep()
			w.host.objects.Sweep()
			if n := w.host.objects.Len(); n != 0 {
				t.Errorf("%d objects are still open", n)
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, breakIt := brokenDisk(t)
			w := openWorld(t, dir)
			h := w.create(root, "f", 0o600)
			breakIt()
			verf := w.verifier()
			w.writeStretches(h, 3)
			w.awaitBegun(h) // two are on their way before somebody asks
			switch kind := fs.KindOf(way(w, h)); {
			case name == "closed meanwhile":
			case kind != fs.ErrIO && kind != fs.ErrNoSpace:
				t.Errorf("error of kind %v", kind)
			}
			if w.verifier() == verf {
				t.Error("the verifier is the same after content was lost")
			}
		})
	}
}

// writeStretches writes stretches of a file one after the other, which nobody commits.
func (w *world) writeStretches(h fs.Handle, n int) {
	w.Helper()
	piece := bytes.Repeat([]byte("content "), 128<<10)
	for off := 0; off < n*stretch; off += len(piece) {
		if _, _, err := w.Write(root, h, uint64(off), piece, fs.Unstable); err != nil {
			w.Fatal(err)
		}
	}
}

// TestBegun holds that a disk gets to work on what is written one after the other before
// anybody asks for it.
func TestBegun(t *testing.T) {
	disk := newDisk(t, tempDir(t), "ext4", 64)
	w := openWorld(t, disk.dir)
	h := w.create(root, "f", 0o600)
	before := disk.written(t)
	w.writeStretches(h, 3)
	w.awaitBegun(h)
	const want = 2 * stretch // the last is not known to be written
	f, err := os.Open(w.at("f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// What is on its way is waited for, and nothing else is sent.
	if err := unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WAIT_BEFORE); err != nil {
		t.Fatal(err)
	}
	if got := disk.written(t) - before; got < want {
		t.Errorf("%d bytes went to the disk; want %d", got, want)
	}
}

// awaitBegun returns when the disk was told of all stretches of a file.
func (w *world) awaitBegun(h fs.Handle) {
	w.Helper()
	o, err := w.get(h)
	if err != nil {
		w.Fatal(err)
	}
	defer w.put(o)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		w.volume.early.Lock()
		o.mu.Lock()
		left := o.run.to - o.run.from
		o.mu.Unlock()
		w.volume.early.Unlock()
		if left == 0 {
			return
		}
		if time.Now().After(end) {
			w.Fatalf("the disk was not told of %d stretches", left)
		}
	}
}

// TestBeginFails has the kernel refuse to begin: content may be lost, of which a flush that
// follows is not told.
func TestBeginFails(t *testing.T) {
	w := newWorld(t)
	h := w.create(root, "f", 0o600)
	o, err := w.get(h)
	if err != nil {
		t.Fatal(err)
	}
	defer w.put(o)
	begin := func() (rotated bool) {
		verf := w.verifier()
		o.mu.Lock()
		for off := range uint64(2) {
			o.run.add(off*stretch, stretch)
		}
		o.mu.Unlock()
		w.begin(h)
		return w.verifier() != verf
	}
	if begin() {
		t.Error("the verifier is another although nothing failed")
	}
	o.run = run{}
	if o.writer, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0); err != nil { // which goes to no disk
		t.Fatal(err)
	}
	if !begin() {
		t.Error("the verifier is the same after the kernel refused")
	}
}

// written is how many bytes were ever written to the disk.
func (d *disk) written(t *testing.T) int {
	t.Helper()
	dev := stat(d.dir).Dev
	text, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/stat", unix.Major(dev), unix.Minor(dev)))
	if err != nil {
		t.Fatal(err)
	}
	const sectors, sector = 6, 512 // Documentation/block/stat.rst of the kernel
	n, err := strconv.Atoi(strings.Fields(string(text))[sectors])
	if err != nil {
		t.Fatal(err)
	}
	return n * sector
}

// TestRun holds what is taken for written one after the other.
func TestRun(t *testing.T) {
	const piece = stretch / 4
	for name, c := range map[string]struct {
		pieces []uint64
		want   []uint64 // stretches that are begun
	}{
		"in order":          {[]uint64{0, 1, 2, 3, 4, 5, 6, 7, 8}, []uint64{0, 1}},
		"from the middle":   {[]uint64{12, 13, 14, 15, 16}, []uint64{3}},
		"overtaken":         {[]uint64{0, 2, 1, 4, 3, 5, 7, 8, 6, 9}, []uint64{0, 1}},
		"overtaken by half": {[]uint64{0, 1, 4, 2, 3, 5, 6, 7, 8}, []uint64{0, 1}},
		"with holes":        {[]uint64{0, 4, 8, 12, 16}, nil},
		"backwards":         {[]uint64{8, 7, 6, 5, 4, 3, 2, 1, 0}, nil},
		"again and again":   {[]uint64{0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3}, nil},
		"at random":         {[]uint64{9, 2, 17, 5, 30, 11, 22, 3, 14}, nil},
		"up to the end":     {[]uint64{math.MaxInt64 / piece, math.MaxInt64/piece - 1}, nil},
	} {
		var r run
		var got []uint64
		for _, p := range c.pieces {
			if r.add(p*piece, piece) {
				got = append(got, r.to-1)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: begins stretches %v; want %v", name, got, c.want)
		}
	}
}

// TestLostCreate has a disk fail to take something new: the verifier is another,
// as after any flush that failed.
func TestLostCreate(t *testing.T) {
	needRoot(t)
	dir, breakIt := brokenDisk(t)
	w := openWorld(t, dir)
	breakIt()
	for i := range 100 { // until the journal comes to where there is no disk
		verf := w.verifier()
		var a fs.Attr
		_, _, err := w.Create(root, w.Root(), fs.Name(fmt.Sprint(i)), fs.Guarded, nil, fs.Verifier{}, &a)
		if err == nil {
			continue
		}
		if w.verifier() == verf {
			t.Errorf("%v, and the verifier is the same", err)
		}
		return
	}
	t.Error("nothing fails on a disk that takes nothing")
}

// TestLostWithOthers has a flush fail that had a write in it which then waits
// for the next one. That one goes well, and yet the content is lost: it is
// written again.
func TestLostWithOthers(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	h := w.create(root, "f", 0o600)
	o, err := w.get(h)
	if err != nil {
		t.Fatal(err)
	}
	defer w.put(o)
	o.flush.turn.Lock() // a flush is under way
	var verf fs.Verifier
	result := make(chan error)
	go func() {
		var err error
		_, verf, err = w.Write(root, h, 0, []byte("x"), fs.FileSync)
		result <- err
	}()
	awaitNext(&o.flush, pages)
	w.rotate() // and fails
	if err := os.Truncate(w.at("f"), 0); err != nil {
		t.Fatal(err)
	}
	o.flush.turn.Unlock()
	if err := <-result; err != nil || verf != w.verifier() {
		t.Errorf("verifier %x, now %x, %v", verf, w.verifier(), err)
	}
	if !holds(w.at("f"), []byte("x")) {
		t.Error("the content was not written again")
	}
}

// TestVerifier is another at each start, and the same in between.
func TestVerifier(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	h := w.create(root, "f", 0o600)
	_, v1, _ := w.Write(root, h, 0, []byte("x"), fs.Unstable)
	_, v2, _ := w.Write(root, h, 0, []byte("x"), fs.FileSync)
	_, v3, err := w.Commit(root, h)
	if v1 != v2 || v2 != v3 || v1 == (fs.Verifier{}) || err != nil {
		t.Errorf("verifiers %x, %x, %x, %v", v1, v2, v3, err)
	}
	_, v4, err := openWorld(t, w.dir).Commit(root, h)
	if v4 == v1 || err != nil {
		t.Errorf("verifier %x at the next start, %v", v4, err)
	}
}

// TestRounds holds that whoever joins waits for a flush that began later, and
// that those who come during one share the next.
func TestRounds(t *testing.T) {
	var r rounds
	var begun, wholes atomic.Int64
	started, release := make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		r.join(pages, func(extent) error { begun.Add(1); close(started); <-release; return nil })
	})
	<-started
	var joined sync.WaitGroup
	for i := range 10 {
		joined.Add(1)
		all.Go(func() {
			joined.Done()
			how := data
			if i == 7 {
				how = whole
			}
			err := r.join(how, func(how extent) error {
				begun.Add(1)
				if how == whole {
					wholes.Add(1)
				}
				return io.ErrShortWrite
			})
			if err != io.ErrShortWrite {
				t.Errorf("the second flush returned %v", err)
			}
		})
	}
	joined.Wait()
	if n := begun.Load(); n != 1 {
		t.Errorf("%d flushes at once", n)
	}
	close(release)
	all.Wait()
	if n := begun.Load(); n < 2 || wholes.Load() == 0 {
		t.Errorf("%d flushes, %d of them whole", n, wholes.Load())
	}
}
