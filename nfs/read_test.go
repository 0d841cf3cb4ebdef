package nfs

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	gonfs "github.com/willscott/go-nfs"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/fstest"
	"github.com/rootnfsd/rootnfsd/fs/layer"
	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

// ways returns the ways in which file content is sent, each with a tree that
// has it as /big.
func ways(t *testing.T, content []byte) map[string]fs.Tree {
	spans := newFileTree(t, content)
	pieces := newFileTree(t, content)
	pieces.cut = func(off, n int64) (s []fs.Span) {
		for ; n > 0; off, n = off+7001, n-7001 {
			s = append(s, fs.Span{File: pieces.file, Off: off, Len: min(n, 7001)})
		}
		return s
	}
	memory := sample()
	memory.WriteFile("/big", 0o644, content)
	cold := coldTree(memory)
	own, err := layer.New(newFileTree(t, []byte("the version's")), 1, []layer.File{{Path: "/big", Mode: 0o644, Content: string(content)}})
	if err != nil {
		t.Fatal(err)
	}
	return map[string]fs.Tree{"one span": spans, "many spans": pieces, "copied": memory, "cold": cold, "of a layer": own}
}

func TestRead(t *testing.T) {
	const size = 3<<20 + 5
	content := fstest.Bytes(size)
	for name, tree := range ways(t, content) {
		t.Run(name, func(t *testing.T) {
			c := start(t, tree, Limits{}).dial(t)
			big := c.handle("/big")
			for _, off := range []uint64{0, 1, 4096, copyLimit - 1, 1 << 20, size - copyLimit - 3, size - 2, size - 1, size, size + 1, 1 << 40, math.MaxInt64, math.MaxUint64} {
				for _, count := range []uint32{0, 1, 2, 3, 4, 4096, copyLimit - 1, copyLimit, copyLimit + 1, 128 << 10, maxIO, maxIO + 1, math.MaxUint32} {
					status, data, eof := c.readAt(big, off, count)
					if status != nfsOK {
						t.Fatalf("%d bytes at %d: status %d", count, off, status)
					}
					begin := min(off, size)
					end := min(begin+uint64(min(count, maxIO)), size)
					// A reply may be short if it was cut into too many spans; it
					// must still be right.
					short := name == "many spans" && end-begin > maxSpans*7001
					if short && len(data) > 0 && !eof {
						end = begin + uint64(len(data))
					}
					if !bytes.Equal(data, content[begin:end]) {
						t.Errorf("%d bytes at %d: got %d bytes, not those of the file", count, off, len(data))
					}
					if want := end == size; eof != want {
						t.Errorf("%d bytes at %d: eof %v, want %v", count, off, eof, want)
					}
				}
			}
		})
	}
}

// Replies that are sent in all ways come in order and whole when they are asked
// for at once.
func TestReadPipelined(t *testing.T) {
	content := fstest.Bytes(1 << 20)
	for name, tree := range ways(t, content) {
		t.Run(name, func(t *testing.T) {
			c := start(t, tree, Limits{}).dial(t)
			big := c.handle("/big")
			want := map[uint32][]byte{}
			for i := range uint32(100) {
				off, count := 1001*i, 997*i
				c.push(progNFS, 3, uint32(gonfs.NFSProcedureRead), readArgsOf(big, uint64(off), count))
				want[c.xid] = content[off : off+count]
				c.push(progNFS, 3, 0, nil)
			}
			c.flush()
			for len(want) > 0 {
				xid, d := c.reply()
				if d.Len() == 0 {
					continue // NULL
				}
				if _, data, _ := decodeRead(t, d); !bytes.Equal(data, want[xid]) {
					t.Errorf("xid %d: %d bytes, not the %d wanted", xid, len(data), len(want[xid]))
				}
				delete(want, xid)
			}
		})
	}
}

