package exports

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rootnfsd/rootnfsd/fs"
)

// Homes says what is mounted as /home: trees that nodes may write to.
type Homes struct {
	// Dir is the directory on the server: it holds a home for each node, named
	// as the node is, or it is the one tree of all if Shared is true.
	Dir    string
	Shared bool
	// Skel is the directory that a node's home is made from when the node first
	// mounts it. Without one it begins empty and belongs to root.
	Skel string

	// Max is how many homes are made: where there are as many, no node gets a new
	// one. 0 is no limit.
	Max int

	// AnyPort lets calls come from any port. Else those from a port that is not
	// reserved are refused, as any user of a node can make them, in anybody's name.
	AnyPort bool

	Squash           Squash
	AnonUID, AnonGID uint32 // who a squashed caller is

	// Open opens the tree at a directory that is there.
	Open func(dir string) (fs.WritableTree, error)
}

// homeName is what homes are mounted as.
const homeName = "home"

// nodeName is the name that a node is known by: for a home, its directory. It is
// the one place that decides; now it is the address.
func nodeName(addr netip.Addr) string { return addr.String() }

// isNodeName reports whether a name can be that of a node, so that nobody mounts
// a directory of its own home in the belief that it is a node's.
func isNodeName(name string) bool {
	_, err := netip.ParseAddr(name)
	return err == nil
}

// namesNode reports whether name is, in any spelling, that of the node at addr.
func namesNode(name string, addr netip.Addr) bool {
	a, err := netip.ParseAddr(name)
	return err == nil && a.Unmap() == addr
}

// homes are the homes that are served.
type homes struct {
	Homes
	paths []string // Dir as an absolute path, and where its symlinks lead
	keys  []sipKey // of the images: the first one signs, so any may have been the first

	info os.FileInfo // of Dir when the server started

	making sync.Mutex // one home is made at a time, so that they can be counted
	mu     sync.Mutex // guards the rest, and is not held while a disk is waited for
	byDir  map[string]*writable
	swept  time.Time
}

// newHomes checks that homes can be served beside the images.
func newHomes(cfg Homes, images []*imageView) (*homes, error) {
	info, err := os.Stat(cfg.Dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("there is no directory %s for homes: make it, or mount what it is on", cfg.Dir)
	case err != nil:
		return nil, err
	case !info.IsDir():
		return nil, fmt.Errorf("%s is not a directory, homes need one", cfg.Dir)
	}
	h := &homes{Homes: cfg, paths: pathsOf(cfg.Dir), info: info, byDir: map[string]*writable{}, swept: time.Now()}
	if len(images) == 0 {
		return nil, errors.New("homes need an image: its key signs their handles")
	}
	for _, img := range images {
		if img.name == homeName {
			return nil, errors.New("a store would be served as /home, which is where homes are: name it differently with --export NAME=DIR")
		}
		// Who writes to a home must not thereby write to a store, or read its key.
		if overlap(h.paths, img.paths) {
			return nil, fmt.Errorf("the homes in %s and the store %s must not lie in each other", cfg.Dir, img.paths[0])
		}
		h.keys = append(h.keys, img.key)
	}
	if cfg.Shared {
		_, err := h.at(cfg.Dir).Tree()
		return h, err
	}
	if cfg.Skel != "" {
		if err := checkSkeleton(cfg.Skel, h.paths, images); err != nil {
			return nil, err
		}
		if info, err := os.Stat(cfg.Skel); err != nil {
			return nil, fmt.Errorf("the skeleton of homes: %w", err)
		} else if !info.IsDir() {
			return nil, fmt.Errorf("the skeleton of homes, %s, is not a directory", cfg.Skel)
		}
	}
	return h, removeTempHomes(cfg.Dir)
}

// checkSkeleton refuses a skeleton that would give every node a copy of homes, or
// of a store and its key.
func checkSkeleton(skel string, homes []string, images []*imageView) error {
	paths := pathsOf(skel)
	if overlap(paths, homes) {
		return fmt.Errorf("the skeleton of homes, %s, and the homes in %s must not lie in each other", skel, homes[0])
	}
	for _, img := range images {
		if overlap(paths, img.paths) {
			return fmt.Errorf("the skeleton of homes, %s, and the store %s must not lie in each other", skel, img.paths[0])
		}
	}
	return nil
}

