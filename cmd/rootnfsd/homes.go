package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/urfave/cli/v2"
	"go.uber.org/zap"

	"github.com/rootnfsd/rootnfsd/exports"
	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/hostdir"
)

// homeConfig is what the configuration file says of homes.
type homeConfig struct {
	Home       string `yaml:"home"`
	HomeLayout string `yaml:"home-layout"`
	HomeSkel   string `yaml:"home-skel"`
	HomePorts  string `yaml:"home-ports"`
	HomeMax    string `yaml:"home-max"`
	HomeSquash string `yaml:"home-squash"`
	AnonUID    string `yaml:"anonuid"`
	AnonGID    string `yaml:"anongid"`
}

func homeFlags() []cli.Flag {
	nobody := strconv.Itoa(fs.Nobody)
	return []cli.Flag{
		&cli.StringFlag{Name: "home", Usage: "serve /home, which nodes may write to, from this `DIR`"},
		&cli.StringFlag{Name: "home-layout", Value: "per-node", Usage: "per-node (each has a home of its own, DIR/ADDRESS) or shared (DIR is the home of all)"},
		&cli.StringFlag{Name: "home-skel", Usage: "make the home of a new node from a copy of this `DIR`"},
		&cli.StringFlag{Name: "home-max", Value: "4096", Usage: "make homes until there are `N`; 0 for no limit"},
		&cli.StringFlag{Name: "home-ports", Value: "reserved", Usage: "from which ports of a node its home can be used: reserved (below 1024, which only its root can use) or any"},
		&cli.StringFlag{Name: "home-squash", Value: "root", Usage: "who of a node is nobody in its home: root, none or all"},
		&cli.StringFlag{Name: "anonuid", Value: nobody, Usage: "the `UID` of nobody"},
		&cli.StringFlag{Name: "anongid", Value: nobody, Usage: "the `GID` of nobody"},
	}
}

// writing is what homes and drafts share to act on the host for nodes. It is made when it is first needed: not every server may, or
// has a kernel for it.
type writing struct {
	once sync.Once
	host *hostdir.Host
	err  error
}

func (w *writing) open() (*hostdir.Host, error) {
	w.once.Do(func() { w.host, w.err = hostdir.NewHost(hostdir.Options{}) })
	return w.host, w.err
}

func (w *writing) close() {
	w.once.Do(func() {})
	if w.host != nil {
		w.host.Close()
	}
}

// openDraft opens the tree of a draft.
func (w *writing) openDraft(dir string) (fs.WritableTree, error) {
	host, err := w.open()
	if err != nil {
		return nil, err
	}
	if !host.Privileged() {
		return nil, fmt.Errorf("%w: rootnfsd runs as uid %d, without the rights to act for the users of a node: drafts are served by root (or with CAP_SETUID, CAP_SETGID, CAP_CHOWN, CAP_FOWNER, CAP_FSETID, CAP_MKNOD, CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH)",
			fs.ErrAccess, os.Geteuid())
	}
	tree, err := host.Open(dir)
	if err != nil {
		return nil, err
	}
	return tree, nil
}

// homesOf returns the homes to serve, nil for none. The caller calls done when
// they are not served any more.
func homesOf(c *cli.Context, cfg homeConfig, w *writing, log *zap.Logger) (h *exports.Homes, done func(), err error) {
	h, err = parseHomes(c, cfg)
	if h == nil || err != nil {
		return nil, func() {}, err
	}
	unlock := func() {}
	if _, err := os.Stat(h.Dir); err == nil { // else exports says what is wrong
		if unlock, err = lockHomes(h.Dir); err != nil {
			return nil, func() {}, err
		}
	}
	host, err := w.open()
	if err != nil {
		unlock()
		return nil, func() {}, err
	}
	if open, err := exposed(h.Dir); err == nil && open {
		log.Warn("a user of this machine could run setuid programs that nodes leave in homes: put them in a directory of mode 0700, or mount their disk nosuid,nodev",
			zap.String("dir", h.Dir))
	}
	h.Open = func(dir string) (fs.WritableTree, error) {
		tree, err := host.Open(dir)
		if err != nil {
			return nil, err
		}
		return tree, nil
	}
	if !host.Privileged() {
		log.Warn("homes are served as the one user that rootnfsd runs as, whoever asks: give it root to keep users apart",
			zap.Int("uid", os.Geteuid()))
	}
	if !h.Shared && h.Skel == "" && h.Squash != exports.SquashNone {
		log.Warn("homes begin empty and belong to root, so nobody on a node can make anything in them: give them a beginning with --home-skel")
	}
	return h, unlock, nil
}

// parseHomes reads flags and configuration.
func parseHomes(c *cli.Context, cfg homeConfig) (*exports.Homes, error) {
	dir, skel := str(c, "home", cfg.Home), str(c, "home-skel", cfg.HomeSkel)
	if dir == "" {
		for _, name := range []string{"home-layout", "home-skel", "home-max", "home-ports", "home-squash", "anonuid", "anongid"} {
			if c.IsSet(name) {
				return nil, usageError(c, "--%s says how to serve homes: say where they are with --home DIR", name)
			}
		}
		return nil, nil
	}
	h := &exports.Homes{}
	switch layout := str(c, "home-layout", cfg.HomeLayout); layout {
	case "per-node":
	case "shared":
		h.Shared = true
	default:
		return nil, usageError(c, "--home-layout %s: want per-node or shared", layout)
	}
	if h.Shared && skel != "" {
		return nil, usageError(c, "--home-skel is what a node's own home is made from, and with --home-layout shared there is none")
	}
	switch ports := str(c, "home-ports", cfg.HomePorts); ports {
	case "reserved":
	case "any":
		h.AnyPort = true
	default:
		return nil, usageError(c, "--home-ports %s: want reserved or any", ports)
	}
	var err error
	if h.Max, err = strconv.Atoi(str(c, "home-max", cfg.HomeMax)); err != nil || h.Max < 0 {
		return nil, usageError(c, "--home-max: want a number of homes, or 0 for no limit")
	}
	if h.Squash, err = exports.ParseSquash(str(c, "home-squash", cfg.HomeSquash)); err != nil {
		return nil, usageError(c, "--home-squash: %v", err)
	}
	if h.AnonUID, err = parseID(str(c, "anonuid", cfg.AnonUID)); err != nil {
		return nil, usageError(c, "--anonuid: %v", err)
	}
	if h.AnonGID, err = parseID(str(c, "anongid", cfg.AnonGID)); err != nil {
		return nil, usageError(c, "--anongid: %v", err)
	}
	if h.Dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	if skel != "" {
		h.Skel, err = filepath.Abs(skel)
	}
	return h, err
}

// parseID reads the number of a user or a group. The last one there could be is
// none (chown(2)).
func parseID(s string) (uint32, error) {
	id, err := strconv.ParseUint(s, 10, 32)
	if err != nil || id == math.MaxUint32 {
		return 0, fmt.Errorf("%q: want a number from 0 to %d", s, uint32(math.MaxUint32-1))
	}
	return uint32(id), nil
}

// describeHomes says in a line what is served as /home.
func describeHomes(h *exports.Homes) string {
	layout := "one for each node"
	if h.Shared {
		layout = "one for all"
	}
	squashed := map[exports.Squash]string{
		exports.SquashRoot: "root is nobody",
		exports.SquashNone: "root is root",
		exports.SquashAll:  "everybody is nobody",
	}
	return fmt.Sprintf("/home  %s, in %s; %s", layout, h.Dir, squashed[h.Squash])
}
