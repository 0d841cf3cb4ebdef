package integration

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/bench/peer"
	"github.com/rootnfsd/rootnfsd/bench/rpc"
)

// coldSize is the size of the file that is read from disk in these tests.
const coldSize = 32 << 20

// coldChunk is in what the content is compared with digests.
const coldChunk = 64 << 10

// cold is a server whose file /file can be put out of memory.
type cold struct {
	*peer.Server
	pack string
	file []byte // handle
}

func serveCold(t *testing.T) *cold {
	t.Helper()
	if os.Getenv("TMPDIR") == "" {
		t.Setenv("TMPDIR", "/var/tmp") // which is on a disk, as /tmp need not be
	}
	content := make([]byte, coldSize)
	rand.NewChaCha8([32]byte{1}).Read(content)
	store := newStore(t, map[string]files{"v1": {"file": string(content)}})
	cli(t, "seal", "--export", store)
	packs, err := filepath.Glob(filepath.Join(store, ".rootnfsd/packs/*.pack"))
	if err != nil || len(packs) != 1 {
		t.Fatalf("%q, %v; want one pack", packs, err)
	}
	s, err := peer.Rootnfsd(t.Context(), rootnfsd, store, "v1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	c := &cold{Server: s, pack: packs[0]}
	conn := c.dial(t)
	root, err := conn.Mount(s.MountPath)
	if err != nil {
		t.Fatal(err)
	}
	reply, err := conn.Do(1, conn.AppendLookup(nil, 1, root, []byte("file")))
	if err != nil {
		t.Fatal(err)
	}
	file, ok := reply.Lookup(new(rpc.Attr))
	if !ok {
		t.Fatal(reply.Err())
	}
	c.file = append(c.file, file...)
	return c
}

func (c *cold) dial(t *testing.T) *rpc.Conn {
	t.Helper()
	conn, err := rpc.Dial(c.Addr, rpc.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// chill makes the kernel forget the pack.
func (c *cold) chill(t *testing.T) {
	t.Helper()
	f, err := os.Open(c.pack)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
}

// readAll reads the whole file, which compares it with its digests.
func (c *cold) readAll(t *testing.T, conn *rpc.Conn) {
	t.Helper()
	const piece = 1 << 20
	for off := uint64(0); off < coldSize; off += piece {
		reply, err := conn.Do(7, conn.AppendRead(nil, 7, c.file, off, piece))
		if err != nil {
			t.Fatal(err)
		}
		if n, _, ok := reply.Read(); !ok || n != piece {
			t.Fatalf("%d bytes, %v", n, reply.Err())
		}
	}
}

// stopDisk lets all of the daemon's reads of a disk wait until it is called off:
// for as long as strace holds each of them up.
func (c *cold) stopDisk(t *testing.T) (goOn func()) {
	t.Helper()
	return c.strace(t, "/dev/null", "delay_enter=1000000000")
}

// strace writes the daemon's calls of pread(2) to a file, and interferes with
// them, until it is called off.
func (c *cold) strace(t *testing.T, file, inject string) (stop func()) {
	t.Helper()
	for {
		stop, pid := c.attach(t, file, inject)
		// A thread that was made by one that strace had not come to yet may have escaped it.
		if c.traced(t, pid) {
			return stop
		}
		stop()
	}
}

// attach starts strace, which has come to all threads that it knows of.
func (c *cold) attach(t *testing.T, file, inject string) (stop func(), pid int) {
	t.Helper()
	strace := exec.Command("strace", "-f", "-e", "trace=pread64", "-e", "inject=pread64:"+inject, "-e", "signal=none",
		"-o", file, "-p", fmt.Sprint(int(c.Meter)))
	stderr, err := strace.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := strace.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		strace.Process.Signal(os.Interrupt)
		strace.Wait()
	})
	t.Cleanup(stop)
	if said, err := bufio.NewReader(stderr).ReadString('\n'); err != nil || !strings.Contains(said, "attached") {
		t.Fatalf("strace: %q, %v", said, err)
	}
	return stop, strace.Process.Pid
}

// traced reports whether a process traces all of the daemon's threads, as it then will
// those that they make.
func (c *cold) traced(t *testing.T, by int) bool {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", int(c.Meter)))
	if err != nil || len(threads) == 0 {
		t.Fatalf("the daemon's threads: %q, %v", threads, err)
	}
	for _, thread := range threads {
		status, err := os.ReadFile(thread)
		if err != nil {
			return false
		}
		if !strings.Contains(string(status), fmt.Sprintf("\nTracerPid:\t%d\n", by)) {
			return false
		}
	}
	return true
}

// TestColdReadsHoldUpNobody makes a READ wait for the disk for as long as it
// takes to answer a hundred calls that came behind it on the same connection.
func TestColdReadsHoldUpNobody(t *testing.T) {
	require(t, "strace")
	c := serveCold(t)
	conn := c.dial(t)
	expect := func(what string, off uint64, count uint32) {
		t.Helper()
		c.chill(t)
		goOn := c.stopDisk(t)
		const read, others = 1, 100
		calls := conn.AppendRead(nil, read, c.file, off, count)
		for i := range uint32(others) {
			calls = conn.AppendGetattr(calls, read+1+i, c.file)
		}
		if err := conn.Send(calls); err != nil {
			t.Fatal(err)
		}
		for range others {
			reply, err := conn.Receive()
			if err != nil {
				t.Fatalf("%s: a GETATTR behind a READ of %d bytes: %v", what, count, err)
			}
			if reply.XID == read {
				t.Fatalf("%s: a READ of %d bytes did not wait: this test sees nothing", what, count)
			}
			if !reply.OK() {
				t.Fatal(reply.Err())
			}
		}
		goOn()
		reply, err := conn.Receive()
		if err != nil || reply.XID != read {
			t.Fatalf("%s: %v; want the reply to the READ of %d bytes", what, err, count)
		}
		if n, _, ok := reply.Read(); !ok || n != int(count) {
			t.Fatalf("%s: %d bytes, %v; want %d", what, n, reply.Err(), count)
		}
	}
	sizes := []uint32{4 << 10, 32 << 10, 128 << 10, 1 << 20}
	for i, size := range sizes {
		expect("never read", uint64(i)*4<<20, size)
	}
	c.readAll(t, conn)
	for i, size := range sizes {
		expect("read before", uint64(i)*4<<20, size)
	}
}

// countReads calls do and returns how many times the daemon read whole chunks
// meanwhile, as it does to compare them with their digests. The first read of
// each thread takes a while, so that those who ask for the same come together.
func (c *cold) countReads(t *testing.T, do func()) int {
	t.Helper()
	log := filepath.Join(t.TempDir(), "strace")
	stop := c.strace(t, log, "delay_enter=300000:when=1")
	do()
	stop()
	calls, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(calls), fmt.Sprintf(", %d, ", coldChunk))
}

