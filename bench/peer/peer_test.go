package peer

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/bench/rpc"
)

// TestMain lets the test binary be the programs that are started: GoNFS, Limit and PinTFTP
// run what has been asked for with the words of their commands.
func TestMain(m *testing.M) {
	if len(os.Args) == 5 && os.Args[1] == LimitCommand[0] {
		serve := map[string]func(addr, path string) error{GoNFSCommand[1]: ServeGoNFS, LimitCommand[1]: ServeLimit, PinTFTPCommand[1]: ServePinTFTP}
		err := serve[os.Args[2]](os.Args[3], os.Args[4])
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func TestMeter(t *testing.T) {
	m := Meter(os.Getpid())
	before := m.CPU()
	for begun := m.CPU(); m.CPU()-begun < 20*time.Millisecond; {
		// Burn what is to be measured.
	}
	var own unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &own); err != nil {
		t.Fatal(err)
	}
	total := time.Duration(own.Utime.Nano() + own.Stime.Nano())
	if got := m.CPU(); got <= before || got < total-50*time.Millisecond || got > total+50*time.Millisecond {
		t.Errorf("CPU is %v, and was %v; getrusage says %v", got, before, total)
	}

	resident := m.Resident()
	block := make([]byte, 32<<20)
	for i := 0; i < len(block); i += 4096 {
		block[i] = 1
	}
	if got := m.Resident(); got < resident+30<<20 {
		t.Errorf("resident are %d bytes, and were %d before 32 MiB more", got, resident)
	}
	block[0] = 2
	for _, nobody := range []Meter{-1, 0, 1 << 22, 1 << 30} {
		if nobody.CPU() != 0 || nobody.Resident() != 0 {
			t.Errorf("process %d, which is not there, was metered", nobody)
		}
	}
}

// limitFor runs the limit over a file with some content.
func limitFor(t testing.TB) (s *Server, content []byte) {
	t.Helper()
	for i := range 300_000 {
		content = binary.BigEndian.AppendUint32(content, uint32(i))
	}
	file := filepath.Join(t.TempDir(), "pack")
	if err := os.WriteFile(file, content, 0o644); err != nil {
		t.Fatal(err)
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s, err = Limit(t.Context(), program, file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log("the limit says:", lastLines(filepath.Join(s.dir, "output"), 20))
		}
		s.Stop()
	})
	return s, content
}

// TestLimit asks for payloads of all sorts at once, and compares every byte.
func TestLimit(t *testing.T) {
	s, content := limitFor(t)
	type want struct {
		head, payload int
		off           int64
	}
	calls := []want{{28, 0, 0}, {112, 0, 0}, {128, 4096, 8192}, {128, limitCopy, 4}, {128, limitCopy + 4, 4}, {60_000, 0, 0}, {128, 1 << 20, 40}, {28, 4, int64(len(content)) - 4}}
	for range 3 {
		calls = append(calls, calls...)
	}
	conn, err := net.Dial("tcp", s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var out []byte
	for xid, c := range calls {
		out = AppendLimitCall(out, 150, uint32(xid), c.head, c.payload, c.off)
	}
	if len(out) != 150*len(calls) {
		t.Errorf("%d calls have %d bytes", len(calls), len(out))
	}
	go conn.Write(out)
	for xid, c := range calls {
		got := make([]byte, 4+c.head+c.payload)
		if _, err := io.ReadFull(conn, got); err != nil {
			t.Fatal(err)
		}
		head := binary.BigEndian.AppendUint32(nil, 1<<31|uint32(c.head+c.payload))
		head = binary.BigEndian.AppendUint32(head, uint32(xid))
		head = binary.BigEndian.AppendUint32(head, 1)
		head = append(head, make([]byte, 4+c.head-len(head))...)
		if !bytes.Equal(got[:len(head)], head) || !bytes.Equal(got[len(head):], content[c.off:c.off+int64(c.payload)]) {
			t.Errorf("call %d: not the bytes that were asked for", xid)
		}
	}
}

// TestLimitHostile sends what no bench sends. The limit must hang up, and go on.
func TestLimitHostile(t *testing.T) {
	s, content := limitFor(t)
	for name, call := range map[string][]byte{
		"beyond the end":     AppendLimitCall(nil, 100, 1, 28, 4, int64(len(content))),
		"an offset below 0":  AppendLimitCall(nil, 100, 1, 28, 4, -4),
		"a huge payload":     AppendLimitCall(nil, 100, 1, 28, 1<<31-1, 0),
		"a huge head":        AppendLimitCall(nil, 100, 1, 1<<31-1, 0, 0),
		"a huge record":      {0xff, 0xff, 0xff, 0xff},
		"a record too small": {0x80, 0, 0, 4, 0, 0, 0, 1},
		"a fragment":         {0, 0, 0, 100},
	} {
		conn, err := net.Dial("tcp", s.Addr)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		conn.Write(call)
		if n, err := conn.Read(make([]byte, 1)); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %d bytes, %v; want the end", name, n, err)
		}
		conn.Close()
	}
	if !s.Alive() {
		t.Error("it died of it")
	}
}

// TestLimitChurn has connections come and go, most before they are looked at.
func TestLimitChurn(t *testing.T) {
	s, _ := limitFor(t)
	for range 3000 {
		conn, err := net.Dial("tcp", s.Addr)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	if !s.Alive() {
		t.Error("it died of it")
	}
}

func TestGoNFS(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	tree := t.TempDir()
	if err := os.WriteFile(filepath.Join(tree, "file"), []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := GoNFS(t.Context(), program, tree)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	root, err := rpc.Mount(s.MountAddr, s.MountPath, rpc.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := rpc.Dial(s.Addr, rpc.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r, err := c.Do(1, c.AppendLookup(nil, 1, root, []byte("file")))
	if err != nil || !r.OK() {
		t.Fatalf("LOOKUP: %v, %v", err, r.Err())
	}
	var a rpc.Attr
	handle, _ := r.Lookup(&a)
	r, err = c.Do(2, c.AppendRead(nil, 2, bytes.Clone(handle), 0, 100))
	if err != nil || !r.OK() {
		t.Fatalf("READ: %v, %v", err, r.Err())
	}
	n, eof, _ := r.Read()
	if data, ok := r.Data(n); !ok || !eof || string(data) != "content" {
		t.Errorf("READ: %q, the end %v", data, eof)
	}
}

// TestStart holds a start that fails to saying why, and a stop to leaving nothing.
func TestStart(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(t.TempDir(), "nowhere")
	if _, err := Limit(t.Context(), program, missing); err == nil || !strings.Contains(err.Error(), missing) {
		t.Errorf("a file that is not there: %v; want what the program says of it", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Limit(ctx, program, program); !errors.Is(err, context.Canceled) {
		t.Errorf("a start that was cancelled: %v", err)
	}
	s, _ := limitFor(t)
	s.Stop()
	s.Stop() // again is fine
	if _, err := os.Stat(s.dir); s.Alive() || !os.IsNotExist(err) {
		t.Errorf("after the stop: alive %v, its directory %v", s.Alive(), err)
	}
}
