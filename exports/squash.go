package exports

import (
	"fmt"
	"math"

	"github.com/rootnfsd/rootnfsd/fs"
)

// Squash says whom a node may act as in a home.
type Squash uint8

// The ways to squash, with the words of exports(5).
const (
	SquashRoot Squash = iota // a node's root is nobody here
	SquashNone               // everybody is who the node says
	SquashAll                // everybody is nobody
)

// ParseSquash reads root, none or all.
func ParseSquash(s string) (Squash, error) {
	switch s {
	case "root":
		return SquashRoot, nil
	case "none":
		return SquashNone, nil
	case "all":
		return SquashAll, nil
	}
	return 0, fmt.Errorf("%q: want root, none or all", s)
}

// noID is no user and no group: the kernel takes it for "leave it as it is", in
// setfsuid(2) too, where that would be the server's own identity.
const noID = math.MaxUint32

// squash changes c into who the caller is in a home, as nfsd_setuser does
// (fs/nfsd/auth.c). An anonymous caller has not said who it is.
func (h *Homes) squash(c *fs.Cred, anonymous bool) {
	if anonymous || h.Squash == SquashAll {
		*c = fs.Cred{UID: h.AnonUID, GID: h.AnonGID}
		return
	}
	if h.squashes(c.UID) {
		c.UID = h.AnonUID
	}
	if h.squashes(c.GID) {
		c.GID = h.AnonGID
	}
	for i, g := range c.Groups {
		if h.squashes(g) {
			c.Groups[i] = h.AnonGID
		}
	}
}

func (h *Homes) squashes(id uint32) bool {
	return id == noID || id == 0 && h.Squash == SquashRoot
}
