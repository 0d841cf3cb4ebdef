package main

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// cred is a user: a number, which is that of its own group too, and more groups.
type cred struct {
	id     uint32
	groups []uint32
}

// users are those of the table.
func users() map[string]*cred {
	return map[string]*cred{
		"root":  {id: 0},
		"alice": {id: 1001, groups: []uint32{1001, both, hers}},
		"bob":   {id: 1002, groups: []uint32{1002, both}},
	}
}

// Groups: that of alice and bob, that of alice alone. Nobody is in 3000.
const (
	both = 2000
	hers = 2001
)

var nobody = &cred{id: 65534}

// agent is a process of a user that does what it is told. It ends with this one.
type agent struct {
	in  *gob.Encoder
	out *gob.Decoder
}

// answer is what came of it.
type answer struct {
	Text    string   // "ok", perhaps with more, or the name of an error
	Objects snapshot // of look
	All     bool     // of look: the user may see all
	Clock   int64    // of clock: the time of the file system
}

func newAgent(c *cred) (*agent, error) {
	cmd := exec.Command("/proc/self/exe", "agent")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: c.id, Gid: c.id, Groups: c.groups}}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &agent{gob.NewEncoder(in), gob.NewDecoder(out)}, cmd.Start()
}

// ask has the agent do what the words say.
func (a *agent) ask(words ...string) (answer, error) {
	var r answer
	err := a.in.Encode(words)
	if err == nil {
		err = a.out.Decode(&r)
	}
	if err != nil {
		err = fmt.Errorf("%q: %w", words, err)
	}
	return r, err
}

func runAgent() {
	in, out := gob.NewDecoder(os.Stdin), gob.NewEncoder(os.Stdout)
	w := worker{files: make(map[string]int)}
	unix.Umask(0)
	for {
		var words []string
		if err := in.Decode(&words); err == io.EOF {
			return
		} else if err != nil {
			panic(err)
		}
		var a answer
		var err error
		switch words[0] {
		case "look":
			a.Objects, a.All = takeSnapshot()
		case "clock":
			a.Clock, err = clock(words[1])
		default:
			a.Text, err = w.do(words[0], words[1:])
		}
		var errno syscall.Errno
		switch {
		case err == nil:
			a.Text = strings.TrimSpace("ok " + a.Text)
		case errors.As(err, &errno):
			a.Text = unix.ErrnoName(errno)
		default:
			panic(fmt.Sprintf("%q: %v", words, err))
		}
		if err := out.Encode(a); err != nil {
			panic(err)
		}
	}
}

