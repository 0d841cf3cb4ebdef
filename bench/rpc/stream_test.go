package rpc

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

// record makes a reply with some results, without a mark.
func record(xid uint32, results []byte) []byte {
	b := appendWords(nil, xid, 1, 0, 0, 0, 0)
	return append(b, results...)
}

// readResults are those of a READ of n bytes.
func readResults(n int) []byte {
	b := appendWords(nil, 0, 1)
	b = append(b, make([]byte, attrSize)...)
	b = appendWords(b, uint32(n), 1)
	return appendOpaque(b, bytes.Repeat([]byte{'x'}, n))
}

// cut makes a record of fragments of at most n bytes.
func cut(rec []byte, n int) []byte {
	var b []byte
	for {
		f := rec[:min(n, len(rec))]
		rec = rec[len(f):]
		mark := uint32(len(f))
		if len(rec) == 0 {
			mark |= 1 << 31
		}
		b = append(appendWords(b, mark), f...)
		if len(rec) == 0 {
			return b
		}
	}
}

// replies feeds a stream in segments of at most n bytes and tells what it finds.
func replies(in []byte, n int, skip bool) (found []string, err error) {
	var s Stream
	var r Reply
	for len(in) > 0 {
		if x := s.Excess(); skip && x > 0 {
			x = min(x, n, len(in))
			s.Skipped(x)
			in = in[x:]
		} else {
			x = copy(s.Space(), in[:min(n, len(in))])
			s.Filled(x)
			in = in[x:]
		}
		for {
			ok, err := s.Next(&r)
			if err != nil {
				return found, err
			}
			if !ok {
				break
			}
			count, eof, ok := r.Read()
			found = append(found, fmt.Sprint(r.XID, r.Size, r.OK(), count, eof, ok))
			if data, whole := r.Data(count); whole && string(data) != strings.Repeat("x", count) {
				return found, fmt.Errorf("reply %d has other data", r.XID)
			} else if !whole && r.Size <= keepLimit {
				return found, fmt.Errorf("reply %d lost its data", r.XID)
			}
		}
	}
	return found, nil
}

func TestStreamFragments(t *testing.T) {
	sizes := []int{0, 1, 4096, 3, keepLimit - 200, keepLimit, 200_000, 5, 70_000, 64}
	for _, fragment := range []int{1 << 30, 1 << 16, 1000, 28, 7} {
		var in []byte
		var want []string
		for i, n := range sizes {
			rec := record(uint32(i), readResults(n))
			in = append(in, cut(rec, fragment)...)
			want = append(want, fmt.Sprint(i, len(rec), true, n, true, true))
		}
		for _, segment := range []int{1 << 20, 4096, 1001, 11} {
			for _, skip := range []bool{true, false} {
				got, err := replies(in, segment, skip)
				if err != nil {
					t.Fatalf("fragments of %d, segments of %d: %v", fragment, segment, err)
				}
				if fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("fragments of %d, segments of %d, skip %v:\n%v\nwant\n%v", fragment, segment, skip, got, want)
				}
			}
		}
	}
}

func TestStreamHostile(t *testing.T) {
	const last = 1 << 31
	for name, c := range map[string]struct {
		in   []byte
		want error
	}{
		"a record of 2 GiB":      {appendWords(nil, last|0x7fffffff), errLongRecord},
		"fragments that add up":  {append(appendWords(nil, recordLimit), make([]byte, recordLimit+8)...), errLongRecord},
		"fragments without end":  {make([]byte, 4*(fragmentLimit+2)), errManyFragments},
		"an empty record":        {appendWords(nil, last), errNotReply},
		"a call":                 {cut(appendWords(nil, 1, 0, 2, ProgNFS, 3, 0), 100), errNotReply},
		"a header that ends":     {cut(appendWords(nil, 1, 1, 0, 0, 0), 100), errNotReply},
		"a verifier of 4 GiB":    {cut(appendWords(nil, 1, 1, 0, 0, 0xffffffff, 0), 100), errNotReply},
		"no reason for a denial": {cut(appendWords(nil, 1, 1, 1), 100), errNotReply},
	} {
		in := c.in
		if name == "fragments that add up" {
			binary.BigEndian.PutUint32(in[4+recordLimit:], 1)
		}
		if _, err := replies(in, 1<<20, true); err != c.want {
			t.Errorf("%s: %v; want %v", name, err, c.want)
		}
	}
}

