package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/rootnfsd/rootnfsd/bench/storm"
	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/fstest"
	"github.com/rootnfsd/rootnfsd/nfs"
)

func TestTreePaths(t *testing.T) {
	tree := fstest.NewMemTree(7)
	tree.Mkdir("/a", 0o755)
	deep := tree.Mkdir("/a/b", 0o700)
	file := tree.WriteFile("/a/b/two  words", 0o600, nil)
	tree.Link("/z", file)
	paths := treePaths{}
	for id, want := range map[fs.NodeID]string{tree.Root(): "/", deep: "/a/b", file: "/z"} {
		if got, ok := paths.of(tree, id); !ok || got != want {
			t.Errorf("%d: %q, %v; want %q", id, got, ok, want)
		}
	}
	if got, ok := paths.of(tree, 99); ok {
		t.Errorf("an object that is not there has the path %q", got)
	}
	for _, c := range [][3]string{{"/", "a", "/a"}, {"/a", "b", "/a/b"}, {"/a", "..", "/a/.."}} {
		if got := join(c[0], c[1]); got != c[2] {
			t.Errorf("%s in %s: %s; want %s", c[1], c[0], got, c[2])
		}
	}
}

// TestRecorder records from many goroutines and reads what came of it.
func TestRecorder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "trace")
	r, err := newRecorder(file, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	tree := fstest.NewMemTree(7)
	id := tree.WriteFile("/f", 0o600, nil)
	client := netip.MustParseAddr("192.0.2.1")
	const each, many = 100, 8
	var calling sync.WaitGroup
	for range many {
		calling.Go(func() {
			name := []byte("name")
			for range each {
				r.Record(nfs.Record{Time: time.Now(), Client: client, Program: 100003, Procedure: 6, Tree: tree, Object: id, Offset: 5, Count: 6})
				r.Record(nfs.Record{Time: time.Now(), Client: client, Program: 100003, Procedure: 3, Tree: tree, Object: 1, Name: name})
				name[0] = 'x' // whose the name is
				r.Record(nfs.Record{Time: time.Now(), Client: client, Program: 100003, Procedure: 1, Tree: tree, Object: 99})
				name[0] = 'n'
			}
		})
	}
	calling.Wait()
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
	trace, err := storm.Load(file)
	if err != nil || len(trace.Calls) != 2*each*many {
		t.Fatalf("%v, %v", trace, err)
	}
	for _, c := range trace.Calls {
		c.At = 0
		read := storm.Call{Client: client, Proc: storm.Read, Offset: 5, Count: 6, Path: "/f"}
		lookup := storm.Call{Client: client, Proc: storm.Lookup, Path: "/name"}
		if c != read && c != lookup {
			t.Errorf("recorded %+v", c)
		}
	}
	if b, err := os.ReadFile(file); err != nil || !strings.HasSuffix(string(b), "\n# 1600 calls, 800 lost\n") {
		t.Errorf("%v; it ends in %q", err, b[max(0, len(b)-40):])
	}
}

// TestRecorderDoesNotWait records more than the queue holds, and nobody writes.
func TestRecorderDoesNotWait(t *testing.T) {
	r := &recorder{queue: make(chan recorded, 3)}
	for range 5 {
		r.Record(nfs.Record{Program: 100003})
	}
	if len(r.queue) != 3 || r.lost.Load() != 2 {
		t.Errorf("%d wait, %d are lost", len(r.queue), r.lost.Load())
	}
}
