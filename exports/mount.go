package exports

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/rootnfsd/rootnfsd/fs"
)

// MaxMountPath is the longest path that MOUNT carries, in bytes (RFC 1813,
// section 5.1.1, MNTPATHLEN).
const MaxMountPath = 1024

// MountError is why a mount was refused, with what would have worked.
type MountError struct {
	Path string
	Kind fs.Error
	Hint string
}

// Error says it in one line.
func (e *MountError) Error() string {
	s := fmt.Sprintf("mount %q: %s", e.Path, e.Kind)
	if e.Hint != "" {
		s += ": " + e.Hint
	}
	return s
}

// Unwrap returns the kind.
func (e *MountError) Unwrap() error { return e.Kind }

// Caller is what a mount call tells of who makes it.
type Caller struct {
	// Booting is set for a call without credentials, as klibc's nfsmount makes
	// it in an initramfs: the node has no other mounts from before. Whatever
	// mounts later on a node says who it is.
	Booting bool
	// Datagram is set for a call whose source nobody has checked. It leaves no
	// record: the first call that uses the handle will. It gets no files of a node's own.
	Datagram bool
}

// Mount resolves a path for p and returns the handle of the directory there.
// The error is a *MountError, of kind fs.ErrNotExist, fs.ErrAccess,
// fs.ErrNotDir, fs.ErrInvalid or fs.ErrNameTooLong, or fs.ErrIO for a version
// or home that cannot be opened.
//
// A promote that has returned counts: Mount looks whether a rollout file was
// replaced before it answers, so nobody is told an old version however soon
// they ask.
func (x *Exports) Mount(p *Peer, dir string, from Caller) ([]byte, error) {
	x.nodes.tick() // what is noted of it comes after all that was noted before
	refuse := func(kind fs.Error, format string, args ...any) ([]byte, error) {
		err := &MountError{Path: dir, Kind: kind, Hint: fmt.Sprintf(format, args...)}
		if !from.Datagram {
			p.noteMountError(err)
		}
		return nil, err
	}
	if !p.allowed {
		return refuse(fs.ErrAccess, "%s is not allowed to mount; serve --allow says who is", p.addr)
	}
	names, err := splitPath(dir)
	if err != nil {
		return refuse(fs.KindOf(err), "want an absolute path without \"..\"")
	}
	if x.homes != nil && !x.table.Load().isStore(names) {
		if rest, ok := x.homes.cut(names); ok {
			handle, hint, err := x.mountHome(p, rest, from)
			if err != nil {
				return refuse(fs.KindOf(err), "%s", hint)
			}
			return handle, nil
		}
	}
	if !from.Datagram && x.starting() && x.find(x.table.Load(), names, p).version == nil {
		x.awaitStart()
	}
	from.Booting = from.Booting && p.reserved
	for try := 1; ; try++ {
		handle, target, err := x.mountVersion(p, dir, names, from, try, refuse)
		if err != nil || from.Datagram {
			return handle, err
		}
		if try == mountTries || x.stillLeads(names, p, target) {
			if p.reserved {
				x.bootFiles.mounted(p.addr, Ref{Digest: target.version.digest})
				p.node.Load().bootedOtherwise(target.version, x.nodes.now.Load())
			}
			return handle, nil
		}
		p.notMounted(target.version)
	}
}

// startWait is how long a mount waits of which there is nothing yet because trees are being sealed. Then it is refused; an initramfs
// mounts again every second.
const startWait = 5 * time.Second

// starting reports whether versions are still being sealed (Config.Starting).
func (x *Exports) starting() bool {
	select {
	case <-x.started:
		return false
	default:
		return true
	}
}

// awaitStart waits until all is sealed that was to be, but not for long.
func (x *Exports) awaitStart() {
	late := time.NewTimer(startWait)
	defer late.Stop()
	select {
	case <-x.started:
	case <-late.C:
	}
}

// mountTries is how often a mount begins anew because something else was promoted while it went on.
const mountTries = 5

// stillLeads reports whether a path leads p where it did when it was mounted. Before
// that was saved, the version could be taken back and removed.
func (x *Exports) stillLeads(names []string, p *Peer, to *target) bool {
	x.refreshIfPromoted()
	now := x.find(x.table.Load(), names, p)
	return now.version != nil && now.version.digest == to.version.digest
}

