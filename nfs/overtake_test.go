package nfs

import (
	"bytes"
	"testing"

	gonfs "github.com/willscott/go-nfs"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/fstest"
)

// slowTree is a tree that has to wait for every small read, but not for long.
type slowTree struct{ *fileTree }

func (t slowTree) Read(c *fs.Cred, id fs.NodeID, off uint64, p []byte, nowait bool) (int, bool, error) {
	if nowait {
		return 0, false, fs.ErrWouldBlock
	}
	return t.fileTree.Read(c, id, off, p, nowait)
}

// TestRepliesNeverMix lets replies that are sent by several goroutines go out as
// close to each other as can be: long ones from a file, whose length is no
// multiple of four; short ones that had to wait; and a heap of others behind
// them, which keep the connection's own goroutine from sending at once.
func TestRepliesNeverMix(t *testing.T) {
	content := fstest.Bytes(copyLimit*2 + 1)
	tree := slowTree{newFileTree(t, content)}
	c := start(t, tree, Limits{}).dial(t)
	big := c.handle("/big")

	const rounds, long, short, behind = 300, copyLimit + 3, 5, 200
	for range rounds {
		for _, count := range []uint32{long, short, short} {
			c.push(progNFS, 3, uint32(gonfs.NFSProcedureRead), readArgsOf(big, 0, count))
		}
		reads := c.xid
		for range behind {
			c.push(progNFS, 3, 0, nil)
		}
		c.flush()
		got := map[int]int{}
		for range 3 + behind {
			xid, d := c.reply()
			if xid > reads {
				continue
			}
			status, data, _ := decodeRead(t, d)
			if status != 0 || !bytes.Equal(data, content[:len(data)]) {
				t.Fatalf("status %d, %d bytes, not those of the file", status, len(data))
			}
			got[len(data)]++
		}
		if got[long] != 1 || got[short] != 2 {
			t.Fatalf("replies by length: %v; want one of %d and two of %d", got, long, short)
		}
	}
}
