package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// maxFile is the most that a file holds.
	maxFile = 256 << 10
	// maxIO is the most that one operation is about.
	maxIO = 48 << 10
	// block is what direct I/O is about multiples of.
	block = 512
	// remembered is how many operations are told of when one goes wrong.
	remembered = 24
)

// exerciser does random things to a file and knows what must be in it then.
type exerciser struct {
	path  string
	seed  uint64
	rand  *rand.Rand
	model []byte

	f       *os.File
	direct  *os.File // nil where the file system has no O_DIRECT
	aligned []byte   // memory for direct
	done    int
	last    []string

	// restarts is set where the server may be stopped at any time: see truncate.
	restarts bool
}

// operations are what is done, each so often out of the sum of all shares.
var operations = []struct {
	name  string
	share int
	do    func(e *exerciser) error
}{
	{"read", 20, (*exerciser).read},
	{"write", 20, (*exerciser).write},
	{"append", 6, (*exerciser).append},
	{"truncate", 8, (*exerciser).truncate},
	{"map read", 8, (*exerciser).mapRead},
	{"map write", 10, (*exerciser).mapWrite},
	{"direct read", 6, (*exerciser).directRead},
	{"direct write", 6, (*exerciser).directWrite},
	{"sync", 4, (*exerciser).sync},
	{"write out", 10, (*exerciser).writeOut},
	{"reopen", 4, (*exerciser).reopen},
	{"forget", 4, (*exerciser).forget},
	{"punch", 2, (*exerciser).punch},
	{"size", 2, (*exerciser).size},
}

func newExerciser(path string, seed uint64) (*exerciser, error) {
	e := &exerciser{path: path, seed: seed, rand: rand.New(rand.NewPCG(seed, seed))}
	var err error
	// Memory of a mapping is aligned.
	if e.aligned, err = unix.Mmap(-1, 0, maxIO, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE); err != nil {
		return nil, err
	}
	if err := os.RemoveAll(path); err != nil {
		return nil, err
	}
	return e, e.open()
}

func (e *exerciser) open() (err error) {
	if e.f, err = os.OpenFile(e.path, os.O_RDWR|os.O_CREATE, 0o644); err != nil {
		return err
	}
	e.direct, err = os.OpenFile(e.path, os.O_RDWR|unix.O_DIRECT, 0)
	if errors.Is(err, unix.EINVAL) {
		return nil // tmpfs has none
	}
	return err
}

// close closes the file, and with it writes back what NFS has not written yet.
func (e *exerciser) close() error {
	if e.direct == nil {
		return e.f.Close()
	}
	return errors.Join(e.direct.Close(), e.f.Close())
}

// step does one operation.
func (e *exerciser) step() error {
	var all int
	for _, o := range operations {
		all += o.share
	}
	n := e.rand.IntN(all)
	for _, o := range operations {
		if n -= o.share; n < 0 {
			e.done++
			e.say("%s", o.name)
			return e.explain(o.do(e))
		}
	}
	return nil
}

// finish reads the whole file three ways.
func (e *exerciser) finish() error {
	for _, look := range []func(*exerciser) error{(*exerciser).readAll, (*exerciser).reopen, (*exerciser).readAll, (*exerciser).forget, (*exerciser).readAll} {
		if err := look(e); err != nil {
			return e.explain(err)
		}
	}
	return nil
}

// explain says what led to an error.
func (e *exerciser) explain(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s, operation %d of seed %d, size %d: %w\nthe last ones were\n\t%s",
		e.path, e.done, e.seed, len(e.model), err, strings.Join(e.last, "\n\t"))
}

// say remembers what is done.
func (e *exerciser) say(format string, args ...any) {
	if len(e.last) == remembered {
		e.last = e.last[1:]
	}
	e.last = append(e.last, fmt.Sprintf(format, args...))
}

// sayRange adds to what was said last.
func (e *exerciser) sayRange(off, n int) {
	e.last[len(e.last)-1] += fmt.Sprintf(" %d+%d", off, n)
}

// part returns a part of the file as it is, n being 0 if it is empty.
func (e *exerciser) part() (off, n int) {
	if len(e.model) == 0 {
		return 0, 0
	}
	off = e.rand.IntN(len(e.model))
	n = 1 + e.rand.IntN(min(maxIO, len(e.model)-off))
	e.sayRange(off, n)
	return off, n
}

// fresh returns bytes that were not there before.
func (e *exerciser) fresh(b []byte) []byte {
	for i := range b {
		b[i] = byte(e.rand.Uint32())
	}
	return b
}

// put is what a write does to the model.
func (e *exerciser) put(off int, data []byte) {
	if grow := off + len(data) - len(e.model); grow > 0 {
		e.model = append(e.model, make([]byte, grow)...)
	}
	copy(e.model[off:], data)
}

// check compares what was read at off with the model.
func (e *exerciser) check(off int, got []byte) error {
	want := e.model[off:]
	if len(got) > len(want) {
		return fmt.Errorf("read %d bytes at %d; the file has %d there", len(got), off, len(want))
	}
	for i, b := range got {
		if b != want[i] {
			return fmt.Errorf("byte %d is %#02x, want %#02x; of the %d bytes at %d, %d are wrong", off+i, b, want[i], len(got), off, differences(got, want))
		}
	}
	return nil
}

func differences(a, b []byte) (n int) {
	for i := range a {
		if a[i] != b[i] {
			n++
		}
	}
	return n
}

func (e *exerciser) read() error {
	off, n := e.part()
	got := make([]byte, n)
	if _, err := e.f.ReadAt(got, int64(off)); err != nil {
		return err
	}
	return e.check(off, got)
}