// clock is the time that a file system gives to what happens now.
func clock(path string) (int64, error) {
	fd, err := unix.Open(path, unix.O_CREAT|unix.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, nil, 0); err != nil {
		return 0, err
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	return st.Ctim.Nano(), err
}

// worker does the steps of a user. Files that it opens have names.
type worker struct {
	files map[string]int
}

// do makes one system call, mostly.
func (w *worker) do(call string, args []string) (string, error) {
	arg := func(i int) string {
		if i < len(args) {
			return args[i]
		}
		return ""
	}
	path := arg(0)
	switch call {
	case "begin":
		for name := range w.files {
			w.close(name)
		}
		unix.Umask(0)
		return "", unix.Chdir(path)
	case "umask":
		unix.Umask(int(octal(path)))
		return "", nil

	case "mkdir":
		return "", unix.Mkdir(path, octal(arg(1)))
	case "symlink":
		return "", unix.Symlink(path, arg(1))
	case "mkfifo":
		return "", unix.Mknod(path, unix.S_IFIFO|octal(arg(1)), 0)
	case "mksock":
		return "", unix.Mknod(path, unix.S_IFSOCK|octal(arg(1)), 0)
	case "mkchar":
		return "", unix.Mknod(path, unix.S_IFCHR|octal(arg(1)), int(unix.Mkdev(1, 3)))
	case "mkblock":
		return "", unix.Mknod(path, unix.S_IFBLK|octal(arg(1)), int(unix.Mkdev(259, 1048575)))
	case "unlink":
		return "", unix.Unlink(path)
	case "rmdir":
		return "", unix.Rmdir(path)
	case "rename":
		return "", unix.Rename(path, arg(1))
	case "rename-noreplace":
		return "", unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, arg(1), unix.RENAME_NOREPLACE)
	case "rename-exchange":
		return "", unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, arg(1), unix.RENAME_EXCHANGE)
	case "link":
		return "", unix.Link(path, arg(1))
	case "link-follow":
		return "", unix.Linkat(unix.AT_FDCWD, path, unix.AT_FDCWD, arg(1), unix.AT_SYMLINK_FOLLOW)

	case "chmod":
		return "", unix.Chmod(path, octal(arg(1)))
	case "chown":
		return "", unix.Chown(path, int(decimal(arg(1))), int(decimal(arg(2))))
	case "lchown":
		return "", unix.Lchown(path, int(decimal(arg(1))), int(decimal(arg(2))))
	case "truncate":
		return "", unix.Truncate(path, decimal(arg(1)))
	case "touch":
		return "", unix.UtimesNanoAt(unix.AT_FDCWD, path, nil, 0)
	case "utime":
		return "", unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{moment(arg(1)), moment(arg(2))}, 0)
	case "lutime":
		return "", unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{moment(arg(1)), moment(arg(2))}, unix.AT_SYMLINK_NOFOLLOW)
	case "setxattr":
		return "", unix.Setxattr(path, arg(1), []byte(arg(2)), 0)

	case "stat":
		var st unix.Stat_t
		err := unix.Stat(path, &st)
		return fmt.Sprintf("%o %d:%d", st.Mode, st.Uid, st.Gid), err
	case "readlink":
		text, err := os.Readlink(path)
		return short(text), err
	case "access":
		return access(path)
	case "list": // not by os.ReadDir, which needs to know what the names are of
		if err := w.open("list", path, "rdonly|directory", ""); err != nil {
			return "", err
		}
		text, err := w.onFile("names", "list", "", "")
		return text, errors.Join(err, w.close("list"))
	case "exec":
		out, err := exec.Command("./"+path, "euid").Output()
		return string(out), err

	case "open":
		return "", w.open(path, arg(1), arg(2), arg(3))
	case "close":
		return "", w.close(path)
	case "put": // in one go
		if err := w.open("put", path, "wronly", ""); err != nil {
			return "", err
		}
		_, err := unix.Write(w.files["put"], []byte(arg(1)))
		return "", errors.Join(err, w.close("put"))
	case "cat":
		if err := w.open("cat", path, "rdonly", ""); err != nil {
			return "", err
		}
		text, err := read(w.files["cat"], -1)
		return text, errors.Join(err, w.close("cat"))
	case "install": // a program that tells who runs it
		text, err := os.ReadFile("/proc/self/exe")
		if err == nil {
			err = os.WriteFile(path, text, 0o755)
		}
		return "", err
	case "churn":
		return churn(path, int(decimal(arg(1))))
	case "await-clean":
		return "", awaitClean(path)
	}
	return w.onFile(call, path, arg(1), arg(2))
}

// onFile does something with an open file.
func (w *worker) onFile(call, name, arg, more string) (string, error) {
	fd, ok := w.files[name]
	if !ok {
		fd = -1
	}
	switch call {
	case "write":
		_, err := unix.Write(fd, []byte(arg))
		return "", err
	case "pwrite":
		_, err := unix.Pwrite(fd, []byte(more), decimal(arg))
		return "", err
	case "read":
		return read(fd, -1)
	case "pread":
		return read(fd, decimal(arg))
	case "seek":
		whence := map[string]int{"set": unix.SEEK_SET, "cur": unix.SEEK_CUR, "end": unix.SEEK_END, "data": unix.SEEK_DATA, "hole": unix.SEEK_HOLE}[more]
		at, err := unix.Seek(fd, decimal(arg), whence)
		return fmt.Sprint(at), err
	case "forget": // what the page cache holds
		return "", unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED)
	case "fsync":
		return "", unix.Fsync(fd)
	case "ftruncate":
		return "", unix.Ftruncate(fd, decimal(arg))
	case "fallocate":
		return "", unix.Fallocate(fd, 0, 0, decimal(arg))
	case "fchmod":
		return "", unix.Fchmod(fd, octal(arg))
	case "fchown":
		return "", unix.Fchown(fd, int(decimal(arg)), int(decimal(more)))
	case "fstat":
		var st unix.Stat_t
		err := unix.Fstat(fd, &st)
		return fmt.Sprintf("%o links %d size %d", st.Mode, st.Nlink, st.Size), err
	case "names":
		var buffer [4096]byte
		n, err := unix.Getdents(fd, buffer[:])
		_, _, names := unix.ParseDirent(buffer[:max(n, 0)], -1, nil)
		slices.Sort(names)
		return strings.Join(names, " "), err
	}
	return "", fmt.Errorf("%s: no such call", call)
}

