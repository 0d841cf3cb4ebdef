package main

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"
	"github.com/xrash/smetrics"
	"go.uber.org/zap"

	"github.com/rootnfsd/rootnfsd/exports"
	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/image"
)

// openedStore is a store and what is decided about it.
type openedStore struct {
	*image.Store
	name  string // of the image: clients mount /name
	state *exports.State
}

// usualStore is the store where nobody names one.
const usualStore = "images"

// openStores opens the stores that a command is to work on.
func openStores(c *cli.Context) ([]*openedStore, error) {
	cfg, err := readConfig(c)
	if err != nil {
		return nil, err
	}
	wanted := list(c, "export", cfg.Export)
	if len(wanted) == 0 {
		wanted = []string{usualStore}
	}
	var stores []*openedStore
	for _, w := range wanted {
		s, err := openStore(w)
		if err != nil {
			return nil, err
		}
		for _, other := range stores {
			if sameFile(s.Dir(), other.Dir()) {
				return nil, fmt.Errorf("--export names %s twice", s.Dir())
			}
		}
		stores = append(stores, s)
	}
	return stores, nil
}

func sameFile(a, b string) bool {
	ia, errA := os.Stat(a)
	ib, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(ia, ib)
}

// openOneStore opens the store that a command is to work on, where it works on
// one.
func openOneStore(c *cli.Context) (*openedStore, error) {
	stores, err := openStores(c)
	if err != nil {
		return nil, err
	}
	if len(stores) > 1 {
		return nil, usageError(c, "several stores are configured: say which one with --export DIR")
	}
	return stores[0], nil
}

// openStore opens the store that a value of --export names: [NAME=]DIR.
func openStore(arg string) (*openedStore, error) {
	name, dir, named := strings.Cut(arg, "=")
	if !named {
		dir = arg
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(abs)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("there is no store at %s: make the directory and put a golden tree into it (%s), or name another with --export DIR", dir, filepath.Join(dir, "v1"))
	case err != nil:
		return nil, err
	case !info.IsDir():
		return nil, fmt.Errorf("the store %s is not a directory", dir)
	case isRoot(abs):
		return nil, fmt.Errorf("%s is a root file system, not a store: a store holds one directory for each version; use --export %s, and %s is the version's name", dir, filepath.Dir(abs), filepath.Base(abs))
	}
	if !named {
		name = filepath.Base(abs)
	}
	if err := image.ValidName(name); err != nil {
		return nil, fmt.Errorf("the image would be mounted as /%s: %w; give it another name with --export NAME=%s", name, err, dir)
	}
	s, err := image.OpenStore(abs)
	if err != nil {
		return nil, err
	}
	return &openedStore{Store: s, name: name, state: exports.OpenState(s.StateDir())}, nil
}

// isRoot reports whether dir looks like a root file system, which people used
// to exporting a directory give instead of a store.
func isRoot(dir string) bool {
	for _, name := range []string{"etc", "usr"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || !info.IsDir() {
			return false
		}
	}
	return true
}

// info returns the version of that name, or an error with the nearest names.
func (s *openedStore) info(name string) (image.Info, error) {
	versions, err := s.Versions()
	if err != nil {
		return image.Info{}, err
	}
	var names []string
	for _, v := range versions {
		if v.Name == name {
			if v.Err != nil {
				return v, fmt.Errorf("version %s cannot be used: %w", name, v.Err)
			}
			return v, nil
		}
		names = append(names, v.Name)
	}
	if err := s.notDraft(name); err != nil {
		return image.Info{}, err
	}
	return image.Info{}, s.unknown(name, names)
}

// explainPermission adds to an error what to do if only some may do this.
func explainPermission(err error) error {
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%w: run as root, or as the user that sealed the versions", err)
	}
	return err
}

// unknown is the error for a version that is not there.
func (s *openedStore) unknown(name string, names []string) error {
	return unknownName("version", name, names, ": the store "+s.Dir()+" has none yet (rootnfsd seal)", "rootnfsd versions lists those that there are")
}

// unknownNode and unknownLabel are the same for nodes and their labels.
func unknownNode(name string, known []string) error { return unknownOfNodes("node", name, known) }

func unknownLabel(name string, known []string) error { return unknownOfNodes("label", name, known) }