// mountVersion mounts a path that leads to a version, for the first time or because it led elsewhere.
func (x *Exports) mountVersion(p *Peer, dir string, names []string, from Caller, try int, refuse refusal) ([]byte, *target, error) {
	failed := func(handle []byte, err error) ([]byte, *target, error) { return handle, nil, err }
	x.refreshIfPromoted()
	t := x.table.Load()
	target := x.find(t, names, p)
	if target.version != nil && target.version.draft != nil {
		return x.mountDraft(t, p, dir, &target, from, try, refuse)
	}
	id, err := target.walk()
	if errors.Is(err, fs.ErrNotExist) {
		// Sealed a moment ago, perhaps.
		if err := x.Refresh(); err != nil {
			return failed(refuse(fs.ErrIO, "%v", err))
		}
		t = x.table.Load()
		target = x.find(t, names, p)
		id, err = target.walk()
	}
	switch kind := fs.KindOf(err); {
	case kind == 0:
	case target.version == nil && target.image != nil && target.image.draftNamed(target.wanted) != nil:
		d := target.image.draftNamed(target.wanted)
		if d.Sealing {
			return failed(refuse(fs.ErrAccess, "the draft %s is being sealed", d.Version))
		}
		return failed(refuse(fs.ErrAccess, "%s is a draft, which node %s alone boots, from its own address: rootnfsd draft %s --node NODE gives it to another", d.Version, d.Node, d.Version))
	case target.version == nil:
		return failed(refuse(kind, "%s", t.hint(target)))
	case kind == fs.ErrNotExist:
		return failed(refuse(kind, "version %s has no such directory; %s", target.version.name, t.hint(target)))
	case kind == fs.ErrNotDir:
		return failed(refuse(kind, "only a directory can be mounted, and symlinks are not followed"))
	default:
		return failed(refuse(kind, "%v", err))
	}
	if from.Datagram {
		return appendHandle(nil, target.version, id), &target, nil
	}
	x.sayNoDraft(p, t, &target)
	layer := x.layerFor(t, p, &target)
	x.noteMount(p, &target, dir, from, layer, try)
	o := Object{ver: target.version, layer: layer}
	return o.AppendHandle(nil, id), &target, nil
}

// noteMount notes that p mounts a target, before it gets the handle.
func (x *Exports) noteMount(p *Peer, to *target, dir string, from Caller, layer uint64, try int) {
	u, began := p.mounted(*to, path.Clean(dir), from.Booting, layer)
	if began || try > 1 { // what was saved before is not so
		x.nodes.saveBoot(p.node.Load(), u, x.log)
	}
}

// refusal makes the error of a mount that is refused.
type refusal func(kind fs.Error, format string, args ...any) ([]byte, error)