var openFlags = map[string]int{
	"rdonly": unix.O_RDONLY, "wronly": unix.O_WRONLY, "rdwr": unix.O_RDWR, "creat": unix.O_CREAT, "excl": unix.O_EXCL, "trunc": unix.O_TRUNC,
	"append": unix.O_APPEND, "directory": unix.O_DIRECTORY, "nofollow": unix.O_NOFOLLOW, "nonblock": unix.O_NONBLOCK, "tmpfile": unix.O_TMPFILE,
	"sync": unix.O_SYNC,
}

func (w *worker) open(name, path, flags, mode string) error {
	all := unix.O_CLOEXEC
	for f := range strings.SplitSeq(flags, "|") {
		bits, ok := openFlags[f]
		if !ok {
			return errors.New("no such flag: " + f)
		}
		all |= bits
	}
	fd, err := unix.Open(path, all, octal(mode))
	if err != nil {
		return err
	}
	w.close(name)
	w.files[name] = fd
	return nil
}

func (w *worker) close(name string) error {
	fd, ok := w.files[name]
	if !ok {
		return nil
	}
	delete(w.files, name)
	return unix.Close(fd)
}

// read reads a few bytes, at the offset if it is not negative.
func read(fd int, at int64) (string, error) {
	var text [64]byte
	var n int
	var err error
	if at < 0 {
		n, err = unix.Read(fd, text[:])
	} else {
		n, err = unix.Pread(fd, text[:], at)
	}
	return strings.ReplaceAll(string(text[:max(n, 0)]), "\x00", "0"), err
}

// access tells which rights the user has; what cannot be reached at all is an error.
func access(path string) (string, error) {
	has := ""
	for i, right := range []uint32{unix.R_OK, unix.W_OK, unix.X_OK} {
		switch err := unix.Access(path, right); err {
		case nil:
			has += string("rwx"[i])
		case unix.EACCES:
			has += "-"
		default:
			return "", err
		}
	}
	return has, unix.Access(path, unix.F_OK)
}

// churn fills a directory and removes what is in it while it lists it, some names
// at a time. It tells how many names it found, and how many are left.
func churn(dir string, files int) (string, error) {
	if err := unix.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	for i := range files {
		if err := unix.Mknod(fmt.Sprintf("%s/%d", dir, i), unix.S_IFREG|0o644, 0); err != nil {
			return "", err
		}
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	found := 0
	for buffer := make([]byte, 4096); ; {
		n, err := unix.Getdents(fd, buffer)
		if err != nil {
			return "", err
		}
		if n == 0 {
			break
		}
		_, _, names := unix.ParseDirent(buffer[:n], -1, nil)
		for _, name := range names {
			if err := unix.Unlink(dir + "/" + name); err != nil {
				return "", err
			}
		}
		found += len(names)
	}
	left, err := os.ReadDir(dir)
	return fmt.Sprintf("%d found, %d left", found, len(left)), err
}

// awaitClean returns when a directory holds no file that was removed while it was
// open: the client removes it in the background once it is closed.
func awaitClean(dir string) error {
	for {
		entries, err := os.ReadDir(dir)
		if err != nil || !slices.ContainsFunc(entries, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), ".nfs") }) {
			return err
		}
	}
}

// moment is a time of utimensat: seconds, perhaps with nine more digits, "now" or "omit".
func moment(text string) unix.Timespec {
	switch text {
	case "now":
		return unix.Timespec{Nsec: unix.UTIME_NOW}
	case "omit":
		return unix.Timespec{Nsec: unix.UTIME_OMIT}
	}
	seconds, fraction, _ := strings.Cut(text, ".")
	return unix.NsecToTimespec(decimal(seconds)*1e9 + decimal(fraction))
}

func octal(text string) uint32 { return uint32(number(text, 8)) }

func decimal(text string) int64 { return number(text, 10) }

// number is 0 of no text; the table has no others.
func number(text string, base int) int64 {
	if text == "" {
		return 0
	}
	n, err := strconv.ParseInt(text, base, 64)
	if err != nil {
		panic(err)
	}
	return n
}
