package nfs

import (
	"testing"

	gonfs "github.com/willscott/go-nfs"

	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

func TestACL(t *testing.T) {
	h := start(t, sample(), Limits{})
	c := h.dial(t)
	handle := c.handle("/etc/shadow")
	attrs := func(d *wire.Decoder) {
		t.Helper()
		if !d.Bool() || len(d.FixedOpaque(attrSize)) != attrSize {
			t.Error("want the attributes of the object")
		}
	}

	d := c.call(progACL, aclVersion, 1, func(e *wire.Encoder) { e.Opaque(handle); e.Uint32(0x1f) })
	if status := d.Uint32(); status != 0 {
		t.Fatalf("GETACL: status %d", status)
	}
	attrs(d)
	if mask := d.Uint32(); mask != 0xf {
		t.Errorf("GETACL: mask %#x; want those bits that there are, %#x", mask, 0xf)
	}
	for i, b := range d.FixedOpaque(16) {
		if b != 0 {
			t.Errorf("GETACL: byte %d of the ACLs is %d; want two that are empty", i, b)
		}
	}
	if !d.Done() {
		t.Errorf("GETACL: %d bytes too many", d.Len())
	}

	d = c.call(progACL, aclVersion, 2, func(e *wire.Encoder) { e.Opaque(handle); e.Uint32(1); e.Uint32(0); e.Uint32(0) })
	if status := gonfs.NFSStatus(d.Uint32()); status != gonfs.NFSStatusROFS {
		t.Errorf("SETACL: %v; want NFS3ERR_ROFS", status)
	}
	attrs(d)

	d = c.call(progACL, aclVersion, 1, func(e *wire.Encoder) { e.Opaque(make([]byte, 32)); e.Uint32(1) })
	if status := gonfs.NFSStatus(d.Uint32()); status != gonfs.NFSStatusBadHandle {
		t.Errorf("GETACL of a forged handle: %v; want NFS3ERR_BADHANDLE", status)
	}
	for name, args := range map[string]func(*wire.Encoder){
		"no mask":     func(e *wire.Encoder) { e.Opaque(handle) },
		"long handle": func(e *wire.Encoder) { e.Opaque(make([]byte, 68)); e.Uint32(1) },
		"trailing":    func(e *wire.Encoder) { e.Opaque(handle); e.Uint32(1); e.Uint32(0) },
	} {
		c.push(progACL, aclVersion, 1, args)
		c.flush()
		if _, stat, _ := c.outcome(); stat != wire.GarbageArgs {
			t.Errorf("GETACL, %s: accept_stat %d; want GARBAGE_ARGS", name, stat)
		}
	}
}
