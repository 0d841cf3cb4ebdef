package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/urfave/cli/v2"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/capability"
	"github.com/rootnfsd/rootnfsd/exports"
	"github.com/rootnfsd/rootnfsd/netboot"
	"github.com/rootnfsd/rootnfsd/nfs"
)

func serveCommand() *cli.Command {
	return &cli.Command{
		Name:  "serve",
		Usage: "serve the promoted version to the nodes",
		Description: `Answers NFS version 3, MOUNT and the port mapper until it is told to stop, and
meanwhile seals the golden trees of the store that are not sealed yet. Nothing else
is needed: no kernel NFS server, no rpcbind. With --tftp it gives nodes their boot
files, too, of the version that they will mount.

Ports 69, 111 and 2049 need root or CAP_NET_BIND_SERVICE; sealing trees with other
people's files needs root or CAP_DAC_READ_SEARCH.

Examples:
   rootnfsd serve --export images/
   rootnfsd serve --export /srv/images --allow 192.168.1.0/24
   rootnfsd serve --export pi=/srv/pi --export x86=/srv/x86
   rootnfsd serve --export images/ --home /srv/home --home-skel /srv/skel
   rootnfsd serve --export images/ --node-files /srv/nodes
   rootnfsd serve --export images/ --admin :2050
   rootnfsd serve --export images/ --tftp :69
   rootnfsd serve --listen 127.0.0.1:12049 --portmap off      without root, for a try`,
		Flags: append([]cli.Flag{
			exportFlag(), configFlag(),
			&cli.StringFlag{Name: "listen", Value: ":2049", Usage: "answer NFS and MOUNT at `ADDR`"},
			&cli.StringFlag{Name: "portmap", Value: ":111", Usage: "answer port mapper calls at `ADDR`, TCP and UDP, or off"},
			&cli.StringFlag{Name: "tftp", Value: "off", Usage: "give nodes their boot files by TFTP at `ADDR`, such as :69, or off (docs/netboot.md)"},
			&cli.StringFlag{Name: "server-address", Usage: "nodes mount their root at this `ADDRESS`, for a server behind a NAT or in a container (default: that which they ask at)"},
			&cli.StringSliceFlag{Name: "allow", Usage: "who may mount: `CIDR` or address, several with commas (default: private ranges and loopback)"},
			&cli.StringFlag{Name: "admin", Usage: "answer status, metrics and nodes that say that they are well over HTTP at `ADDR` (docs/admin.md; default: only on a socket in the store)"},
			&cli.StringFlag{Name: "record", Usage: "write each call about a version to `FILE`, which must be new: rootnfsd bench storm replays it"},
			&cli.BoolFlag{Name: "no-warm", Usage: "do not bring into memory what nodes read at boot, at the start and after a promote"},
			&cli.StringFlag{Name: "cpu-profile", Hidden: true, Usage: "write a profile to `FILE`, for go tool pprof"},
			&cli.StringFlag{Name: "log-level", Value: "info", Usage: "debug, info, warn or error"},
			&cli.StringFlag{Name: "log-format", Value: "console", Usage: "console or json"},
		}, append(homeFlags(), nodeFileFlags()...)...),
		Action: serve,
	}
}

