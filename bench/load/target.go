package load

import (
	"github.com/rootnfsd/rootnfsd/bench/peer"
	"github.com/rootnfsd/rootnfsd/bench/rpc"
)

// Target is a server that is put to work.
type Target struct {
	Name string
	// Addr is where NFS is. MountAddr is where MOUNT is, and Path what to mount
	// there.
	Addr, MountAddr, Path string
	// Meter meters the server's process. It is 0 where that is out of sight, as on
	// another machine, and then processor time and memory are not measured.
	Meter peer.Meter

	options rpc.Options
	tree    *tree
	// pack is the size of the file that the limit sends from, and 0 for servers
	// of NFS.
	pack int64
}

// TargetOf is a server that was started here.
func TargetOf(s *peer.Server) *Target {
	return &Target{Name: s.Name, Addr: s.Addr, MountAddr: s.MountAddr, Path: s.MountPath, Meter: s.Meter}
}

// LimitOf is the limit, which sends what another target would, from a file of a
// size in bytes. The other one has been surveyed.
func LimitOf(s *peer.Server, like *Target, pack int64) *Target {
	t := TargetOf(s)
	t.pack = max(pack, 1)
	t.tree = like.tree
	return t
}

// Objects returns how many objects the tree has, after the Survey.
func (t *Target) Objects() int { return len(t.tree.objects) }