// TestReplyHostile cuts results off at every byte, and lies in every word of them:
// nothing may come out as well-formed that is not, and nothing may panic.
func TestReplyHostile(t *testing.T) {
	attr := make([]byte, attrSize)
	binary.BigEndian.PutUint32(attr, 2)
	postOp := append(appendWords(nil, 1), attr...)
	handle := appendOpaque(nil, bytes.Repeat([]byte{'h'}, 40))
	entry := appendWords(nil, 1, 0, 7)
	entry = appendOpaque(entry, []byte("name"))
	entry = append(appendWords(entry, 0, 9), postOp...)
	entry = append(appendWords(entry, 1), handle...)
	wcc := append(appendWords(nil, 1, 0, 0, 0, 0, 0, 0), postOp...)
	listing := append(bytes.Clone(postOp), make([]byte, 8)...)
	listing = append(listing, entry...)
	listing = append(listing, entry...)
	listing = appendWords(listing, 0, 1)

	results := map[string]struct {
		body  []byte
		parse func(r *Reply) bool
	}{
		"GETATTR":  {attr, func(r *Reply) bool { var a Attr; return r.Getattr(&a) && a.Type == 2 }},
		"ACCESS":   {appendWords(bytes.Clone(postOp), 3), func(r *Reply) bool { _, ok := r.Access(); return ok }},
		"READLINK": {appendOpaque(bytes.Clone(postOp), []byte("text")), func(r *Reply) bool { _, ok := r.Readlink(); return ok }},
		"READ": {readResults(10)[4:], func(r *Reply) bool {
			n, _, ok := r.Read()
			_, whole := r.Data(n)
			return ok && whole
		}},
		"LOOKUP": {append(bytes.Clone(handle), postOp...), func(r *Reply) bool {
			var a Attr
			h, ok := r.Lookup(&a)
			return ok && len(h) == 40
		}},
		"CREATE": {slices.Concat(appendWords(nil, 1), handle, postOp, wcc), func(r *Reply) bool { h, ok := r.Made(); return ok && len(h) == 40 }},
		"REMOVE": {wcc, (*Reply).Changed},
		"WRITE": {appendWords(bytes.Clone(wcc), 9, uint32(FileSync), 0, 5), func(r *Reply) bool {
			n, how, verifier, ok := r.Written()
			return ok && n == 9 && how == FileSync && verifier == 5
		}},
		"COMMIT": {appendWords(bytes.Clone(wcc), 0, 5), func(r *Reply) bool { v, ok := r.Committed(); return ok && v == 5 }},
		"MNT":    {handle, func(r *Reply) bool { h, ok := r.Mount(); return ok && len(h) == 40 }},
		"READDIRPLUS": {listing, func(r *Reply) bool {
			l := r.Readdirplus()
			var e Entry
			n := 0
			for l.Next(&e) {
				n++
				if string(e.Name) != "name" || e.Cookie != 9 || e.FileID != 7 || len(e.Handle) != 40 || e.Attr.Type != 2 {
					return false
				}
			}
			return l.OK() && l.EOF && n == 2
		}},
	}
	for name, c := range results {
		try := func(body []byte) bool {
			var r Reply
			if err := r.decode(record(1, append(appendWords(nil, 0), body...)), 28+len(body)); err != nil {
				t.Fatal(err)
			}
			return c.parse(&r)
		}
		if !try(c.body) {
			t.Errorf("%s: well-formed results were refused", name)
		}
		for n := range c.body {
			if try(c.body[:n]) {
				t.Errorf("%s: results of %d bytes were taken after %d", name, len(c.body), n)
			}
		}
		for n := 0; n < len(c.body); n += 4 {
			lie := bytes.Clone(c.body)
			binary.BigEndian.PutUint32(lie[n:], 0xfffffff0)
			try(lie)
		}
	}
}

func FuzzStream(f *testing.F) {
	f.Add(cut(record(1, readResults(100)), 50), 9)
	f.Add(cut(record(1, readResults(100)), 1000), 1)
	f.Add(appendWords(nil, 0, 0, 0x80000000), 4)
	f.Fuzz(func(t *testing.T, in []byte, segment int) {
		replies(in, 1+max(0, segment)%len(append(in, 0)), true)
	})
}

