package hostdir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs"
)

// remote does o by the tree.
func (w *world) remote(c *fs.Cred, o op) (string, error) {
	var a fs.Attr
	mode := &fs.SetAttr{Mode: ptr(uint32(o.A))}
	onParent := func(do func(dir fs.Handle, name fs.Name) error) error {
		dir, name, err := w.parent(c, o.Path)
		if err != nil {
			return err
		}
		return do(dir, name)
	}
	onObject := func(do func(h fs.Handle) error) error {
		h, _, err := w.look(c, o.Path)
		if err != nil {
			return err
		}
		return do(h)
	}
	set := func(s *fs.SetAttr) (string, error) {
		return "", onObject(func(h fs.Handle) error {
			_, err := w.Setattr(c, h, s, nil)
			return err
		})
	}
	mknod := func(kind fs.Kind, major, minor uint32) (string, error) {
		return "", onParent(func(dir fs.Handle, name fs.Name) error {
			_, _, err := w.Mknod(c, dir, name, kind, major, minor, mode, &a)
			return err
		})
	}
	switch o.Call {
	case "create":
		return "", onParent(func(dir fs.Handle, name fs.Name) error {
			_, _, err := w.Create(c, dir, name, fs.Guarded, mode, fs.Verifier{}, &a)
			return err
		})
	case "mkdir":
		return "", onParent(func(dir fs.Handle, name fs.Name) error {
			_, _, err := w.Mkdir(c, dir, name, mode, &a)
			return err
		})
	case "symlink":
		return "", onParent(func(dir fs.Handle, name fs.Name) error {
			_, _, err := w.Symlink(c, dir, name, []byte(o.Other), nil, &a)
			return err
		})
	case "mkfifo":
		return mknod(fs.FIFO, 0, 0)
	case "mksock":
		return mknod(fs.Socket, 0, 0)
	case "mkchar":
		return mknod(fs.CharDevice, 1, 3)
	case "unlink":
		return "", onParent(func(dir fs.Handle, name fs.Name) error {
			_, err := w.Remove(c, dir, name)
			return err
		})
	case "rmdir":
		return "", onParent(func(dir fs.Handle, name fs.Name) error {
			_, err := w.Rmdir(c, dir, name)
			return err
		})
	case "rename":
		return "", onParent(func(dir fs.Handle, name fs.Name) error {
			to, newName, err := w.parent(c, o.Other)
			if err == nil {
				_, _, err = w.Rename(c, dir, name, to, newName)
			}
			return err
		})
	case "link":
		return "", onObject(func(h fs.Handle) error {
			dir, name, err := w.parent(c, o.Other)
			if err == nil {
				_, err = w.Link(c, h, dir, name, &a)
			}
			return err
		})
	case "chmod":
		return set(mode)
	case "chown":
		s := &fs.SetAttr{}
		if o.A >= 0 {
			s.UID = ptr(uint32(o.A))
		}
		if o.B >= 0 {
			s.GID = ptr(uint32(o.B))
		}
		return set(s)
	case "truncate":
		return set(&fs.SetAttr{Size: ptr(uint64(o.A))})
	case "utime":
		return set(&fs.SetAttr{Atime: &fs.SetTime{Time: fs.Time{Sec: o.A}}, Mtime: &fs.SetTime{Time: fs.Time{Sec: o.B}}})
	case "touch":
		return set(&fs.SetAttr{Atime: &fs.SetTime{Now: true}, Mtime: &fs.SetTime{Now: true}})
	case "write":
		return "", onObject(func(h fs.Handle) error {
			_, _, err := w.Write(c, h, uint64(o.A), []byte(o.Other), fs.Unstable)
			return err
		})
	case "read":
		var text [64]byte
		n := 0
		err := onObject(func(h fs.Handle) (err error) {
			n, _, err = w.Read(c, h, uint64(o.A), text[:])
			return err
		})
		return string(text[:n]), err
	case "readlink":
		var text []byte
		err := onObject(func(h fs.Handle) (err error) {
			text, err = w.Readlink(c, h, nil)
			return err
		})
		return string(text), err
	case "access":
		text := ""
		err := onObject(func(h fs.Handle) error {
			has, err := w.Access(c, h, fs.MayRead|fs.MayWrite|fs.MayExec)
			for _, r := range []fs.Perm{4, 2, 1} {
				if has&r != 0 {
					text += fmt.Sprint(int(r))
				}
			}
			return err
		})
		return text, err
	case "list":
		var names []string
		err := onObject(func(h fs.Handle) (err error) {
			names, err = w.names(c, h)
			return err
		})
		return strings.Join(names, " "), err
	}
	panic("no such call: " + o.Call)
}

