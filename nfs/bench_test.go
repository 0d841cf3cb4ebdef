package nfs

import (
	"fmt"
	"testing"
	"time"

	gonfs "github.com/willscott/go-nfs"

	"github.com/rootnfsd/rootnfsd/fs/fstest"
	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

// callsOfABoot are the calls that matter, with arguments that are made once.
func callsOfABoot(c *client) []struct {
	name string
	proc gonfs.NFSProcedure
	args func(*wire.Encoder)
} {
	root, su, link, big := c.mount("/"), c.handle("/bin/su"), c.handle("/links/up"), c.handle("/big")
	return []struct {
		name string
		proc gonfs.NFSProcedure
		args func(*wire.Encoder)
	}{
		{"GETATTR", gonfs.NFSProcedureGetAttr, func(e *wire.Encoder) { e.Opaque(su) }},
		{"LOOKUP", gonfs.NFSProcedureLookup, func(e *wire.Encoder) { e.Opaque(root); e.String("bin") }},
		{"LOOKUP-miss", gonfs.NFSProcedureLookup, func(e *wire.Encoder) { e.Opaque(root); e.String("nothing") }},
		{"ACCESS", gonfs.NFSProcedureAccess, func(e *wire.Encoder) { e.Opaque(su); e.Uint32(0x3f) }},
		{"READLINK", gonfs.NFSProcedureReadlink, func(e *wire.Encoder) { e.Opaque(link) }},
		{"READDIRPLUS", gonfs.NFSProcedureReadDirPlus, func(e *wire.Encoder) {
			e.Opaque(root)
			e.Uint64(0)
			e.Uint64(0)
			e.Uint32(4096)
			e.Uint32(32768)
		}},
		{"READ-4K", gonfs.NFSProcedureRead, readArgsOf(big, 0, 4<<10)},
		{"READ-128K", gonfs.NFSProcedureRead, readArgsOf(big, 128<<10, 128<<10)},
		{"READ-1M", gonfs.NFSProcedureRead, readArgsOf(big, 1<<20, 1<<20)},
	}
}

// BenchmarkCall measures calls over loopback, alone and with 16 in flight. The
// client takes its part of the time: it copies what it receives once.
func BenchmarkCall(b *testing.B) {
	h := start(b, newFileTree(b, fstest.Bytes(4<<20)), Limits{})
	c := h.dial(b)
	c.conn.SetDeadline(time.Time{})
	for _, call := range callsOfABoot(c) {
		for _, inFlight := range []int{1, 16} {
			b.Run(fmt.Sprintf("%s/%d", call.name, inFlight), func(b *testing.B) {
				c.t = b
				b.ReportAllocs()
				for done := 0; done < b.N; done += inFlight {
					for range inFlight {
						c.push(progNFS, 3, uint32(call.proc), call.args)
					}
					c.flush()
					for range inFlight {
						if _, d := c.reply(); d.Uint32() > 2 {
							b.Fatal("failed")
						}
					}
				}
			})
		}
	}
}

// BenchmarkCounting measures what counting adds to calls that arrive 16 at a time and are
// answered together, for each of them.
func BenchmarkCounting(b *testing.B) {
	const inFlight = 16
	c := &conn{srv: &Server{stats: stats{began: time.Now()}}}
	c.stats = c.srv.stats.shard()
	c.in.buf = make([]byte, smallSize)
	for done := 0; done < b.N; done += inFlight {
		c.in.fill = 0
		c.received(100)
		for range inFlight {
			c.batch.add(kind(gonfs.NFSProcedureGetAttr))
		}
		c.stats.sent.Add(100)
		c.countBatch()
	}
}
