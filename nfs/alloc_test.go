package nfs

import (
	"net/netip"
	"runtime/debug"
	"slices"
	"testing"

	"github.com/rootnfsd/rootnfsd/fs/fstest"
	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

// TestCallsAllocateNothing answers each call of a boot without a network.
func TestCallsAllocateNothing(t *testing.T) {
	h := start(t, newFileTree(t, fstest.Bytes(4<<20)), Limits{})
	c := h.dial(t)
	loopback := netip.MustParseAddrPort("127.0.0.1:1")
	server := h.newCall(h.exports.Peer(loopback), loopback, loopback)
	for _, call := range callsOfABoot(c) {
		c.out.Truncate(0)
		c.push(progNFS, 3, uint32(call.proc), call.args)
		msg := slices.Clone(c.out.Bytes()[wire.MarkSize:])
		n := testing.AllocsPerRun(100, func() {
			if server.answerRecord(msg) != replied {
				t.Error("no reply")
			}
			server.out.Truncate(0)
			server.dropSpans()
		})
		if n != 0 {
			t.Errorf("%s allocates %v times", call.name, n)
		}
	}
}

// TestConnectionsAllocateNothing makes each call of a boot over a connection,
// and counts what the whole process allocates.
func TestConnectionsAllocateNothing(t *testing.T) {
	h := start(t, newFileTree(t, fstest.Bytes(4<<20)), Limits{})
	c := h.dial(t)
	allowed := 0.0
	if raceEnabled() {
		allowed = 8 // under the race detector a sync.Pool forgets at random
	}
	for _, call := range callsOfABoot(c) {
		one := func() {
			c.push(progNFS, 3, uint32(call.proc), call.args)
			c.flush()
			c.reply()
		}
		one()
		if n := testing.AllocsPerRun(200, one); n > allowed {
			t.Errorf("%s allocates %v times", call.name, n)
		}
	}
}

func raceEnabled() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}
