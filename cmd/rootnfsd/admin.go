package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/rootnfsd/rootnfsd/admin"
	"github.com/rootnfsd/rootnfsd/exports"
	"github.com/rootnfsd/rootnfsd/fs/image"
	"github.com/rootnfsd/rootnfsd/netboot"
	"github.com/rootnfsd/rootnfsd/nfs"
)

// openAdmin listens where --admin says, if it says anything.
func (s *sockets) openAdmin(addr string) error {
	if addr == "" {
		return nil
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("--admin %s: want HOST:PORT or :PORT", addr)
	}
	s.admin, err = net.Listen("tcp", addr)
	if err != nil {
		return explain(err, "tcp", "--admin", port)
	}
	return nil
}

// doors are the listeners for operators: one for each store, and one of TCP, if there is
// one.
type doors struct {
	stores map[string]net.Listener // by image
	tcp    net.Listener
	log    *zap.Logger
}

// openDoors makes the sockets of the stores. What goes wrong with one is no reason to
// keep nodes from their server.
func openDoors(stores []*openedStore, tcp net.Listener, log *zap.Logger) *doors {
	d := &doors{stores: map[string]net.Listener{}, tcp: tcp, log: log}
	for _, s := range stores {
		ln, err := admin.Listen(s.StateDir())
		if err != nil {
			log.Warn("commands will see of this server only what is on disk", zap.String("image", s.name), zap.Error(err))
			continue
		}
		d.stores[s.name] = ln
	}
	return d
}

// serve answers until ctx ends.
func (d *doors) serve(ctx context.Context, a *admin.Server) {
	var running sync.WaitGroup
	for image, ln := range d.stores {
		running.Go(func() { d.report(ln, a.ServeStore(ctx, ln, image)) })
	}
	if d.tcp != nil {
		running.Go(func() { d.report(d.tcp, a.ServeTCP(ctx, d.tcp)) })
	}
	running.Wait()
}

func (d *doors) report(ln net.Listener, err error) {
	if err != nil {
		d.log.Error("operators are not answered any more; nodes are", zap.Stringer("listener", ln.Addr()), zap.Error(err))
	}
}

func (d *doors) close() {
	for _, ln := range d.stores {
		ln.Close()
	}
}

// newAdmin returns what answers operators.
func newAdmin(stores []*openedStore, x *exports.Exports, server *nfs.Server, boot *netboot.Server, allow []netip.Prefix, log *zap.Logger) *admin.Server {
	byName := map[string]*openedStore{}
	for _, s := range stores {
		byName[s.name] = s
	}
	cfg := admin.Config{
		Exports: x,
		NFS:     server,
		Status: func(_ context.Context, image string) (any, error) {
			// Not by servedBy, for who closes the file of a POSIX lock lets go of it.
			return byName[image].describe(os.Getpid(), x.Fleet(image), time.Now())
		},
		Rollout:  func(image string) (exports.Rollout, error) { return byName[image].state.Rollout() },
		Versions: func(image string) ([]admin.Version, error) { return byName[image].sealed() },
		Content: func() (c admin.Content) {
			c.Checked, c.Damaged = image.Checks()
			return c
		},
		Allow: allow,
		Build: buildVersion(),
		Log:   log,
	}
	if boot != nil {
		cfg.Boot = func() admin.BootFiles {
			s := boot.Stats()
			return admin.BootFiles{Running: s.Running, Sent: s.Done, Aborted: s.Aborted, Failed: s.Failed, Refused: s.Refused, Bytes: s.Bytes}
		}
	}
	return admin.New(cfg)
}

// sealed lists the versions for metrics.
func (s *openedStore) sealed() ([]admin.Version, error) {
	infos, err := s.Versions()
	if err != nil {
		return nil, err
	}
	var list []admin.Version
	for _, i := range infos {
		list = append(list, admin.Version{Name: i.Name, Sealed: i.Sealed, Damaged: i.Err != nil})
	}
	return list, nil
}
