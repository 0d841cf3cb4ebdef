package load

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/rootnfsd/rootnfsd/bench/peer"
	"github.com/rootnfsd/rootnfsd/bench/rpc"
)

// Target is a server that is put to work.
type Target struct {
	Name string
	// Addr is where NFS is. MountAddr is where MOUNT is, and Path what to mount
	// there.
	Addr, MountAddr, Path string
	// Meter meters the server. It is nil where that is out of sight, as on another
	// machine, and then processor time and memory are not measured.
	Meter Meter
	// Options say as whom to call.
	Options rpc.Options

	tree *tree
	// pack is the size of the file that the limit sends from, and 0 for servers
	// of NFS.
	pack int64
}

// Meter tells what a server has used so far, and what memory it has. A peer.Meter
// does for a server that is one process.
type Meter interface {
	CPU() time.Duration
	Resident() uint64 // in bytes
	DiskRead() uint64 // in bytes
}

// TargetOf is a server that was started here.
func TargetOf(s *peer.Server) *Target {
	return &Target{Name: s.Name, Addr: s.Addr, MountAddr: s.MountAddr, Path: s.MountPath, Meter: s.Meter}
}

// Find fills in Addr and MountAddr of a target on a host. A port of 0 is looked for:
// NFS is at 2049, and MOUNT there too, or where the port mapper says.
func (t *Target) Find(host string, port, mountPort uint16) error {
	const nfsPort, mountVersion = 2049, 3
	at := func(port uint16) string { return net.JoinHostPort(host, strconv.Itoa(int(port))) }
	t.Addr = at(cmp.Or(port, nfsPort))
	if mountPort != 0 {
		t.MountAddr = at(mountPort)
		return nil
	}
	t.MountAddr = t.Addr
	_, err := rpc.Mount(t.MountAddr, t.Path, t.Options)
	var elsewhere rpc.RPCError
	if !errors.As(err, &elsewhere) {
		return err
	}
	found, err := rpc.Port(host, rpc.ProgMount, mountVersion, t.Options)
	if err != nil {
		return fmt.Errorf("%s has no MOUNT, and its port mapper does not say where it is: %w", t.Addr, err)
	}
	t.MountAddr = at(found)
	return nil
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