// overlap reports whether one of the directories lies in, or is, one of the
// others, or the other way round.
func overlap(some, others []string) bool {
	for _, a := range some {
		for _, b := range others {
			if within(a, b) || within(b, a) {
				return true
			}
		}
	}
	return false
}

func within(dir, in string) bool {
	rel, err := filepath.Rel(in, dir)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

func (h *homes) dirOf(p *Peer) string {
	if h.Shared {
		return h.Dir
	}
	return filepath.Join(h.Dir, nodeName(p.addr))
}

// at returns the home in a directory of the server.
func (h *homes) at(dir string) *writable {
	h.mu.Lock()
	defer h.mu.Unlock()
	if home := h.byDir[dir]; home != nil {
		return home
	}
	home := &writable{of: h, kind: kindHome, id: homeID(filepath.Base(dir), h.Shared), key: h.keys[0], dir: dir}
	h.byDir[dir] = home
	return home
}

// known returns the home in a directory if it is open, else nil. It does not wait.
func (h *homes) known(dir string) *writable {
	h.mu.Lock()
	defer h.mu.Unlock()
	if home := h.byDir[dir]; home != nil && home.open.Load() != nil {
		return home
	}
	return nil
}

// forget lets go of a home whose directory is not there or could not be opened.
func (h *homes) forget(home *writable) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.byDir[home.dir] == home {
		delete(h.byDir, home.dir)
	}
}

// homeIdle is about how long a home stays open that nobody uses.
const homeIdle = 5 * time.Minute

// sweep lets go, every homeIdle, of the homes that were not used since the last
// time. The tree of each holds a descriptor, and is closed when the last call that
// uses it is over.
func (h *homes) sweep(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.Shared || now.Sub(h.swept) < homeIdle {
		return
	}
	h.swept = now
	for dir, home := range h.byDir {
		if !home.used.Swap(false) {
			delete(h.byDir, dir)
		}
	}
}

// there reports what is wrong if Dir is not the directory any more that it was
// when the server started: more likely than not, its disk is not mounted.
func (h *homes) there() error {
	info, err := os.Stat(h.Dir)
	if err != nil {
		return fmt.Errorf("%w: %w", fs.ErrIO, err)
	}
	if !os.SameFile(info, h.info) {
		return fmt.Errorf("%w: %s is another directory than when the server started: mount what it was on, or restart the server", fs.ErrIO, h.Dir)
	}
	return nil
}

// make makes a home, if there may be one more.
func (h *homes) make(dir string) error {
	h.making.Lock()
	defer h.making.Unlock()
	if h.Max > 0 {
		entries, err := os.ReadDir(h.Dir)
		if err != nil {
			return err
		}
		if len(entries) >= h.Max {
			return fmt.Errorf("%w: there are %d homes already: remove some, or raise --home-max", fs.ErrNoSpace, len(entries))
		}
	}
	return makeHome(dir, h.Skel)
}

// homeID is what a handle says of its home.
func homeID(name string, shared bool) uint64 {
	if shared {
		name = "/" // which no node is called
	}
	sum := sha256.Sum256([]byte(name))
	return binary.BigEndian.Uint64(sum[:])
}

// openTree implements keeper.
func (h *homes) openTree(dir string) (fs.WritableTree, error) {
	tree, err := h.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open the home %s: %w", dir, err)
	}
	return tree, nil
}

// moved lets go of other homes that were opened in what is now the directory of to:
// an operator has renamed it, and who had it before must not go on in it.
func (h *homes) moved(to *writable, info os.FileInfo) {
	for _, other := range h.opened(info) {
		if other == to {
			continue
		}
		if now, err := os.Stat(other.dir); err != nil || !os.SameFile(now, info) {
			h.forget(other)
		}
	}
}

// opened returns the homes that were opened in a directory.
func (h *homes) opened(info os.FileInfo) (found []*writable) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, home := range h.byDir {
		if o := home.open.Load(); o != nil && os.SameFile(o.info, info) {
			found = append(found, home)
		}
	}
	return found
}