// splitPath cuts a mount path into its components, leaving out empty ones and
// dots.
func splitPath(dir string) ([]string, error) {
	if len(dir) > MaxMountPath {
		return nil, fs.ErrNameTooLong
	}
	if !strings.HasPrefix(dir, "/") {
		return nil, fs.ErrInvalid
	}
	var names []string
	for name := range strings.SplitSeq(dir, "/") {
		if name == "" || name == "." {
			continue
		}
		if name == ".." {
			return nil, fs.ErrInvalid
		}
		if _, err := fs.ParseName([]byte(name)); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, nil
}

// walk looks the target up from the root, as the superuser: what a mount may
// reach is decided by address.
func (to *target) walk() (fs.NodeID, error) {
	if to.version == nil {
		return 0, fs.ErrNotExist
	}
	tree, err := to.version.Tree()
	if err != nil {
		return 0, err
	}
	id := tree.Root()
	for _, name := range to.rest {
		if id, err = tree.Lookup(&fs.Cred{}, id, fs.Name(name)); err != nil {
			return 0, err
		}
	}
	var a fs.Attr
	if err := tree.Getattr(id, &a); err != nil {
		return 0, err
	}
	if a.Kind != fs.Directory {
		return 0, fs.ErrNotDir
	}
	return id, nil
}

// target is where a mount path leads: a directory of a version, or nowhere.
type target struct {
	image   *imageView
	version *version
	wanted  string // the version that was asked for by name, if one was
	promise *Ref   // the version that this node is promised, and others are not
	rest    []string
}

// find returns where a mount path leads p. A node that fetched boot files mounts the version that these are of, also
// if something else is promoted, or was sealed under that name, meanwhile. Else one that has a draft gets that.
func (x *Exports) find(t *table, names []string, p *Peer) target {
	to := t.find(names, p.addr, p.node.Load().machineSeen())
	if to.image == nil {
		return to
	}
	ref, ok := x.bootFiles.promised(p.addr, to.image.id)
	if ok && to.mayBe(ref) {
		if v := to.image.holding(ref); v != nil && (v.draft == nil || x.givesDraft(t, t.drafts[v.treeID], p)) {
			to.version, to.promise = v, &ref
			return to
		}
	}
	if d := x.draftFor(t, to.image, p, to.wanted); d != nil {
		to.version, to.promise = d.version, &d.Ref
	}
	return to
}

// mayBe reports whether the path leads to a version if the node is promised that.
func (to *target) mayBe(ref Ref) bool { return to.wanted == "" || to.wanted == ref.Version }

// find interprets a mount path of the node at an address, which said at its boot who it is. These are the forms, in order:
//
//	<store's directory>@v1/…, <store's directory>/v1/…   exactly v1, as on the server's disk
//	<store's directory>/…                                the version that the node is promised
//	/<image>@v1/…, /@v1/…                                exactly v1
//	/<image>/…, /…                                       the version that the node is promised
func (t *table) find(names []string, addr netip.Addr, seen BootID) target {
	if img, wanted, rest := t.cutStores(names); img != nil {
		if wanted == "" && len(rest) > 0 && (img.named(rest[0]) != nil || img.draftNamed(rest[0]) != nil) {
			wanted, rest = rest[0], rest[1:]
		}
		return img.target(wanted, rest, addr, seen)
	}
	if len(t.images) == 0 {
		return target{}
	}
	if len(names) > 0 {
		name, wanted, _ := strings.Cut(names[0], "@")
		for _, img := range t.images {
			if name == img.name {
				return img.target(wanted, names[1:], addr, seen)
			}
		}
		if name == "" {
			return t.images[0].target(wanted, names[1:], addr, seen)
		}
	}
	return t.images[0].target("", names, addr, seen)
}

// isStore reports whether a mount path begins with a store's directory.
func (t *table) isStore(names []string) bool {
	img, _, _ := t.cutStores(names)
	return img != nil
}

// cutStores is cutStore for the store whose directory the names begin with, if
// there is one.
func (t *table) cutStores(names []string) (img *imageView, wanted string, rest []string) {
	for _, img := range t.images {
		for _, p := range img.paths {
			if rest, wanted, ok := cutStore(names, p); ok {
				return img, wanted, rest
			}
		}
	}
	return nil, "", nil
}

// cutStore cuts the components of the store's directory off the front of names;
// the last one may carry a version.
func cutStore(names []string, store string) (rest []string, wanted string, ok bool) {
	parts, err := splitPath(store)
	if err != nil || len(parts) == 0 || len(names) < len(parts) {
		return nil, "", false
	}
	last := len(parts) - 1
	if !slices.Equal(names[:last], parts[:last]) {
		return nil, "", false
	}
	if names[last] != parts[last] {
		// A directory's own name may have an @ in it: only what follows it counts.
		wanted, ok = strings.CutPrefix(names[last], parts[last]+"@")
		if !ok {
			return nil, "", false
		}
	}
	return names[last+1:], wanted, true
}

func (v *imageView) target(wanted string, rest []string, addr netip.Addr, seen BootID) target {
	if wanted != "" {
		return target{image: v, version: v.named(wanted), wanted: wanted, rest: rest}
	}
	to := target{image: v, version: v.promoted, rest: rest}
	e := cmp.Or(v.inventory.At(addr), v.inventory.saying(seen))
	if ref, why := v.rollout.sealed(MemberOf(e, addr)); why != ByRollout {
		to.version, to.promise = v.holding(ref), &ref
	}
	return to
}

// hint says what would have worked, for the log line of a mount that did not.
func (t *table) hint(to target) string {
	if to.image == nil {
		return "nothing is exported"
	}
	if to.promise != nil && to.version == nil {
		return fmt.Sprintf("the node is promised %s, which is gone: rootnfsd unpin, or rootnfsd rollback", to.promise.Version)
	}
	if to.wanted == "" && to.version == nil {
		return fmt.Sprintf("no version of %s is promoted: rootnfsd promote VERSION", to.image.name)
	}
	paths := []string{"/"}
	for _, img := range t.images {
		paths = append(paths, "/"+img.name)
	}
	for _, v := range to.image.versions {
		paths = append(paths, "/"+to.image.name+"@"+v.name)
	}
	const most = 12
	if len(paths) > most {
		paths = append(paths[:most], "…")
	}
	return "what can be mounted: " + strings.Join(paths, " ")
}

// Listing is one line of showmount -e: a path and who may mount it.
type Listing struct {
	Path    string
	Clients []string
}

// List returns what can be mounted: every image by its name and its store's
// directory, every version by itself, and homes.
func (x *Exports) List() []Listing {
	clients := make([]string, len(x.allow))
	for i, p := range x.allow {
		clients[i] = p.String()
	}
	t := x.table.Load()
	paths := []string{"/"}
	for _, img := range t.images {
		paths = append(paths, "/"+img.name, img.paths[0])
		for _, v := range img.versions {
			paths = append(paths, "/"+img.name+"@"+v.name)
		}
	}
	if x.homes != nil {
		paths = append(paths, "/"+homeName)
	}
	list := make([]Listing, len(paths))
	for i, p := range paths {
		list[i] = Listing{Path: p, Clients: clients}
	}
	return list
}

// Serving is an image as it is served now.
type Serving struct {
	Image    string
	Dir      string
	Promoted Ref // zero if nothing is
}

// Serving returns the images in the order in which they were configured.
func (x *Exports) Serving() []Serving {
	var list []Serving
	for _, img := range x.table.Load().images {
		s := Serving{Image: img.name, Dir: img.paths[0]}
		if img.promoted != nil {
			s.Promoted = Ref{Version: img.promoted.name, Digest: img.promoted.digest}
		}
		list = append(list, s)
	}
	return list
}
