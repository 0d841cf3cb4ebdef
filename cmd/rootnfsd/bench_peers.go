package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/rootnfsd/rootnfsd/bench/peer"
)

// The names of servers that can be measured beside each other, in the order in
// which they are shown.
var peerNames = []string{"rootnfsd", "ganesha", "go-nfs", "limit"}

func serversFlag() cli.Flag {
	return &cli.StringFlag{Name: "servers", Value: strings.Join(peerNames, ","), Usage: "measure these: `NAME,…`"}
}

func congestionFlag() cli.Flag {
	return &cli.StringFlag{Name: "congestion", Value: "cubic,reno", Usage: "let TCP have the first possible of `NAME,…`, in a network namespace that root can make, or system to leave it"}
}

// inOwnNetwork runs the program again in a network of its own if --congestion needs
// one, and reports whether it did, and with what error that ended.
func inOwnNetwork(c *cli.Context) (ran bool, err error) {
	names := c.String("congestion")
	if names == "system" {
		return false, nil
	}
	ran, err = peer.InOwnNetwork(splitCommas([]string{names}))
	if !ran && err != nil {
		fmt.Fprintf(os.Stderr, "TCP keeps the system's %s: %v\n", peer.Congestion(), err)
	}
	return ran, err
}

// contestants are servers of the same version.
type contestants struct {
	store   *openedStore
	version string
	tree    string // the directory that was sealed
	// pack is the largest file of content in the store, from which the limit sends.
	pack     string
	packSize int64

	// names of those that are wanted, and those of them that run.
	names   []string
	servers []*peer.Server
}

// findContestants finds out what is to be served: a version of the store, or the
// promoted one if none is named.
func findContestants(c *cli.Context, version string) (*contestants, error) {
	names := splitCommas([]string{c.String("servers")})
	for _, n := range names {
		if !slices.Contains(peerNames, n) {
			return nil, usageError(c, "--servers %s: there are %s", n, strings.Join(peerNames, ", "))
		}
	}
	// The limit needs to know what rootnfsd does, so the order is not the user's.
	slices.SortFunc(names, func(a, b string) int { return slices.Index(peerNames, a) - slices.Index(peerNames, b) })
	s, err := openOneStore(c)
	if err != nil {
		return nil, err
	}
	if pid := servedBy(s.StateDir()); pid != 0 {
		return nil, fmt.Errorf("the store %s is served by process %d, which would be measured too: stop that one, or use a copy of the store", s.Dir(), pid)
	}
	if version == "" {
		if version, err = s.promotedOrOnly(); err != nil {
			return nil, err
		}
	}
	if _, err := s.info(version); err != nil {
		return nil, err
	}
	x := &contestants{store: s, version: version, tree: filepath.Join(s.Dir(), version), names: names}
	packs, _ := filepath.Glob(filepath.Join(s.StateDir(), "packs", "*.pack"))
	for _, p := range packs {
		if info, err := os.Stat(p); err == nil && info.Size() > x.packSize {
			x.pack, x.packSize = p, info.Size()
		}
	}
	return x, nil
}

// promotedOrOnly returns the version that new mounts would get.
func (s *openedStore) promotedOrOnly() (string, error) {
	rollout, err := s.state.Rollout()
	if err != nil {
		return "", err
	}
	if ref, ok := rollout.Promoted(); ok {
		return ref.Version, nil
	}
	versions, err := s.Versions()
	if err != nil {
		return "", err
	}
	if len(versions) == 1 {
		return versions[0].Name, nil
	}
	return "", errors.New("nothing is promoted: say which version is to be served")
}

// start starts the servers, each in a process of its own. One that is not here, or a
// peer that does not start, is left out, with a note.
func (x *contestants) start(ctx context.Context, note func(string)) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	for _, name := range x.names {
		if missing := x.missing(name); missing != nil {
			note(fmt.Sprintf("%s is left out: %v", name, missing))
			continue
		}
		var s *peer.Server
		switch name {
		case "rootnfsd":
			s, err = peer.RootnfsdAside(ctx, program, x.store.Dir(), x.version)
		case "ganesha":
			s, err = peer.Ganesha(ctx, x.tree)
		case "go-nfs":
			s, err = peer.GoNFS(ctx, program, x.tree)
		case "limit":
			s, err = peer.Limit(ctx, program, x.pack)
		}
		switch {
		case err != nil && name != "rootnfsd" && ctx.Err() == nil:
			note(fmt.Sprintf("%s is left out: %v", name, err))
			continue
		case err != nil:
			x.stop()
			return err
		}
		x.servers = append(x.servers, s)
	}
	return nil
}

// missing says what a server lacks here, if anything.
func (x *contestants) missing(name string) error {
	switch {
	case name == "limit" && x.pack == "":
		return errors.New("the store has no content")
	case name == "limit" && !slices.Contains(x.names, "rootnfsd"):
		return errors.New("it sends what rootnfsd would, which is not measured")
	case name == "ganesha" || name == "go-nfs":
		if info, err := os.Stat(x.tree); err != nil || !info.IsDir() {
			return fmt.Errorf("the tree %s is not there any more", x.tree)
		}
	}
	if name == "ganesha" {
		return peer.MissingGanesha()
	}
	return nil
}

func (x *contestants) stop() {
	for _, s := range x.servers {
		s.Stop()
	}
}

// about says what each server is, for a report.
func (x *contestants) about() map[string]string {
	about := map[string]string{}
	for _, s := range x.servers {
		about[s.Name] = s.About
	}
	return about
}
