package nfs

import (
	"bytes"
	"net/netip"
	"testing"

	gonfs "github.com/willscott/go-nfs"

	"github.com/rootnfsd/rootnfsd/fs/fstest"
	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

// FuzzCall answers whatever comes, as a record or as a datagram, from a tree
// whose handles the corpus knows. No message may make the server panic, answer
// at a length that the limits do not allow, or answer what is no reply to it.
func FuzzCall(f *testing.F) {
	content := fstest.Bytes(200_000)
	h := start(f, newFileTree(f, content), Limits{})
	c := h.dial(f)
	big := c.handle("/big")
	for _, call := range everyCall(c) {
		for _, cred := range []func(*wire.Encoder){authNone, authSys(1000, 1000, 4, 24)} {
			c.cred = cred
			c.out.Truncate(0)
			c.header(call.prog, call.vers, call.proc)
			call.args(&c.out)
			f.Add(bytes.Clone(c.out.Bytes()))
		}
	}
	c.cred = authNone
	c.out.Truncate(0)
	c.header(progNFS, 3, uint32(gonfs.NFSProcedureRead))
	readArgsOf(big, 1<<63, 0xffffffff)(&c.out)
	f.Add(bytes.Clone(c.out.Bytes()))
	f.Add(datagram(progMount, 1, uint32(gonfs.MountProcExport)))
	f.Add(datagram(progMount, 3, uint32(gonfs.MountProcDump)))
	f.Add(datagram(progPortmap, 2, 4))
	f.Add(datagram(progPortmap, 4, 4))
	f.Add(datagram(progNFS, 4, 1))

	loopback := netip.MustParseAddrPort("127.0.0.1:1")
	peer := h.exports.Peer(loopback)
	f.Fuzz(func(t *testing.T, msg []byte) {
		whole := bytes.Clone(msg)
		for _, datagram := range []bool{false, true} {
			call := h.newCall(peer, loopback, loopback)
			call.datagram = datagram
			result := call.answer(msg)
			checkReply(t, call, result, msg)
			if result == deferred {
				slow := call.fork(make([]byte, readBufferSize(int(call.read.count))))
				h.disk <- struct{}{}
				slow.finishRead(h.disk)
			}
			h.freeCall(call)
		}
		if !bytes.Equal(whole, msg) {
			t.Error("the message was changed")
		}
	})
}

// checkReply holds a reply against the message that it answers.
func checkReply(t *testing.T, c *call, result outcome, msg []byte) {
	if result != replied {
		return
	}
	reply := c.out.Bytes()
	if c.out.Overflow() || len(reply) > maxSmallReply {
		t.Errorf("a reply of %d bytes", len(reply))
	}
	if len(reply) < 20 || !bytes.Equal(reply[:4], msg[:4]) || !bytes.Equal(reply[4:8], words(1)) {
		t.Fatalf("% x is no reply to % x", reply, msg)
	}
	d := wire.NewDecoder(reply)
	_, stat, accepted := d.ReplyHeader()
	if !accepted || stat != wire.Success {
		return
	}
	if stat == wire.Success && c.payload > maxIO || len(reply)%4 != 0 {
		t.Errorf("%d bytes and %d of payload", len(reply), c.payload)
	}
	if c.header.Prog == progNFS && c.header.Proc != 0 {
		checkStatus(t, gonfs.NFSProcedure(c.header.Proc), gonfs.NFSStatus(d.Uint32()))
	}
}

// checkStatus fails for what nobody can bring about on a tree without faults.
func checkStatus(t *testing.T, proc gonfs.NFSProcedure, s gonfs.NFSStatus) {
	if s.String() == "unknown" || s == gonfs.NFSStatusIO || s == gonfs.NFSStatusServerFault {
		t.Errorf("%v answers %v (%d)", proc, s, s)
	}
	if s == gonfs.NFSStatusOk && int(proc) < len(mutations) && mutations[proc].args != nil {
		t.Errorf("%v succeeds", proc)
	}
}
