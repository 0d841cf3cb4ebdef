package lint

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/go-git/go-billy/v5"
)

// fix fixes a tree and returns what is found in it then, what was changed, each
// as "rule file: change", and the fixed tree.
func fix(t *testing.T, root billy.Filesystem, caps Caps) (left, changes []string, fixed billy.Filesystem) {
	t.Helper()
	fixed, made, err := Fix(context.Background(), root, caps)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range made {
		changes = append(changes, fmt.Sprintf("%s %s: %s", c.Rule, c.File, c.What))
	}
	return check(t, fixed), changes, fixed
}

func contentOf(t *testing.T, root billy.Filesystem, p string) string {
	t.Helper()
	if text, err := root.Readlink(p); err == nil {
		return "-> " + text
	}
	f, err := root.Open(p)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestFix puts a Raspberry Pi's card right, all that can be, and says what it did.
func TestFix(t *testing.T) {
	tree := small.and(enabled("dphys-swapfile.service")).and(enabled("apt-daily.timer")).and(files{
		"etc/fstab":                           "proc /proc proc defaults 0 0\nPARTUUID=1-01 /boot/firmware vfat defaults 0 2\nLABEL=x /x ext4 nofail\n/swap none swap sw 0 0\n/dev/zram0 none swap sw 0 0\n/dev/sda2 none swap nofail 0 0\nPARTUUID=1-02 / ext4 defaults 0 1",
		"etc/machine-id":                      "b08dfa6083e7567a1921a715000001fb\n",
		"var/lib/dbus/machine-id":             "b08dfa6083e7567a1921a715000001fb\n",
		"etc/rc3.d/S01resize2fs_once":         "x",
		"etc/systemd/journald.conf.d/50.conf": "[Journal]\nStorage=persistent\n",
		"etc/apt/apt.conf.d/20":               "APT::Periodic::Unattended-Upgrade \"1\";\n",
		"etc/overlayroot.conf":                "# settings\noverlayroot_cfgdisk=\"disabled\"\noverlayroot_opts=\"x\"\noverlayroot=\"tmpfs:size=1G,swap=1\"\n",
		"etc/rootnfsd":                        "-> ../usr/share/elsewhere",
		"usr/share/elsewhere/":                "",
	})
	dir := treeOf(t, tree)
	left, changes, fixed := fix(t, dir, CapsWarn)
	if len(left) > 0 {
		t.Errorf("afterwards there is %q; want nothing", left)
	}
	want := []string{
		"fstab-disk /etc/fstab: commented out line 2, 4, 7",
		"swap /etc/systemd/system/dphys-swapfile.service: masked",
		"machine-id /etc/machine-id: emptied",
		"machine-id /var/lib/dbus/machine-id: made a link to /etc/machine-id",
		"journal-persistent /etc/systemd/journald.conf.d/99-diskless.conf: made",
		"first-boot /etc/systemd/system/resize2fs_once.service: masked",
		"background-updates /etc/systemd/system/apt-daily.timer: masked",
		"overlayroot-conf /etc/overlayroot.conf: left what overlayroot knows, with recurse=0",
	}
	if !slices.Equal(changes, want) {
		t.Errorf("changes\n%s\nwant\n%s", strings.Join(changes, "\n"), strings.Join(want, "\n"))
	}
	for p, want := range map[string]string{
		"/etc/fstab":      "proc /proc proc defaults 0 0\n#PARTUUID=1-01 /boot/firmware vfat defaults 0 2\nLABEL=x /x ext4 nofail\n#/swap none swap sw 0 0\n/dev/zram0 none swap sw 0 0\n/dev/sda2 none swap nofail 0 0\n#PARTUUID=1-02 / ext4 defaults 0 1",
		"/etc/machine-id": "",
		"/etc/systemd/system/resize2fs_once.service": "-> /dev/null",
		"/etc/overlayroot.conf":                      "# settings\noverlayroot_cfgdisk=\"disabled\"\n#overlayroot_opts=\"x\"\noverlayroot=\"tmpfs:swap=1,recurse=0\"\n",
	} {
		if got := contentOf(t, fixed, p); got != want {
			t.Errorf("%s is %q; want %q", p, got, want)
		}
	}
	record := contentOf(t, fixed, "/usr/share/elsewhere/fixes.json") // where /etc/rootnfsd leads
	if n := strings.Count(record, `"rule"`); n != len(want) || !strings.Contains(record, `"change": "commented out line 2, 4, 7"`) {
		t.Errorf("the record is\n%s", record)
	}
	if b, err := os.ReadFile(dir.Root() + "/etc/machine-id"); len(b) == 0 || err != nil {
		t.Error("the tree itself was changed")
	}
	if _, again, _ := fix(t, fixed, CapsWarn); len(again) > 0 {
		t.Errorf("a fixed tree is fixed again: %q", again)
	}
}

// TestFixJournal adds settings that come behind all others.
func TestFixJournal(t *testing.T) {
	const dir = "/etc/systemd/journald.conf.d/"
	for other, want := range map[string]string{
		"etc/systemd/journald.conf.d/10.conf":             "99-diskless.conf",
		"etc/systemd/journald.conf.d/99-diskless.conf":    "99-diskless.conf",
		"etc/systemd/journald.conf.d/zz.conf":             "zz~diskless.conf",
		"usr/lib/systemd/journald.conf.d/99-journal.conf": "99-journal~diskless.conf",
	} {
		left, changes, _ := fix(t, treeOf(t, small.and(files{other: "[Journal]\nStorage=persistent\n"})), CapsWarn)
		if want := []string{"journal-persistent " + dir + want + ": made"}; len(left) > 0 || !slices.Equal(changes, want) {
			t.Errorf("%s: changes %q; want %q; afterwards there is %q", other, changes, want, left)
		}
	}
}

// TestFixLink replaces a link to what is no file, and not what it leads to.
func TestFixLink(t *testing.T) {
	dir := treeOf(t, small.and(files{"etc/systemd/journald.conf": "[Journal]\nStorage=persistent\n", "etc/systemd/journald.conf.d/99-diskless.conf": "-> /dev/null"}))
	if err := syscall.Mkfifo(dir.Root()+"/dev/null", 0o666); err != nil { // no file, as the device
		t.Fatal(err)
	}
	left, changes, fixed := fix(t, dir, CapsWarn)
	if want := []string{"journal-persistent /etc/systemd/journald.conf.d/99-diskless.conf: made"}; len(left) > 0 || !slices.Equal(changes, want) {
		t.Errorf("changes %q; want %q; afterwards there is %q", changes, want, left)
	}
	if info, err := fixed.Lstat("/dev/null"); err != nil || info.Mode().IsRegular() {
		t.Errorf("/dev/null is a file now: %v", err)
	}
}

// TestFixLarge does not write again what it has read the beginning of.
func TestFixLarge(t *testing.T) {
	large := strings.Repeat("# remark\n", maxConfig/9+1)
	for _, name := range []string{"etc/fstab", "etc/overlayroot.conf", "etc/rootnfsd/fixes.json"} {
		dir := treeOf(t, small.and(files{"etc/machine-id": "b08dfa6083e7567a1921a715000001fb\n"}).and(files{name: "/swap none swap sw\noverlayroot=tmpfs\n" + large}))
		if _, _, err := Fix(context.Background(), dir, CapsWarn); err == nil || !strings.Contains(err.Error(), "/"+name) {
			t.Errorf("%s: %v; want an error", name, err)
		}
	}
}

// TestFixOverlayroot changes lines as a shell would read them, but for what it
// would have to quote anew.
func TestFixOverlayroot(t *testing.T) {
	for line, want := range map[string]string{
		"overlayroot=\"tmpfs\" # remark\n":                "overlayroot=\"tmpfs:recurse=0\" # remark\n",
		"overlayroot='tmpfs:swap=1,size=1G'\n":            "overlayroot=\"tmpfs:swap=1,recurse=0\"\n",
		"  overlayroot=tmp\"fs\":recurse=1;true":          "overlayroot=\"tmpfs:recurse=0\";true\n",
		"overlayroot=\"tmpfs:recurse=0\"\t# remark\n":     "overlayroot=\"tmpfs:recurse=0\"\t# remark\n",
		"overlayroot='crypt:dev=/dev/sda,pass=a b\"$c'\n": "overlayroot='crypt:dev=/dev/sda,pass=a b\"$c'\n",
		"overlayroot=\"\"\n":                              "overlayroot=\"\"\n",
		"overlayroot_x=\"tmpfs\"\n":                       "#overlayroot_x=\"tmpfs\"\n",
	} {
		if got := fixOverlayrootLine(line); got != want {
			t.Errorf("%q becomes %q; want %q", line, got, want)
		} else if again := fixOverlayrootLine(got); again != got {
			t.Errorf("%q, fixed, becomes %q", got, again)
		}
	}
}

// TestFixNothing leaves alone what is right, and what nobody can put right
// without knowing more.
func TestFixNothing(t *testing.T) {
	for _, tree := range []files{small, {}, small.without("sbin/init"), small.and(enabled("cloud-init.service")), small.and(files{"etc/overlayroot.conf": "overlayroot=\"\"\n"})} {
		if _, changes, fixed := fix(t, treeOf(t, tree), CapsSetuid); len(changes) > 0 || fixed.(interface{ Changed() bool }).Changed() {
			t.Errorf("changes %q; want nothing", changes)
		}
	}
}

// TestFixCapabilities does about file capabilities what it is told.
func TestFixCapabilities(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("the programs have to be root's")
	}
	const both = "\x01\x00\x00\x02\x80\x04\x00\x00\x00\x20\x00\x00\x80\x00\x00\x00\x00\x00\x00\x00" // setgid, net_bind_service, bpf; net_raw to inherit
	dir := treeOf(t, small.and(files{"usr/bin/ping": "x", "usr/bin/other": "x", "usr/bin/o ther": "x", "usr/sbin/setcap": "x"}))
	root := withXattrs{dir, map[string]string{"/usr/bin/ping": netRaw, "/usr/bin/other": both, "/usr/bin/o ther": netRaw}}

	left, changes, _ := fix(t, root, CapsWarn)
	if len(changes) > 0 || len(left) != 1 {
		t.Errorf("warn: changes %q, and finds %q", changes, left)
	}
	left, changes, fixed := fix(t, root, CapsSetuid)
	if want := []string{"file-capabilities /usr/bin/ping: mode 0755 -> 4755"}; !slices.Equal(changes, want) {
		t.Errorf("setuid: changes %q; want %q", changes, want)
	}
	if info, err := fixed.Lstat("/usr/bin/ping"); err != nil || info.Mode() != os.ModeSetuid|0o755 {
		t.Errorf("ping has mode %v, %v", info.Mode(), err)
	}
	if want := []string{"warning file-capabilities /usr/bin/o ther"}; !slices.Equal(left, want) {
		t.Errorf("setuid: finds %q; want %q", left, want)
	}
	left, _, fixed = fix(t, root, CapsRestore)
	unit := contentOf(t, fixed, "/etc/systemd/system/"+restoreUnit)
	want := "ExecStart=-/usr/sbin/setcap \"cap_net_raw=i cap_setgid...\" /usr/bin/other\nExecStart=-/usr/sbin/setcap \"cap_net_raw=ep\" /usr/bin/ping\n"
	want = strings.Replace(want, "cap_net_raw=i cap_setgid...", capText([]byte(both)), 1)
	if !strings.HasSuffix(unit, want) {
		t.Errorf("restore: the unit is\n%s; want at its end\n%s", unit, want)
	}
	if want := []string{"warning file-capabilities /usr/bin/o ther"}; !slices.Equal(left, want) {
		t.Errorf("restore: finds %q; want %q, which a unit cannot name", left, want)
	}
	if _, again, _ := fix(t, fixed, CapsRestore); len(again) > 0 {
		t.Errorf("restore: a fixed tree is fixed again: %q", again)
	}
	if _, _, err := Fix(context.Background(), withXattrs{treeOf(t, small.and(files{"usr/bin/ping": "x"})), root.values}, CapsRestore); err == nil || !strings.Contains(err.Error(), "libcap2-bin") {
		t.Errorf("restore without setcap: %v", err)
	}
}

