package integration

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/bench/peer"
	"github.com/rootnfsd/rootnfsd/bench/rpc"
)

// TestPromoteWarms lets a node read one of two files while it boots v1. Before
// v2 is promoted, or the server starts again, that is what is brought into
// memory, and nothing else.
func TestPromoteWarms(t *testing.T) {
	const size = 8 << 20
	content := make([]byte, 3*size)
	rand.NewChaCha8([32]byte{2}).Read(content)
	read, other, changed := string(content[:size]), string(content[size:2*size]), string(content[2*size:])
	store := newStore(t, map[string]files{
		"v1": {"boot/read": read, "boot/other": other},
		"v2": {"boot/another": other + "!", "boot/read": changed},
		"v3": {"boot/read": changed},
	})
	at := "--export=" + store
	cli(t, "seal", at)
	cli(t, "promote", "v1", at)
	bootOnce(t, store)

	chillStore(t, store)
	cli(t, "promote", "v2", at, "--no-verify", "--no-warm")
	if n := warmBytes(t, store); n > size/8 {
		t.Errorf("promote --no-warm brought %d bytes into memory", n)
	}
	cli(t, "promote", "v3", at, "--no-verify")
	if n := warmBytes(t, store); n < size || n > size+size/2 {
		t.Errorf("a promote brought %d bytes into memory; want the %d of the file that was read", n, size)
	}

	chillStore(t, store)
	s, err := peer.Rootnfsd(t.Context(), rootnfsd, store, "v3")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	for deadline := time.Now().Add(time.Minute); warmBytes(t, store) < size; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the server does not warm what is promoted")
		}
	}
	if n := warmBytes(t, store); n > size+size/2 {
		t.Errorf("the server brought %d bytes into memory; want %d", n, size)
	}
}

// bootOnce runs a server while a node boots what is promoted, and reads /boot/read.
func bootOnce(t *testing.T, store string) {
	t.Helper()
	s, err := peer.Rootnfsd(t.Context(), rootnfsd, store, "v1")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop() // which saves what was learnt
	conn, err := rpc.Dial(s.Addr, rpc.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.Caller = rpc.Caller{} // no credentials, like klibc's nfsmount
	root, err := conn.Mount("/images/boot")
	if err != nil {
		t.Fatal(err)
	}
	conn.Caller = rpc.NewCaller(0, 0)
	reply, err := conn.Do(1, conn.AppendLookup(nil, 1, root, []byte("read")))
	if err != nil {
		t.Fatal(err)
	}
	var a rpc.Attr
	file, ok := reply.Lookup(&a)
	if !ok {
		t.Fatal(reply.Err())
	}
	const piece = 128 << 10
	handle := append([]byte(nil), file...)
	for off := uint64(0); off < a.Size; off += piece {
		reply, err := conn.Do(2, conn.AppendRead(nil, 2, handle, off, piece))
		if err != nil || !reply.OK() {
			t.Fatal(err, reply)
		}
	}
}

// eachPack calls do for each pack of a store.
func eachPack(t *testing.T, store string, do func(f *os.File)) {
	t.Helper()
	packs, err := filepath.Glob(filepath.Join(store, ".rootnfsd/packs/*.pack"))
	if err != nil || packs == nil {
		t.Fatalf("%q, %v; want packs", packs, err)
	}
	for _, path := range packs {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		do(f)
		f.Close()
	}
}

// chillStore makes the kernel forget all packs of a store, and skips the test if
// it does not.
func chillStore(t *testing.T, store string) {
	t.Helper()
	eachPack(t, store, func(f *os.File) {
		if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
			t.Fatal(err)
		}
	})
	if n := warmBytes(t, store); n > 1<<20 {
		t.Skipf("%d bytes of the packs stay in memory", n)
	}
}

// warmBytes is how much of the packs of a store is in memory.
func warmBytes(t *testing.T, store string) (n int) {
	t.Helper()
	page := os.Getpagesize()
	eachPack(t, store, func(f *os.File) {
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		m, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Munmap(m)
		pages := make([]byte, (len(m)+page-1)/page)
		if _, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&m[0])), uintptr(len(m)), uintptr(unsafe.Pointer(&pages[0]))); errno != 0 {
			t.Fatal(errno)
		}
		for _, p := range pages {
			n += int(p&1) * page
		}
	})
	return n
}