// TestReadHoles sends spans without a file, which are zeros.
func TestReadHoles(t *testing.T) {
	content := fstest.Bytes(500_000)
	clear(content[100_000:400_001])
	tree := newFileTree(t, content)
	tree.cut = func(off, n int64) []fs.Span {
		return []fs.Span{
			{File: tree.file, Off: off, Len: 100_000 - off},
			{Len: 300_001},
			{File: tree.file, Off: 400_001, Len: n - 400_001 + off},
		}
	}
	c := start(t, tree, Limits{}).dial(t)
	big := c.handle("/big")
	for _, off := range []uint64{0, 17, 99_999} {
		status, data, eof := c.readAt(big, off, 1<<20)
		if status != nfsOK || !eof || !bytes.Equal(data, content[off:]) {
			t.Errorf("at %d: status %d, %d bytes, eof %v", off, status, len(data), eof)
		}
	}
}

// Spans that do not make sense are the tree's fault, and an error to the client.
func TestReadBadSpans(t *testing.T) {
	for name, spans := range map[string][]fs.Span{
		"too much":        {{Len: 100_001}},
		"negative length": {{Len: -1}},
		"negative offset": {{Off: -1, Len: 10}},
		"a sum too high":  {{Len: math.MaxInt64}, {Len: math.MaxInt64}},
	} {
		tree := newFileTree(t, fstest.Bytes(100_000))
		tree.cut = func(int64, int64) []fs.Span { return spans }
		c := start(t, tree, Limits{}).dial(t)
		if status, _, _ := c.readAt(c.handle("/big"), 0, 100_000); status != ioError {
			t.Errorf("%s: status %d", name, status)
		}
		c.wantAlive()
	}
}

// A pack that is shorter than its index says ends the connection, once a part of
// the reply is out: nothing else can be told from data.
func TestReadTruncatedFile(t *testing.T) {
	tree := newFileTree(t, fstest.Bytes(1<<20))
	h := start(t, tree, Limits{})
	c := h.dial(t)
	big := c.handle("/big")
	if err := tree.file.Truncate(300_000); err != nil {
		t.Fatal(err)
	}
	c.push(progNFS, 3, uint32(gonfs.NFSProcedureRead), readArgsOf(big, 0, 1<<20))
	c.flush()
	c.wantClosed()
	h.dial(t).wantAlive()
}

// TestReadOvertakes blocks a READ and wants the calls behind it answered.
func TestReadOvertakes(t *testing.T) {
	release := make(chan struct{})
	tree := sample()
	slowFile := tree.ID("/bin/su")
	fault := &faultTree{Tree: tree, read: func(id fs.NodeID, nowait bool) error {
		switch {
		case id != slowFile:
			return nil
		case nowait:
			return fs.ErrWouldBlock
		}
		<-release
		return nil
	}}
	c := start(t, fault, Limits{}).dial(t)
	su, passwd := c.handle("/bin/su"), c.handle("/etc/passwd")

	c.cred = authSys(7, 7, 1, 2, 3)
	c.push(progNFS, 3, uint32(gonfs.NFSProcedureRead), readArgsOf(su, 5, 10_000))
	blocked := c.xid
	c.cred = authSys(0, 0)
	for range 50 {
		c.push(progNFS, 3, uint32(gonfs.NFSProcedureGetAttr), func(e *wire.Encoder) { e.Opaque(passwd) })
		c.push(progNFS, 3, uint32(gonfs.NFSProcedureRead), readArgsOf(passwd, 0, 10))
	}
	c.flush()
	for range 100 {
		if xid, _ := c.reply(); xid == blocked {
			t.Fatal("the blocked READ was answered")
		}
	}
	close(release)
	xid, d := c.reply()
	status, data, _ := decodeRead(t, d)
	if xid != blocked || status != nfsOK || !bytes.Equal(data, fstest.Bytes(70_000)[5:10_005]) {
		t.Errorf("xid %d, status %d, %d bytes", xid, status, len(data))
	}
}

