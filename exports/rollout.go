package exports

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
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
	// History is what was done, the oldest first, bounded to the last 1000.
	History []Event `json:"history"`

	stamp stamp
}

// Event is one line of the history.
type Event struct {
	Time   time.Time `json:"time"`
	By     string    `json:"by"`
	Action string    `json:"action"` // promote, rollback, remove or gc, which is about no version
	Ref
}

const (
	rolloutFile   = "rollout.json"
	rolloutFormat = 1
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

func (r *Rollout) note(by, action string, ref Ref) {
	r.History = append(r.History, Event{Time: time.Now().UTC().Truncate(time.Millisecond), By: by, Action: action, Ref: ref})
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
	empty := Rollout{Format: rolloutFormat}
	f, err := os.Open(filepath.Join(s.dir, rolloutFile))
	if errors.Is(err, os.ErrNotExist) {
		return empty, nil
	}
	if err != nil {
		return empty, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return empty, err
	}
	r, err := decodeRollout(f)
	if err != nil {
		return empty, fmt.Errorf("%s: %w", f.Name(), err)
	}
	r.stamp = stampOf(info)
	return r, nil
}

func decodeRollout(from io.Reader) (Rollout, error) {
	var r Rollout
	if err := json.NewDecoder(from).Decode(&r); err != nil {
		return r, fmt.Errorf("not a rollout state: %w", err)
	}
	if r.Format != rolloutFormat {
		return r, fmt.Errorf("format %d is not known to this version of rootnfsd, which writes format %d", r.Format, rolloutFormat)
	}
	return r, nil
}

func stampOf(info os.FileInfo) stamp {
	st := stamp{mtime: info.ModTime().UnixNano(), size: info.Size()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		st.ino = sys.Ino
	}
	return st
}

// changed reports whether the rollout on disk is another one than that with
// stamp last.
func (s *State) changed(last stamp) bool {
	info, err := os.Stat(filepath.Join(s.dir, rolloutFile))
	if err != nil {
		return last != stamp{} && errors.Is(err, os.ErrNotExist)
	}
	return stampOf(info) != last
}

// Promote makes ref what new mounts get, unless check, which nobody can remove a
// version during, says that it is not there. It returns what was promoted
// before; promoting that again changes nothing.
func (s *State) Promote(ref Ref, by string, check func() error) (before Ref, err error) {
	err = s.update(func(r *Rollout) (bool, error) {
		if err := check(); err != nil {
			return false, err
		}
		before, _ = r.Promoted()
		if before == ref {
			return false, nil
		}
		r.Stack = append(r.Stack, ref)
		r.Stack = r.Stack[max(0, len(r.Stack)-mostStack):]
		r.note(by, "promote", ref)
		return true, nil
	})
	return before, err
}

// ErrNothingBefore is the error of a rollback that has nowhere to go.
var ErrNothingBefore = errors.New("no version was promoted before this one")

// ErrPromoted is the error of removing what new mounts get.
var ErrPromoted = errors.New("it is promoted: promote another version first")

// Rollback makes what was promoted before the promoted version what new mounts
// get, and returns both. Versions for which exists is false, because they were
// removed since, are passed over; nobody can remove one meanwhile.
func (s *State) Rollback(by string, exists func(Ref) bool) (from, to Ref, err error) {
	err = s.update(func(r *Rollout) (bool, error) {
		from, _ = r.Promoted()
		i := r.before(exists)
		if i < 0 {
			return false, ErrNothingBefore
		}
		to = r.Stack[i]
		r.Stack = r.Stack[:i+1]
		r.note(by, "rollback", to)
		return true, nil
	})
	return from, to, err
}

// Remove calls delete to remove a version from the store and notes it, unless
// it is promoted: that is ErrPromoted. No promote can come between the check and
// the deletion. Without delete it only checks.
func (s *State) Remove(ref Ref, by string, delete func() error) error {
	return s.update(func(r *Rollout) (bool, error) {
		if promoted, ok := r.Promoted(); ok && ref.Is(promoted) {
			return false, ErrPromoted
		}
		if delete == nil {
			return false, nil
		}
		if err := delete(); err != nil {
			return false, err
		}
		r.note(by, "remove", ref)
		return true, nil
	})
}

// Compacted notes that packs of the store were rewritten. A server that is running
// finds the versions where they lie now, as after a promote.
func (s *State) Compacted(by string) error {
	return s.update(func(r *Rollout) (bool, error) {
		r.note(by, "gc", Ref{})
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
