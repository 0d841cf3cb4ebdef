package exports

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/rootnfsd/rootnfsd/fs/durable"
)

// Draft is a golden tree that one node boots and writes to, until it is sealed or abandoned. It is a part of the rollout,
// so that a draft, what is promoted and the history are replaced as one.
type Draft struct {
	// Ref has the version that the draft becomes, and a digest that was made up for it: it stands for the draft
	// in handles and in the record of nodes, and no version has it.
	Ref
	From  Ref       `json:"from"` // the version that it was made of
	Node  string    `json:"node"` // the name of the node that boots it
	Since time.Time `json:"since"`
	By    string    `json:"by"`
	// Released is set when the node is to boot what is promoted again. If it is up, it goes on with the draft until then.
	Released bool `json:"released,omitempty"`
	// Sealing is set while the draft is sealed: nobody may use it, or get it at a boot.
	Sealing bool `json:"sealing,omitempty"`
}

// NewDraft returns a draft of a version for a node, to become the version of a name.
func NewDraft(name string, from Ref, node, by string) Draft {
	d := Draft{Ref: Ref{Version: name}, From: from, Node: node, By: by, Since: time.Now().UTC().Truncate(time.Second)}
	rand.Read(d.Digest[:]) // never fails
	return d
}

// held reports whether the node boots the draft.
func (d *Draft) held() bool { return !d.Released && !d.Sealing }

// DraftNamed returns the draft that becomes the version of a name, or nil. It must not be changed.
func (r *Rollout) DraftNamed(version string) *Draft {
	return r.draft(func(d *Draft) bool { return d.Version == version })
}

// DraftOf returns the draft that the node of a name boots, or nil. It must not be changed.
func (r *Rollout) DraftOf(node string) *Draft {
	return r.draft(func(d *Draft) bool { return d.Node == node && d.held() })
}

func (r *Rollout) draft(is func(*Draft) bool) *Draft {
	for i := range r.Drafts {
		if is(&r.Drafts[i]) {
			return &r.Drafts[i]
		}
	}
	return nil
}

// keepNodes is the error of a change of the inventory that takes from a draft the node that has it. Placed are those that had an
// address before.
func (r *Rollout) keepNodes(placed map[string]bool, after *Inventory) error {
	now := after.placed()
	for _, d := range r.Drafts {
		if !placed[d.Node] || now[d.Node] {
			continue
		}
		return &EntryError{Name: d.Node, Err: fmt.Errorf("it has the draft %s, for which it needs its name and an address: seal that first (rootnfsd seal %s), abandon it (rootnfsd draft --abandon %s), or give it to another node (rootnfsd draft %s --node NODE)",
			d.Version, d.Version, d.Version, d.Version)}
	}
	return nil
}

// placed returns the names of the nodes that have an address.
func (inv *Inventory) placed() map[string]bool {
	placed := map[string]bool{}
	for _, e := range inv.Entries {
		if len(e.Addresses) > 0 {
			placed[e.Name] = true
		}
	}
	return placed
}

// Drafts are those of a store, with their trees. Many processes may use them at once.
//
// The tree of the draft v3 is <store>/v3. It is made, and deleted, under a name that nobody takes for a golden tree's, and what
// counts is the rollout: a tree with that name which the rollout has no draft for is a leftover, and one for which it has is
// given its name when that is found out (Settle).
type Drafts struct {
	state *State
	dir   string // of the store
}

// OpenDrafts returns the drafts of the store in a directory.
func OpenDrafts(state *State, dir string) *Drafts { return &Drafts{state, dir} }

// Tree is where the tree of a draft is.
func (d *Drafts) Tree(version string) string { return filepath.Join(d.dir, version) }

// hiddenDraft is how the names begin under which trees are made and deleted.
const hiddenDraft = ".draft-"

// Making is where the tree of a draft is made before Start. What is there is a leftover. The caller has the Lock.
func (d *Drafts) Making(version string) string { return filepath.Join(d.dir, hiddenDraft+version) }

// draftsLock is the file whose lock is held by who makes, seals or deletes a draft.
const draftsLock = "drafts.lock"

// Lock keeps others from making, sealing and deleting drafts, and puts right what a crash has left of that. Who finds it
// taken, which is ErrDraftsBusy, need not wait: that may take minutes.
func (d *Drafts) Lock() (unlock func(), err error) {
	if unlock, err = d.take(); err != nil {
		return nil, err
	}
	if err := d.Settle(); err != nil {
		unlock()
		return nil, err
	}
	return unlock, nil
}