// TestCalls holds the calls to what the server's own decoder makes of them.
func TestCalls(t *testing.T) {
	h := []byte("handle of 17 byte")
	who := NewCaller(1000, 100)
	var nobody Caller
	mode := uint32(0o644)
	for _, c := range []struct {
		name string
		b    []byte
		proc uint32
		args string
	}{
		{"NULL", who.AppendNull(nil, 7), 0, ""},
		{"GETATTR", who.AppendGetattr(nil, 7, h), 1, "h"},
		{"LOOKUP", who.AppendLookup(nil, 7, h, []byte("name")), 3, "hn"},
		{"ACCESS", who.AppendAccess(nil, 7, h, 31), 4, "h4"},
		{"READLINK", who.AppendReadlink(nil, 7, h), 5, "h"},
		{"READ", who.AppendRead(nil, 7, h, 1<<33, 512), 6, "h84"},
		{"READDIR", who.AppendReaddir(nil, 7, h, 1<<33, 5, 512), 16, "h884"},
		{"READDIRPLUS", who.AppendReaddirplus(nil, 7, h, 1<<33, 5, 512), 17, "h8844"},
		{"FSSTAT", who.AppendFsstat(nil, 7, h), 18, "h"},
		{"FSINFO", who.AppendFsinfo(nil, 7, h), 19, "h"},
		{"WRITE", who.AppendWrite(nil, 7, h, 1<<33, []byte("name"), FileSync), 7, "h844n"},
		{"COMMIT", who.AppendCommit(nil, 7, h), 21, "h444"},
		{"SETATTR", who.AppendSetattr(nil, 7, h, SetAttr{Mode: &mode, Mtime: &Time{Sec: 1, Nsec: 2}}), 2, "h44" + "4444" + "444" + "4"},
		{"CREATE", who.AppendCreate(nil, 7, h, []byte("name"), SetAttr{Mode: &mode}), 8, "hn4" + "44" + "44444"},
		{"exclusive CREATE", who.AppendCreateExclusive(nil, 7, h, []byte("name"), 1<<33), 8, "hn48"},
		{"MKDIR", who.AppendMkdir(nil, 7, h, []byte("name"), SetAttr{}), 9, "hn" + "444444"},
		{"SYMLINK", who.AppendSymlink(nil, 7, h, []byte("name"), []byte("name"), SetAttr{}), 10, "hn" + "444444" + "n"},
		{"REMOVE", who.AppendRemove(nil, 7, h, []byte("name")), 12, "hn"},
		{"PATHCONF", nobody.AppendPathconf(nil, 7, h), 20, "h"},
	} {
		if n, last := wire.ParseMark(c.b); int(n) != len(c.b)-wire.MarkSize || !last {
			t.Errorf("%s: its mark says %d bytes of %d, last %v", c.name, n, len(c.b)-wire.MarkSize, last)
		}
		d := wire.NewDecoder(c.b[wire.MarkSize:])
		var call wire.Call
		if v := call.Decode(&d); v != wire.Accept || call.XID != 7 || call.Prog != ProgNFS || call.Vers != 3 || call.Proc != c.proc {
			t.Errorf("%s: %v, %+v", c.name, v, call)
		}
		if call.Cred.Flavor == wire.AuthSys && (call.Cred.UID != 1000 || call.Cred.GID != 100) {
			t.Errorf("%s: it comes from %d:%d", c.name, call.Cred.UID, call.Cred.GID)
		}
		for _, arg := range c.args {
			switch arg {
			case 'h':
				if got := d.Opaque(64); !bytes.Equal(got, h) {
					t.Errorf("%s: its handle is %q", c.name, got)
				}
			case 'n':
				if got := d.Opaque(64); string(got) != "name" {
					t.Errorf("%s: its name is %q", c.name, got)
				}
			case '4':
				d.Uint32()
			case '8':
				if v := d.Uint64(); v != 1<<33 && v != 5 {
					t.Errorf("%s: an argument is %#x", c.name, v)
				}
			}
		}
		if !d.Done() {
			t.Errorf("%s: %d bytes of arguments too many, or too few", c.name, d.Len())
		}
	}
}