// names lists a directory, sorted, a few entries at a time.
func (w *world) names(c *fs.Cred, h fs.Handle) ([]string, error) {
	var names []string
	entries := make([]fs.HostEntry, 3)
	for cookie, eof := uint64(0), false; !eof; {
		var n int
		var err error
		if n, eof, err = w.ReadDir(c, h, cookie, true, entries); err != nil {
			return nil, err
		}
		for i := range entries[:n] {
			cookie = entries[i].Cookie
			if name := string(entries[i].Name); name != "." && name != ".." {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return names, nil
}

// step is one line of the table: who does what. Where NFSv3 has to answer
// otherwise than a local file system, nfs is the answer and why the reason.
type step struct {
	who *fs.Cred
	op  op
	nfs fs.Error
	why string
}

const (
	override = "the owner may read and write whatever the mode, because there is no open at which it had the right"
	execRead = "who may execute a file may read it, to load it"
	ok       = fs.Error(0)
)

// posix is done one after the other, on both sides.
var posix = []step{
	// Making things: modes, owners, groups.
	{who: root, op: op{Call: "mkdir", Path: "pub", A: 0o777}},
	{who: root, op: op{Call: "mkdir", Path: "tmp", A: 0o1777}},
	{who: alice, op: op{Call: "mkdir", Path: "pub/a", A: 0o750}},
	{who: alice, op: op{Call: "mkdir", Path: "pub/a", A: 0o750}},
	{who: alice, op: op{Call: "create", Path: "pub/a/f", A: 0o640}},
	{who: alice, op: op{Call: "create", Path: "pub/a/f", A: 0o640}},
	{who: alice, op: op{Call: "create", Path: "pub/a/suid", A: 0o4755}},
	{who: alice, op: op{Call: "create", Path: "pub/a/open", A: 0o666}},
	{who: alice, op: op{Call: "create", Path: "pub/a/none/f", A: 0o640}},
	{who: alice, op: op{Call: "create", Path: "pub/a/f/f", A: 0o640}},
	{who: bob, op: op{Call: "create", Path: "pub/a/bob", A: 0o640}},
	{who: carol, op: op{Call: "mkdir", Path: "pub/a/carol", A: 0o755}},
	{who: alice, op: op{Call: "mkdir", Path: "pub/sticky", A: 0o3777}},
	{who: alice, op: op{Call: "create", Path: "pub/" + strings.Repeat("n", 255), A: 0o600}},
	{who: alice, op: op{Call: "symlink", Path: "pub/l", Other: "../../../etc/passwd"}},
	{who: alice, op: op{Call: "symlink", Path: "pub/l", Other: "x"}},
	{who: alice, op: op{Call: "symlink", Path: "pub/empty", Other: ""}},
	{who: alice, op: op{Call: "readlink", Path: "pub/l"}},
	{who: alice, op: op{Call: "readlink", Path: "pub/a/f"}},
	{who: alice, op: op{Call: "mkfifo", Path: "pub/fifo", A: 0o622}},
	{who: alice, op: op{Call: "mksock", Path: "pub/sock", A: 0o777}},
	{who: alice, op: op{Call: "mkchar", Path: "pub/null", A: 0o666}},
	{who: root, op: op{Call: "mkchar", Path: "pub/null", A: 0o666}},

	// Directories that hand on their group.
	{who: root, op: op{Call: "mkdir", Path: "team", A: 0o770}},
	{who: root, op: op{Call: "chown", Path: "team", A: 0, B: 2000}},
	{who: root, op: op{Call: "chmod", Path: "team", A: 0o2770}},
	{who: alice, op: op{Call: "create", Path: "team/f", A: 0o660}},
	{who: alice, op: op{Call: "create", Path: "team/g", A: 0o2771}},
	{who: alice, op: op{Call: "mkdir", Path: "team/d", A: 0o755}},
	{who: bob, op: op{Call: "write", Path: "team/f", Other: "by bob"}},
	{who: alice, op: op{Call: "read", Path: "team/f"}},
	{who: carol, op: op{Call: "read", Path: "team/f"}},
	{who: carol, op: op{Call: "list", Path: "team"}},
	{who: bob, op: op{Call: "list", Path: "team"}},

	// Reading and writing.
	{who: alice, op: op{Call: "write", Path: "pub/a/f", Other: "0123456789"}},
	{who: alice, op: op{Call: "read", Path: "pub/a/f", A: 4}},
	{who: alice, op: op{Call: "read", Path: "pub/a/f", A: 10}},
	{who: alice, op: op{Call: "read", Path: "pub/a/f", A: 1 << 40}},
	{who: bob, op: op{Call: "read", Path: "pub/a/f"}},
	{who: root, op: op{Call: "read", Path: "pub/a/f"}},
	{who: root, op: op{Call: "read", Path: "pub/a"}},
	{who: alice, op: op{Call: "write", Path: "pub/a", Other: "x"}},
	{who: alice, op: op{Call: "chmod", Path: "pub/a", A: 0o755}},
	{who: bob, op: op{Call: "read", Path: "pub/a/f"}},
	{who: bob, op: op{Call: "write", Path: "pub/a/f", Other: "x"}},
	{who: bob, op: op{Call: "write", Path: "pub/a/open", Other: "x"}},
	{who: bob, op: op{Call: "truncate", Path: "pub/a/f", A: 3}},
	{who: alice, op: op{Call: "truncate", Path: "pub/a/f", A: 3}},
	{who: alice, op: op{Call: "truncate", Path: "pub/a/f", A: 100000}},
	{who: alice, op: op{Call: "truncate", Path: "pub/a", A: 3}},
	{who: alice, op: op{Call: "write", Path: "pub/a/f", Other: "far", A: 1 << 30}},
	{who: alice, op: op{Call: "chmod", Path: "pub/a/f", A: 0o444}},
	{who: alice, op: op{Call: "write", Path: "pub/a/f", Other: "mine"}, nfs: ok, why: override},
	{who: alice, op: op{Call: "chmod", Path: "pub/a/f", A: 0}},
	{who: alice, op: op{Call: "access", Path: "pub/a/f"}},
	{who: alice, op: op{Call: "truncate", Path: "pub/a/f", A: 7}, nfs: ok, why: override},
	{who: alice, op: op{Call: "read", Path: "pub/a/f"}, nfs: ok, why: override},
	{who: bob, op: op{Call: "read", Path: "pub/a/f"}},
	{who: alice, op: op{Call: "chmod", Path: "pub/a/f", A: 0o711}},
	{who: bob, op: op{Call: "read", Path: "pub/a/f"}, nfs: ok, why: execRead},
	{who: bob, op: op{Call: "write", Path: "pub/a/f", Other: "x"}},

	// The setuid and setgid bits go when others write or the owner changes.
	{who: alice, op: op{Call: "chmod", Path: "pub/a/suid", A: 0o6777}},
	{who: bob, op: op{Call: "write", Path: "pub/a/suid", Other: "x"}},
	{who: alice, op: op{Call: "chmod", Path: "pub/a/suid", A: 0o4777}},
	{who: bob, op: op{Call: "truncate", Path: "pub/a/suid", A: 0}},
	{who: alice, op: op{Call: "chmod", Path: "pub/a/suid", A: 0o6755}},
	{who: alice, op: op{Call: "chown", Path: "pub/a/suid", A: -1, B: 2000}},
	{who: alice, op: op{Call: "chmod", Path: "pub/a/suid", A: 0o6755}},
	{who: root, op: op{Call: "write", Path: "pub/a/suid", Other: "x"}},
	{who: root, op: op{Call: "chown", Path: "pub/a/suid", A: 1002, B: 1003}},
	{who: bob, op: op{Call: "chmod", Path: "pub/a/suid", A: 0o2755}},

	// Owners.
	{who: alice, op: op{Call: "chown", Path: "pub/a/f", A: 1002, B: -1}},
	{who: alice, op: op{Call: "chown", Path: "pub/a/f", A: 1001, B: 2000}},
	{who: alice, op: op{Call: "chown", Path: "pub/a/f", A: -1, B: 3000}},
	{who: bob, op: op{Call: "chown", Path: "pub/a/f", A: -1, B: 2000}},
	{who: bob, op: op{Call: "chmod", Path: "pub/a/f", A: 0o777}},
	{who: root, op: op{Call: "chown", Path: "pub/l", A: 1002, B: 1002}},
	{who: alice, op: op{Call: "chmod", Path: "pub/fifo", A: 0o600}},
	{who: alice, op: op{Call: "chmod", Path: "pub/sock", A: 0o600}},
	{who: bob, op: op{Call: "chmod", Path: "pub/fifo", A: 0o666}},

	// Times.
	{who: alice, op: op{Call: "utime", Path: "pub/a/f", A: 1000000000, B: 1100000000}},
	{who: alice, op: op{Call: "utime", Path: "pub/a/f", A: -5, B: 1 << 33}},
	{who: bob, op: op{Call: "utime", Path: "pub/a/open", A: 1, B: 2}},
	{who: bob, op: op{Call: "touch", Path: "pub/a/open"}},
	{who: bob, op: op{Call: "touch", Path: "pub/a/f"}},
	{who: bob, op: op{Call: "utime", Path: "pub/l", A: 1, B: 2}},
	{who: alice, op: op{Call: "utime", Path: "pub/fifo", A: 1, B: 2}},
	{who: alice, op: op{Call: "utime", Path: "pub/a", A: 3, B: 4}},

	// Rights as access(2) tells them.
	{who: alice, op: op{Call: "access", Path: "pub/a"}},
	{who: bob, op: op{Call: "access", Path: "pub/a"}},
	{who: root, op: op{Call: "access", Path: "pub/a/open"}},
	{who: root, op: op{Call: "access", Path: "pub/a/f"}},
	{who: bob, op: op{Call: "access", Path: "team"}},
	{who: carol, op: op{Call: "access", Path: "team"}},
	{who: carol, op: op{Call: "access", Path: "team/f"}},
	{who: carol, op: op{Call: "access", Path: "pub/fifo"}},

	// Names.
	{who: alice, op: op{Call: "link", Path: "pub/a/f", Other: "pub/hard"}},
	{who: alice, op: op{Call: "link", Path: "pub/a/f", Other: "pub/hard"}},
	{who: alice, op: op{Call: "link", Path: "pub/a/open", Other: "team/open"}},
	{who: carol, op: op{Call: "link", Path: "pub/a/f", Other: "pub/stolen"}},
	{who: carol, op: op{Call: "link", Path: "pub/a/open", Other: "pub/shared"}},
	{who: bob, op: op{Call: "link", Path: "pub/l", Other: "pub/l2"}},
	{who: alice, op: op{Call: "rename", Path: "pub/hard", Other: "pub/a/f"}}, // the same file: nothing happens
	{who: alice, op: op{Call: "rename", Path: "pub/hard", Other: "team/hard"}},
	{who: carol, op: op{Call: "rename", Path: "team/hard", Other: "pub/hard"}},
	{who: alice, op: op{Call: "rename", Path: "pub/none", Other: "pub/x"}},
	{who: alice, op: op{Call: "rename", Path: "pub/a", Other: "pub/a/inside"}},
	{who: alice, op: op{Call: "rename", Path: "pub/a/f", Other: "team/d"}},
	{who: alice, op: op{Call: "rename", Path: "team/d", Other: "pub/a/f"}},
	{who: alice, op: op{Call: "rename", Path: "team/d", Other: "pub/a"}},
	{who: alice, op: op{Call: "rename", Path: "team/d", Other: "pub/d"}},
	{who: alice, op: op{Call: "mkdir", Path: "pub/e", A: 0o700}},
	{who: alice, op: op{Call: "rename", Path: "pub/d", Other: "pub/e"}},
	{who: bob, op: op{Call: "create", Path: "tmp/bob", A: 0o666}},
	{who: alice, op: op{Call: "unlink", Path: "tmp/bob"}},
	{who: alice, op: op{Call: "rename", Path: "tmp/bob", Other: "tmp/alice"}},
	{who: alice, op: op{Call: "rename", Path: "pub/a/open", Other: "tmp/bob"}},
	{who: bob, op: op{Call: "rename", Path: "tmp/bob", Other: "tmp/b"}},
	{who: bob, op: op{Call: "create", Path: "pub/sticky/bob", A: 0o666}},
	{who: carol, op: op{Call: "unlink", Path: "pub/sticky/bob"}},
	{who: alice, op: op{Call: "unlink", Path: "pub/sticky/bob"}}, // the directory is hers

	// Taking away.
	{who: alice, op: op{Call: "unlink", Path: "pub/a"}},
	{who: alice, op: op{Call: "rmdir", Path: "pub/a"}},
	{who: alice, op: op{Call: "rmdir", Path: "pub/a/f"}},
	{who: alice, op: op{Call: "unlink", Path: "pub/none"}},
	{who: alice, op: op{Call: "rmdir", Path: "pub/none"}},
	{who: bob, op: op{Call: "unlink", Path: "pub/a/f"}},
	{who: alice, op: op{Call: "unlink", Path: "pub/a/f"}},
	{who: alice, op: op{Call: "rmdir", Path: "pub/e"}},
	{who: alice, op: op{Call: "rmdir", Path: "pub/e"}},
	{who: alice, op: op{Call: "rmdir", Path: "pub/sticky"}},
	{who: alice, op: op{Call: "unlink", Path: "pub/fifo"}},
	{who: alice, op: op{Call: "unlink", Path: "pub/l"}},
	{who: carol, op: op{Call: "rename", Path: "pub/null", Other: "pub/a/null"}},
	{who: root, op: op{Call: "list", Path: "pub"}},
	{who: root, op: op{Call: "list", Path: "pub/a"}},
}

// TestPosix does the same things on the tree and, with plain system calls, on a
// directory beside it, and compares the answers and what the directories are
// like after each step.
func TestPosix(t *testing.T) {
	needRoot(t)
	for _, place := range []string{os.TempDir(), "/dev/shm"} {
		t.Run(strings.Trim(strings.ReplaceAll(place, "/", "-"), "-"), func(t *testing.T) {
			t.Setenv("TMPDIR", place)
			comparePosix(t)
		})
	}
}

func comparePosix(t *testing.T) {
	w := newWorld(t)
	plain := tempDir(t)
	agents := make(map[*fs.Cred]*agent)
	for _, c := range []*fs.Cred{root, alice, bob, carol} {
		agents[c] = newAgent(t, c, plain)
	}
	for _, s := range posix {
		here := agents[s.who].do(t, s.op)
		text, err := w.remote(s.who, s.op)
		if s.why != "" {
			if fs.KindOf(err) != s.nfs {
				t.Errorf("user %d: %v: %v, want %v: %s", s.who.UID, s.op, err, s.nfs, s.why)
			}
			if fs.KindOf(kindOfErrno(here)) == s.nfs {
				t.Errorf("user %d: %v is no difference of NFS: local is %v too", s.who.UID, s.op, here.Errno)
			}
			if err == nil { // so that the two stay alike
				agents[root].do(t, s.op)
			}
		} else if fs.KindOf(err) != fs.KindOf(kindOfErrno(here)) || text != here.Text {
			t.Errorf("user %d: %v: %q, %v; local is %q, %v", s.who.UID, s.op, text, err, here.Text, here.Errno)
		}
		if remote, local := portrait(t, w.dir), portrait(t, plain); remote != local {
			t.Fatalf("after user %d: %v:\n%s\nlocal is\n%s", s.who.UID, s.op, remote, local)
		}
	}
}

func kindOfErrno(a answer) error {
	if a.Errno == 0 {
		return nil
	}
	return failure(a.Errno)
}

// portrait describes all that is in dir. Of the times that are the present it
// only says so.
func portrait(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		var st unix.Stat_t
		if err := errors.Join(err, unix.Lstat(path, &st)); err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		size := st.Size
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			size = 0
		}
		age := func(t unix.Timespec) string {
			if sec, _ := t.Unix(); sec < 1.5e9 || sec > 1<<32 {
				return fmt.Sprint(sec)
			}
			return "now"
		}
		fmt.Fprintf(&b, "%s %o %d:%d links %d size %d rdev %d atime %s mtime %s\n",
			name, st.Mode, st.Uid, st.Gid, st.Nlink, size, st.Rdev, age(st.Atim), age(st.Mtim))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