// take is Lock that leaves what it finds alone.
func (d *Drafts) take() (unlock func(), err error) {
	if err := os.MkdirAll(d.state.dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(d.state.dir, draftsLock), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if err == syscall.EWOULDBLOCK {
			return nil, ErrDraftsBusy
		}
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return func() { f.Close() }, nil
}

// ErrDraftsBusy is the error of Lock while somebody else has it.
var ErrDraftsBusy = errors.New("another rootnfsd makes, seals or deletes a draft of this store: wait until it is done")

// Settle puts right what a crash has left, or a Start that failed: each draft has its tree under its name, none is being sealed, and
// there are no trees of drafts that are no more. The caller has the Lock.
func (d *Drafts) Settle() error {
	err := d.state.update(func(r *Rollout) (bool, error) {
		changed := false
		for i := range r.Drafts {
			if err := d.publish(r.Drafts[i].Version); err != nil && !errors.Is(err, os.ErrNotExist) {
				return false, err
			}
			changed = changed || r.Drafts[i].Sealing
			r.Drafts[i].Sealing = false
		}
		return changed, nil
	})
	if err != nil {
		return err
	}
	left, err := d.leftovers()
	for _, dir := range left {
		if err == nil {
			err = removeTree(dir)
		}
	}
	return err
}

// leftovers returns the directories that nobody takes for a golden tree's. Those of an extraction that was killed have its prefix
// before ours.
func (d *Drafts) leftovers() ([]string, error) {
	entries, err := os.ReadDir(d.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var dirs []string
	for _, e := range entries {
		if strings.HasPrefix(strings.TrimPrefix(e.Name(), durable.TempPattern), hiddenDraft) {
			dirs = append(dirs, filepath.Join(d.dir, e.Name()))
		}
	}
	return dirs, err
}

// settleIfFree is Settle for who starts to serve: if there are drafts, or leftovers of some, and nobody is busy with them.
func (d *Drafts) settleIfFree() error {
	r, err := d.state.Rollout()
	if err != nil {
		return err
	}
	left, err := d.leftovers()
	if err != nil || len(r.Drafts) == 0 && len(left) == 0 {
		return err
	}
	unlock, err := d.Lock()
	if errors.Is(err, ErrDraftsBusy) {
		return nil
	}
	if err == nil {
		unlock()
	}
	return err
}

// publish gives a tree that was made its name, unless it has it. It is os.ErrNotExist where there is none.
func (d *Drafts) publish(version string) error {
	if _, err := os.Lstat(d.Tree(version)); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return d.rename(d.Making(version), d.Tree(version))
}

func (d *Drafts) rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return durable.SyncDir(d.dir)
}

// settled is what a server does that finds no tree of a draft: it was killed who was about to give it its name.
func (d *Drafts) settled(version string) error {
	unlock, err := d.state.lock()
	if err != nil {
		return err
	}
	defer unlock()
	r, err := d.state.Rollout()
	if err == nil && r.DraftNamed(version) == nil {
		err = os.ErrNotExist
	}
	if err != nil {
		return err
	}
	return d.publish(version)
}

// removeTree deletes a directory that nodes wrote to.
func removeTree(dir string) error {
	if err := refuseMounts(dir); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("delete the tree of a draft: %w", err)
	}
	return nil
}

// refuseMounts is the error that something is mounted below a directory, as for a chroot: it would be deleted, too.
func refuseMounts(dir string) error {
	real, err := filepath.EvalSymlinks(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer mounts.Close()
	below, err := mountsBelow(mounts, real)
	if err != nil || len(below) == 0 {
		return err
	}
	return fmt.Errorf("something is mounted at %s, which would be deleted with %s: unmount it first", strings.Join(below, ", "), dir)
}

// mountsBelow returns the mount points below a directory, from a table in the form of /proc/self/mountinfo (proc_pid_mountinfo(5)).
func mountsBelow(table io.Reader, dir string) (below []string, err error) {
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		fields := strings.Fields(lines.Text()) // two numbers, the device, the root, the mount point, ...
		if len(fields) < 5 {
			continue
		}
		if at := mountEscapes.Replace(fields[4]); strings.HasPrefix(at, strings.TrimSuffix(dir, "/")+"/") {
			below = append(below, at)
		}
	}
	return below, lines.Err()
}

