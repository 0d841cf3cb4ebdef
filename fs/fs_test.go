package fs_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/rootnfsd/rootnfsd/fs"
)

const (
	none = fs.Perm(0)
	r    = fs.MayRead
	w    = fs.MayWrite
	x    = fs.MayExec
)

func TestGranted(t *testing.T) {
	for _, c := range []struct {
		what    string
		kind    fs.Kind
		mode    uint32
		cred    fs.Cred
		granted fs.Perm
		canRead bool
	}{
		{"the owner has its own bits", fs.Regular, 0o640, fs.Cred{UID: 10, GID: 1}, r | w, true},
		{"the owner has no others", fs.Regular, 0o077, fs.Cred{UID: 10, GID: 20}, none, true},
		{"the group has its bits", fs.Regular, 0o640, fs.Cred{UID: 11, GID: 20}, r, true},
		{"the group has no others", fs.Regular, 0o707, fs.Cred{UID: 11, GID: 20}, none, false},
		{"a supplementary group is one", fs.Regular, 0o640, fs.Cred{UID: 11, GID: 1, Groups: []uint32{2, 20}}, r, true},
		{"a supplementary group has no others", fs.Regular, 0o604, fs.Cred{UID: 11, GID: 1, Groups: []uint32{20}}, none, false},
		{"others have their bits", fs.Regular, 0o774, fs.Cred{UID: 11, GID: 21}, r, true},
		{"others have no more", fs.Regular, 0o770, fs.Cred{UID: 11, GID: 21}, none, false},
		{"a uid is not a gid", fs.Regular, 0o700, fs.Cred{UID: 20, GID: 10}, none, false},
		{"who may execute can read", fs.Regular, 0o711, fs.Cred{UID: 11, GID: 21}, x, true},
		{"who may write cannot", fs.Regular, 0o722, fs.Cred{UID: 11, GID: 21}, w, false},
		{"special bits give nothing", fs.Regular, 0o7000, fs.Cred{UID: 11, GID: 21}, none, false},
		{"root reads and writes all", fs.Regular, 0, fs.Cred{}, r | w, true},
		{"root executes what anybody may", fs.Regular, 0o001, fs.Cred{}, r | w | x, true},
		{"root executes what the owner may", fs.Regular, 0o100, fs.Cred{}, r | w | x, true},
		{"root searches all", fs.Directory, 0, fs.Cred{}, r | w | x, true},
		{"root's group is not root", fs.Directory, 0o700, fs.Cred{UID: 11}, none, false},
		{"nobody is one of the others", fs.Directory, 0o755, fs.Cred{UID: fs.Nobody, GID: fs.Nobody}, r | x, true},
	} {
		a := &fs.Attr{Kind: c.kind, Mode: c.mode, UID: 10, GID: 20}
		if got := fs.Granted(a, &c.cred); got != c.granted {
			t.Errorf("%s: Granted is %03b, want %03b", c.what, got, c.granted)
		}
		if got := fs.CanRead(a, &c.cred); got != c.canRead {
			t.Errorf("%s: CanRead is %v", c.what, got)
		}
	}
}

func TestParseName(t *testing.T) {
	for _, c := range []struct {
		in   string
		want error
	}{
		{"a", nil},
		{".", nil},
		{"..", nil},
		{"...", nil},
		{" ", nil},
		{"new\nline", nil},
		{"\xff\xfe", nil},
		{strings.Repeat("n", fs.MaxName), nil},
		{strings.Repeat("n", fs.MaxName+1), fs.ErrNameTooLong},
		{strings.Repeat("/", fs.MaxName+1), fs.ErrNameTooLong},
		{"", fs.ErrInvalid},
		{"/", fs.ErrInvalid},
		{"a/", fs.ErrInvalid},
		{"/a", fs.ErrInvalid},
		{"../x", fs.ErrInvalid},
		{"a\x00", fs.ErrInvalid},
		{"\x00", fs.ErrInvalid},
	} {
		name, err := fs.ParseName([]byte(c.in))
		if err != c.want || err == nil && string(name) != c.in {
			t.Errorf("%q: %q, %v, want %v", c.in, name, err, c.want)
		}
	}
}

func TestDots(t *testing.T) {
	for _, c := range []struct {
		name        string
		dot, dotDot bool
	}{{".", true, false}, {"..", false, true}, {"...", false, false}, {"a", false, false}, {".a", false, false}, {"a.", false, false}} {
		if n := fs.Name(c.name); n.IsDot() != c.dot || n.IsDotDot() != c.dotDot {
			t.Errorf("%q: IsDot %v, IsDotDot %v", c.name, n.IsDot(), n.IsDotDot())
		}
	}
}

func TestKindOf(t *testing.T) {
	for _, c := range []struct {
		err  error
		want fs.Error
	}{
		{nil, 0},
		{fs.ErrNotExist, fs.ErrNotExist},
		{fs.ErrWouldBlock, fs.ErrWouldBlock},
		{fmt.Errorf("open x: %w", fs.ErrStale), fs.ErrStale},
		{fmt.Errorf("open: %w", fmt.Errorf("x: %w", fs.ErrAccess)), fs.ErrAccess},
		{errors.Join(io.EOF, fs.ErrReadOnly), fs.ErrReadOnly},
		{io.EOF, fs.ErrIO},
		{fmt.Errorf("open x: %w", io.EOF), fs.ErrIO},
	} {
		if got := fs.KindOf(c.err); got != c.want {
			t.Errorf("%v: %v, want %v", c.err, got, c.want)
		}
	}
}