// readAll reads past the end, too.
func (e *exerciser) readAll() error {
	got := make([]byte, len(e.model)+1)
	n, err := e.f.ReadAt(got, 0)
	if n != len(e.model) || err != io.EOF {
		return fmt.Errorf("read %d bytes, %v; want %d and the end", n, err, len(e.model))
	}
	return e.check(0, got[:n])
}

func (e *exerciser) write() error {
	data := e.fresh(make([]byte, 1+e.rand.IntN(maxIO)))
	off := e.rand.IntN(maxFile - len(data))
	e.sayRange(off, len(data))
	e.put(off, data)
	_, err := e.f.WriteAt(data, int64(off))
	return err
}

func (e *exerciser) append() (err error) {
	data := e.fresh(make([]byte, 1+e.rand.IntN(maxIO/8)))
	if len(e.model)+len(data) > maxFile {
		return nil
	}
	e.sayRange(len(e.model), len(data))
	f, err := os.OpenFile(e.path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	e.put(len(e.model), data)
	return errors.Join(err, f.Close())
}

// truncate first has written back what was not. That is the client's duty, but when the
// server's verifier changes between an UNSTABLE WRITE and the COMMIT that a truncation waits for, Linux
// (6.1) truncates all the same, keeps the WRITE to make again, and does so up to the end of the
// page, beyond that of the file: WRITE 0 to 40000, restart, COMMIT, SETATTR 26613, WRITE 0 to 28672.
func (e *exerciser) truncate() error {
	size := e.rand.IntN(maxFile)
	e.sayRange(0, size)
	if e.restarts {
		if err := e.f.Sync(); err != nil {
			return err
		}
	}
	if size < len(e.model) {
		e.model = e.model[:size:size] // what is appended next is zeros
	} else {
		e.put(size, nil)
	}
	return e.f.Truncate(int64(size))
}

// mapPart calls f with a part of the file in memory, and the mapping that it is of.
func (e *exerciser) mapPart(protection int, f func(off int, part, whole []byte) error) error {
	off, n := e.part()
	if n == 0 {
		return nil
	}
	start := off &^ (os.Getpagesize() - 1)
	whole, err := unix.Mmap(int(e.f.Fd()), int64(start), off-start+n, protection, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	return errors.Join(f(off, whole[off-start:], whole), unix.Munmap(whole))
}

func (e *exerciser) mapRead() error {
	return e.mapPart(unix.PROT_READ, func(off int, part, _ []byte) error { return e.check(off, part) })
}

func (e *exerciser) mapWrite() error {
	return e.mapPart(unix.PROT_READ|unix.PROT_WRITE, func(off int, part, whole []byte) error {
		if err := e.check(off, part); err != nil {
			return err
		}
		e.put(off, e.fresh(part))
		if e.rand.IntN(2) == 0 {
			return nil
		}
		return unix.Msync(whole, unix.MS_SYNC)
	})
}

// Pages that were written by a mapping are not looked for by direct I/O, which
// open(2) says not to mix with others: so they are written back before.

func (e *exerciser) directRead() error {
	if e.direct == nil || len(e.model) == 0 {
		return nil
	}
	off := e.rand.IntN(len(e.model)) / block * block
	buf := e.aligned[:block*(1+e.rand.IntN(maxIO/block))]
	e.sayRange(off, len(buf))
	if err := e.f.Sync(); err != nil {
		return err
	}
	n, err := again(func() (int, error) { return unix.Pread(int(e.direct.Fd()), buf, int64(off)) })
	if err != nil {
		return err
	}
	if want := min(len(buf), len(e.model)-off); n != want {
		return fmt.Errorf("read %d bytes, want %d", n, want)
	}
	return e.check(off, buf[:n])
}

func (e *exerciser) directWrite() error {
	if e.direct == nil {
		return nil
	}
	data := e.fresh(e.aligned[:block*(1+e.rand.IntN(maxIO/block))])
	off := e.rand.IntN(maxFile-len(data)) / block * block
	e.sayRange(off, len(data))
	if err := e.f.Sync(); err != nil {
		return err
	}
	n, err := again(func() (int, error) { return unix.Pwrite(int(e.direct.Fd()), data, int64(off)) })
	if err == nil && n != len(data) {
		err = fmt.Errorf("wrote %d bytes of %d", n, len(data))
	}
	e.put(off, data)
	return err
}

func (e *exerciser) sync() error {
	if e.rand.IntN(2) == 0 {
		return unix.Fdatasync(int(e.f.Fd()))
	}
	return e.f.Sync()
}

// writeOut has the kernel write, and not wait until that is safe: by NFS it makes
// an UNSTABLE WRITE, and the COMMIT only when somebody asks for it.
func (e *exerciser) writeOut() error {
	return unix.SyncFileRange(int(e.f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
}

func (e *exerciser) reopen() error { return errors.Join(e.close(), e.open()) }

// forget makes the kernel forget the content, so that the next read is one of the
// server's.
func (e *exerciser) forget() error { return dropCache(e.f) }

// punch makes a hole, where a file system can.
func (e *exerciser) punch() error {
	off, n := e.part()
	if n == 0 {
		return nil
	}
	err := unix.Fallocate(int(e.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(off), int64(n))
	if err == unix.EOPNOTSUPP {
		return nil
	}
	clear(e.model[off:][:n])
	return err
}

func (e *exerciser) size() error {
	info, err := os.Stat(e.path)
	if err != nil {
		return err
	}
	if info.Size() != int64(len(e.model)) {
		return fmt.Errorf("the size is %d", info.Size())
	}
	return nil
}

// again makes a system call again that a signal has ended.
func again(call func() (int, error)) (int, error) {
	for {
		if n, err := call(); err != unix.EINTR {
			return n, err
		}
	}
}
