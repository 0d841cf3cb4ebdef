package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/rootnfsd/rootnfsd/bench/storm"
	"github.com/rootnfsd/rootnfsd/nfs"
)

const (
	// recordQueue is how many calls may wait to be written: those of some
	// hundred nodes for the time that it takes to walk a tree.
	recordQueue = 1 << 16
	// recordFlush is how old what is in the file may be.
	recordFlush = time.Second
)

// recorder writes the calls that nodes make about versions to a file (serve
// --record), and those that are about nothing yet, such as mounts. What is in
// homes is left out. Calls never wait for it: what comes faster than it can be
// written is left out too, and counted.
type recorder struct {
	log     *zap.Logger
	begun   time.Time
	file    *os.File
	out     *storm.Writer
	queue   chan recorded
	lost    atomic.Uint64
	written uint64
	err     error         // the first of writing; nothing is written after it
	done    chan struct{} // closed when the file is finished
	paths   treePaths
}

// recorded is a call that owns its memory.
type recorded struct {
	nfs.Record
	proc storm.Proc
	name string
}

// recordTo makes a server record to a file, if one is named, and returns what
// finishes the file when the server has stopped.
func recordTo(path string, config *nfs.Config) (finish func() error, err error) {
	if path == "" {
		return func() error { return nil }, nil
	}
	r, err := newRecorder(path, config.Log)
	if err != nil {
		return nil, err
	}
	config.Recorder = r
	return r.close, nil
}

// newRecorder begins a recording in a new file. One that is there is not
// replaced: a recording takes a boot to make again.
func newRecorder(path string, log *zap.Logger) (*recorder, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("--record %s: the file exists: remove it, or name another", path)
	}
	if err != nil {
		return nil, fmt.Errorf("--record: %w", err)
	}
	r := &recorder{
		log:   log,
		begun: time.Now(),
		file:  f,
		out:   storm.NewWriter(f),
		queue: make(chan recorded, recordQueue),
		done:  make(chan struct{}),
		paths: treePaths{},
	}
	go r.run()
	return r, nil
}

// Record implements nfs.Recorder.
func (r *recorder) Record(call nfs.Record) {
	proc, ok := storm.ProcOf(call.Program, call.Procedure)
	if !ok {
		return
	}
	c := recorded{call, proc, string(call.Name)}
	c.Name = nil // it is gone when this returns
	select {
	case r.queue <- c:
	default:
		r.lost.Add(1)
	}
}

// close finishes the file. Nothing may be recorded any more.
func (r *recorder) close() error {
	close(r.queue)
	<-r.done
	if r.err != nil {
		return fmt.Errorf("--record: %w", r.err)
	}
	r.log.Info("recorded", zap.String("file", r.file.Name()), zap.Uint64("calls", r.written), zap.Uint64("lost", r.lost.Load()))
	return nil
}

func (r *recorder) run() {
	defer close(r.done)
	tick := time.NewTicker(recordFlush)
	defer tick.Stop()
	for {
		select {
		case c, more := <-r.queue:
			if !more {
				r.finish()
				return
			}
			r.write(&c)
		case <-tick.C:
			r.check(r.out.Flush())
		}
	}
}

func (r *recorder) write(c *recorded) {
	path, ok := r.pathOf(c)
	if !ok {
		r.lost.Add(1)
		return
	}
	if r.err != nil {
		return
	}
	err := r.out.Write(storm.Call{
		At:     max(0, c.Time.Sub(r.begun)),
		Client: c.Client,
		Proc:   c.proc,
		Offset: c.Offset,
		Count:  c.Count,
		Path:   path,
	})
	if r.check(err); err == nil {
		r.written++
	}
}

// pathOf returns what a trace has for the path of a call.
func (r *recorder) pathOf(c *recorded) (path string, ok bool) {
	if c.Tree == nil {
		return c.name, true
	}
	path, ok = r.paths.of(c.Tree, c.Object)
	if c.proc == storm.Lookup {
		path = join(path, c.name)
	}
	return path, ok && len(path) <= storm.MaxPath
}

// finish ends the file with what became of the recording.
func (r *recorder) finish() {
	r.check(r.out.Comment(fmt.Sprintf("%d calls, %d lost", r.written, r.lost.Load())))
	r.check(r.out.Flush())
	r.check(r.file.Sync())
	r.check(r.file.Close())
}

// check keeps the first error. The server goes on without the recording.
func (r *recorder) check(err error) {
	if err != nil && r.err == nil {
		r.err = err
		r.log.Error("the recording ends here", zap.Error(err))
	}
}
