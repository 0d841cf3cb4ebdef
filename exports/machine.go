package exports

import (
	"net/netip"
	"slices"
	"sync"
)

// Machine is the network card that first had an address as the node of a name. What is that node's alone goes to
// no other one: an address changes hands by DHCP. A MAC address that an operator has said counts instead.
type Machine struct {
	Node string `json:"node"`
	MAC  string `json:"mac"`
}

// machines are those of one address, in each image the one that counts, as long as the address keeps the name.
type machines struct {
	mu    sync.Mutex // guards what follows
	known []imageMachine
	fresh bool // one was learnt since learnt was called
}

type imageMachine struct {
	image string
	Machine
}

// of returns the machine of the node in an image, or nil.
func (m *machines) of(image string) *Machine {
	m.mu.Lock()
	defer m.mu.Unlock()
	if i := m.index(image); i >= 0 {
		known := m.known[i].Machine
		return &known
	}
	return nil
}

func (m *machines) index(image string) int {
	return slices.IndexFunc(m.known, func(k imageMachine) bool { return k.image == image })
}

// first returns the MAC address of the machine that first was the node of a name; if there is none yet, it is mac from now on.
func (m *machines) first(image, node, mac string) (known string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := m.index(image)
	if i < 0 {
		i = len(m.known)
		m.known = append(m.known, imageMachine{image: image})
	}
	if m.known[i].Node != node {
		m.known[i].Machine = Machine{node, mac}
		m.fresh = true
	}
	return m.known[i].MAC
}

// learnt reports whether a machine was learnt since it was last asked.
func (m *machines) learnt() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	fresh := m.fresh
	m.fresh = false
	return fresh
}

func (m *machines) restore(image string, saved *Machine) {
	if saved != nil {
		m.first(image, saved.Node, saved.MAC)
		m.learnt()
	}
}

// strangerAt is otherMachine for all images that have a node with a name at an address.
func (x *Exports) strangerAt(addr netip.Addr) (want, seen string) {
	for _, img := range x.table.Load().images {
		if e := img.inventory.At(addr); e != nil {
			if want, seen = x.otherMachine(img.image, x.nodes.known(addr), e); seen != "" {
				return want, seen
			}
		}
	}
	return "", ""
}

// otherMachine reports whether another machine than the node with an entry has its address: which MAC address it should have, and
// that which the kernel sees, empty if nothing is strange. Where the kernel knows none, as
// through a router, for IPv6, or when its table is full, nothing is.
func (x *Exports) otherMachine(img *image, nd *node, e *Entry) (want, seen string) {
	macs := x.macsAt(nd.addr)
	if len(macs) == 0 {
		return e.MAC, ""
	}
	if want = e.MAC; want == "" {
		want = nd.machines.first(img.name, e.Name, macs[0])
	}
	if slices.Contains(macs, want) {
		return want, ""
	}
	return want, macs[0]
}
