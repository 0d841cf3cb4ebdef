package hostdir

import (
	"fmt"
	"os"
	"path"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs"
)

// rounds lets many wait for one flush: all that ask while one is under way get
// the next, because what they wrote may have come too late for this one.
type rounds struct {
	turn sync.Mutex // held by the flush that is under way, or what may fail like one
	mu   sync.Mutex // guards next
	next *round     // has not begun
}

// extent is how much of an object a flush brings to the disk. Each is more than the one
// before.
type extent int

const (
	pages extent = iota // content, to where a commit finds it
	data                // what fdatasync(2) does
	whole               // what fsync(2) does
)

// round is a flush of as much as that one wants who wants most of all that wait for it.
// err is set before done is closed.
type round struct {
	how  extent
	done chan struct{}
	err  error
}

// join returns when a flush that began after the call has ended. It may be that of
// somebody else, so all who join the same rounds bring the same flush.
func (r *rounds) join(how extent, flush func(extent) error) error {
	r.mu.Lock()
	if n := r.next; n != nil {
		n.how = max(n.how, how)
		r.mu.Unlock()
		<-n.done
		return n.err
	}
	n := &round{how: how, done: make(chan struct{})}
	r.next = n
	r.mu.Unlock()

	r.turn.Lock()
	r.mu.Lock()
	r.next = nil
	how = n.how
	r.mu.Unlock()
	n.err = flush(how)
	r.turn.Unlock()
	close(n.done)
	return n.err
}

// sync brings the object to the disk as far as how demands. After a failure the
// Verifier is another.
//
// The kernel tells of a failure once, and from then on takes the content that
// it could not write for written. So whoever wrote and is then told that a
// flush went well compares the Verifier with that from before the write.
func (o *object) sync(how fs.Stability) error {
	t := o.key.tree
	alone := t.volume.waiting.Add(1) == 1
	defer t.volume.waiting.Add(-1)
	if alone || t.marker < 0 {
		want := data
		if how == fs.FileSync {
			want = whole
		}
		return failure(o.flush.join(want, o.bring))
	}
	if err := o.syncContent(); err != nil {
		return failure(err)
	}
	return t.commit()
}

// syncContent brings the content of the object to where a commit finds it. Each file's is
// waited for by those who want it alone: it may be much.
func (o *object) syncContent() error {
	o.mu.Lock()
	written := o.writer >= 0
	o.mu.Unlock()
	if !written {
		return nil
	}
	// Also if it is not dirty: the flush that is under way may be the one that fails.
	return o.flush.join(pages, o.bring)
}

// bring is the flush of the object's rounds.
func (o *object) bring(how extent) error {
	if how > pages {
		return o.key.tree.flush(o.flushable(), how)
	}
	o.mu.Lock()
	dirty, fd := o.dirty, o.writer
	o.dirty = false
	o.mu.Unlock()
	if !dirty {
		return nil
	}
	const flags = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	err := retry(func() error { return unix.SyncFileRange(fd, 0, 0, flags) })
	if err != nil {
		o.key.tree.rotate()
	}
	return err
}

// commit brings to the disk what was changed of names and attributes, and what content
// was written back, before it was called, in a file system with a journal (hasJournal).
// All who ask for that share a flush: each by an fsync(2) of its own would wait for the
// same commit, but in a thread of its own. Nobody knows which of them changed something
// last, so it is the marker that is flushed, changed once more.
func (t *Tree) commit() error {
	defer runtime.KeepAlive(t)
	err := t.volume.commit.join(whole, func(extent) error { return t.flushMarker() })
	if err != nil {
		t.rotate()
	}
	return failure(err)
}

func (t *Tree) flushMarker() error {
	now := [2]timespec{{nsec: unix.UTIME_NOW}, {nsec: unix.UTIME_NOW}}
	if err := utimens(t.marker, &now); err != nil {
		return err
	}
	return retry(func() error { return unix.Fsync(t.marker) })
}

// flush brings what is behind fd to the disk, or everything if that is -1. After a failure
// the Verifier is another.
//
// A thread waits in fsync(2). To have the kernel flush meanwhile (io_submit(2), and an
// eventfd for the poller) takes more: 311 us of CPU a call against 187 us where small files
// are made one at a time, and the rate is less (bench homes).
func (t *Tree) flush(fd int, how extent) (err error) {
	switch {
	case fd < 0 && t.marker >= 0:
		err = t.flushMarker()
	case fd < 0:
		err = t.syncAll()
	case how == whole:
		err = retry(func() error { return unix.Fsync(fd) })
	default:
		err = retry(func() error { return unix.Fdatasync(fd) })
	}
	if err != nil {
		t.rotate()
	}
	return err
}

// flushable returns a descriptor of the object for fsync(2), or -1 for an
// object that cannot be opened for that. What is written from now on makes it
// dirty again.
func (o *object) flushable() int {
	o.mu.Lock()
	o.dirty = false
	writer := o.writer
	o.mu.Unlock()
	if writer >= 0 {
		return writer
	}
	if o.kind != fs.Regular && o.kind != fs.Directory {
		return -1
	}
	fd, err := o.read()
	if err != nil {
		return -1
	}
	return fd
}

