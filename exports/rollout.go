package exports

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/durable"
)

// Ref names a version by both its name and its digest. The digest decides what
// is meant; the name is for people.
type Ref struct {
	Version string    `json:"version"`
	Digest  fs.Digest `json:"digest"`
}

// Is reports whether other is the same version. A Ref without a digest, which
// stands for a version that cannot be read, goes by the name.
func (r Ref) Is(other Ref) bool {
	if r.Digest == (fs.Digest{}) {
		return r.Version == other.Version
	}
	return r.Digest == other.Digest
}

// Rollout is which version of an image new mounts get, and how it came to that.
// It is what rollout.json holds.
type Rollout struct {
	Format int `json:"format"`
	// Stack holds the promoted version last and what was promoted before it
	// below; a rollback takes the last one away.
	Stack []Ref `json:"stack"`
	// Partial is a version that some nodes get already, nil if there is none.
	Partial *Partial `json:"partial,omitempty"`
	// Watch is the rollout that is watched, nil if none is.
	Watch *Watch `json:"watch,omitempty"`
	// Drafts are golden trees that nodes write to.
	Drafts []Draft `json:"drafts,omitempty"`
	// History is what was done, the oldest first, bounded to the last 1000.
	History []Event `json:"history"`

	stamp stamp
}

// Event is one line of the history.
type Event struct {
	Time   time.Time `json:"time"`
	By     string    `json:"by"`
	Action string    `json:"action"` // promote, rollback, good, bad, pin, unpin, remove, draft, release, seal (of a draft), abandon or gc, which is about no version
	Ref
	Nodes string `json:"nodes,omitempty"` // whom it was about, if not all
	Note  string `json:"note,omitempty"`  // how it went, or why
}

const (
	rolloutFile = "rollout.json"
	// A rollout with a part that older programs would lose has the newer format.
	rolloutFormat = 1
	partialFormat = 2
	draftFormat   = 3
	mostHistory   = 1000
	mostStack     = 100
)

// Promoted returns the version that new mounts get, if there is one.
func (r *Rollout) Promoted() (Ref, bool) {
	if len(r.Stack) == 0 {
		return Ref{}, false
	}
	return r.Stack[len(r.Stack)-1], true
}

// Before returns what rollbacks would return to, one after the other, up to the
// first that has other content than the promoted version: that is what somebody
// wants who goes back. What does not exist any more is passed over.
func (r *Rollout) Before(exists func(Ref) bool) []Ref {
	var refs []Ref
	promoted, _ := r.Promoted()
	for above := *r; ; {
		i := above.before(exists)
		if i < 0 {
			return refs
		}
		refs = append(refs, r.Stack[i])
		if r.Stack[i].Digest != promoted.Digest {
			return refs
		}
		above.Stack = above.Stack[:i+1]
	}
}

// before is the place in the stack of what a rollback would return to, -1 if there
// is nothing.
func (r *Rollout) before(exists func(Ref) bool) int {
	promoted, _ := r.Promoted()
	for i := len(r.Stack) - 2; i >= 0; i-- {
		if ref := r.Stack[i]; ref != promoted && exists(ref) {
			return i
		}
	}
	return -1
}

func (r *Rollout) note(e Event) {
	e.Time = time.Now().UTC().Truncate(time.Millisecond)
	r.History = append(r.History, e)
	r.History = r.History[max(0, len(r.History)-mostHistory):]
}

// stamp tells one content of a file from the next without reading it: a
// durable replacement always makes a new inode.
type stamp struct {
	ino   uint64
	mtime int64
	size  int64
}

// State is the rollout state of one store on disk. Many processes may use it
// at once: what changes it takes a lock, what reads it sees a whole file.
type State struct{ dir string }

// OpenState returns the state kept in dir; there need not be any yet.
func OpenState(dir string) *State { return &State{dir} }

// Rollout reads the rollout. A store that nobody promoted anything in has an
// empty one.
func (s *State) Rollout() (Rollout, error) {
	r, stamp, err := readState(s, rolloutFile, decodeRollout)
	if stamp.none() {
		return Rollout{Format: rolloutFormat}, err
	}
	r.stamp = stamp
	return r, nil
}

func decodeRollout(from io.Reader) (Rollout, error) {
	var r Rollout
	if err := json.NewDecoder(from).Decode(&r); err != nil {
		return r, fmt.Errorf("not a rollout state: %w", err)
	}
	if r.Format < rolloutFormat || r.Format > draftFormat {
		return r, fmt.Errorf("format %d is not known to this version of rootnfsd, which writes format %d", r.Format, draftFormat)
	}
	if r.Partial != nil {
		slices.Sort(r.Partial.Nodes)
	}
	return r, nil
}

// mostState bounds what is read of a file of the state, in bytes.
const mostState = 64 << 20

