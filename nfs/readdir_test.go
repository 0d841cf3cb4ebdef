package nfs

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"testing"

	gonfs "github.com/willscott/go-nfs"

	"github.com/rootnfsd/rootnfsd/fs/fstest"
	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

// listed is an entry as it came over the wire.
type listed struct {
	id     uint64
	name   string
	cookie uint64
	attr   []byte
	handle []byte
	size   int // of the entry
	short  int // of the part that dircount counts
}

// page is the reply to a READDIR or READDIRPLUS.
type page struct {
	status  uint32
	size    int // of the results after the status
	attr    []byte
	entries []listed
	eof     bool
}

// list makes one READDIR, or READDIRPLUS if dircount is not negative.
func (c *client) list(dir []byte, cookie uint64, dircount, count int) page {
	c.t.Helper()
	return c.listWant(dir, cookie, dircount, count, 42)
}

// listWant is list of a tree with that identity.
func (c *client) listWant(dir []byte, cookie uint64, dircount, count int, fsid uint64) page {
	c.t.Helper()
	proc := gonfs.NFSProcedureReadDir
	if dircount >= 0 {
		proc = gonfs.NFSProcedureReadDirPlus
	}
	d := c.nfs(proc, func(e *wire.Encoder) {
		e.Opaque(dir)
		e.Uint64(cookie)
		e.Uint64(0x1234) // whatever verifier
		if dircount >= 0 {
			e.Uint32(uint32(dircount))
		}
		e.Uint32(uint32(count))
	})
	p := page{status: d.Uint32(), size: d.Len()}
	p.attr = bytes.Clone(attrOf(d))
	if p.status != nfsOK {
		return p
	}
	if verifier := d.Uint64(); verifier != fsid {
		c.t.Errorf("verifier %d, want the tree's identity", verifier)
	}
	for left := d.Len(); d.Bool(); left = d.Len() {
		e := listed{id: d.Uint64()}
		e.name = string(d.Opaque(255))
		e.cookie = d.Uint64()
		e.short = left - d.Len()
		if dircount >= 0 {
			e.attr = bytes.Clone(attrOf(d))
			if d.Bool() {
				e.handle = bytes.Clone(d.Opaque(64))
			}
		}
		e.size = left - d.Len()
		p.entries = append(p.entries, e)
	}
	p.eof = d.Bool()
	if !d.Done() {
		c.t.Fatalf("%d bytes left", d.Len())
	}
	return p
}

// manyFiles returns a tree with a directory of n files whose names have all
// lengths.
func manyFiles(n int) *fstest.MemTree {
	tree := fstest.NewMemTree(42)
	tree.Mkdir("/many", 0o755)
	for i := range n {
		name := fmt.Sprintf("%05d", i)
		for len(name) < 5+i%250 {
			name += "x"
		}
		tree.WriteFile("/many/"+name, 0o644, nil)
	}
	return tree
}

// TestListings reads a directory in replies of every size, and wants each name
// once, no reply larger than asked, and none that had room for one entry more.
func TestListings(t *testing.T) {
	const files = 1000
	tree := manyFiles(files)
	c := start(t, tree, Limits{}).dial(t)
	dir := c.handle("/many")
	all := c.wholeList(dir, 1<<20, 1<<20)
	if len(all) != files+2 || all[0].name != "." || all[1].name != ".." || all[0].id != 2 || all[1].id != 1 {
		t.Fatalf("%d entries, beginning with %v", len(all), all[:2])
	}
	for _, dircount := range []int{-1, 1 << 20, 2000} {
		for _, count := range []int{512, 1000, 1001, 1003, 4096, 8192, 32768, 65535, 65536, 1 << 20, math.MaxInt32} {
			checkPages(t, c, dir, all, dircount, count)
		}
	}
}

// wholeList lists a directory by READDIRPLUS.
func (c *client) wholeList(dir []byte, dircount, count int) (all []listed) {
	c.t.Helper()
	for cookie := uint64(0); ; cookie = all[len(all)-1].cookie {
		p := c.list(dir, cookie, dircount, count)
		if p.status != nfsOK || len(p.entries) == 0 {
			c.t.Fatalf("status %d, %d entries", p.status, len(p.entries))
		}
		all = append(all, p.entries...)
		if p.eof {
			return all
		}
	}
}

