package exports

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
)

// Watch is a rollout that is watched: what its nodes make of the version decides
// whether it goes on.
type Watch struct {
	Ref
	Since time.Time `json:"since"`
	By    string    `json:"by"`
	// Good is how long from its boot a node is watched, and by when it must be up.
	Good time.Duration `json:"good_ns"`
	// MaxBad is how many nodes may fail; one more, and the rollout is taken back.
	MaxBad int `json:"max_bad"`
	// Nodes is what was seen of each, by name or address.
	Nodes map[string]Trial `json:"nodes,omitempty"`
}

// Trial is what was seen of a node that booted a version which is watched.
type Trial struct {
	Booted time.Time `json:"booted"`        // the first time
	Boots  int64     `json:"boots"`         // how often it had booted it then
	Good   time.Time `json:"good,omitzero"` // when it was seen to be up
	Bad    string    `json:"bad,omitempty"` // what went wrong; it then does not count as good
	// Unknown is why nobody can tell: it counts neither as good nor as bad.
	Unknown string `json:"unknown,omitempty"`
}

// Tally counts the nodes that booted, those that are good and those that are bad.
func (w *Watch) Tally() (booted, good, bad int) {
	for _, t := range w.Nodes {
		booted++
		switch {
		case t.Bad != "":
			bad++
		case !t.Good.IsZero():
			good++
		}
	}
	return booted, good, bad
}

// judge notes what nodes made of the version until now. It reports whether it learnt
// anything, and whether it knows all that it waits for: each node that is promised the version
// ran it before, or has booted it and has been watched long enough since. Nodes that are not
// promised it any more are none of its business. The server began at the time began.
func (w *Watch) judge(fleet []NodeStatus, began, now time.Time) (learnt, complete bool) {
	known := w.Nodes
	w.Nodes = make(map[string]Trial, len(known))
	promised := 0
	complete = true
	for i := range fleet {
		n := &fleet[i]
		if !w.Is(n.promise) || n.Why == ByCommandLine {
			continue
		}
		promised++
		before, tried := known[n.Key()]
		t := before
		switch runs := n.booted != nil && w.Is(n.booted.Ref); {
		case tried:
		case !runs && n.stuck(w, now):
			t = Trial{Booted: later(n.Netboot.Since, w.Since), Boots: n.Boots, Bad: "it fetched its boot files, and has not mounted its root since"}
		case !runs:
			complete = false
			continue
		case n.booted.start().Before(w.Since):
			continue // it needs no boot
		default:
			t = Trial{Booted: n.booted.start(), Boots: n.Boots}
		}
		deadline := t.Booted.Add(w.Good)
		if t.Booted.Before(began) {
			deadline = later(deadline, began.Add(settled))
		}
		if !t.judge(n, now, deadline) {
			complete = false
		}
		learnt = learnt || t != before
		w.Nodes[n.Key()] = t
	}
	return learnt || len(w.Nodes) != len(known), complete && promised > 0
}

// stuck reports whether the node fetched the boot files of a version that is watched, and then did not mount its root.
func (n *NodeStatus) stuck(w *Watch, now time.Time) bool {
	f := n.Netboot
	if f == nil || !w.Is(f.Ref) || f.At.Before(w.Since.Truncate(time.Second)) || !n.LastCall.Before(f.Since) {
		return false
	}
	return now.Sub(later(f.Since, w.Since)) >= bootLimit
}

// settled is how long after its start a server does not judge that a node is not up which booted before:
// while there was no server, none could show it.
const settled = upAfter + time.Minute

// earlyCalls is for how long after its boot a node calls from an initramfs, or not much further.
const earlyCalls = 30 * time.Second

// judge looks at a node once more, and reports whether the trial is over.
func (t *Trial) judge(n *NodeStatus, now, deadline time.Time) (over bool) {
	over = !now.Before(deadline)
	good := n.State == StateUp
	if !n.Good.IsZero() { // it says by itself when it is up
		good = !n.Good.Before(t.Booted)
	}
	switch {
	case t.Bad != "" || t.Unknown != "":
		return true
	case !over && n.Boots > t.Boots:
		t.Bad = fmt.Sprintf("it booted again after %s", now.Sub(t.Booted).Round(time.Second))
		return true
	case !t.Good.IsZero():
	case good:
		t.Good = now.UTC().Truncate(time.Second)
	case !over:
	case n.speaks || n.LastCall.Sub(t.Booted) < earlyCalls:
		t.Bad = fmt.Sprintf("it was not up after %s", deadline.Sub(t.Booted))
	default:
		t.Unknown = fmt.Sprintf("it has been silent since %s after its boot, and says nothing when it is up", n.LastCall.Sub(t.Booted).Round(time.Second))
	}
	return over
}

// verdict says in a line what became of the nodes.
func (w *Watch) verdict() string {
	booted, good, bad := w.Tally()
	s := fmt.Sprintf("%d booted it, %d good, %d bad", booted, good, bad)
	var names []string
	for name, t := range w.Nodes {
		if why := cmp.Or(t.Bad, t.Unknown); why != "" {
			names = append(names, name+": "+why)
		}
	}
	slices.Sort(names)
	const few = 5
	if len(names) > few {
		names = append(names[:few], "…")
	}
	return strings.Join(append([]string{s}, names...), "; ")
}

// saveTrials is how often it is saved what was seen of nodes, while nothing is decided.
const saveTrials = 5 * time.Second

// watchRollouts looks at the rollouts that are watched, and takes back those that went wrong.
func (x *Exports) watchRollouts(now time.Time) {
	for _, img := range x.table.Load().images {
		if img.rollout.Watch == nil {
			continue
		}
		if err := x.watchRollout(img, now); err != nil {
			x.log.Error("cannot follow a rollout", zap.String("image", img.name), zap.Error(err))
		}
	}
}

func (x *Exports) watchRollout(img *imageView, now time.Time) error {
	w := *img.rollout.Watch
	learnt, complete := w.judge(Fleet(&img.rollout, img.inventory, usersOf(img.name, x.nodes.all()), now), x.began, now)
	_, _, bad := w.Tally()
	failed := bad > w.MaxBad
	if !failed && !complete && (!learnt || now.Sub(img.trialsSaved) < saveTrials) {
		return nil
	}
	img.trialsSaved = now
	versions, err := img.store.Versions()
	if err != nil {
		return err
	}
	exists := func(ref Ref) bool {
		return slices.ContainsFunc(versions, func(v Version) bool { return v.Err == nil && v.Digest == ref.Digest })
	}
	const by = "rootnfsd serve"
	return img.state.update(func(r *Rollout) (bool, error) {
		if r.Watch == nil || !r.Watch.Is(w.Ref) || !r.Watch.Since.Equal(w.Since) {
			return false, nil // somebody decided otherwise
		}
		switch {
		case failed:
			x.log.Error("taking a rollout back", zap.String("image", img.name), zap.String("version", w.Version), zap.String("nodes", w.verdict()))
			_, _, err := r.rollback(by, w.Version+": "+w.verdict(), exists)
			if errors.Is(err, ErrNothingBefore) {
				r.Watch = nil
				r.note(Event{By: by, Action: "bad", Ref: w.Ref, Note: w.verdict() + "; there is nothing to go back to"})
				return true, nil
			}
			return err == nil, err
		case complete:
			x.log.Info("a rollout is good", zap.String("image", img.name), zap.String("version", w.Version), zap.String("nodes", w.verdict()))
			r.note(Event{By: by, Action: "good", Ref: w.Ref, Note: w.verdict()})
			r.Watch = nil
		default:
			r.Watch = &w
		}
		return true, nil
	})
}
