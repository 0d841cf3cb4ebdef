package hostdir

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs"
)

// op is a system call on a path, or two.
type op struct {
	Call  string
	Path  string
	Other string // of rename and link; the text of a symlink
	A, B  int64  // mode; owner and group; size; seconds
}

func (o op) String() string {
	return strings.TrimSpace(fmt.Sprintf("%s %s %s %o %o", o.Call, o.Path, o.Other, o.A, o.B))
}

// answer is what came of it.
type answer struct {
	Errno syscall.Errno
	Text  string
}

// agent is a process of a user of the host, to compare with.
type agent struct {
	in  *gob.Encoder
	out *gob.Decoder
}

func newAgent(t *testing.T, c *fs.Cred, dir string) *agent {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "HOSTDIR_TEST=agent")
	cmd.Dir = dir
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	a := &agent{gob.NewEncoder(in), gob.NewDecoder(out)}
	if err := a.in.Encode(c); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *agent) do(t *testing.T, o op) answer {
	t.Helper()
	var r answer
	if err := errors.Join(a.in.Encode(o), a.out.Decode(&r)); err != nil {
		t.Fatal(err)
	}
	return r
}

// dropTo makes the process one of c.
func dropTo(c *fs.Cred) {
	groups := make([]int, len(c.Groups))
	for i, g := range c.Groups {
		groups[i] = int(g)
	}
	err := errors.Join(syscall.Setgroups(groups), syscall.Setresgid(int(c.GID), int(c.GID), int(c.GID)))
	if c.UID != 0 {
		err = errors.Join(err, syscall.Setresuid(int(c.UID), int(c.UID), int(c.UID)))
	}
	if err != nil {
		panic(err)
	}
}

func runAgent() {
	unix.Umask(0)
	in, out := gob.NewDecoder(os.Stdin), gob.NewEncoder(os.Stdout)
	var c fs.Cred
	if err := in.Decode(&c); err != nil {
		panic(err)
	}
	dropTo(&c)
	for {
		var o op
		if err := in.Decode(&o); err == io.EOF {
			os.Exit(0)
		} else if err != nil {
			panic(err)
		}
		text, err := local(o)
		var errno syscall.Errno
		if err != nil && !errors.As(err, &errno) {
			panic(err)
		}
		if err := out.Encode(answer{errno, text}); err != nil {
			panic(err)
		}
	}
}

// local does o by the plain system call.
func local(o op) (string, error) {
	switch o.Call {
	case "create":
		fd, err := unix.Open(o.Path, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, uint32(o.A))
		if err == nil {
			unix.Close(fd)
		}
		return "", err
	case "mkdir":
		return "", unix.Mkdir(o.Path, uint32(o.A))
	case "symlink":
		return "", unix.Symlink(o.Other, o.Path)
	case "mkfifo":
		return "", unix.Mknod(o.Path, unix.S_IFIFO|uint32(o.A), 0)
	case "mksock":
		return "", unix.Mknod(o.Path, unix.S_IFSOCK|uint32(o.A), 0)
	case "mkchar":
		return "", unix.Mknod(o.Path, unix.S_IFCHR|uint32(o.A), int(unix.Mkdev(1, 3)))
	case "unlink":
		return "", unix.Unlink(o.Path)
	case "rmdir":
		return "", unix.Rmdir(o.Path)
	case "rename":
		return "", unix.Rename(o.Path, o.Other)
	case "link":
		return "", unix.Link(o.Path, o.Other)
	case "chmod":
		return "", unix.Fchmodat(unix.AT_FDCWD, o.Path, uint32(o.A), 0)
	case "chown":
		return "", unix.Lchown(o.Path, int(o.A), int(o.B))
	case "truncate":
		return "", unix.Truncate(o.Path, o.A)
	case "utime":
		times := []unix.Timespec{unix.NsecToTimespec(o.A * 1e9), unix.NsecToTimespec(o.B * 1e9)}
		return "", unix.UtimesNanoAt(unix.AT_FDCWD, o.Path, times, unix.AT_SYMLINK_NOFOLLOW)
	case "touch":
		return "", unix.UtimesNanoAt(unix.AT_FDCWD, o.Path, nil, unix.AT_SYMLINK_NOFOLLOW)
	case "write":
		return "", withFile(o.Path, unix.O_WRONLY, func(fd int) error {
			_, err := unix.Pwrite(fd, []byte(o.Other), o.A)
			return err
		})
	case "read":
		var text [64]byte
		n := 0
		err := withFile(o.Path, unix.O_RDONLY, func(fd int) (err error) {
			n, err = unix.Pread(fd, text[:], o.A)
			return err
		})
		return string(text[:max(n, 0)]), err
	case "readlink":
		var text [4096]byte
		n, err := unix.Readlink(o.Path, text[:])
		return string(text[:max(n, 0)]), err
	case "access":
		has := ""
		for _, r := range []uint32{4, 2, 1} {
			switch err := unix.Access(o.Path, r); err {
			case nil:
				has += fmt.Sprint(r)
			case unix.EACCES, unix.EPERM:
				var st unix.Stat_t // what cannot be reached at all is an error
				if err := unix.Lstat(o.Path, &st); err != nil {
					return "", err
				}
			default:
				return "", err
			}
		}
		return has, nil
	case "list":
		entries, err := os.ReadDir(o.Path)
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return strings.Join(names, " "), err
	}
	panic("no such call: " + o.Call)
}

func withFile(path string, flags int, do func(fd int) error) error {
	fd, err := unix.Open(path, flags|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return do(fd)
}
