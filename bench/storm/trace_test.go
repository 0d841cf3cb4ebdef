package storm

import (
	"bytes"
	"math"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

var pi = netip.MustParseAddr("192.0.2.11")

// oddCalls are calls whose fields are hard to write.
var oddCalls = []Call{
	{0, pi, Mnt, 0, 0, "/images"},
	{0, pi, Null, 0, 0, ""},
	{time.Microsecond, pi, Lookup, 0, 0, "/usr/share/two  words"},
	{time.Second, netip.MustParseAddr("fe80::1"), Read, math.MaxUint64, math.MaxUint32, "/new\nline\tand tab"},
	{time.Hour, pi, Readdirplus, 1 << 62, 32768, "/invalid \xff UTF-8"},
	{time.Hour, pi, Getacl, 0, 5, `/back\slash`},
	{time.Hour, pi, Setacl, 0, 0, `"`},
	{time.Hour, pi, Readdir, 3, 4096, "/ümlaut"},
	{1<<53*time.Microsecond - time.Microsecond, pi, Commit, 0, 0, "#"},
}

func TestRoundTrip(t *testing.T) {
	var file bytes.Buffer
	w := NewWriter(&file)
	for _, c := range oddCalls {
		if err := w.Write(c); err != nil {
			t.Fatal(err)
		}
	}
	w.Comment("9 calls\n0 lost")
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	got, err := Parse(&file)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.Calls, oddCalls) {
		t.Errorf("got\n%v, want\n%v", got.Calls, oddCalls)
	}
}

// TestFormat holds the writer against lines that were written by hand: traces are
// kept.
func TestFormat(t *testing.T) {
	var file bytes.Buffer
	w := NewWriter(&file)
	for _, c := range []Call{
		{1204 * time.Microsecond, pi, Mnt, 0, 0, "/images"},
		{3702 * time.Microsecond, pi, Read, 4096, 131072, "/usr/lib/two words"},
		{3703 * time.Microsecond, pi, Lookup, 0, 0, "/a\tb"},
	} {
		w.Write(c)
	}
	w.Flush()
	const want = "rootnfsd trace 1\n# microseconds\tclient\tprocedure\toffset\tcount\tpath\n" +
		"1204\t192.0.2.11\tMNT\t0\t0\t/images\n" +
		"3702\t192.0.2.11\tREAD\t4096\t131072\t/usr/lib/two words\n" +
		"3703\t192.0.2.11\tLOOKUP\t0\t0\t\"/a\\tb\"\n"
	if file.String() != want {
		t.Errorf("got\n%s, want\n%s", file.String(), want)
	}
}

func TestParseSorts(t *testing.T) {
	got, err := Parse(strings.NewReader("rootnfsd trace 1\n2\t::1\tNULL\t0\t0\t/b\n1\t::1\tNULL\t0\t0\t/a\n2\t::1\tNULL\t0\t0\t/c\n"))
	if err != nil || len(got.Calls) != 3 || got.Calls[0].Path != "/a" || got.Calls[1].Path != "/b" || got.Calls[2].Path != "/c" {
		t.Errorf("%v, %v", got, err)
	}
}

func TestParseRefuses(t *testing.T) {
	const header = "rootnfsd trace 1\n"
	for what, in := range map[string]string{
		"nothing":             "",
		"another file":        "#!/bin/sh\n",
		"another format":      "rootnfsd trace 2\n",
		"five fields":         header + "1\t::1\tNULL\t0\t0\n",
		"no path":             header + "1\t::1\tNULL\t0\t0\t\n",
		"an open quote":       header + "1\t::1\tNULL\t0\t0\t\"/a\n",
		"a time below zero":   header + "-1\t::1\tNULL\t0\t0\t/\n",
		"a time without end":  header + "9007199254740992\t::1\tNULL\t0\t0\t/\n",
		"no address":          header + "1\tnode1\tNULL\t0\t0\t/\n",
		"an unknown call":     header + "1\t::1\tOPEN\t0\t0\t/\n",
		"an offset too large": header + "1\t::1\tREAD\t18446744073709551616\t0\t/\n",
		"a count too large":   header + "1\t::1\tREAD\t0\t4294967296\t/\n",
		"a path too long":     header + "1\t::1\tREAD\t0\t0\t/" + strings.Repeat("a", MaxPath),
		"a line without end":  header + "1\t::1\tREAD\t0\t0\t/" + strings.Repeat("a", maxLine),
	} {
		if _, err := Parse(strings.NewReader(in)); err == nil {
			t.Errorf("%s is taken for a trace", what)
		}
	}
}

func TestProcOf(t *testing.T) {
	for _, c := range []struct {
		program, procedure uint32
		want               string
	}{{100003, 0, "NULL"}, {100003, 6, "READ"}, {100003, 21, "COMMIT"}, {100227, 1, "GETACL"}, {100227, 2, "SETACL"}, {100005, 1, "MNT"}} {
		if p, ok := ProcOf(c.program, c.procedure); !ok || p.String() != c.want {
			t.Errorf("%d.%d: %v, %v; want %s", c.program, c.procedure, p, ok, c.want)
		}
	}
	for _, c := range [][2]uint32{{100003, 22}, {100227, 3}, {100005, 3}, {100000, 3}} {
		if p, ok := ProcOf(c[0], c[1]); ok {
			t.Errorf("%d is taken for %v", c, p)
		}
	}
}

// FuzzParse holds what is parsed against what writing it again gives.
func FuzzParse(f *testing.F) {
	var file bytes.Buffer
	w := NewWriter(&file)
	for _, c := range oddCalls {
		w.Write(c)
	}
	w.Flush()
	f.Add(file.Bytes())
	f.Add([]byte("rootnfsd trace 1\n# comment\n\n01\t::ffff:1.2.3.4\tMNT\t1\t1\t\\x\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		first, err := Parse(bytes.NewReader(in))
		if err != nil {
			return
		}
		var out bytes.Buffer
		w := NewWriter(&out)
		for _, c := range first.Calls {
			w.Write(c)
		}
		w.Flush()
		second, err := Parse(&out)
		if err != nil {
			t.Fatal(err)
		}
		if len(first.Calls)+len(second.Calls) > 0 && !reflect.DeepEqual(first, second) {
			t.Errorf("%v became %v", first, second)
		}
	})
}
