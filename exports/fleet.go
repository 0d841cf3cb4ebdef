package exports

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// NodeState is how far a node has come.
type NodeState string

// The states of nodes.
const (
	StateNew     NodeState = "new"     // it was named, or it asked for something, but never booted
	StateBooting NodeState = "booting" // it mounted a version a short while ago
	StateUp      NodeState = "up"      // it mounted its home, said so, or went on calling after its boot
	StateSilent  NodeState = "silent"  // it has not called for a while, and may be off, or idle with all in its caches
)

const (
	// bootLimit is how long a node counts as booting that shows no sign of being up.
	bootLimit = 5 * time.Minute
	// upAfter is how long after its boot a node's calls show that it is up.
	upAfter = 90 * time.Second
	// silence is how long a node that is up may be quiet until it is called silent.
	silence = 15 * time.Minute
)

// NodeStatus is all there is to say of a node: what operators said of it, what it
// does, and what it will get.
type NodeStatus struct {
	// Name is empty for a node that nobody named.
	Name     string       `json:"name"`
	Address  netip.Addr   `json:"address,omitzero"` // where it was seen last, or else its first
	Others   []netip.Addr `json:"other_addresses,omitempty"`
	MAC      string       `json:"mac,omitempty"`
	Serial   string       `json:"serial,omitempty"`
	Hostname string       `json:"hostname,omitempty"`
	Labels   []string     `json:"labels,omitempty"`
	Cmdline  string       `json:"cmdline,omitempty"`

	State   NodeState `json:"state"`
	Running string    `json:"running"` // the version; empty if that is not known
	Digest  string    `json:"digest"`
	Also    []string  `json:"also,omitempty"` // other versions that it may have in use
	// Promised is the version that it gets at its next boot, and Why says why.
	Promised       string `json:"promised"`
	PromisedDigest string `json:"promised_digest"`
	Why            Why    `json:"why,omitempty"`
	RebootNeeded   bool   `json:"reboot_needed"`
	// Draft is the draft that it boots as long as that is one, and OnDraft the one that it is on: it has used that, and was not
	// seen to boot anything else since. They are empty if there is none.
	Draft   string `json:"draft,omitempty"`
	OnDraft string `json:"on_draft,omitempty"`

	Mounted  time.Time `json:"mounted,omitzero"` // the boot, or what is known of it
	LastCall time.Time `json:"last_call,omitzero"`
	Boots    int64     `json:"boots,omitempty"` // of the version that it runs
	Good     time.Time `json:"good,omitzero"`   // when it last said that it is up
	Tally              // of the version that it runs
	Trouble
	// Hints say what should be mended on the node.
	Hints []string `json:"hints,omitempty"`

	// Netboot is what it was given when it last fetched boot files; nil if it never did.
	Netboot *Netboot `json:"netboot,omitempty"`

	booted  *Use // what it runs; nil if that is not known
	promise Ref
	speaks  bool // it was seen to mount its home, or to say that it is up, at some time
}

// Key is the node's name, or its address if it has none.
func (n *NodeStatus) Key() string {
	if n.Name != "" {
		return n.Name
	}
	return n.Address.String()
}

// ByCommandLine is the reason where a node's own command line names the version.
const ByCommandLine Why = "its command line"

// Fleet puts together what is known of all nodes at the time now: those that were seen, and those that
// were named. They come sorted by key, named ones first.
func Fleet(r *Rollout, inv *Inventory, seen []Node, now time.Time) []NodeStatus {
	byKey := map[string][]Node{}
	var keys []string
	for _, n := range seen {
		key := inv.Key(&n)
		if byKey[key] == nil {
			keys = append(keys, key)
		}
		byKey[key] = append(byKey[key], n)
	}
	for _, e := range inv.Entries {
		if byKey[e.Name] == nil {
			keys = append(keys, e.Name)
		}
	}
	fleet := make([]NodeStatus, 0, len(keys))
	for _, key := range keys {
		status := statusOf(r, inv.Named(key), byKey[key], now)
		for _, n := range byKey[key] {
			if e := inv.claimed(&n); e != nil && e.Name != status.Name {
				status.Hints = append(status.Hints, fmt.Sprintf("it says that it is %s: rootnfsd node set %[1]s --address %s, if it is", e.Name, n.Addr))
			}
		}
		fleet = append(fleet, status)
	}
	slices.SortFunc(fleet, func(a, b NodeStatus) int {
		if c := cmp.Or(-cmp.Compare(min(len(a.Name), 1), min(len(b.Name), 1)), strings.Compare(a.Name, b.Name)); c != 0 {
			return c
		}
		return a.Address.Compare(b.Address)
	})
	return fleet
}