// readState reads a file of the state, and which one it was. Where there is none, or it cannot be
// read, the stamp is none.
func readState[T any](s *State, file string, decode func(io.Reader) (T, error)) (content T, of stamp, err error) {
	f, err := os.Open(filepath.Join(s.dir, file))
	if errors.Is(err, os.ErrNotExist) {
		return content, stamp{}, nil
	}
	if err != nil {
		return content, stamp{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return content, stamp{}, err
	}
	if content, err = decode(io.LimitReader(f, mostState)); err != nil {
		return content, stamp{}, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return content, stampOf(info), nil
}

// none reports whether the stamp is of no file.
func (s stamp) none() bool { return s == stamp{} }

func stampOf(info os.FileInfo) stamp {
	st := stamp{mtime: info.ModTime().UnixNano(), size: info.Size()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		st.ino = sys.Ino
	}
	return st
}

// replaced reports whether a file is another one than that with stamp last.
func (s *State) replaced(file string, last stamp) bool {
	info, err := os.Stat(filepath.Join(s.dir, file))
	if err != nil {
		return !last.none() && errors.Is(err, os.ErrNotExist)
	}
	return stampOf(info) != last
}

// Promotion is what is to be promoted, for whom, and by whom.
type Promotion struct {
	Ref
	// To chooses the nodes; nil is all of them. Its own Ref is not looked at.
	To *Partial
	// Good and MaxBad are those of the Watch that the rollout is to have; it has none
	// if Good is zero.
	Good   time.Duration
	MaxBad int
	By     string
}

// ErrNothingForAll is the error of promoting a version for some nodes while there is none
// that the others get.
var ErrNothingForAll = errors.New("nothing is promoted for all nodes yet: promote a version for all first")

// Promote makes a version what new mounts get: those of all nodes, which ends what some
// nodes alone had got, or those of some. What was promoted for some nodes before and is promoted for
// others now is promoted for both. It fails if check, which nobody can remove a
// version during, says that the version is not there. It returns what all nodes got before, and whether
// anything changed: promoting again what is promoted does not.
func (s *State) Promote(p Promotion, check func() error) (before Ref, changed bool, err error) {
	err = s.update(func(r *Rollout) (bool, error) {
		if err := check(); err != nil {
			return false, err
		}
		before, _ = r.Promoted()
		changed, err = r.promote(p)
		return changed, err
	})
	return before, changed, err
}

// With returns what the rollout would be after a promotion, or why it cannot be.
func (r Rollout) With(p Promotion) (Rollout, error) {
	r.Stack, r.History = slices.Clone(r.Stack), slices.Clone(r.History)
	_, err := r.promote(p)
	return r, err
}

// promote reports whether it changed anything.
func (r *Rollout) promote(p Promotion) (bool, error) {
	if p.To != nil {
		return r.promoteFor(p)
	}
	before, _ := r.Promoted()
	if before == p.Ref && r.Partial == nil && p.Good == 0 {
		return false, nil
	}
	if before != p.Ref {
		r.Stack = append(r.Stack, p.Ref)
		r.Stack = r.Stack[max(0, len(r.Stack)-mostStack):]
	}
	r.Partial = nil
	r.watch(p)
	r.note(Event{By: p.By, Action: "promote", Ref: p.Ref})
	return true, nil
}

// promoteFor promotes a version for some nodes.
func (r *Rollout) promoteFor(p Promotion) (bool, error) {
	promoted, ok := r.Promoted()
	switch {
	case !ok:
		return false, ErrNothingForAll
	case p.Ref.Is(promoted):
		return false, fmt.Errorf("%s is what all nodes get already", p.Version)
	case r.Partial != nil && !p.Ref.Is(r.Partial.Ref):
		return false, fmt.Errorf("%s is promoted for some nodes (%s): promote that for all first (rootnfsd promote %s) or take it back (rootnfsd rollback)", r.Partial.Version, r.Partial, r.Partial.Version)
	}
	wider := Partial{Ref: p.Ref}
	if r.Partial != nil {
		wider = *r.Partial
	}
	wider.widen(*p.To)
	if r.Partial != nil && wider.String() == r.Partial.String() && p.Good == 0 {
		return false, nil
	}
	r.Partial = &wider
	r.watch(p)
	r.note(Event{By: p.By, Action: "promote", Ref: p.Ref, Nodes: p.To.String()})
	return true, nil
}

// watch begins to watch a promotion if that is wanted. A watch over the same version that
// is there already goes on, with what it saw.
func (r *Rollout) watch(p Promotion) {
	same := r.Watch != nil && r.Watch.Is(p.Ref)
	switch {
	case p.Good > 0 && same:
		w := *r.Watch
		w.By, w.Good, w.MaxBad = p.By, p.Good, p.MaxBad
		r.Watch = &w
	case p.Good > 0:
		r.Watch = &Watch{Ref: p.Ref, Since: time.Now().UTC().Truncate(time.Second), By: p.By, Good: p.Good, MaxBad: p.MaxBad}
	case !same:
		r.Watch = nil
	}
}

// ErrNothingBefore is the error of a rollback that has nowhere to go.
var ErrNothingBefore = errors.New("no version was promoted before this one")

// ErrPromoted is the error of removing what new mounts get.
var ErrPromoted = errors.New("it is promoted: promote another version first")

// Rollback takes the last promotion back: one for some nodes, if there is one, else it
// makes what was promoted before the promoted version what new mounts
// get. It returns both versions. Versions for which exists is false, because they were
// removed since, are passed over; nobody can remove one meanwhile.
func (s *State) Rollback(by string, exists func(Ref) bool) (from, to Ref, err error) {
	err = s.update(func(r *Rollout) (bool, error) {
		from, to, err = r.rollback(by, "", exists)
		return err == nil, err
	})
	return from, to, err
}

func (r *Rollout) rollback(by, why string, exists func(Ref) bool) (from, to Ref, err error) {
	from, _ = r.Promoted()
	if r.Partial != nil {
		back := "they get " + from.Version + " again"
		if why != "" {
			back = why + "; " + back
		}
		r.note(Event{By: by, Action: "rollback", Ref: r.Partial.Ref, Nodes: r.Partial.String(), Note: back})
		from, to = r.Partial.Ref, from
		r.Partial, r.Watch = nil, nil
		return from, to, nil
	}
	i := r.before(exists)
	if i < 0 {
		return from, to, ErrNothingBefore
	}
	to = r.Stack[i]
	r.Stack, r.Watch = r.Stack[:i+1], nil
	r.note(Event{By: by, Action: "rollback", Ref: to, Note: why})
	return from, to, nil
}

// ErrPinned is the error of removing what a node is pinned to.
var ErrPinned = errors.New("nodes are pinned to it: unpin them first")

// Pin makes a version what nodes get whatever is promoted, unless check, which nobody can
// remove a version during, says that it is not there. The nodes must be named;
// an *UnknownNode says which one is not. Without a version they are unpinned.
func (s *State) Pin(names []string, ref *Ref, by string, check func(Ref) error) error {
	return s.UpdateInventory(by, check, func(inv *Inventory) error {
		for _, name := range names {
			e := inv.Named(name)
			if e == nil {
				return &UnknownNode{name}
			}
			e.Pin = ref
		}
		return nil
	})
}

// UnknownNode is the error for a name that no node has.
type UnknownNode struct{ Name string }

// Error says it in one line.
func (e *UnknownNode) Error() string { return "there is no node " + e.Name }

// Remove calls delete to remove a version from the store and notes it, unless
// it is promoted, which is ErrPromoted, or a node is pinned to it, which is ErrPinned. No promote
// can come between the check and the deletion. Without delete it only checks.
func (s *State) Remove(ref Ref, by string, delete func() error) error {
	return s.update(func(r *Rollout) (bool, error) {
		if promoted, ok := r.Promoted(); ok && ref.Is(promoted) || r.Partial != nil && ref.Is(r.Partial.Ref) {
			return false, ErrPromoted
		}
		inv, err := s.Inventory()
		if err != nil {
			return false, err
		}
		if len(inv.PinnedTo(ref)) > 0 {
			return false, ErrPinned
		}
		if delete == nil {
			return false, nil
		}
		if err := delete(); err != nil {
			return false, err
		}
		r.note(Event{By: by, Action: "remove", Ref: ref})
		return true, nil
	})
}

// Compacted notes that packs of the store were rewritten. A server that is running
// finds the versions where they lie now, as after a promote.
func (s *State) Compacted(by string) error {
	return s.update(func(r *Rollout) (bool, error) {
		r.note(Event{By: by, Action: "gc"})
		return true, nil
	})
}

// update changes the rollout under the lock and replaces it durably, if change
// says that it did change.
func (s *State) update(change func(*Rollout) (bool, error)) error {
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	r, err := s.Rollout()
	if err != nil {
		return err
	}
	if changed, err := change(&r); !changed || err != nil {
		return err
	}
	switch r.Format = rolloutFormat; {
	case len(r.Drafts) > 0:
		r.Format = draftFormat
	case r.Partial != nil || r.Watch != nil:
		r.Format = partialFormat
	}
	return replaceJSON(filepath.Join(s.dir, rolloutFile), r)
}

// lock keeps two operators from changing the rollout at once. It is held for
// milliseconds, so whoever comes second waits.
func (s *State) lock() (unlock func(), err error) {
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(s.dir, "rollout.lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if err != syscall.EINTR {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return func() { f.Close() }, nil
}

func replaceJSON(path string, v any) error {
	return durable.ReplaceFile(path, 0o644, func(w io.Writer) error {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	})
}