func serve(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	cfg, err := readConfig(c)
	if err != nil {
		return err
	}
	log, err := newLogger(str(c, "log-level", cfg.LogLevel), str(c, "log-format", cfg.LogFormat))
	if err != nil {
		return err
	}
	defer log.Sync()
	// Of what root may beyond users, this alone has to do with files and stays when a thread
	// becomes another user's: without it there is less to do for each call about a home.
	if err := capability.LayDown(unix.CAP_SYS_RESOURCE); err != nil {
		log.Debug("keeping CAP_SYS_RESOURCE", zap.Error(err))
	}
	allowed := splitCommas(list(c, "allow", cfg.Allow))
	if c.IsSet("allow") && len(allowed) == 0 {
		return usageError(c, "--allow is empty: nobody could mount")
	}
	allow, err := parseAllow(allowed)
	if err != nil {
		return err
	}
	address, err := parseServerAddress(str(c, "server-address", cfg.Server))
	if err != nil {
		return err
	}
	w := new(writing)
	defer w.close()
	homes, homesDone, err := homesOf(c, cfg.Homes, w, log)
	if err != nil {
		return err
	}
	defer homesDone()
	stores, err := openStores(c)
	if err != nil {
		return err
	}
	images := imagesOf(stores, log)
	if err := nodeFilesOf(c, cfg.NodeFiles, images, homes); err != nil {
		return err
	}
	for _, s := range stores {
		unlock, err := lockForServing(s.StateDir())
		if err != nil {
			return err
		}
		defer unlock()
	}
	if err := noneEmpty(stores); err != nil {
		return err
	}

	// Calls allocate nothing, so collecting more often costs nothing; what a boot
	// storm leaves behind goes sooner, on a server that may be a Pi.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}

	ctx, stop := signal.NotifyContext(c.Context, os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once

	// The ports come first: one that is taken is better said at once.
	socks, err := openSockets(ctx, str(c, "listen", cfg.Listen), str(c, "portmap", cfg.Portmap), str(c, "tftp", cfg.TFTP), log)
	if err != nil {
		return err
	}
	defer socks.close()
	if bound := boundTo(socks.tcp[0].Addr()); !address.IsValid() && bound.Is4() && !bound.IsUnspecified() {
		address = bound
	}
	if err := socks.openAdmin(str(c, "admin", cfg.Admin)); err != nil {
		return err
	}

	x, err := exports.New(exports.Config{Images: images, Allow: allow, Homes: homes, Drafts: w.openDraft, Warm: !c.Bool("no-warm"), Starting: true, Log: log})
	if err != nil {
		return err
	}
	config := nfs.Config{Exports: x, Log: log, Ports: socks.ports()}
	profiled, err := profileTo(c.String("cpu-profile"))
	if err != nil {
		return err
	}
	finish, err := recordTo(c.String("record"), &config)
	if err != nil {
		return errors.Join(err, profiled())
	}
	doors := openDoors(stores, socks.admin, log)
	defer doors.close()
	server := nfs.New(config)
	running := newTasks(ctx)
	var boot *netboot.Server
	if socks.tftp != nil {
		boot = netboot.New(netboot.Config{Exports: x, Ports: socks.bootPorts(), Address: address, MachineID: machineIDs(images), Log: log})
	}
	running.start(func(ctx context.Context) error {
		doors.serve(ctx, newAdmin(stores, x, server, boot, allow, log))
		return nil
	})
	running.serve(socks, server)
	if boot != nil {
		running.start(func(ctx context.Context) error { return on(socks.tftp.LocalAddr(), boot.Serve(ctx, socks.tftp)) })
	}
	// Nodes are answered while trees are sealed: those that boot a version that is there need not wait.
	running.start(func(ctx context.Context) error {
		if err := sealNew(ctx, stores, x, log); err != nil || ctx.Err() != nil {
			return err
		}
		if err := announce(c.App.Writer, x, homes, socks, allow, address); err != nil {
			return err
		}
		daemon.SdNotify(false, daemon.SdNotifyReady) // an error means that systemd did not start us
		return nil
	})
	err = errors.Join(running.wait(x), finish(), profiled())
	log.Info("stopped")
	return err
}

// noneEmpty returns an error if a store has nothing that could be served: it is better said before any node is answered.
func noneEmpty(stores []*openedStore) error {
	for _, s := range stores {
		names, err := s.unsealed()
		if err != nil {
			return err
		}
		versions, err := s.Versions()
		if err != nil {
			return err
		}
		if len(names)+len(versions) == 0 {
			return fmt.Errorf("the store %s is empty: put a golden tree into it, say %s/v1 (mmdebstrap and debootstrap make one, or copy a root with cp -a)", s.Dir(), s.Dir())
		}
	}
	return nil
}

// sealNew seals the trees that are new, and has each store served as soon as all of its trees are sealed. What fails is logged and keeps
// nothing else from being served, for after a power cut the nodes need their server; it is the error only
// where no store has any version. When ctx ends, that is a stop in order: what was being sealed is begun anew at the next start.
func sealNew(ctx context.Context, stores []*openedStore, x *exports.Exports, log *zap.Logger) error {
	var failed []error
	found := 0
	for _, s := range stores {
		failed = append(failed, s.sealTrees(ctx, log))
		if ctx.Err() != nil {
			log.Info("stopped while sealing; nothing was changed")
			return nil
		}
		if err := x.Sealed(s.name); err != nil {
			log.Error("a store may not be served as it should", zap.String("store", s.Dir()), zap.Error(err))
		}
		versions, err := s.Versions()
		failed = append(failed, err)
		found += len(versions)
	}
	err := x.Started()
	if found == 0 {
		return errors.Join(append(failed, err)...)
	}
	if err != nil {
		log.Error("not all stores are served as they should", zap.Error(err))
	}
	return nil
}

// sealTrees seals the trees of a store that are new, as many as can be. The error is what kept it from others, which is logged.
func (s *openedStore) sealTrees(ctx context.Context, log *zap.Logger) error {
	names, err := s.unsealed()
	if err != nil {
		log.Error("the new trees of a store are not served", zap.String("store", s.Dir()), zap.Error(err))
		return err
	}
	var failed []error
	for _, name := range names {
		r, err := s.seal(ctx, name)
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			failed = append(failed, err)
			log.Error("a tree is not served", zap.String("store", s.Dir()), zap.String("tree", name), zap.Error(err))
			continue
		}
		reportSeal(os.Stderr, r)
	}
	return errors.Join(failed...)
}