func unknownOfNodes(kind, name string, known []string) error {
	return unknownName(kind, name, known, ", and no other yet (rootnfsd node set)", "rootnfsd nodes lists all")
}

// unknownName is the error for a name that nothing of a kind has, with those that may be meant. None is
// what follows where there is nothing of that kind, and list how to see all.
func unknownName(kind, name string, known []string, none, list string) error {
	said := fmt.Sprintf("there is no %s %s", kind, name)
	const few = 10
	near := nearest(name, known)
	switch {
	case len(known) == 0:
		return errors.New(said + none)
	case len(near) > 0:
		return fmt.Errorf("%s; did you mean %s?", said, strings.Join(near, " or "))
	case len(known) <= few:
		return fmt.Errorf("%s; there are %s", said, strings.Join(known, ", "))
	}
	return fmt.Errorf("%s (%s)", said, list)
}

// nearest returns those names, three at most, that someone may have meant.
func nearest(name string, names []string) []string {
	const similar = 0.7 // of Jaro-Winkler, where 1 is equal
	var near []string
	for _, n := range names {
		if smetrics.JaroWinkler(strings.ToLower(name), strings.ToLower(n), 0.7, 4) >= similar && len(near) < 3 {
			near = append(near, n)
		}
	}
	return near
}

// known returns what is promoted, which nodes have names, and what nodes are known to run.
func (s *openedStore) known() (rollout exports.Rollout, inv *exports.Inventory, seen []exports.Node, err error) {
	if rollout, err = s.state.Rollout(); err != nil {
		return rollout, nil, nil, err
	}
	if inv, err = s.state.Inventory(); err != nil {
		return rollout, nil, nil, err
	}
	seen, err = s.state.Nodes()
	return rollout, inv, seen, err
}

// hasTree reports whether the store holds a golden tree of that name.
func (s *openedStore) hasTree(name string) bool {
	info, err := os.Stat(filepath.Join(s.Dir(), name))
	return err == nil && info.IsDir()
}

// holds returns nil if the store has that very version, under whatever name.
func (s *openedStore) holds(ref exports.Ref) error {
	_, found, err := s.held(ref)
	if err == nil && !found {
		err = fmt.Errorf("version %s was removed meanwhile", ref.Version)
	}
	return err
}

// held returns that very version, if the store has it: under its own name if it has that still, else under whatever name.
func (s *openedStore) held(ref exports.Ref) (info image.Info, found bool, err error) {
	versions, err := s.Versions()
	for _, v := range versions {
		if v.Err == nil && v.Digest == ref.Digest && (!found || v.Name == ref.Version) {
			info, found = v, true
		}
	}
	return info, found, err
}

func refOf(i image.Info) exports.Ref { return exports.Ref{Version: i.Name, Digest: i.Digest} }

// operator says who runs this command, for the history.
func operator() string {
	name := os.Getenv("SUDO_USER")
	if name == "" {
		name = "uid " + fmt.Sprint(os.Getuid())
		if u, err := user.Current(); err == nil {
			name = u.Username
		}
	}
	if host, err := os.Hostname(); err == nil {
		name += "@" + host
	}
	return name
}

// sealedVersions shows a store's versions to exports.
type sealedVersions struct {
	*image.Store
	log *zap.Logger
}

func (s sealedVersions) Versions() ([]exports.Version, error) {
	infos, err := s.Store.Versions()
	if err != nil {
		return nil, err
	}
	var versions []exports.Version
	for _, i := range infos {
		if i.Err != nil {
			versions = append(versions, exports.Version{Name: i.Name, Err: i.Err})
			continue
		}
		versions = append(versions, exports.Version{Name: i.Name, Digest: i.Digest, Layout: i.Layout, Open: func() (fs.Tree, error) { return s.open(i) }})
	}
	return versions, nil
}

// open opens what was listed, whatever became of its name since.
func (s sealedVersions) open(i image.Info) (fs.Tree, error) {
	v, err := s.OpenDigest(i.Name, i.Digest)
	if err != nil {
		return nil, err
	}
	for _, problem := range v.Problems() {
		s.log.Error("files of a version cannot be read", zap.Error(problem))
	}
	return v, nil
}