// TestReadBlocksOthersOnlyAtLimits has more READs wait than a connection may:
// the connection stops, another one does not.
func TestReadBlocksOthersOnlyAtLimits(t *testing.T) {
	release := make(chan struct{})
	fault := &faultTree{Tree: sample(), read: func(_ fs.NodeID, nowait bool) error {
		if nowait {
			return fs.ErrWouldBlock
		}
		<-release
		return nil
	}}
	const atOnce = 3
	h := start(t, fault, Limits{PendingConn: atOnce * replySize, Pending: 100 * replySize})
	c, other := h.dial(t), h.dial(t)
	passwd := c.handle("/etc/passwd")
	for range 4 * atOnce {
		c.push(progNFS, 3, uint32(gonfs.NFSProcedureRead), readArgsOf(passwd, 0, 10))
	}
	c.push(progNFS, 3, 0, nil)
	null := c.xid
	c.flush()
	other.wantAlive()
	close(release)
	seen := 0
	for {
		if xid, _ := c.reply(); xid == null {
			break
		}
		seen++
	}
	if seen < 3*atOnce {
		t.Errorf("%d of %d READs were answered before the call behind them: the limit did not hold it", seen, 4*atOnce)
	}
	for range 4*atOnce - seen {
		c.reply()
	}
}

// The bound of the whole server holds over connections, and all get on.
func TestReadManyWait(t *testing.T) {
	h := start(t, coldTree(sample()), Limits{PendingConn: 2 * replySize, Pending: replySize, Disk: 1})
	var all sync.WaitGroup
	for range 8 {
		c := h.dial(t)
		passwd := c.handle("/etc/passwd")
		all.Go(func() {
			for range 100 {
				c.push(progNFS, 3, uint32(gonfs.NFSProcedureRead), readArgsOf(passwd, 0, 10))
			}
			c.flush()
			for range 100 {
				if _, err := c.receive(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
}

func TestReadErrors(t *testing.T) {
	damaged := fmt.Errorf("pack 1234: /bin/su: %w", fs.ErrIO)
	var fault atomic.Pointer[error]
	tree := &faultTree{Tree: sample(), read: func(fs.NodeID, bool) error {
		if err := fault.Load(); err != nil {
			return *err
		}
		return nil
	}}
	h := start(t, tree, Limits{})
	c := h.dial(t)
	for path, large := range map[string]bool{"/etc/passwd": false, "/bin/su": true} {
		fault.Store(nil)
		file := c.handle(path)
		for err, want := range map[error]uint32{
			damaged:                     ioError,
			fs.ErrStale:                 stale,
			errors.New("out of memory"): ioError,
		} {
			fault.Store(&err)
			if status, _, _ := c.readAt(file, 0, 1<<20); status != want {
				t.Errorf("%v (large %v): status %d, want %d", err, large, status, want)
			}
		}
	}
	h.stop()
	logged := h.logs.FilterMessage("input/output error").All()
	if !slices.ContainsFunc(logged, func(e observedEntry) bool {
		return strings.Contains(fmt.Sprint(e.ContextMap()["error"]), "pack 1234")
	}) {
		t.Errorf("the log does not say what is damaged: %v", logged)
	}
}

// TestPanic has a call panic, on the connection's goroutine and on another.
func TestPanic(t *testing.T) {
	tree := &faultTree{Tree: sample(), read: func(id fs.NodeID, nowait bool) error {
		if nowait {
			return fs.ErrWouldBlock
		}
		panic("read")
	}}
	tree.lookup = func(name fs.Name) {
		if string(name) == "panic" {
			panic("lookup")
		}
	}
	h := start(t, tree, Limits{})
	other := h.dial(t)
	for name, args := range map[string]func(c *client){
		"lookup": func(c *client) {
			c.push(progNFS, 3, uint32(gonfs.NFSProcedureLookup), lookupArgs(c.mount("/"), "panic"))
		},
		"read": func(c *client) {
			c.push(progNFS, 3, uint32(gonfs.NFSProcedureRead), readArgsOf(c.handle("/etc/passwd"), 0, 10))
		},
	} {
		c := h.dial(t)
		args(c)
		c.flush()
		c.wantClosed()
		other.wantAlive()
		if !slices.ContainsFunc(h.logs.FilterMessage("a call failed in a way that it must not").All(), func(e observedEntry) bool {
			fields := e.ContextMap()
			return fields["panic"] == name && fields["client"] == c.conn.LocalAddr().String() && fields["call"] != nil
		}) {
			t.Errorf("the panic in %s is not logged", name)
		}
	}
}