// trusts reports whether p can be believed which node it is and who its users are.
func (h *homes) trusts(p *Peer) bool {
	return (p.reserved || h.AnyPort) && (h.Shared || !p.ambiguous())
}

// signed reports whether the tag of a handle is one that this server makes.
func (h *homes) signed(handle []byte) bool {
	return slices.ContainsFunc(h.keys, func(key sipKey) bool { return key.signed(handle) })
}

// cut cuts what homes are mounted as off the front of a mount path: /home, or
// the directory on the server.
func (h *homes) cut(names []string) (rest []string, ok bool) {
	for _, p := range h.paths {
		if rest, at, ok := cutStore(names, p); ok && at == "" {
			return rest, true
		}
	}
	if len(names) > 0 && names[0] == homeName {
		return names[1:], true
	}
	return nil, false
}

// mountHome is Mount for a path below what homes are mounted as.
func (x *Exports) mountHome(p *Peer, names []string, from Caller) ([]byte, string, error) {
	if !x.homes.Shared && p.ambiguous() {
		return nil, "a link-local address may be that of several nodes, so it has no home: mount from another one", fs.ErrAccess
	}
	if !x.homes.trusts(p) {
		return nil, "the call is from a port that any user of the node could use: mount without noresvport, or serve with --home-ports any if a NAT changes ports", fs.ErrAccess
	}
	if !x.homes.Shared && len(names) > 0 && isNodeName(names[0]) {
		if !namesNode(names[0], p.addr) {
			return nil, "that is another node's home; yours is /home", fs.ErrAccess
		}
		names = names[1:]
	}
	if !x.homes.Shared && !from.Datagram { // whose handle is good for nothing in the hands of a stranger
		if why := x.homeless(p, x.table.Load()); why != "" {
			return nil, why, fs.ErrAccess
		}
	}
	dir := x.homes.dirOf(p)
	if from.Datagram {
		return x.mountKnown(dir, names)
	}
	home := x.homes.at(dir)
	tree, err := home.Mount(!x.homes.Shared)
	if err != nil {
		x.homes.forget(home)
		return nil, err.Error(), fs.KindOf(err)
	}
	object, err := walkHome(tree, names)
	switch kind := fs.KindOf(err); kind {
	case 0:
		p.mountedHome()
		o := HomeObject{Tree: tree, in: home}
		return o.AppendHandle(nil, object), "", nil
	case fs.ErrNotExist:
		return nil, "the home has no such directory; /home is the whole of it", kind
	case fs.ErrNotDir:
		return nil, "only a directory can be mounted, and symlinks are not followed", kind
	default:
		return nil, err.Error(), kind
	}
}

// mountKnown is mountHome for a datagram. Anybody can send one in the name of any
// address, and all of them wait for each other: so it makes nothing, opens nothing
// and waits for no disk.
func (x *Exports) mountKnown(dir string, names []string) ([]byte, string, error) {
	home := x.homes.known(dir)
	if home == nil || len(names) > 0 {
		return nil, "homes are mounted over TCP: use mountproto=tcp", fs.ErrNotExist
	}
	o := HomeObject{Tree: home.open.Load().WritableTree, in: home}
	return o.AppendHandle(nil, o.Tree.Root()), "", nil
}

// MountsHome reports whether a mount path leads to a home, so that Mount may wait
// for its disk.
func (x *Exports) MountsHome(dir string) bool {
	names, err := splitPath(dir)
	if x.homes == nil || err != nil || x.table.Load().isStore(names) {
		return false
	}
	_, ok := x.homes.cut(names)
	return ok
}

// walkHome looks a directory up, as the superuser: what a mount may reach is
// decided by address.
func walkHome(tree fs.WritableTree, names []string) (fs.Handle, error) {
	var a fs.Attr
	h := tree.Root()
	if err := tree.Getattr(h, &a); err != nil {
		return h, err
	}
	for _, name := range names {
		var err error
		if h, err = tree.Lookup(&fs.Cred{}, h, fs.Name(name), &a); err != nil {
			return h, err
		}
	}
	if a.Kind != fs.Directory {
		return h, fs.ErrNotDir
	}
	return h, nil
}