// TestFixHardLinks makes a program setuid by all names that it has, known or not:
// it has one mode, which is that of whichever name is met first.
func TestFixHardLinks(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("the programs have to be root's")
	}
	dir := treeOf(t, small.and(files{"usr/bin/ping": "x", "usr/bin/other": "x"}))
	for _, name := range []string{"/usr/bin/a", "/usr/z"} {
		if err := os.Link(dir.Root()+"/usr/bin/ping", dir.Root()+name); err != nil {
			t.Fatal(err)
		}
	}
	root := withXattrs{dir, map[string]string{"/usr/bin/ping": netRaw, "/usr/bin/a": netRaw, "/usr/z": netRaw, "/usr/bin/other": netRaw}}
	left, changes, fixed := fix(t, root, CapsSetuid)
	want := []string{"file-capabilities /usr/bin/a: mode 0755 -> 4755", "file-capabilities /usr/bin/ping: mode 0755 -> 4755", "file-capabilities /usr/z: mode 0755 -> 4755"}
	if !slices.Equal(changes, want) {
		t.Errorf("changes %q; want %q", changes, want)
	}
	for _, name := range []string{"/usr/bin/a", "/usr/bin/ping", "/usr/z"} {
		if info, err := fixed.Lstat(name); err != nil || info.Mode() != os.ModeSetuid|0o755 {
			t.Errorf("%s has mode %v, %v; want it setuid", name, info.Mode(), err)
		}
	}
	if want := []string{"warning file-capabilities /usr/bin/other"}; !slices.Equal(left, want) {
		t.Errorf("finds %q; want %q", left, want)
	}
}

// TestCapText writes capabilities so that setcap(8) makes the same of them again.
func TestCapText(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root may set file capabilities")
	}
	dir := treeOf(t, files{"first": "", "second": ""})
	valueOf := func(text, name string) []byte {
		tool(t, "", "setcap", text, dir.Root()+"/"+name)
		c := newChecker(context.Background(), dir)
		value, err := c.capability("/" + name)
		if err != nil || !grants(value) {
			t.Fatalf("%s: %q, %v", text, value, err)
		}
		return value
	}
	for _, text := range []string{"cap_net_raw=ep", "cap_net_raw=p", "cap_setuid,cap_bpf=ei", "cap_chown=eip", "cap_net_bind_service,cap_setuid,cap_bpf=p cap_net_raw,cap_mac_override=i", "cap_checkpoint_restore=ep"} {
		value := valueOf(text, "first")
		if again := valueOf(capText(value), "second"); string(again) != string(value) {
			t.Errorf("%s becomes %s", text, capText(value))
		}
	}
}