func imagesOf(stores []*openedStore, log *zap.Logger) []exports.Image {
	var images []exports.Image
	for _, s := range stores {
		images = append(images, exports.Image{Name: s.name, Dir: s.Dir(), StateDir: s.StateDir(), Versions: sealedVersions{s.Store, log}})
	}
	return images
}

// parseAllow reads the values of --allow: networks or single addresses.
func parseAllow(values []string) ([]netip.Prefix, error) {
	if len(values) == 0 {
		return exports.DefaultAllow(), nil
	}
	var prefixes []netip.Prefix
	for _, v := range values {
		p, err := parsePrefix(v)
		if err != nil {
			return nil, fmt.Errorf("--allow %s: want a network such as 192.168.1.0/24, or an address", v)
		}
		prefixes = append(prefixes, p)
	}
	return prefixes, nil
}

// parseServerAddress reads the value of --server-address. An empty one is no address.
func parseServerAddress(text string) (netip.Addr, error) {
	if text == "" {
		return netip.Addr{}, nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil || !a.Is4() || a.IsUnspecified() {
		return netip.Addr{}, fmt.Errorf("--server-address %s: want an address such as 192.168.1.66, for nodes mount their root over IPv4 only", text)
	}
	return a, nil
}

func parsePrefix(s string) (netip.Prefix, error) {
	if strings.Contains(s, "/") {
		p, err := netip.ParsePrefix(s)
		return p.Masked(), err
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Prefix{}, err
	}
	return a.Prefix(a.BitLen())
}

// newLogger returns a logger to standard error, which loses lines rather than to wait (logWriter).
func newLogger(level, format string) (*zap.Logger, error) {
	least, err := zapcore.ParseLevel(level)
	if err != nil {
		return nil, fmt.Errorf("--log-level %s: want debug, info, warn or error", level)
	}
	var encoder zapcore.Encoder
	switch format {
	case "json":
		encoder = zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig())
	case "console":
		encoder = zapcore.NewConsoleEncoder(zap.NewDevelopmentEncoderConfig())
	default:
		return nil, fmt.Errorf("--log-format %s: want console or json", format)
	}
	return zap.New(zapcore.NewCore(encoder, newLogWriter(os.Stderr), least)), nil
}