var mountEscapes = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// Start makes a draft of what is at Making. It fails if check, during which nothing is promoted or removed, says
// that something is missing, or if the node has a draft already. The caller has the Lock.
func (d *Drafts) Start(n Draft, check func() error) error {
	err := d.state.update(func(r *Rollout) (bool, error) {
		if err := r.MayHaveDraft(n.Node); err != nil {
			return false, err
		}
		if _, err := os.Lstat(d.Tree(n.Version)); err == nil || r.DraftNamed(n.Version) != nil {
			return false, fmt.Errorf("there is a tree %s by now: choose another name", d.Tree(n.Version))
		}
		if err := check(); err != nil {
			return false, err
		}
		r.Drafts = append(r.Drafts, n)
		r.note(Event{By: n.By, Action: "draft", Ref: Ref{Version: n.Version}, Nodes: n.Node, Note: "of " + n.From.Version})
		return true, nil
	})
	if err != nil {
		return err
	}
	return d.settled(n.Version) // whoever comes first
}

// MayHaveDraft is the error for a node that has a draft: it could boot only one of two.
func (r *Rollout) MayHaveDraft(node string) error {
	if other := r.draft(func(d *Draft) bool { return d.Node == node }); other != nil {
		return fmt.Errorf("node %s has the draft %s already: seal that first (rootnfsd seal %s), or abandon it (rootnfsd draft --abandon %s)", node, other.Version, other.Version, other.Version)
	}
	return nil
}

// ErrNoDraft is the error for a name that no draft has.
var ErrNoDraft = errors.New("there is no such draft")

// change changes a draft and notes it, if there is something to note.
func (d *Drafts) change(version string, change func(*Rollout, *Draft) (Event, error)) error {
	return d.state.update(func(r *Rollout) (bool, error) {
		n := r.DraftNamed(version)
		if n == nil {
			return false, ErrNoDraft
		}
		e, err := change(r, n)
		if err == nil && e.Action != "" {
			e.Ref = Ref{Version: version, Digest: e.Digest}
			r.note(e)
		}
		return err == nil, err
	})
}

// Give has a node boot a draft: another one than did before, or the one that it was released from.
func (d *Drafts) Give(version, node, by string) error {
	return d.change(version, func(r *Rollout, n *Draft) (Event, error) {
		if n.Node != node {
			if err := r.MayHaveDraft(node); err != nil {
				return Event{}, err
			}
		}
		n.Node, n.Released = node, false
		return Event{By: by, Action: "draft", Nodes: node}, nil
	})
}

// Release has the node of a draft boot what is promoted from now on.
func (d *Drafts) Release(version, by string) error {
	return d.change(version, func(_ *Rollout, n *Draft) (Event, error) {
		n.Released = true
		return Event{By: by, Action: "release", Nodes: n.Node}, nil
	})
}

// Seal has seal make a version of the tree of a draft, which nobody can use meanwhile, and ends the draft. If idle, which is
// called when nobody can use the draft any more, or seal fails, the draft is what it was. The caller has the Lock.
func (d *Drafts) Seal(version, by string, idle func() error, seal func() (Ref, error)) error {
	freeze := func(on bool) error {
		return d.change(version, func(_ *Rollout, n *Draft) (Event, error) {
			n.Sealing = on
			return Event{}, nil
		})
	}
	if err := freeze(true); err != nil {
		return err
	}
	err := idle()
	var made Ref
	if err == nil {
		made, err = seal()
	}
	if err != nil {
		return errors.Join(err, freeze(false))
	}
	return d.end(version, Event{By: by, Action: "seal", Ref: made})
}

// Abandon ends a draft and deletes its tree, having called ended when that is no draft any more. The caller has the Lock.
func (d *Drafts) Abandon(version, by string, ended func()) error {
	err := d.state.update(func(r *Rollout) (bool, error) {
		n := r.DraftNamed(version)
		if n == nil {
			return false, ErrNoDraft
		}
		if err := refuseMounts(d.Tree(version)); err != nil {
			return false, err
		}
		// What the rollout does not speak of must not lie there under a name of a golden tree.
		if err := d.rename(d.Tree(version), d.Making(version)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return false, err
		}
		r.note(Event{By: by, Action: "abandon", Ref: Ref{Version: version}, Nodes: n.Node})
		r.endDraft(version)
		return true, nil
	})
	if err != nil {
		return err
	}
	ended()
	return removeTree(d.Making(version))
}

func (d *Drafts) end(version string, e Event) error {
	return d.change(version, func(r *Rollout, n *Draft) (Event, error) {
		e.Nodes = n.Node
		r.endDraft(version)
		return e, nil
	})
}

func (r *Rollout) endDraft(version string) {
	r.Drafts = slices.DeleteFunc(slices.Clone(r.Drafts), func(d Draft) bool { return d.Version == version })
}
