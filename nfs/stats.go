package nfs

import (
	"math/bits"
	"strings"
	"sync/atomic"
	"time"

	gonfs "github.com/willscott/go-nfs"

	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

// Counting must cost next to nothing, for a call costs about a microsecond. So the leader
// of a connection counts the calls that it answers in memory of its own (batch), and adds
// them to what all connections share when their replies have been sent; by then it has
// answered all that had arrived. The clock is read twice for all of them: how long a call took
// is the time from when its last byte was read until its reply was sent. Calls that other
// goroutines answer are counted by those.

// kind is what a call is counted as.
type kind uint8

const (
	nfsKinds = int(gonfs.NFSProcedureCommit) + 1

	// Below are the procedures of NFS about versions.
	kindHome    = kind(nfsKinds)            // the same ones, about homes
	kindMount   = kindHome + kind(nfsKinds) // all of MOUNT
	kindPortmap = kindMount + 1             // all of the port mapper
	kindACL     = kindPortmap + 1           // all of NFSACL
	kindError   = kindACL + 1               // calls that were denied, and from there by their wire.AcceptStat
	kinds       = kindError + kind(wire.SystemErr) + 1
)

// kindOf is what the call counts as if it is accepted with stat.
func (c *call) kindOf(stat wire.AcceptStat) kind {
	h := &c.header
	switch {
	case stat != wire.Success:
		return kindError + kind(stat)
	case h.Prog == progNFS && c.inHome:
		return kindHome + kind(h.Proc)
	case h.Prog == progNFS:
		return kind(h.Proc)
	case h.Prog == progMount:
		return kindMount
	case h.Prog == progACL:
		return kindACL
	}
	return kindPortmap
}

// latencyBounds divide the times that calls took: from what is answered out of memory with
// others to what a disk keeps waiting that spins up.
var latencyBounds = [...]time.Duration{
	50 * time.Microsecond, 150 * time.Microsecond, 500 * time.Microsecond,
	1500 * time.Microsecond, 5 * time.Millisecond, 15 * time.Millisecond,
	50 * time.Millisecond, 150 * time.Millisecond, 500 * time.Millisecond,
	1500 * time.Millisecond, 5 * time.Second, 15 * time.Second,
}

// stats are the counters of a server. A connection adds to one of a few shards, so that
// those of several processors do not take a cache line from each other.
type stats struct {
	began  time.Time
	next   atomic.Uint32 // the shard of the next connection
	shards [statShards]statShard

	// What is rare, or at least no matter of each call.
	accepted      atomic.Uint64
	evicted       atomic.Uint64
	panics        atomic.Uint64
	wrongVersions [nfsVersion + 2]atomic.Uint64 // calls of NFS by version, 0 being all that do not exist
	mounts        [len(mountResults)]atomic.Uint64
}

const statShards = 8 // a power of two

type statShard struct {
	calls    [kinds]callStats
	received atomic.Uint64 // bytes
	sent     atomic.Uint64
	waited   atomic.Uint64 // calls about versions that were left to another goroutine
	_        [64]byte
}

// callStats has the calls of one kind by the time that they took, which the last bucket has
// no bound for.
type callStats struct {
	buckets [len(latencyBounds) + 1]atomic.Uint64
	nanos   atomic.Uint64
}

// clock is the time since the counting began.
func (s *stats) clock() time.Duration { return time.Since(s.began) }

// shard returns one to count in.
func (s *stats) shard() *statShard { return &s.shards[s.next.Add(1)%statShards] }

// count adds n calls that took so long each.
func (s *statShard) count(k kind, n uint32, took time.Duration) {
	i := 0
	for i < len(latencyBounds) && took > latencyBounds[i] {
		i++
	}
	s.calls[k].buckets[i].Add(uint64(n))
	s.calls[k].nanos.Add(uint64(n) * uint64(took))
}

// batch has the calls whose replies wait to be sent together. It belongs to the leader of a
// connection.
type batch struct {
	n    [kinds]uint32
	seen uint64 // a bit for each kind that n has some of
}

const _ = uint64(1) << kinds // which they have room for

func (b *batch) add(k kind) {
	b.n[k]++
	b.seen |= 1 << k
}

// drain adds the calls to what is shared. They were sent at the same time.
func (b *batch) drain(to *statShard, took time.Duration) {
	for ; b.seen != 0; b.seen &= b.seen - 1 {
		k := kind(bits.TrailingZeros64(b.seen))
		to.count(k, b.n[k], took)
		b.n[k] = 0
	}
}

// countWrongVersion counts a call of a version of NFS that is not spoken here.
func (s *stats) countWrongVersion(vers uint32) {
	if uint64(vers) >= uint64(len(s.wrongVersions)) {
		vers = 0
	}
	s.wrongVersions[vers].Add(1)
}

// mountResults are the statuses that a mount ends with (mountStatus).
var mountResults = [...]struct {
	status gonfs.MountStatus
	name   string
}{
	{gonfs.MountStatusOk, "MNT3_OK"},
	{gonfs.MountStatusErrPerm, "MNT3ERR_PERM"},
	{gonfs.MountStatusErrNoEnt, "MNT3ERR_NOENT"},
	{gonfs.MountStatusErrIO, "MNT3ERR_IO"},
	{gonfs.MountStatusErrAcces, "MNT3ERR_ACCES"},
	{gonfs.MountStatusErrNotDir, "MNT3ERR_NOTDIR"},
	{gonfs.MountStatusErrInval, "MNT3ERR_INVAL"},
	{gonfs.MountStatusErrNameTooLong, "MNT3ERR_NAMETOOLONG"},
	{gonfs.MountStatusErrNotSupp, "MNT3ERR_NOTSUPP"},
	{gonfs.MountStatusErrServerFault, "MNT3ERR_SERVERFAULT"},
}

func (s *stats) countMount(status gonfs.MountStatus) {
	for i, r := range mountResults {
		if r.status == status {
			s.mounts[i].Add(1)
		}
	}
}

// Snapshot is what a server has done since it was made, and what it has in hand. Nothing
// else refers to it.
type Snapshot struct {
	// Calls are the calls whose replies were sent, of each kind that there were any of.
	Calls []Calls
	// Errors are the calls that were answered with an error of RPC (RFC 5531, section 9),
	// by the name of each.
	Errors map[string]uint64
	// NFS2 and NFS4 are the calls of those versions of NFS, which a client tries before
	// it goes down, or back, to 3.
	NFS2, NFS4 uint64
	// Mounts are the mounts by the name of each status (RFC 1813, section 5.1.5).
	Mounts map[string]uint64
	// Waited are the calls about versions that had to wait for a disk, or for content that
	// was compared with its digest.
	Waited uint64

	Received, Sent uint64 // bytes

	Accepted uint64 // connections
	Evicted  uint64 // connections that made room for others
	Panics   uint64 // calls that failed in a way that they must not

	Conns     int // that are open
	Strangers int // of them, those of addresses that may not mount anything
	Reading   int // calls that read a disk now
	// Bytes of replies that wait for a disk or a client, of calls about homes with their
	// replies, and of large calls that are being received (Limits).
	Pending, Homes, Incoming int
}

// Calls are calls of one kind.
type Calls struct {
	Program   string // nfs, mount, portmap or nfsacl
	Procedure string // as RFC 1813 names it; of the other programs it is empty, for all together
	Homes     bool   // they are about what is in homes; of NFS alone
	Count     uint64
	Took      time.Duration // all of them together, from arrival to reply
	Within    []Within      // by how long they took
}

// Within is how many calls took no longer than a time.
type Within struct {
	Time  time.Duration
	Count uint64
}

// Stats returns what the server has done. It may be called at any time, and holds up no
// call.
func (s *Server) Stats() Snapshot {
	st := &s.stats
	shot := Snapshot{
		Errors:   map[string]uint64{},
		Mounts:   map[string]uint64{},
		NFS2:     st.wrongVersions[2].Load(),
		NFS4:     st.wrongVersions[4].Load(),
		Accepted: st.accepted.Load(),
		Evicted:  st.evicted.Load(),
		Panics:   st.panics.Load(),
		Reading:  len(s.disk),
		Pending:  s.pending.taken(),
		Homes:    s.homes.taken(),
		Incoming: s.incoming.taken(),
	}
	for i := range st.shards {
		shot.Received += st.shards[i].received.Load()
		shot.Sent += st.shards[i].sent.Load()
		shot.Waited += st.shards[i].waited.Load()
	}
	for k := range kindError {
		if c := st.sum(k); c.Count > 0 {
			shot.Calls = append(shot.Calls, c)
		}
	}
	for stat, name := range errorNames {
		shot.Errors[name] = st.sum(kindError + kind(stat)).Count
	}
	for i, r := range mountResults {
		shot.Mounts[r.name] = st.mounts[i].Load()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	shot.Conns, shot.Strangers = len(s.conns), s.strangers
	return shot
}

// errorNames are what errors of RPC are called, a call that was denied being the first, and
// the others in the order of wire.AcceptStat.
var errorNames = [...]string{"MSG_DENIED", "PROG_UNAVAIL", "PROG_MISMATCH", "PROC_UNAVAIL", "GARBAGE_ARGS", "SYSTEM_ERR"}

// sum adds up the calls of a kind.
func (s *stats) sum(k kind) Calls {
	c := k.describe()
	var buckets [len(latencyBounds) + 1]uint64
	for i := range s.shards {
		of := &s.shards[i].calls[k]
		c.Took += time.Duration(of.nanos.Load())
		for b := range buckets {
			buckets[b] += of.buckets[b].Load()
		}
	}
	for b, bound := range latencyBounds {
		c.Count += buckets[b]
		c.Within = append(c.Within, Within{bound, c.Count})
	}
	c.Count += buckets[len(latencyBounds)]
	return c
}

func (k kind) describe() Calls {
	switch k {
	case kindMount:
		return Calls{Program: "mount"}
	case kindPortmap:
		return Calls{Program: "portmap"}
	case kindACL:
		return Calls{Program: "nfsacl"}
	}
	proc := gonfs.NFSProcedure(k % kindHome)
	return Calls{Program: "nfs", Procedure: strings.ToUpper(proc.String()), Homes: k >= kindHome}
}