// checkPages reads a directory page by page and holds each against all.
func checkPages(t *testing.T, c *client, dir []byte, all []listed, dircount, count int) {
	t.Helper()
	var cookie uint64
	for at := 0; at < len(all); {
		p := c.list(dir, cookie, dircount, count)
		what := fmt.Sprintf("dircount %d, count %d, entry %d", dircount, count, at)
		if p.status != nfsOK || len(p.entries) == 0 {
			t.Fatalf("%s: status %d, %d entries", what, p.status, len(p.entries))
		}
		short := 0
		for i, e := range p.entries {
			want := all[at+i]
			if e.id != want.id || e.name != want.name || e.cookie != want.cookie {
				t.Fatalf("%s: got %v, want %v", what, e, want)
			}
			if dircount >= 0 && !bytes.Equal(e.attr, want.attr) {
				t.Fatalf("%s: attributes of %q differ", what, e.name)
			}
			short += e.short
		}
		at += len(p.entries)
		cookie = p.entries[len(p.entries)-1].cookie
		limit := min(count, maxListing)
		if p.size > limit || dircount >= 0 && short > dircount {
			t.Errorf("%s: %d bytes, %d of them names", what, p.size, short)
		}
		if p.eof != (at == len(all)) {
			t.Fatalf("%s: eof %v after %d of %d", what, p.eof, at, len(all))
		}
		if p.eof {
			return
		}
		next := all[at].size
		if dircount < 0 {
			next = all[at].short
		}
		if p.size+next <= limit && !(dircount >= 0 && short+all[at].short > dircount) {
			t.Errorf("%s: %d bytes, and %q would have fitted in %d", what, p.size, all[at].name, limit)
		}
	}
}

// The boundary of one entry, to the byte.
func TestListingTooSmall(t *testing.T) {
	tree := fstest.NewMemTree(42)
	tree.Mkdir("/d", 0o755)
	c := start(t, tree, Limits{}).dial(t)
	dir := c.handle("/d")
	const head = 4 + attrSize + verifierSize + trailerSize
	for name, test := range map[string]struct{ dircount, entry int }{
		"READDIR":     {-1, 4 + 8 + 4 + 4 + 8},
		"READDIRPLUS": {1 << 20, 4 + 8 + 4 + 4 + 8 + 4 + attrSize + 4 + 4 + len(dir)},
	} {
		for _, count := range []int{0, 1, 24, head - 1, head, head + test.entry - 1} {
			if p := c.list(dir, 0, test.dircount, count); p.status != tooSmall || p.attr == nil {
				t.Errorf("%s with a count of %d: status %d", name, count, p.status)
			}
		}
		if p := c.list(dir, 0, test.dircount, head+test.entry); p.status != nfsOK || len(p.entries) != 1 || p.eof || p.size != head+test.entry {
			t.Errorf("%s with room for one entry: %+v", name, p)
		}
		// At the end there is nothing to find no room for.
		if p := c.list(dir, 2, test.dircount, head); p.status != nfsOK || len(p.entries) != 0 || !p.eof {
			t.Errorf("%s at the end: %+v", name, p)
		}
		if p := c.list(dir, 2, test.dircount, head-1); p.status != tooSmall {
			t.Errorf("%s at the end, without room for the end: %+v", name, p)
		}
	}
	// dircount is advice: too small a one gives one entry.
	for _, dircount := range []int{0, 1, 27, 28, 55} {
		if p := c.list(dir, 0, dircount, 4096); p.status != nfsOK || len(p.entries) != 1 || p.eof {
			t.Errorf("dircount %d: %+v", dircount, p)
		}
	}
}

func TestListingEntries(t *testing.T) {
	tree := sample()
	c := start(t, tree, Limits{}).dial(t)
	for _, path := range []string{"/", "/bin", "/dev", "/links", "/empty", "/times"} {
		dir := c.handle(path)
		var names []string
		for _, e := range c.wholeList(dir, 4096, 4096) {
			names = append(names, e.name)
			child := path + "/" + e.name
			switch e.name {
			case ".":
				child = path
			case "..":
				child = "/"
			}
			wantAttr(t, "READDIRPLUS", e.attr, tree, child)
			if e.id != uint64(tree.ID(child)) || !bytes.Equal(e.handle, c.handle(child)) {
				t.Errorf("%s: id %d or its handle is wrong", child, e.id)
			}
		}
		plain := c.list(dir, 0, -1, 1<<20)
		if got := slices.Collect(func(yield func(string) bool) {
			for _, e := range plain.entries {
				yield(e.name)
			}
		}); !slices.Equal(got, names) {
			t.Errorf("%s: READDIR has %q, READDIRPLUS %q", path, got, names)
		}
	}
}

func TestListingErrors(t *testing.T) {
	tree := sample()
	c := start(t, tree, Limits{}).dial(t)
	for _, dircount := range []int{-1, 4096} {
		for _, path := range []string{"/etc/passwd", "/links/up", "/dev/null"} {
			p := c.list(c.handle(path), 0, dircount, 4096)
			if p.status != notDir {
				t.Errorf("%s: status %d", path, p.status)
			}
			wantAttr(t, "listing", p.attr, tree, path)
		}
		for _, cookie := range []uint64{3, 1 << 40, 1 << 63, 1<<64 - 1} {
			if p := c.list(c.handle("/empty"), cookie, dircount, 4096); p.status != badCookie || p.attr == nil {
				t.Errorf("cookie %d: status %d", cookie, p.status)
			}
		}
	}
}
