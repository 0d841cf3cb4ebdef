package integration

import (
	_ "embed"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// bootScript runs the overlay's hook without a machine around it.
//
//go:embed initramfs/boot.sh
var bootScript string

// initramfs is a node of which there is no more than what its initramfs sees.
type initramfs struct {
	dir   string
	shell string // that runs the hook
}

// The programs that Debian's initramfs has of busybox, as far as the hook needs them.
var applets = strings.Fields("cat chmod cp cut grep head ln losetup ls mkdir mount mv readlink rm rmdir sed sh sleep stat sync timeout touch umount")

// newInitramfs makes one whose version has some files. Its shell is busybox, or dash.
func newInitramfs(t *testing.T, shell string, version files) *initramfs {
	t.Helper()
	require(t, "unshare", "busybox", "dash", "mke2fs", "e2fsck", "losetup", "debugfs")
	n := &initramfs{dir: t.TempDir(), shell: shell}
	for path, text := range nodeFiles(t, "debian") {
		if path == "etc/initramfs-tools/scripts/init-bottom/rootnfsd-overlay" {
			write(t, n.path("hook"), text)
		}
	}
	for _, dir := range []string{"version", "home", "bin"} {
		mkdir(t, n.path(dir))
	}
	for path, text := range version {
		write(t, n.path("version/"+path), text)
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range applets {
		n.link(t, busybox, name)
	}
	for _, name := range []string{"mke2fs", "e2fsck", "dash"} {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		n.link(t, path, name)
	}
	n.program(t, "modprobe", "exit 0")
	n.homeAnswers(t, `mount --bind "`+n.path("home")+`" "$4"`)
	return n
}

func (n *initramfs) path(name string) string { return filepath.Join(n.dir, name) }

func (n *initramfs) link(t *testing.T, target, name string) {
	t.Helper()
	if err := os.Symlink(target, n.path("bin/"+name)); err != nil {
		t.Fatal(err)
	}
}

// program puts a script in the place of a program.
func (n *initramfs) program(t *testing.T, name, script string) {
	t.Helper()
	path := n.path("bin/" + name)
	os.Remove(path)
	write(t, path, "#!/bin/sh\n"+script+"\n")
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
}

// homeAnswers says what nfsmount does; $3 is the home, $4 the directory.
func (n *initramfs) homeAnswers(t *testing.T, script string) {
	t.Helper()
	n.program(t, "nfsmount", script)
}

// start is one boot, and returns how it ended.
func (n *initramfs) start(t *testing.T, words, then string) result {
	t.Helper()
	write(t, n.path("cmdline"), "root=/dev/nfs nfsroot=192.0.2.2:/images,v3,tcp,ro rw "+words+"\n")
	return finish(t, exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", bootScript, "boot", n.dir, n.path("bin/"+n.shell), then))
}

// boot has the node boot, and do something then in the directory that is its root. It returns what that printed.
func (n *initramfs) boot(t *testing.T, words, then string) string {
	t.Helper()
	r := n.start(t, words, `cd "$root"; `+then)
	if r.status != 0 {
		t.Fatalf("with %s: exit status %d\n%s%s\nconsole:\n%s%s", words, r.status, r.stdout, r.stderr, n.read(t, "console"), n.read(t, "kmsg"))
	}
	return r.stdout
}

func (n *initramfs) read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(n.path(name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// status is what the hook noted of the last boot under a key, the last of several.
func (n *initramfs) status(t *testing.T, key string) string {
	t.Helper()
	value := ""
	for line := range strings.Lines(n.read(t, "status")) {
		if v, ok := strings.CutPrefix(line, key+"="); ok {
			value = strings.TrimSuffix(v, "\n")
		}
	}
	return value
}

// expect looks at how the last boot went: its mode, and a part of the problem that it told.
func (n *initramfs) expect(t *testing.T, mode, problem string) {
	t.Helper()
	got := n.status(t, "problem")
	if m := n.status(t, "mode"); m != mode || (problem == "") != (got == "") || !strings.Contains(got, problem) {
		t.Errorf("mode %q, problem %q; want %q, %q\nconsole:\n%s", m, got, mode, problem, n.read(t, "console"))
	}
	if got != "" && !strings.Contains(n.read(t, "kmsg")+n.read(t, "console"), got) {
		t.Errorf("the problem %q is not on the console", got)
	}
}

// expectNotice looks at whether the last boot had its image, and told a part of what is no problem.
func (n *initramfs) expectNotice(t *testing.T, notice string) {
	t.Helper()
	n.expect(t, "loop", "")
	got := n.status(t, "notice")
	if !strings.Contains(got, notice) {
		t.Errorf("notice %q; want %q", got, notice)
	}
	if !strings.Contains(n.read(t, "kmsg")+n.read(t, "console"), got) {
		t.Errorf("the notice %q is not on the console", got)
	}
}

// saved returns the note in each image of the home, by name.
func (n *initramfs) saved(t *testing.T) map[string]string {
	t.Helper()
	images, err := filepath.Glob(n.path("home/.rootnfsd/upper.img*"))
	if err != nil {
		t.Fatal(err)
	}
	notes := map[string]string{}
	for _, image := range images {
		notes[filepath.Base(image)] = finish(t, exec.Command("debugfs", "-R", "cat /upper/etc/note", image)).stdout
	}
	return notes
}

// inShells runs a test with each shell that an initramfs may have.
func inShells(t *testing.T, version files, test func(t *testing.T, n *initramfs)) {
	t.Helper()
	t.Run("busybox", func(t *testing.T) { test(t, newInitramfs(t, "sh", version)) })
	t.Run("dash", func(t *testing.T) { test(t, newInitramfs(t, "dash", version)) })
}

var noted = files{"etc/note": "version\n", "etc/fstab": "# a comment\nPARTUUID=1-02  /  ext4 defaults 0 1\nproc /proc proc defaults 0 0\n"}

const (
	readNote  = "cat etc/note; "
	writeNote = "echo changed >etc/note; "
)

// TestOverlayHook runs the hook in each mode that needs no device of its own, twice over.
func TestOverlayHook(t *testing.T) {
	inShells(t, noted, func(t *testing.T, n *initramfs) {
		expect := func(t *testing.T, words, then, want string) {
			t.Helper()
			if got := n.boot(t, words, then); got != want {
				t.Errorf("with %s, %s prints %q; want %q", words, then, got, want)
			}
		}
		t.Run("nothing", func(t *testing.T) {
			expect(t, "quiet", readNote+"[ ! -e media ] && [ ! -e /run/rootnfsd-overlay ] && echo untouched", "version\nuntouched\n")
		})
		t.Run("off", func(t *testing.T) {
			expect(t, "rootnfsd.overlay=off", readNote+"touch x 2>/dev/null || echo read-only", "version\nread-only\n")
			n.expect(t, "off", "")
		})
		t.Run("memory", func(t *testing.T) {
			const words = "rootnfsd.overlay=tmpfs:size=2M"
			expect(t, words, readNote+writeNote+readNote+"cat media/root-ro/etc/note media/root-rw/upper/etc/note", "version\nchanged\nversion\nchanged\n")
			n.expect(t, "tmpfs", "")
			expect(t, words, readNote+"head -c 4000000 /dev/zero >full 2>/dev/null || echo full; rm full; echo x >x && echo goes on", "version\nfull\ngoes on\n")
			expect(t, words, "cat etc/fstab", "# a comment\n#rootnfsd-overlay: PARTUUID=1-02  /  ext4 defaults 0 1\nproc /proc proc defaults 0 0\n")
		})
		t.Run("image", func(t *testing.T) {
			const words = "rootnfsd.version=a rootnfsd.overlay=loop:size=16M"
			expect(t, words, readNote+writeNote+"cat media/root-rw/upper/etc/note; ls media/root-home/.rootnfsd", "version\nchanged\nupper.img\nupper.lock\n")
			n.expect(t, "loop", "")
			if got := n.status(t, "made_over"); got != "a" {
				t.Errorf("the upper was made over %q; want a", got)
			}
			expect(t, words, readNote+"head -c 40000000 /dev/zero >full 2>/dev/null || echo full; rm full; echo x >x && echo goes on", "changed\nfull\ngoes on\n")
			write(t, n.path("home/.rootnfsd/upper.img.old.08"), "somebody's\n")
			expect(t, words+",move,old=2", readNote+"echo second >etc/note", "version\n")
			expect(t, words+",move,old=2", readNote+"echo third >etc/note", "version\n")
			expect(t, words+",move,old=2", readNote, "version\n")
			if got := fmt.Sprint(n.saved(t)); got != "map[upper.img: upper.img.old.08: upper.img.old.2:second\n upper.img.old.3:third\n]" {
				t.Errorf("afterwards there is %q; want the last two, a new one, and somebody's", got)
			}
			expect(t, words+",clear", writeNote+readNote, "changed\n")
			expect(t, words+",clear", readNote, "version\n")
			n.expect(t, "loop", "")
			for size, want := range map[string]int{"2097152": 2 << 20, "3072k": 3 << 20, "4M": 4 << 20} {
				n.boot(t, "rootnfsd.overlay=loop:clear,size="+size, "")
				if got := len(n.read(t, "home/.rootnfsd/upper.img")); got != want {
					t.Errorf("with size=%s the image has %d bytes; want %d", size, got, want)
				}
			}
		})
		t.Run("another version", func(t *testing.T) {
			const image = "rootnfsd.overlay=loop:size=16M"
			expect(t, "rootnfsd.version=a "+image+",clear", writeNote, "")
			expect(t, "rootnfsd.version=b "+image+",on-change=keep", readNote, "changed\n")
			n.expectNotice(t, "the changes were made over another version (a), and are kept over b")
			expect(t, "rootnfsd.version=b "+image, readNote, "version\n")
			n.expectNotice(t, "moved aside")
			if got := n.saved(t)["upper.img.old.4"]; got != "changed\n" {
				t.Errorf("moved aside is %q; want what was written: %q", got, n.saved(t))
			}
			expect(t, "rootnfsd.version=b "+image, readNote+writeNote, "version\n")
			n.expect(t, "loop", "")
			expect(t, "rootnfsd.version=c "+image+",on-change=clear", readNote, "version\n")
			n.expectNotice(t, "cleared")
			expect(t, "rootnfsd.version=c "+image, readNote, "version\n")
			n.expect(t, "loop", "")
		})
		t.Run("the server's number", func(t *testing.T) {
			for _, c := range []struct{ fsid, want string }{
				{"9e62708a7c5be6d3:0", "9e62708a7c5be6d3"},
				{"62708a7c5be6d3:0", "0062708a7c5be6d3"},
				{"1:2", "1:2"},
				{"0:0", "192.0.2.2:/images"},
			} {
				write(t, n.path("fsid"), c.fsid+"\n")
				n.boot(t, "rootnfsd.overlay=tmpfs", "")
				if got := n.status(t, "version"); got != c.want {
					t.Errorf("of a server's number %s, the version is %q; want %s", c.fsid, got, c.want)
				}
			}
			if err := os.Remove(n.path("fsid")); err != nil {
				t.Fatal(err)
			}
		})
		t.Run("asked for on the node", func(t *testing.T) {
			const words = "rootnfsd.overlay=loop:size=16M"
			next := n.path("home/.rootnfsd/next")
			expect(t, words+",clear", writeNote, "")
			write(t, next, "disable\n")
			expect(t, words, readNote+"echo lost >etc/note; ls media/root-home/.rootnfsd/next >/dev/null", "version\n")
			n.expect(t, "tmpfs", "")
			if err := os.Remove(next); err != nil {
				t.Fatal(err)
			}
			expect(t, words, readNote, "changed\n")
			write(t, next, "clear\n")
			expect(t, words, readNote+writeNote, "version\n")
			expect(t, words, readNote, "changed\n")
		})
	})
}

// TestOverlayHookFails has all go wrong that can: the node boots, writes to memory, and says why.
func TestOverlayHookFails(t *testing.T) {
	const image = "loop:size=16M"
	inHome := func(name, text string) func(*testing.T, *initramfs) {
		return func(t *testing.T, n *initramfs) { write(t, n.path("home/.rootnfsd/"+name), text) }
	}
	for _, c := range []struct {
		name, overlay string
		spoil         func(*testing.T, *initramfs)
		problem       string
	}{
		{"no mode", "", nil, "rootnfsd.overlay= is none of tmpfs, loop, device and off"},
		{"an unknown mode", "tmpf:size=1M", nil, "rootnfsd.overlay=tmpf is none of tmpfs, loop, device and off"},
		{"an unknown option", "tmpfs:sized=1M", nil, "rootnfsd.overlay=tmpfs has no option sized=1M"},
		{"an option of another mode", "loop:zram", nil, "rootnfsd.overlay=loop has no option zram"},
		{"no size", "tmpfs:size=", nil, "size= is no size"},
		{"a size of nothing", "tmpfs:size=0", nil, "size=0 is no size"},
		{"a size of words", "tmpfs:size=much", nil, "size=much is no size"},
		{"more than all", "tmpfs:size=101%", nil, "size=101% is no size"},
		{"a part of what", "loop:size=30%", nil, "size=30% is no size"},
		{"more than numbers can say", "tmpfs:size=99999999999999999999999G", nil, "is no size"},
		{"a pattern", "tmpfs:*", nil, "no option *"},
		{"a forgotten % or M", "tmpfs:size=30", nil, "size=30 is no size: want something like 30% or 256M, and 1M at least"},
		{"too small for an upper", "tmpfs:zram,size=1023k", nil, "size=1023k is no size"},
		{"too small for an image", "loop:size=1", nil, "size=1 is no size: want something like 2G, and 1M at least"},
		{"almost 1 MiB", "loop:size=1048575", nil, "size=1048575 is no size"},
		{"many old ones", "loop:old=100", nil, "no option old=100"},
		{"no device named", "device", nil, "says no device"},
		{"a device by its number", "device:7", nil, "7 is no device"},
		{"a home that does not answer", image, func(t *testing.T, n *initramfs) {
			n.homeAnswers(t, "echo mount call failed - server replied: Permission denied. >&2; exit 1")
		}, "the home 192.0.2.2:/home cannot be mounted: mount call failed - server replied: Permission denied."},
		{"a home that hangs", image, func(t *testing.T, n *initramfs) {
			// As after the minute that the hook gives it.
			n.program(t, "timeout", `[ "$1 $2 $3" = "-s KILL 60" ] && shift 3 && exec busybox timeout -s KILL 1 "$@"`)
			n.homeAnswers(t, "exec sleep 600")
		}, "the home 192.0.2.2:/home cannot be mounted"},
		{"a home elsewhere", image + ",home=192.0.2.3:/there", func(t *testing.T, n *initramfs) {
			n.homeAnswers(t, `echo "$3"; exit 1`)
		}, "the home 192.0.2.3:/there cannot be mounted: 192.0.2.3:/there"},
		{"a full home", image, func(t *testing.T, n *initramfs) {
			n.homeAnswers(t, `mount -t tmpfs -o size=4k tmpfs "$4" && mkdir "$4/.rootnfsd" && head -c 100000 /dev/zero >"$4/full"; true`)
		}, "it may be full"},
		{"a home with no room for an image", image, func(t *testing.T, n *initramfs) {
			n.homeAnswers(t, `mount -t tmpfs -o size=64k tmpfs "$4"`)
		}, "no image can be made"},
		{"a home that root cannot write to", image, func(t *testing.T, n *initramfs) {
			n.homeAnswers(t, `mount --bind -o ro "`+n.path("home")+`" "$4" && mount -o remount,ro,bind "$4"`)
		}, "cannot use .rootnfsd in 192.0.2.2:/home"},
		{"a directory that leads elsewhere", image, func(t *testing.T, n *initramfs) {
			if err := os.Symlink(t.TempDir(), n.path("home/.rootnfsd")); err != nil {
				t.Fatal(err)
			}
		}, "cannot use .rootnfsd"},
		{"an image that leads elsewhere", image, func(t *testing.T, n *initramfs) {
			mkdir(t, n.path("home/.rootnfsd"))
			if err := os.Symlink("/dev/null", n.path("home/.rootnfsd/upper.img")); err != nil {
				t.Fatal(err)
			}
		}, "upper.img in 192.0.2.2:/home is no file"},
		{"an image that is a directory", image, func(t *testing.T, n *initramfs) {
			mkdir(t, n.path("home/.rootnfsd/upper.img"))
		}, "is no file"},
		{"another node's upper", image, inHome("upper.lock", "192.0.2.8 52:54:00:00:00:08 boot\n"), "belongs to the node 192.0.2.8 (52:54:00:00:00:08)"},
		{"somebody's upper", image, inHome("upper.lock/x", ""), "belongs to the node ?"},
		{"a lock that cannot be replaced", image, func(t *testing.T, n *initramfs) {
			inHome("upper.lock", "192.0.2.8 00:00:00:00:00:00 earlier\n")(t, n)
			n.program(t, "mv", "exit 1")
		}, "the lock of the upper in 192.0.2.2:/home cannot be replaced"},
		{"words in several lines", image, func(t *testing.T, n *initramfs) {
			n.program(t, "mke2fs", `printf 'first\nsecond\n\nthird\n' >&2; exit 1`)
		}, "no image can be made in 192.0.2.2:/home: first second  third. What is written is in memory"},
		{"no mke2fs", image, func(t *testing.T, n *initramfs) { os.Remove(n.path("bin/mke2fs")) }, "no image can be made"},
		{"no loop devices", image, func(t *testing.T, n *initramfs) { n.program(t, "losetup", "exit 1") }, "no loop device"},
		{"no zram", "tmpfs:zram", func(t *testing.T, n *initramfs) { os.Remove(n.path("bin/mke2fs")) }, "zram"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newInitramfs(t, "sh", noted)
			if c.spoil != nil {
				c.spoil(t, n)
			}
			if got := n.boot(t, "rootnfsd.overlay="+c.overlay, readNote+writeNote+readNote); got != "version\nchanged\n" {
				t.Errorf("the node reads, and reads after it wrote, %q", got)
			}
			n.expect(t, "tmpfs", c.problem)
		})
	}
}

// TestOverlayHookDamaged has an image that is damaged: what fsck does not put right by itself is set aside.
func TestOverlayHookDamaged(t *testing.T) {
	const words = "rootnfsd.overlay=loop:size=16M"
	debugfs := func(request string) func(string) error {
		return func(image string) error { return exec.Command("debugfs", "-w", "-R", request, image).Run() }
	}
	for name, c := range map[string]struct {
		damage  func(image string) error
		keeps   bool // what was written
		problem string
	}{
		"free blocks counted wrong":   {debugfs("set_super_value free_blocks_count 1"), true, ""},
		"a directory is gone":         {debugfs("clri /upper"), false, "is damaged"},
		"nothing":                     {func(image string) error { return os.Truncate(image, 0) }, false, "is damaged"},
		"cut short":                   {func(image string) error { return os.Truncate(image, 1<<20) }, false, "is damaged"},
		"an e2fsck that does not run": {func(string) error { return nil }, true, ""},
		"text":                        {func(image string) error { return os.WriteFile(image, []byte("# a script\n"), 0o600) }, false, "is damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newInitramfs(t, "sh", noted)
			n.boot(t, words, writeNote)
			if name == "an e2fsck that does not run" {
				n.program(t, "e2fsck", "exit 127")
			}
			if err := c.damage(n.path("home/.rootnfsd/upper.img")); err != nil {
				t.Fatal(err)
			}
			want := "version\n"
			if c.keeps {
				want = "changed\n"
			}
			if got := n.boot(t, words, readNote); got != want {
				t.Errorf("the node reads %q; want %q", got, want)
			}
			n.expect(t, "loop", c.problem)
			if _, err := os.Stat(n.path("home/.rootnfsd/upper.img.damaged.1")); (err == nil) == c.keeps {
				t.Errorf("what was set aside: %v", err)
			}
			n.boot(t, words, readNote)
			n.expect(t, "loop", "")
		})
	}
}

// TestOverlayHookAside cuts the power when an image was set aside and there is no new one: the node says where it is.
func TestOverlayHookAside(t *testing.T) {
	const words = "rootnfsd.overlay=loop:size=16M"
	n := newInitramfs(t, "sh", noted)
	for _, c := range []struct{ aside, problem string }{
		{"", ""},
		{"upper.img.damaged.2", "what was written is in upper.img.damaged.2"},
		{"upper.img.old.10", "what was written is in upper.img.old.10 or upper.img.damaged.2"},
	} {
		if c.aside != "" {
			if err := os.Rename(n.path("home/.rootnfsd/upper.img"), n.path("home/.rootnfsd/"+c.aside)); err != nil {
				t.Fatal(err)
			}
		}
		write(t, n.path("home/.rootnfsd/upper.img.new"), "")
		if got := n.boot(t, words, readNote); got != "version\n" {
			t.Errorf("the node reads %q", got)
		}
		n.expect(t, "loop", c.problem)
		n.boot(t, words, "")
		n.expect(t, "loop", "")
	}
}

// TestOverlayHookLook looks into an image that was never unmounted, as the guide says.
func TestOverlayHookLook(t *testing.T) {
	n := newInitramfs(t, "sh", noted)
	const image = "upper.img.old.1"
	n.boot(t, "rootnfsd.overlay=loop:size=16M", writeNote+"sync; cd media/root-home/.rootnfsd; cp upper.img "+image)
	var script strings.Builder
	for line := range strings.Lines(readFile(t, "../docs/overlay.md")) {
		if strings.HasPrefix(line, "    ") && strings.Contains(line, image) {
			fmt.Fprintln(&script, strings.ReplaceAll(strings.TrimSpace(line), "/mnt", n.path("mnt")))
		}
	}
	mkdir(t, n.path("mnt"))
	r := finish(t, exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", "cd "+n.path("home/.rootnfsd")+"\n"+script.String()+
		"cat "+n.path("mnt/upper/etc/note")+"; findmnt -no OPTIONS "+n.path("mnt")+" | tr , '\n'"))
	for _, want := range []string{"changed", "ro", "nosuid", "nodev", "noexec"} {
		if !strings.Contains("\n"+r.stdout, "\n"+want+"\n") {
			t.Errorf("%s\nprints %q, %s; want %s in it", script.String(), r.stdout, r.stderr, want)
		}
	}
}

// TestOverlayHookLock has two nodes claim one upper: the first has it, and has it back under another address, but not
// with another card, as another node may have its address by now.
func TestOverlayHookLock(t *testing.T) {
	const words = "rootnfsd.overlay=loop:size=16M"
	n := newInitramfs(t, "sh", noted)
	lock := n.path("home/.rootnfsd/upper.lock")
	for _, c := range []struct{ name, owner, mode, problem string }{
		{"its own", "192.0.2.9 00:00:00:00:00:00 earlier", "loop", ""},
		{"its own at another address", "192.0.2.8 00:00:00:00:00:00 earlier", "loop", ""},
		{"its own, without a card", "192.0.2.9 - earlier", "loop", ""},
		{"another's at its address", "192.0.2.9 52:54:00:00:00:01 earlier", "tmpfs", "if that is gone for good, or is this one with another card, remove .rootnfsd/upper.lock there"},
		{"another's, without a card", "192.0.2.8 - earlier", "tmpfs", "belongs to the node 192.0.2.8 (-)"},
		{"another's", "192.0.2.8 52:54:00:00:00:08 earlier", "tmpfs", "belongs to the node 192.0.2.8"},
		{"of nodes without addresses", "- - earlier", "tmpfs", "belongs to the node -"},
		{"text", "* [ $(reboot)", "tmpfs", "belongs to the node *"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n.boot(t, words, "")
			write(t, lock, c.owner+"\n")
			n.boot(t, words, "")
			n.expect(t, c.mode, c.problem)
			if got := n.read(t, "home/.rootnfsd/upper.lock"); (got == c.owner+"\n") == (c.mode == "loop") {
				t.Errorf("the lock is %q", got)
			}
			if err := os.Remove(lock); err != nil {
				t.Fatal(err)
			}
		})
	}
	t.Run("a claim that is a directory", func(t *testing.T) {
		claim := n.path("home/.rootnfsd/claim.x")
		mkdir(t, claim)
		for range 2 { // the lock is new, and is there
			n.boot(t, words, "")
			n.expect(t, "loop", "")
		}
		if err := os.Remove(claim); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("of a node that found no room", func(t *testing.T) {
		write(t, lock, "")
		n.boot(t, words, "")
		n.expect(t, "loop", "")
	})
	t.Run("no room, which only reading tells", func(t *testing.T) {
		before := n.read(t, "home/.rootnfsd/upper.lock")
		boot := strings.TrimSpace(readFile(t, "/proc/sys/kernel/random/boot_id"))
		before = strings.Replace(before, boot, "earlier", 1)
		write(t, lock, before)
		if err := os.Symlink("/dev/null", n.path("home/.rootnfsd/claim."+boot)); err != nil {
			t.Fatal(err)
		}
		n.boot(t, words, "")
		n.expect(t, "tmpfs", "nothing can be written to 192.0.2.2:/home: it may be full")
		if after := n.read(t, "home/.rootnfsd/upper.lock"); after != before {
			t.Errorf("the lock is %q; want %q", after, before)
		}
		n.boot(t, words, "")
		n.expect(t, "loop", "")
	})
	if claims, _ := filepath.Glob(n.path("home/.rootnfsd/claim.*")); len(claims) > 0 {
		t.Errorf("claims are left: %q", claims)
	}
}

// TestOverlayHookDevice keeps the upper on a disk.
func TestOverlayHookDevice(t *testing.T) {
	inShells(t, noted, func(t *testing.T, n *initramfs) {
		words := "rootnfsd.version=a rootnfsd.overlay=device:" + n.disk(t, "mke2fs", "-q", "-t", "ext4")
		for _, b := range []struct{ words, then, want string }{
			{words, readNote + writeNote, "version\n"},
			{words, readNote, "changed\n"},
			{words + ",move", readNote + "echo second >etc/note", "version\n"},
			{words + ",move,old=1", readNote + "cat media/root-rw/upper.old.*/etc/note", "version\nsecond\n"},
			{words + ",clear", readNote + writeNote, "version\n"},
			{words, readNote + "echo disable >media/root-rw/rootnfsd/next", "changed\n"},
			{words, readNote, "version\n"},
		} {
			if got := n.boot(t, b.words, b.then); got != b.want {
				t.Errorf("with %s, %s prints %q; want %q", b.words, b.then, got, b.want)
			}
		}
		if n.expect(t, "tmpfs", ""); n.status(t, "asked") != "disable" {
			t.Error("the disk is used though it was disabled")
		}
	})
	for _, name := range []string{"upper", "work"} {
		t.Run("somebody's "+name, func(t *testing.T) {
			n := newInitramfs(t, "sh", noted)
			device := n.disk(t, "mke2fs", "-q", "-t", "ext4")
			n.onDisk(t, device, "mkdir "+name+"; echo mine >"+name+"/thesis")
			for _, version := range []string{"a", "b"} {
				n.boot(t, "rootnfsd.version="+version+" rootnfsd.overlay=device:"+device, writeNote)
				n.expect(t, "tmpfs", "there is something named "+name+" that no node made")
			}
			if got := n.onDisk(t, device, "cat */thesis; mv "+name+" mine"); got != "mine\n" {
				t.Errorf("on the disk there is %q; want what was there", got)
			}
			for _, version := range []string{"a", "b"} {
				n.boot(t, "rootnfsd.version="+version+" rootnfsd.overlay=device:"+device, "")
				if mode := n.status(t, "mode"); mode != "device" {
					t.Errorf("renamed: mode %s", mode)
				}
			}
			if got := n.onDisk(t, device, "cat */thesis"); got != "mine\n" {
				t.Errorf("renamed, on the disk there is %q; want what was there", got)
			}
		})
	}
	for _, c := range []struct {
		name    string
		make    []string
		problem string
	}{
		{"no file system", []string{"true"}, "cannot be mounted"},
		{"a file system that overlayfs cannot write to", []string{"mkfs.vfat"}, "disk"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newInitramfs(t, "sh", noted)
			n.boot(t, "rootnfsd.overlay=device:"+n.disk(t, c.make...), readNote+writeNote)
			if got := n.status(t, "problem"); n.status(t, "mode") != "tmpfs" || got == "" {
				t.Errorf("mode %q, problem %q", n.status(t, "mode"), got)
			}
		})
	}
}

// disk makes a disk, with what a command makes on it, and returns its device.
func (n *initramfs) disk(t *testing.T, mkfs ...string) string {
	t.Helper()
	image := n.path("disk")
	write(t, image, "")
	if err := os.Truncate(image, 32<<20); err != nil {
		t.Fatal(err)
	}
	if r := finish(t, exec.Command(mkfs[0], append(mkfs[1:], image)...)); r.status != 0 {
		t.Fatal(r.stderr)
	}
	r := finish(t, exec.Command("losetup", "--find", "--show", image))
	if r.status != 0 {
		t.Fatal(r.stderr)
	}
	device := strings.TrimSpace(r.stdout)
	t.Cleanup(func() {
		if r := finish(t, exec.Command("losetup", "--detach", device)); r.status != 0 {
			t.Error(r.stderr)
		}
	})
	return device
}

// onDisk runs a script on the file system of a disk, and returns what it printed.
func (n *initramfs) onDisk(t *testing.T, device, script string) string {
	t.Helper()
	dir := n.path("mnt")
	mkdir(t, dir)
	r := finish(t, exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-euc", `mount "$1" "$2"; (cd "$2"; `+script+`); umount "$2"`, "sh", device, dir))
	if r.status != 0 {
		t.Fatal(r.stderr)
	}
	return r.stdout
}

// TestOverlayHookHostile has a version that tries to have the hook write elsewhere.
func TestOverlayHookHostile(t *testing.T) {
	n := newInitramfs(t, "sh", noted)
	outside := t.TempDir()
	for name, c := range map[string]struct {
		link  string
		wants string // what the hook leaves there
	}{
		"media":         {"media", "directory"},
		"media/root-ro": {"media/root-ro", "directory"},
		"etc":           {"etc", "symbolic link"},
	} {
		t.Run(name, func(t *testing.T) {
			path := n.path("version/" + c.link)
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
			mkdir(t, filepath.Dir(path))
			if err := os.Symlink(outside, path); err != nil {
				t.Fatal(err)
			}
			got := n.boot(t, "rootnfsd.overlay=tmpfs", `stat -c %F "`+c.link+`"; findmnt -no FSTYPE "$root/media/root-ro"`)
			if got != c.wants+"\ntmpfs\n" {
				t.Errorf("there is a %q; want a %s, and the version below", got, c.wants)
			}
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
		})
	}
	if left, err := os.ReadDir(outside); len(left) > 0 || err != nil {
		t.Errorf("outside there is %v, %v; want nothing", left, err)
	}
}

// TestOverlayHookPowerCut cuts the power at each step of what changes the upper: at the next boot the node has it, or
// a new one, and what was written is there or moved aside, unless it was to be cleared.
func TestOverlayHookPowerCut(t *testing.T) {
	const image = "rootnfsd.version=a rootnfsd.overlay=loop:size=16M"
	for _, c := range []struct {
		name, words string
		spoil       func(*testing.T, *initramfs)
		lost        bool // what was written may be
		long        bool
	}{
		{name: "keep", words: image, long: true},
		{name: "move", words: image + ",move"},
		{name: "clear", words: image + ",clear", lost: true, long: true},
		{name: "another version", words: strings.Replace(image, "=a", "=b", 1), long: true},
		{name: "damaged", words: image, spoil: func(t *testing.T, n *initramfs) {
			// Its inodes are gone, so it has to be set aside whole.
			if r := finish(t, exec.Command("debugfs", "-w", "-R", "clri /upper", n.path("home/.rootnfsd/upper.img"))); r.status != 0 {
				t.Fatal(r.stderr)
			}
		}, lost: true, long: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.long {
				long(t, "cutting the power at each step")
			}
			n := newInitramfs(t, "sh", noted)
			n.boot(t, image, writeNote)
			before := n.path("before")
			if c.spoil != nil {
				c.spoil(t, n)
			}
			if r := finish(t, exec.Command("cp", "-a", n.path("home/.rootnfsd"), before)); r.status != 0 {
				t.Fatal(r.stderr)
			}
			cuts := 0
			for n.cutAt(t, cuts+1); n.start(t, c.words, "").status != 0; n.cutAt(t, cuts+1) {
				cuts++
				n.cutAt(t, 0)
				n.boot(t, image, readNote)
				if mode := n.status(t, "mode"); mode != "loop" {
					t.Errorf("cut at step %d: mode %s, problem %s; want loop", cuts, mode, n.status(t, "problem"))
				}
				if notes := n.saved(t); !c.lost && !slices.Contains(slices.Collect(maps.Values(notes)), "changed\n") {
					t.Errorf("cut at step %d: there is %q; want what was written among it", cuts, notes)
				}
				for _, pattern := range []string{"*.new", "claim.*"} {
					if left, _ := filepath.Glob(n.path("home/.rootnfsd/" + pattern)); len(left) > 0 {
						t.Errorf("cut at step %d: %q is left", cuts, left)
					}
				}
				for _, args := range [][]string{{"rm", "-rf", n.path("home/.rootnfsd")}, {"cp", "-a", before, n.path("home/.rootnfsd")}} {
					if r := finish(t, exec.Command(args[0], args[1:]...)); r.status != 0 {
						t.Fatal(r.stderr)
					}
				}
			}
			t.Logf("cut at each of %d steps", cuts)
			if cuts < 5 {
				t.Error("it was hardly ever cut: does the hook change nothing?")
			}
		})
	}
}

// cutAt has the power cut before the nth of the commands that change something; 0 is never.
func (n *initramfs) cutAt(t *testing.T, nth int) {
	t.Helper()
	write(t, n.path("left"), fmt.Sprintln(nth))
	for _, name := range strings.Fields("chmod ln losetup mkdir mke2fs mount mv rm umount") {
		program := "busybox " + name
		if name == "mke2fs" {
			program = name
		}
		path, err := exec.LookPath(strings.Fields(program)[0])
		if err != nil {
			t.Fatal(err)
		}
		program = strings.Replace(program, strings.Fields(program)[0], path, 1)
		n.program(t, name, fmt.Sprintf(`read -r left <%[1]s
[ "$left" != 1 ] || { read -r pid <%[2]s; kill -9 "$pid"; exit 1; }
[ "$left" = 0 ] || echo $((left - 1)) >%[1]s
exec %[3]s "$@"`, n.path("left"), n.path("pid"), program))
	}
}

// TestOverlayDiff changes things on a node and looks at what rootnfsd-overlay says of it, with the programs of busybox.
func TestOverlayDiff(t *testing.T) {
	n := newInitramfs(t, "sh", files{
		"a/same": "same\n", "a/content": "old\n", "a/mode": "x", "a/gone": "x", "a/dir/below": "x", "a/dir/.hidden": "x",
		"a/replaced/old": "x", "a/replaced/stays": "x", "a/to-file/x": "x", "a/to-dir": "x", "a/touched": "x", "a/longer": "12345678\n", "proc/.keep": "", "run/.keep": "", "tmp/.keep": "",
		"home/pi/.profile": "x", "home/gone": "x", "etc/fstab": noted["etc/fstab"], "etc/hosts": "x",
	})
	if err := os.Symlink("old", n.path("version/a/link")); err != nil {
		t.Fatal(err)
	}
	n.addBusybox(t)
	got := n.boot(t, "rootnfsd.overlay=tmpfs", `mount -t proc proc proc; mount -t tmpfs run run; cat >run.sh <<'END'
cd /a
echo new >content; chmod 600 mode; rm gone; rm -r dir; rm -r replaced; mkdir replaced; printf x >replaced/stays; echo x >replaced/new
rm -r to-file; echo x >to-file; rm to-dir; mkdir to-dir; echo x >to-dir/x; touch touched; echo 87654321 >longer; ln -sfn new link
mkdir -p new/below/.dot; echo x >new/below/file; mkfifo new/fifo; ln -s /nowhere new/dangling
echo x >"two  words"; echo x >-n; echo x >'*'; echo x >.dot; echo x >..dots; echo x >"$(printf 'line\nD passwd')"
chown 1000 same; chown 0 same; echo gone >temp; rm temp
rm /run.sh
rm /home/gone; echo x >/home/pi/new; mount -t tmpfs home /home; mkdir /home/guest
before=$(cat /proc/mounts)
busybox sh /usr/local/sbin/rootnfsd-overlay diff
[ "$(cat /proc/mounts)" = "$before" ] || echo "there are other mounts"
echo "x /x nfs" >>/etc/fstab
busybox sh /usr/local/sbin/rootnfsd-overlay diff /etc
END
chroot . /bin/sh /run.sh`)
	want := `A /a/*
A /a/-n
A /a/..dots
A /a/.dot
M /a/content
D /a/dir/
D /a/gone
A /a/line?D passwd
M /a/link
M /a/longer
M /a/mode
A /a/new/
A /a/new/below/
A /a/new/below/.dot/
A /a/new/below/file
A /a/new/dangling
A /a/new/fifo
A /a/replaced/new
D /a/replaced/old
M /a/to-dir
A /a/to-dir/x
M /a/to-file
A /a/two  words
D /home/gone
A /home/pi/new
M /etc/fstab
`
	if got != want {
		t.Errorf("the difference is\n%s\nwant\n%s", got, want)
	}
}

// layOverlayroot does what overlayroot does.
const layOverlayroot = `mkdir /media/root-ro /media/root-rw
mount -t tmpfs tmpfs-root /media/root-rw
mkdir -p /media/root-rw/overlay /media/root-rw/overlay-workdir/_
mount --move "$root" /media/root-ro
mount -t overlay -o lowerdir=/media/root-ro,upperdir=/media/root-rw/overlay,workdir=/media/root-rw/overlay-workdir/_ overlayroot "$root"
cd "$root"
for dir in media/root-ro media/root-rw; do
    mkdir -p $dir
    mount --move /$dir $dir
done
`

// TestOverlayTool has a node say what is and what will be, and what is wrong with it, with the programs of busybox.
func TestOverlayTool(t *testing.T) {
	n := newInitramfs(t, "sh", files{
		"etc/note": "version\n", "etc/machine-id": "", "proc/.keep": "", "dev/.keep": "", "run/.keep": "", "tmp/.keep": "", "home/.keep": "",
	})
	n.addBusybox(t)
	const image = "loop:size=16M"
	const overlayroot = "overlayroot"
	const asUser = "# as a user\n"
	disk := "device:" + n.disk(t, "mke2fs", "-q", "-t", "ext4")
	for _, c := range []struct {
		name, overlay, script string
		want                  []string // lines of what it says, or how they begin
	}{
		{"at first", image, "tool status",
			[]string{"mode:      image on the server: 192.0.2.2:/home", "wanted:    rootnfsd.overlay=loop:size=16M", "next boot: as the command line says", "upper:     "}},
		{"clear", image, "echo forgotten >/etc/note; tool clear; tool status", []string{"next boot: cleared"}},
		{"cleared", image, "cat /etc/note; tool status; echo kept >/etc/note; tool disable", []string{"version", "next boot: as the command line says"}},
		{"disabled", image, "cat /etc/note; tool status; tool enable; tool status",
			[]string{"version", "mode:      in memory (50% at most)", "next boot: in memory: disabled (rootnfsd-overlay enable)", "next boot: as the command line says"}},
		{"clear, taken back", image, "tool clear; tool enable; tool status", []string{"next boot: as the command line says"}},
		{"enabled", image, "cat /etc/note; tool status", []string{"kept", "mode:      image on the server"}},
		{"no room, which only reading tells", image, "ln -s /dev/null /media/root-home/.rootnfsd/next.new; tool disable 2>&1 || echo status $?; tool status; ls /media/root-home/.rootnfsd",
			[]string{"rootnfsd-overlay: nothing can be written to /media/root-home/.rootnfsd/next: it may be full", "status 1", "next boot: as the command line says", "upper.img\nupper.lock\n"}},
		{"another node's", image, "echo kept >/etc/note; echo 192.0.2.8 52:54:00:00:00:08 earlier >/media/root-home/.rootnfsd/upper.lock", nil},
		{"clear of another node's", image, "tool clear 2>&1 || echo status $?; for c in disable enable; do tool $c || echo status $?; done; ls /media/root-home/.rootnfsd; echo clear >/media/root-home/.rootnfsd/next; tool enable; tool status",
			[]string{"rootnfsd-overlay: the node could not use loop:size=16M when it booted (rootnfsd-overlay status), so nothing can be left there\nstatus 1\nstatus 1\nstatus 1\nupper.img\nupper.lock\n", "mode:      in memory", "PROBLEM:   the upper in 192.0.2.2:/home belongs to the node 192.0.2.8", "next boot: as the command line says"}},
		{"what another node is to do", image, "cat /media/root-home/.rootnfsd/next; echo disable >/media/root-home/.rootnfsd/next; tool status", []string{"clear\n", "next boot: as the command line says"}},
		{"what another node is to do, again", image, "tool status; rm /media/root-home/.rootnfsd/next /media/root-home/.rootnfsd/upper.lock", []string{"PROBLEM:   the upper in 192.0.2.2:/home belongs to the node 192.0.2.8"}},
		{"its own again", image, "cat /etc/note", []string{"kept\n"}},
		{"clear in memory", "tmpfs:size=2M", "tool clear; tool disable || echo status $?",
			[]string{"What this node writes is in memory: the next boot begins anew by itself.", "status 1"}},

		{"on a disk", disk, "echo kept >/etc/note; tool disable; tool status", []string{"mode:      disk /dev/loop", "next boot: in memory: disabled"}},
		{"on a disk, disabled", disk, "cat /etc/note; tool status", []string{"version", "mode:      in memory", "next boot: in memory: disabled (rootnfsd-overlay enable)"}},
		{"on a disk, disabled, again", disk, "tool status; tool clear; tool status; tool enable; tool status",
			[]string{"next boot: in memory: disabled (rootnfsd-overlay enable)", "next boot: cleared", "next boot: as the command line says"}},
		{"on a disk, enabled", disk, "cat /etc/note; tool status", []string{"kept", "mode:      disk /dev/loop", "next boot: as the command line says"}},
		{"as a user", image, asUser + "tool status", []string{"mode:      image on the server", "next boot: only root can see (sudo rootnfsd-overlay status)"}},
		{"as a user, on a disk", disk, asUser + "tool status", []string{"mode:      disk", "next boot: as the command line says"}},
		{"no mode", "", "tool status; tool disable || echo status $?",
			[]string{"mode:      in memory (50% at most)", "wanted:    rootnfsd.overlay=\n", "PROBLEM:   rootnfsd.overlay= is none of tmpfs, loop, device and off", "status 1"}},

		{"doctor, with an image", image, "tool doctor; echo status $?",
			[]string{"OK     / is an overlay", "WRONG  /media/root-ro is tmpfs, not NFS", "OK     the upper is full to", "OK     /home is in the upper, which lasts", "WRONG  /etc/machine-id is empty", "2 WRONG", "status 1"}},
		{"doctor, of another version", image + " rootnfsd.version=b", "tool status; tool doctor",
			[]string{"notice:    the changes were made over another version (a): they are moved aside", "NOTE   the changes were made over another version (a): they are moved aside", "2 WRONG"}},
		{"doctor, with a full image", image + " rootnfsd.version=b", "head -c 40000000 /dev/zero >/full; tool doctor",
			[]string{"WRONG  the upper is full to ", "       -> see what fills it: rootnfsd-overlay diff; or begin anew with a larger one: a larger size= on the kernel's command line, and rootnfsd-overlay clear"}},
		{"doctor, with a full disk", disk, "head -c 40000000 /dev/zero >/full; tool doctor", []string{"       -> see what fills it: rootnfsd-overlay diff; or make room on the disk /dev/loop"}},
		{"doctor, with large memory", "tmpfs:size=90%", `mkdir -p /etc/systemd/system /var/log/journal/x; ln -s busybox /bin/journalctl
			touch /etc/systemd/system/home.automount /var/log/journal/x/system.journal; echo 0123 >/etc/machine-id; tool doctor`,
			[]string{"WRONG  the upper may take 90 % of the memory", "WRONG  nothing is mounted at /home, though it should be", "WRONG  the journal is kept in /var/log/journal", "OK     the machine-id is this node's", "4 WRONG"}},
		{"doctor, with a full upper", "tmpfs:size=2M", "head -c 1950000 /dev/zero >/full; mount -t tmpfs home /home; tool doctor",
			[]string{"WRONG  the upper is full to 9", "       -> see what fills it: rootnfsd-overlay diff; or make it larger: rootnfsd.overlay=tmpfs:size=...", "WRONG  /home is tmpfs, and no NFS comes when somebody looks"}},
		{"with overlayroot", overlayroot, "echo x >/etc/note; tool status; tool diff /etc; tool doctor",
			[]string{"mode:      not rootnfsd's", "upper:     ", "M /etc/note", "OK     / is an overlay (", "WRONG  /media/root-ro is tmpfs, not NFS", "OK     the upper is full to", "WRONG  nothing is mounted at /home: what is written there is lost"}},
		{"doctor, with a wrong word", "junk", "tool doctor",
			[]string{"WRONG  the overlay is not what was wanted: rootnfsd.overlay=junk is none of", "WRONG  nothing is mounted at /home: what is written there is lost"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			chroot := "chroot . "
			if strings.HasPrefix(c.script, asUser) {
				chroot = "chroot --userspec=1000:1000 . "
			}
			words, before := "rootnfsd.version=a rootnfsd.overlay="+c.overlay, ""
			if c.overlay == overlayroot {
				words, before = "overlayroot=tmpfs", layOverlayroot
			}
			got := n.boot(t, words, before+"mount -t proc proc proc; mount --bind /dev dev; mount --bind /run run; cat >tmp/run.sh <<'END'\n"+
				"tool() { busybox sh /usr/local/sbin/rootnfsd-overlay \"$@\"; }\n"+c.script+"\ntrue\nEND\n"+chroot+"/bin/sh /tmp/run.sh")
			rest := got
			for _, want := range c.want { // in this order
				_, after, ok := strings.Cut("\n"+rest, "\n"+want)
				if !ok {
					t.Errorf("it says\n%s\nwant %q in it, behind those before", got, want)
					return
				}
				rest = after
			}
		})
	}
}

// TestAlpineWords holds what the guide says of Alpine against what its initramfs knows.
func TestAlpineWords(t *testing.T) {
	known := map[string]bool{}
	for line := range strings.Lines(readFile(t, "testdata/alpine-parameters.txt")) {
		for _, word := range strings.Fields(line) {
			known[word] = !strings.HasPrefix(line, "#")
		}
	}
	_, text, _ := strings.Cut(readFile(t, "../docs/overlay.md"), "\n**Alpine**")
	text, _, _ = strings.Cut(text, "\n")
	words := 0
	for i, part := range strings.Split(text, "`") {
		name, value, ok := strings.Cut(part, "=")
		if i%2 == 0 || !ok || name == "mode" {
			continue
		}
		words++
		if !known[name] {
			t.Errorf("Alpine's initramfs does not know %s=", name)
		}
		if name == "overlaytmpfsflags" { // options of a tmpfs
			if r := finish(t, exec.Command("unshare", "--mount", "mount", "-t", "tmpfs", "-o", "mode=0755,"+value+",rw", "root-tmpfs", t.TempDir())); r.status != 0 {
				t.Error(r.stderr)
			}
		}
	}
	if words < 3 {
		t.Errorf("the guide has %d words for Alpine: %s", words, text)
	}
}

// addBusybox puts busybox into the version, and the tool that nodes have.
func (n *initramfs) addBusybox(t *testing.T) {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	r := finish(t, exec.Command("sh", "-euc", `cd "$2"
mkdir -p bin usr/local/sbin
for file in "$1" $(ldd "$1" | grep -o '/[^ ]*'); do
    mkdir -p ".${file%/*}"
    cp -L "$file" ".$file"
done
cp "$1" bin/busybox
for name in $(busybox --list); do
    ln -sf busybox "bin/$name"
done`, "sh", busybox, n.path("version")))
	if r.status != 0 {
		t.Fatal(r.stderr)
	}
	write(t, n.path("version/usr/local/sbin/rootnfsd-overlay"), nodeFiles(t, "debian")["usr/local/sbin/rootnfsd-overlay"])
}

// TestOverlayHookFullServer has a server whose disk is smaller than the image: what is written last fails, and until
// there is room again the node writes to memory. What was safe before stays.
func TestOverlayHookFullServer(t *testing.T) {
	const words = "rootnfsd.overlay=loop:size=64M"
	n := newInitramfs(t, "sh", noted)
	mount := "mount -t ext4 " + n.disk(t, "mke2fs", "-q", "-t", "ext4") + ` "$4"; `
	n.homeAnswers(t, mount+`head -c 5000000 /dev/zero >"$4/other"`)
	got := n.boot(t, words, writeNote+`sync etc/note
		{ head -c 50000000 /dev/urandom >full && sync full; } 2>/dev/null || echo no room; cat etc/note`)
	if got != "no room\nchanged\n" {
		t.Errorf("a write that the server has no room for: %q", got)
	}
	n.homeAnswers(t, mount)
	n.boot(t, words, "")
	n.expect(t, "tmpfs", "it may be full")
	n.homeAnswers(t, mount+`rm "$4/other"`)
	if got := n.boot(t, words, readNote); got != "changed\n" {
		t.Errorf("when there is room again, the node reads %q, and the problem is %q; want what it wrote", got, n.status(t, "problem"))
	}
	if mode := n.status(t, "mode"); mode != "loop" {
		t.Errorf("when there is room again: mode %s", mode)
	}
}

// TestLongOverlayHookPowerCutDevice does the same on a disk.
func TestLongOverlayHookPowerCutDevice(t *testing.T) {
	long(t, "cutting the power at each step")
	n := newInitramfs(t, "sh", noted)
	device := n.disk(t, "mke2fs", "-q", "-t", "ext4")
	words := "rootnfsd.version=a rootnfsd.overlay=device:" + device
	copyTo := func(from, to string) {
		t.Helper()
		if r := finish(t, exec.Command("dd", "if="+from, "of="+to, "bs=1M", "conv=fsync")); r.status != 0 {
			t.Fatal(r.stderr)
		}
	}
	before := n.path("before")
	copyTo(device, before) // without an upper
	cuts := 0
	for n.cutAt(t, cuts+1); n.start(t, words, "").status != 0; n.cutAt(t, cuts+1) {
		cuts++
		n.cutAt(t, 0)
		n.boot(t, words, "")
		if mode := n.status(t, "mode"); mode != "device" {
			t.Errorf("new, cut at step %d: mode %s, problem %s", cuts, mode, n.status(t, "problem"))
		}
		copyTo(before, device)
	}
	t.Logf("new: cut at each of %d steps", cuts)
	n.cutAt(t, 0)
	n.boot(t, words, writeNote)
	copyTo(device, before)
	for _, more := range []string{",move", " rootnfsd.version=b"} {
		cuts := 0
		for n.cutAt(t, cuts+1); n.start(t, words+more, "").status != 0; n.cutAt(t, cuts+1) {
			cuts++
			n.cutAt(t, 0)
			got := n.boot(t, words, readNote+"cat media/root-rw/upper.old.*/etc/note 2>/dev/null || true")
			if mode := n.status(t, "mode"); mode != "device" || !strings.Contains(got, "changed\n") {
				t.Errorf("%s, cut at step %d: mode %s, and the notes %q; want what was written among them", more, cuts, mode, got)
			}
			copyTo(before, device)
		}
		t.Logf("%s: cut at each of %d steps", more, cuts)
		if cuts < 5 {
			t.Errorf("%s was hardly ever cut: does the hook change nothing?", more)
		}
		copyTo(before, device)
	}
}
