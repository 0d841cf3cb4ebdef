package exports

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/rootnfsd/rootnfsd/hostlist"
)

// Member is a node as a rollout sees it: by its name, or by its address if nobody
// has named it.
type Member struct {
	Key       string
	Addresses []netip.Addr
	Labels    []string
	Pin       *Ref
}

// MemberOf returns the node with an entry or, where e is nil, at an address.
func MemberOf(e *Entry, addr netip.Addr) Member {
	if e == nil {
		return Member{Key: addr.String()}
	}
	m := Member{Key: e.Name, Addresses: e.Addresses, Labels: e.Labels, Pin: e.Pin}
	if addr.IsValid() && !slices.Contains(m.Addresses, addr) { // it is known by something else
		m.Addresses = append(slices.Clone(m.Addresses), addr)
	}
	return m
}

// Key returns what a node that was seen goes by: its name or, if it has none, its address.
func (inv *Inventory) Key(n *Node) string { return MemberOf(inv.of(n), n.Addr).Key }

// Partial is a version that some nodes get and the others do not get yet. A node
// gets it that any of the three chooses.
type Partial struct {
	Ref
	Nodes   []string `json:"nodes,omitempty"`   // names or addresses, sorted
	Labels  []string `json:"labels,omitempty"`  // those of whom it is enough to have one
	Percent float64  `json:"percent,omitempty"` // of all nodes, chosen by Share
}

// Chooses reports whether a node gets the version. One that was chosen by its address still is when
// it has got a name.
func (p *Partial) Chooses(m Member) bool {
	listed := func(key string) bool {
		_, found := slices.BinarySearch(p.Nodes, key) // there may be thousands, and as many who ask
		return found
	}
	named := func(a netip.Addr) bool { return listed(a.String()) }
	labelled := func(l string) bool { return slices.Contains(m.Labels, l) }
	return listed(m.Key) || slices.ContainsFunc(m.Addresses, named) ||
		slices.ContainsFunc(p.Labels, labelled) || p.Percent > 0 && Share(m.Key) < p.Percent
}

// Share is where a node comes when a part of all is chosen, in percent: at least 0 and
// less than 100. It follows from the name alone, so that the same nodes are chosen
// each time, and a larger part has the smaller one in it.
func Share(key string) float64 {
	h := sha256.Sum256([]byte(key))
	return float64(binary.BigEndian.Uint32(h[:])) / (1 << 32) * 100
}

// String says who gets the version.
func (p *Partial) String() string {
	var who []string
	if len(p.Nodes) > 0 {
		who = append(who, hostlist.Compress(p.Nodes))
	}
	if len(p.Labels) > 0 {
		who = append(who, "label "+strings.Join(p.Labels, ","))
	}
	if p.Percent > 0 {
		who = append(who, fmt.Sprintf("%g %%", p.Percent))
	}
	return strings.Join(who, " and ")
}

// widen adds to who gets the version.
func (p *Partial) widen(more Partial) {
	p.Nodes = append(slices.Clone(p.Nodes), more.Nodes...)
	slices.Sort(p.Nodes)
	p.Nodes = slices.Compact(p.Nodes)
	p.Labels = append(slices.Clone(p.Labels), more.Labels...)
	slices.Sort(p.Labels)
	p.Labels = slices.Compact(p.Labels)
	p.Percent = max(p.Percent, more.Percent)
}

// Why says why a node gets the version that it gets.
type Why string

// The reasons, the strongest first.
const (
	ByDraft   Why = "draft"
	ByPin     Why = "pinned"
	ByPartial Why = "rollout"
	ByRollout Why = "promoted"
)

// Promise returns the version that a node gets when it mounts the image by its name, and
// why; a zero Ref if nothing is promoted.
func (r *Rollout) Promise(m Member) (Ref, Why) {
	if d := r.DraftOf(m.Key); d != nil {
		return d.Ref, ByDraft
	}
	return r.sealed(m)
}

// sealed is Promise for whoever cannot have a draft: it is for the node's own addresses alone.
func (r *Rollout) sealed(m Member) (Ref, Why) {
	switch {
	case m.Pin != nil:
		return *m.Pin, ByPin
	case r.Partial != nil && r.Partial.Chooses(m):
		return r.Partial.Ref, ByPartial
	}
	promoted, _ := r.Promoted()
	return promoted, ByRollout
}