// TestManyNodesReadOneColdBlock has a thousand nodes ask for what is on disk, at
// the same time, and looks how much was read from there, and how often it was
// compared with its digest.
func TestManyNodesReadOneColdBlock(t *testing.T) {
	require(t, "strace")
	const nodes = 1000
	c := serveCold(t)
	conns := make([]*rpc.Conn, nodes)
	for i := range conns {
		conns[i] = c.dial(t)
	}
	ask := func(count uint32) {
		t.Helper()
		start := make(chan struct{})
		var all sync.WaitGroup
		for _, conn := range conns {
			all.Go(func() {
				<-start
				reply, err := conn.Do(1, conn.AppendRead(nil, 1, c.file, coldSize/2, count))
				if err != nil {
					t.Error(err)
					return
				}
				if n, _, ok := reply.Read(); !ok || n != int(count) {
					t.Errorf("%d bytes, %v; want %d", n, reply.Err(), count)
				}
			})
		}
		close(start)
		all.Wait()
	}
	expect := func(what string, count uint32, ask func(count uint32)) {
		t.Helper()
		c.chill(t)
		before := c.DiskRead()
		ask(count)
		// Nothing is read ahead in a pack but what is left of a chunk, or of the
		// folio that holds it.
		got, most := c.DiskRead()-before, uint64(count+4*coldChunk)
		if got == 0 {
			skip(t, what+": nothing was read from a disk: the store seems to be in memory")
		}
		if got > most {
			t.Errorf("%s: %d nodes that read the same %d bytes made it read %d from the disk; want no more than %d", what, nodes, count, got, most)
		}
		t.Logf("%s, READ of %d: %d bytes from the disk", what, count, got)
	}
	expect("never read", 32<<10, func(count uint32) {
		reads := c.countReads(t, func() { ask(count) })
		// Who found the chunk unverified may come when the others are through.
		if reads < 1 || reads > nodes/100 {
			t.Errorf("the chunk that %d nodes asked for was read %d times to verify it; want once, or a few times", nodes, reads)
		}
		t.Logf("read %d times to verify it", reads)
	})
	c.readAll(t, conns[0])
	expect("read before", 32<<10, ask)
	expect("read before", 128<<10, ask)
}
