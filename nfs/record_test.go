package nfs

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	gonfs "github.com/willscott/go-nfs"
	"go.uber.org/zap"

	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

// recorded keeps what it is shown, as text.
type recorded []string

func (l *recorded) Record(r Record) {
	*l = append(*l, fmt.Sprintf("%s %d.%d object %d %q offset %d count %d",
		r.Client, r.Program, r.Procedure, r.Object, r.Name, r.Offset, r.Count))
	if (r.Tree == nil) != (r.Object == 0) || r.Time.IsZero() {
		*l = append(*l, "tree or time is missing")
	}
}

// TestRecord holds what a recorder is shown against the calls that were made.
func TestRecord(t *testing.T) {
	tree := sample()
	h := start(t, tree, Limits{})
	c := h.dial(t)
	root, su := c.mount("/"), c.handle("/bin/su")
	var log recorded
	s := New(Config{Exports: h.exports, Log: zap.NewNop(), Recorder: &log})
	from := netip.MustParseAddrPort("127.1.2.3:700")
	server := s.newCall(s.exports.Peer(from), from, from)
	listing := func(counts ...uint32) func(*wire.Encoder) {
		return func(e *wire.Encoder) {
			e.Opaque(root)
			e.Uint64(2) // cookie
			e.Uint64(9) // verifier
			for _, n := range counts {
				e.Uint32(n)
			}
		}
	}
	for _, call := range []struct {
		prog uint32
		proc gonfs.NFSProcedure
		args func(*wire.Encoder)
		want string // after client, program and procedure; empty if it is not recorded
	}{
		{progMount, 1, func(e *wire.Encoder) { e.String("/images") }, `object 0 "/images" offset 0 count 0`},
		{progMount, 5, nil, ""},
		{progPortmap, 0, nil, ""},
		{progNFS, gonfs.NFSProcedureNull, nil, `object 0 "" offset 0 count 0`},
		{progNFS, gonfs.NFSProcedureGetAttr, func(e *wire.Encoder) { e.Opaque(root) }, `object 1 "" offset 0 count 0`},
		{progNFS, gonfs.NFSProcedureGetAttr, func(e *wire.Encoder) { e.Opaque(root[:31]) }, ""},
		{progNFS, gonfs.NFSProcedureLookup, func(e *wire.Encoder) { e.Opaque(root); e.String("none") }, `object 1 "none" offset 0 count 0`},
		{progNFS, gonfs.NFSProcedureLookup, func(e *wire.Encoder) { e.Opaque(root); e.String("a/b") }, ""},
		{progNFS, gonfs.NFSProcedureAccess, func(e *wire.Encoder) { e.Opaque(root); e.Uint32(0x1f) }, `object 1 "" offset 0 count 31`},
		{progNFS, gonfs.NFSProcedureRead, readArgsOf(su, 1<<40, 4096), fmt.Sprintf(`object %d "" offset %d count 4096`, tree.ID("/bin/su"), uint64(1<<40))},
		{progNFS, gonfs.NFSProcedureRead, func(e *wire.Encoder) { e.Opaque(su); e.Uint32(1) }, ""},
		{progNFS, gonfs.NFSProcedureReadDir, listing(4096), `object 1 "" offset 2 count 4096`},
		{progNFS, gonfs.NFSProcedureReadDirPlus, listing(512, 8192), `object 1 "" offset 2 count 8192`},
		{progNFS, gonfs.NFSProcedureRmDir, func(e *wire.Encoder) { e.Opaque(root); e.String("etc") }, `object 1 "" offset 0 count 0`},
		{progACL, 1, func(e *wire.Encoder) { e.Opaque(root); e.Uint32(5) }, `object 1 "" offset 0 count 5`},
	} {
		log = nil
		c.out.Truncate(0)
		c.push(call.prog, 3, uint32(call.proc), call.args)
		if server.answerRecord(slices.Clone(c.out.Bytes()[wire.MarkSize:])) != replied {
			t.Errorf("%d.%d: no reply", call.prog, call.proc)
		}
		var want recorded
		if call.want != "" {
			want = recorded{fmt.Sprintf("127.1.2.3 %d.%d %s", call.prog, call.proc, call.want)}
		}
		if !slices.Equal(log, want) {
			t.Errorf("%d.%d: recorded %q, want %q", call.prog, call.proc, log, want)
		}
		server.out.Truncate(0)
	}
}