// statusOf puts together what is known of one node: the entry of a node with a name, else
// nil, and what was seen at its addresses.
func statusOf(r *Rollout, e *Entry, seen []Node, now time.Time) NodeStatus {
	n := merge(seen)
	status := NodeStatus{Address: n.Addr, Good: n.Good, State: StateNew, Trouble: n.Trouble}
	member := MemberOf(e, n.Addr)
	if e != nil {
		status.Name, status.MAC, status.Serial, status.Hostname, status.Labels, status.Cmdline = e.Name, e.MAC, e.Serial, e.Hostname, e.Labels, e.Cmdline
		for _, a := range e.Addresses {
			if !status.Address.IsValid() {
				status.Address = a
			} else if a != status.Address {
				status.Others = append(status.Others, a)
			}
		}
	}
	if f := n.Netboot; f != nil {
		status.Netboot = f
		status.MAC, status.Serial = cmp.Or(status.MAC, f.MAC), cmp.Or(status.Serial, f.Serial)
	}
	status.speaks = !n.Good.IsZero() || !n.Home.IsZero()
	promised, why := r.Promise(member)
	status.promise, status.Why = promised, why
	if why == ByDraft {
		status.Draft = promised.Version
	}
	for _, d := range r.Drafts {
		if d.Node == status.Name && n.on(d.Ref, now) { // at an address that is not its node's any more, nobody is on it
			status.OnDraft = d.Version
		}
	}
	for _, u := range n.Uses {
		if u.LastCall.After(status.LastCall) {
			status.LastCall = u.LastCall
		}
	}
	for i, u := range n.Running(now) {
		if i > 0 {
			called := !u.LastCall.Before(status.booted.start()) // else it is what ran before
			if called && u.Digest != status.booted.Digest && !slices.Contains(status.Also, u.Version) {
				status.Also = append(status.Also, u.Version)
			}
			continue
		}
		status.booted = &u
		status.Running, status.Digest, status.Mounted, status.Boots, status.Tally = u.Version, u.Digest.String(), u.start(), u.Boots, u.Tally
		if u.Exact && !(why == ByDraft && promised.Is(u.Ref)) { // its command line names the version: it will get that again
			status.promise, status.Why = u.Ref, ByCommandLine
		} else {
			status.RebootNeeded = promised.Version != "" && !promised.Is(u.Ref)
		}
	}
	if status.promise.Version != "" {
		status.Promised, status.PromisedDigest = status.promise.Version, status.promise.Digest.String()
	}
	if len(n.Uses) > 0 || e != nil && n.Netboot != nil {
		status.State = n.state(&status, now)
	}
	status.Hints = hints(&status)
	return status
}

// merge makes one record of those of a node with several addresses.
func merge(seen []Node) Node {
	var n Node
	var last time.Time
	for _, s := range seen {
		for _, u := range s.Uses {
			if !n.Addr.IsValid() || u.seen().After(last) {
				n.Addr, last = s.Addr, u.seen()
			}
		}
		if !n.Addr.IsValid() {
			n.Addr = s.Addr
		}
		n.Uses = append(n.Uses, s.Uses...)
		n.Good = later(n.Good, s.Good)
		n.Home = later(n.Home, s.Home)
		if s.Netboot != nil && (n.Netboot == nil || s.Netboot.At.After(n.Netboot.At)) {
			n.Netboot = s.Netboot
		}
		n.Trouble.add(s.Trouble)
	}
	return n
}

// on reports whether the node has used a draft, or fetches boot files of it, and did not boot anything else since.
func (n *Node) on(draft Ref, now time.Time) bool {
	var last time.Time
	if n.fetches(draft, now) {
		last = n.Netboot.At
	}
	for _, u := range n.Uses {
		if draft.Is(u.Ref) {
			last = later(last, u.seen())
		}
	}
	return !last.IsZero() && !slices.ContainsFunc(n.Uses, func(u Use) bool { return !draft.Is(u.Ref) && u.Began.After(last) })
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// state is how far the node has come with what it runs.
func (n *Node) state(s *NodeStatus, now time.Time) NodeState {
	if f := n.Netboot; f != nil && now.Sub(f.At) < bootLimit && (s.booted == nil || f.At.After(s.booted.seen())) {
		return StateBooting
	}
	switch {
	case s.booted == nil || now.Sub(s.booted.seen()) > silence && now.Sub(s.LastCall) > silence:
		return StateSilent
	case n.up(*s.booted):
		return StateUp
	case now.Sub(s.booted.start()) < bootLimit:
		return StateBooting
	}
	return StateSilent
}

// up reports whether the node has shown that it is up since it booted a version.
func (n *Node) up(u Use) bool {
	since := u.start()
	return since.IsZero() || // it was up before this server knew it
		!n.Good.Before(since) ||
		!n.Home.Before(since) ||
		u.LastCall.Sub(since) >= upAfter
}

func hints(s *NodeStatus) []string {
	var list []string
	if s.SmallReads() {
		list = append(list, "it reads in pieces of 4 KiB: add rsize=1048576 to its nfsroot= options")
	}
	return append(list, s.Trouble.hints(s.Mounted)...)
}

// Fleet is what is known of the nodes of an image right now; nil for an image that is not
// served. Like a mount it goes by what was promoted, or said of nodes, until now.
func (x *Exports) Fleet(image string) []NodeStatus {
	x.refreshIfPromoted()
	for i, img := range x.table.Load().images {
		if img.name == image {
			return Fleet(&img.rollout, img.inventory, recordOf(image, i == 0, x.nodes.all()), time.Now())
		}
	}
	return nil
}

// Fleet is what is known of the nodes from what is on disk: the server writes that
// within a second for what is new, and within minutes for counts.
func (s *State) Fleet(now time.Time) ([]NodeStatus, error) {
	r, err := s.Rollout()
	if err != nil {
		return nil, err
	}
	inv, err := s.Inventory()
	if err != nil {
		return nil, err
	}
	seen, err := s.Nodes()
	if err != nil {
		return nil, err
	}
	return Fleet(&r, inv, seen, now), nil
}
