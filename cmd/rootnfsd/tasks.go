package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/rootnfsd/rootnfsd/exports"
	"github.com/rootnfsd/rootnfsd/nfs"
)

// tasks are what a server does side by side. When one of them fails, all are to end.
type tasks struct {
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu     sync.Mutex // guards failed
	failed []error
}

func newTasks(ctx context.Context) *tasks {
	t := &tasks{}
	t.ctx, t.cancel = context.WithCancel(ctx)
	return t
}

// start runs a task, which ends when its context does.
func (t *tasks) start(task func(context.Context) error) {
	t.running.Go(func() {
		err := task(t.ctx)
		if err == nil {
			return
		}
		t.mu.Lock()
		t.failed = append(t.failed, err)
		t.mu.Unlock()
		t.cancel()
	})
}

// serve starts a task for each socket of NFS.
func (t *tasks) serve(socks *sockets, server *nfs.Server) {
	for _, ln := range socks.tcp {
		t.start(func(ctx context.Context) error { return on(ln.Addr(), server.Serve(ctx, ln)) })
	}
	for _, pc := range socks.udp {
		t.start(func(ctx context.Context) error { return on(pc.LocalAddr(), server.ServePacket(ctx, pc)) })
	}
}

// on adds to an error the address at which it happened.
func on(addr net.Addr, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("listen on %s/%s: %w", addr, addr.Network(), err)
}

// wait keeps what is known of nodes until all tasks have ended, and returns what failed. The record
// of nodes is saved when the last call has been answered.
func (t *tasks) wait(x *exports.Exports) error {
	recording, record := context.WithCancel(context.WithoutCancel(t.ctx))
	recorded := make(chan struct{})
	go func() {
		defer close(recorded)
		x.Run(recording)
	}()
	t.running.Wait()
	t.cancel()
	record()
	<-recorded
	return errors.Join(t.failed...)
}
