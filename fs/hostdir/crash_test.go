package hostdir

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"

	"github.com/rootnfsd/rootnfsd/fs"
)

const recordSize = 1000

// record is what the writer writes as its nth.
func record(n int) []byte {
	p := make([]byte, recordSize)
	for i := range p {
		p[i] = byte(n + i*i>>4)
	}
	return p
}

// runWriter makes files in the directory that it runs in, and writes records to
// them of which it tells when they are safe, until it is killed.
func runWriter() {
	h, err := NewHost(Options{})
	if err != nil {
		panic(err)
	}
	tree, err := h.Open(".")
	if err != nil {
		panic(err)
	}
	for file := 0; ; file++ {
		var a fs.Attr
		h, _, err := tree.Create(alice, tree.Root(), fs.Name(fmt.Sprintf("%d-%d", os.Getpid(), file)), fs.Guarded, &fs.SetAttr{Mode: ptr(uint32(0o600))}, fs.Verifier{}, &a)
		if err != nil {
			panic(err)
		}
		for n := range 20 {
			_, verf, err := tree.Write(alice, h, uint64(n*recordSize), record(n), fs.Stability(n%3))
			safe := err == nil && n%3 != int(fs.Unstable)
			if !safe && err == nil {
				var now fs.Verifier
				_, now, err = tree.Commit(alice, h)
				safe = err == nil && now == verf
			}
			if safe {
				fmt.Println(hex.EncodeToString(h.Bytes[:h.Len]), n)
			}
		}
	}
}

// TestKilled kills a server over and over at moments that are all the same to
// it. What it acknowledged is there under the handle that it gave out.
func TestKilled(t *testing.T) {
	needRoot(t)
	dir := tempDir(t)
	acknowledged := make(map[fs.Handle]int) // the last record of each file
	for range 10 {
		writeAndKill(t, dir, 1+rand.IntN(60), acknowledged)
	}
	w := openWorld(t, dir)
	for h, last := range acknowledged {
		for n := range last + 1 {
			got := make([]byte, recordSize)
			if _, _, err := w.Read(alice, h, uint64(n*recordSize), got); err != nil || string(got) != string(record(n)) {
				t.Errorf("record %d of %x is lost: %v", n, h.Bytes[:h.Len], err)
			}
		}
	}
	if len(acknowledged) < 10 {
		t.Errorf("%d files after 10 runs", len(acknowledged))
	}
}

// writeAndKill lets a writer run until it has acknowledged so many records.
func writeAndKill(t *testing.T, dir string, records int, acknowledged map[fs.Handle]int) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "HOSTDIR_TEST=writer")
	cmd.Dir = dir
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); records-- {
		var b []byte
		var n int
		if _, err := fmt.Sscanf(lines.Text(), "%x %d", &b, &n); err != nil {
			t.Errorf("%q: %v", lines.Text(), err)
		}
		h := fs.Handle{Len: uint8(len(b))}
		copy(h.Bytes[:], b)
		acknowledged[h] = max(acknowledged[h], n)
		if records == 0 {
			cmd.Process.Kill()
		}
	}
	cmd.Wait()
}

// TestExclusiveAtOnce looks at files while they are made: none is there without
// the verifier, by which a client that asks again after a crash knows it.
func TestExclusiveAtOnce(t *testing.T) {
	w := newWorld(t)
	verf := fs.Verifier{0, 0, 1, 0, 0, 0, 2, 0}
	for i := range 500 {
		name := fmt.Sprint("file", i)
		made := make(chan error)
		go func() {
			var a fs.Attr
			_, _, err := w.Create(alice, w.Root(), fs.Name(name), fs.Exclusive, nil, verf, &a)
			made <- err
		}()
		var info os.FileInfo
		for err := os.ErrNotExist; errors.Is(err, os.ErrNotExist); {
			info, err = os.Lstat(w.at(name))
		}
		if err := <-made; err != nil {
			t.Fatal(err)
		}
		if info == nil || info.ModTime().Unix() != 1<<8 {
			t.Fatalf("%s is there before its verifier", name)
		}
	}
}