// stretch is how much of a file is written one after the other, in bytes, before the
// kernel is told to begin bringing it to the disk: who sends a file commits it soon, and
// has then to wait for less. Of files written at random it is told nothing: what is
// written twice would go to the disk twice, and what lies together in pieces. A file of
// 128 MiB and its commit went at 0.9 to 1.3 times the rate of nfs-ganesha, and goes at 1.4
// to 1.7 times that; with stretches of 1 MiB at 1.5 to 1.6, and of 32 MiB at 1.3 to 1.5
// (bench homes, 1x1, on a machine whose speed changed by half meanwhile).
const stretch = 4 << 20

// run is how far a file was written one after the other. Calls overtake each other, so
// it is made of stretches, in which the order does not matter.
type run struct {
	at       uint64 // number of the stretch that is being written
	done     uint64 // bytes that were written there, however often, or came late for the one before
	from, to uint64 // numbers of the stretches that somebody is about to begin
}

// add notes that n bytes were written at off, and reports whether another stretch was
// written with that.
func (r *run) add(off, n uint64) bool {
	at := off / stretch
	if at == r.at || at+1 == r.at {
		r.done += n
		return false
	}
	written := at == r.at+1 && r.done >= stretch/2
	if written {
		if r.to != r.at {
			r.from = r.at
		}
		r.to = at
	}
	r.at, r.done = at, n
	return written
}

// wrote notes that n bytes were written to a file at off, and sees that the disk gets to
// work, if it is one of the host (Tree.local): of others it is not known what it costs.
func (o *object) wrote(off, n uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.dirty = true
	idle := o.run.from == o.run.to
	if o.run.add(off, n) && idle && o.key.tree.local {
		go o.key.tree.begin(o.key.handle)
	}
}

// begin begins to bring to the disk what was written of a file one after the other. The
// kernel may wait until the disk takes it, so there is one of these at a time.
func (t *Tree) begin(h fs.Handle) {
	t.volume.early.Lock()
	o, ok := t.host.objects.GetOpen(key{t, h})
	if ok {
		o.begin()
	}
	t.volume.early.Unlock()
	if ok {
		t.put(o)
	}
	// Else it is gone, or was closed and so brought to the disk.
}

// begin has the kernel begin with the stretches that were written, and with what came late
// of the one before. It takes the turn of a flush, because who is told that a flush went
// well must see the Verifier change if this one lost something. If there is a flush under
// way, that one does it.
func (o *object) begin() {
	o.mu.Lock()
	from, to, fd := int64(o.run.from)*stretch, int64(o.run.to)*stretch, o.writer
	o.run.from = o.run.to
	o.mu.Unlock()
	if from == to || !o.flush.turn.TryLock() {
		return
	}
	defer o.flush.turn.Unlock()
	from = max(from-stretch, 0)
	err := retry(func() error { return unix.SyncFileRange(fd, from, to-from, unix.SYNC_FILE_RANGE_WRITE) })
	switch err {
	case nil:
	case unix.ENOSYS, unix.EPERM: // of a filter of system calls: nothing was begun
	default:
		o.key.tree.rotate()
	}
}

// volume is a file system that trees are on.
type volume struct {
	early   sync.Mutex   // held while the kernel is told to begin (Tree.begin)
	waiting atomic.Int64 // how many calls of sync are under way
	commit  rounds
	flush   rounds
	ready   time.Time // when the next flush may begin; under flush.turn
}

// volumeOf returns the volume of a tree's root.
func (h *Host) volumeOf(d device) *volume {
	d.ino = 0
	v, _ := h.volumes.LoadOrStore(d, new(volume))
	return v.(*volume)
}

// hasJournal reports whether a device has an ext4 with a journal, which keeps the order
// of its changes: fsync(2) commits the transaction in which an object was changed last,
// and no transaction before those that came before it (ext4_fsync_journal in
// fs/ext4/fsync.c). Other file systems may promise as much, but not so plainly.
func hasJournal(d device) bool {
	block, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", d.major, d.minor))
	if err != nil {
		return false
	}
	task, err := os.ReadFile(path.Join("/sys/fs/ext4", path.Base(block), "journal_task"))
	if err != nil {
		return false // another file system, or no /sys
	}
	_, err = strconv.Atoi(strings.TrimSpace(string(task))) // a process, or "<none>"
	return err == nil
}

// openMarker makes a file without a name in a directory whose file system has a journal,
// or returns -1. Once it is changed, its fsync(2) takes along whatever was changed before.
func openMarker(dir int, d device) int {
	if !hasJournal(d) {
		return -1
	}
	fd, err := openat(dir, ".", unix.O_WRONLY|unix.O_TMPFILE|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	return fd
}

// syncAll brings the whole file system to the disk: nothing less does for the
// attributes of a symlink or a FIFO. Anybody can ask for that, so all share one
// flush, and the disk is left alone for as long as one took before the next.
func (t *Tree) syncAll() error {
	defer runtime.KeepAlive(t)
	v := t.volume
	return v.flush.join(whole, func(extent) error {
		time.Sleep(time.Until(v.ready))
		start := time.Now()
		err := retry(func() error { return unix.Syncfs(t.fd) })
		end := time.Now()
		v.ready = end.Add(end.Sub(start))
		return err
	})
}
