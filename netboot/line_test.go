package netboot_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/rootnfsd/rootnfsd/fs/fstest"
	"github.com/rootnfsd/rootnfsd/netboot"
)

// withCmdline returns a tree with a cmdline.txt.
func withCmdline(content string) *fstest.MemTree {
	t := fstest.NewMemTree(42)
	t.Mkdir("/boot", 0o755)
	t.Mkdir("/boot/firmware", 0o755)
	t.WriteFile("/boot/firmware/cmdline.txt", 0o755, []byte(content))
	return t
}

const ours = "root=/dev/nfs rw nfsroot=192.0.2.1:/pi@v2,v3,tcp,nolock,ro,nocto,acregmin=86400,acregmax=86400,acdirmin=86400,acdirmax=86400,rsize=1048576 ip=dhcp panic=120 overlayroot=tmpfs:recurse=0"

// draft is what a node with a draft gets.
const draft = "root=/dev/nfs rw nfsroot=192.0.2.1:/pi@v2,v3,tcp,nolock,rw,hard,rsize=1048576,wsize=1048576 ip=dhcp panic=120 overlayroot=disabled"

// without returns a command line without some of its words.
func without(line string, words ...string) string {
	for _, w := range words {
		line = strings.Replace(line, " "+w, "", 1)
	}
	return line
}

// piLine is what a node without a name gets, but for the image's words.
func piLine() netboot.Line {
	return netboot.Line{Server: netip.MustParseAddr("192.0.2.1"), Ports: netboot.Ports{NFS: 2049, Mapper: true}, Image: "pi", Version: "v2", FSID: 0x0123456789abcdef}
}

func textOf(t *testing.T, l netboot.Line) string {
	t.Helper()
	words, err := l.All()
	if err != nil {
		t.Error(err)
	}
	return netboot.Text(words)
}

// TestImageWords has command lines as systems come with.
func TestImageWords(t *testing.T) {
	for _, c := range []struct{ name, content, want string }{
		{"bookworm", "console=serial0,115200 console=tty1 root=PARTUUID=8f0cb7f8-02 rootfstype=ext4 fsck.repair=yes rootwait quiet splash plymouth.ignore-serial-consoles cfg80211.ieee80211_regdom=GB\n",
			"console=serial0,115200 console=tty1 quiet splash plymouth.ignore-serial-consoles cfg80211.ieee80211_regdom=GB"},
		{"bookworm, first boot", "console=serial0,115200 console=tty1 root=PARTUUID=4e639091-02 rootfstype=ext4 fsck.repair=yes rootwait quiet init=/usr/lib/raspberrypi-sys-mods/firstboot",
			"console=serial0,115200 console=tty1 quiet"},
		{"buster, first boot", "dwc_otg.lpm_enable=0 console=serial0,115200 console=tty1 root=PARTUUID=ea7d04d6-02 rootfstype=ext4 elevator=deadline fsck.repair=yes rootwait quiet init=/usr/lib/raspi-config/init_resize.sh",
			"dwc_otg.lpm_enable=0 console=serial0,115200 console=tty1 elevator=deadline quiet"},
		{"bullseye, by Imager", "console=serial0,115200 console=tty1 root=PARTUUID=7788c428-02 rootfstype=ext4 fsck.repair=yes rootwait quiet init=/usr/lib/raspi-config/init_resize.sh systemd.run=/boot/firstrun.sh systemd.run_success_action=reboot systemd.unit=kernel-command-line.target",
			"console=serial0,115200 console=tty1 quiet"},
		{"bookworm, by Imager", "console=tty1 root=PARTUUID=7788c428-02 rootwait cfg80211.ieee80211_regdom=DE systemd.run=/boot/firmware/firstrun.sh systemd.run_success_action=reboot systemd.unit=kernel-command-line.target",
			"console=tty1 cfg80211.ieee80211_regdom=DE"},
		{"trixie, first boot", "console=serial0,115200 console=tty1 root=PARTUUID=11aa22bb-02 rootfstype=ext4 fsck.repair=yes rootwait resize quiet splash plymouth.ignore-serial-consoles ds=nocloud;i=rpi-imager-1758721120853",
			"console=serial0,115200 console=tty1 quiet splash plymouth.ignore-serial-consoles ds=nocloud;i=rpi-imager-1758721120853"},
		{"Ubuntu 24.04", "console=serial0,115200 multipath=off dwc_otg.lpm_enable=0 console=tty1 root=LABEL=writable rootfstype=ext4 panic=10 rootwait fixrtc",
			"console=serial0,115200 multipath=off dwc_otg.lpm_enable=0 console=tty1 panic=10 fixrtc"},
		{"a card with an overlay", "boot=overlay console=tty1 root=PARTUUID=7788c428-02 overlayroot=tmpfs ro rootflags=noatime rootdelay=5", "console=tty1"},
		{"a live system", "boot=live components quiet", "components quiet"},
		{"Ubuntu's live system", "boot=casper boot=nfs quiet", "boot=nfs quiet"},
		{"NFS by hand", "console=tty1 root=/dev/nfs nfsroot=10.0.0.1:/pi,vers=3 rw ip=dhcp rootwait elevator=deadline", "console=tty1 elevator=deadline"},
		{"an overlay of its own", "console=tty1 root=/dev/mmcblk0p2 init=/sbin/init-overlay", "console=tty1 init=/sbin/init-overlay"},
		{"a unit of its own", "systemd.run=/opt/measure.sh systemd.run_success_action=poweroff systemd.unit=kernel-command-line.target",
			"systemd.run=/opt/measure.sh systemd.run_success_action=poweroff systemd.unit=kernel-command-line.target"},
		{"another target", "systemd.run=/boot/firstrun.sh systemd.unit=rescue.target", "systemd.unit=rescue.target"},
		{"dashes", "fsck.mode=skip resume=UUID=1 resume-offset=2 net.ifnames=0", "net.ifnames=0"},
		{"quotes", `dyndbg="file drivers/nfs/* +p" "root=LABEL=my disk" quiet`, `dyndbg="file drivers/nfs/* +p" quiet`},
		{"CRLF", "console=tty1 rootwait\r\nsecond=line\r\n", "console=tty1"},
		{"empty lines first", "\n \t\n  console=tty1\tquiet  \nsecond=line", "console=tty1 quiet"},
		{"a byte order mark", "\ufeffroot=/dev/sda1 quiet", "quiet"},
		{"nothing", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			words, err := netboot.ImageWords(withCmdline(c.content))
			if err != nil {
				t.Fatal(err)
			}
			l := piLine()
			l.Words = words
			want := strings.TrimSpace(c.want + " " + ours)
			if strings.Contains(c.want, "panic=") {
				want = without(want, "panic=120")
			}
			if got := textOf(t, l); got != want {
				t.Errorf("%s\nwant\n%s", got, want)
			}
		})
	}
}

func TestImageWordsLeftOut(t *testing.T) {
	none := fstest.NewMemTree(42)
	none.Mkdir("/boot", 0o755)
	none.WriteFile("/boot/vmlinuz", 0o644, nil)
	out := fstest.NewMemTree(42)
	out.Mkdir("/boot", 0o755)
	out.Symlink("/boot/cmdline.txt", "../../etc/passwd")
	for _, c := range []struct {
		name string
		tree *fstest.MemTree
		want string
	}{
		{"no file", none, "/boot/cmdline.txt is left out: no such file"},
		{"no boot files", fstest.NewMemTree(42), "no boot files"},
		{"a symlink out of the tree", out, "leads out of the image"},
		{"junk", withCmdline("console=tty1 \x01\x02\x00"), "no text"},
		{"a kernel", withCmdline("MZ\x90\xff\xfe\xfd"), "no text"},
		{"too long", withCmdline(strings.Repeat("a ", 40_000)), "more than 65536 bytes"},
		{"a quote", withCmdline(`console=tty1 a="b c`), "quote"},
	} {
		words, err := netboot.ImageWords(c.tree)
		if len(words) > 0 || err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %q, %v; want %q", c.name, words, err, c.want)
		}
	}
}

func TestLine(t *testing.T) {
	words := strings.Fields("console=tty1 quiet console=ttyS0 init=/sbin/init-overlay")
	for _, c := range []struct {
		name   string
		change func(*netboot.Line)
		want   string
	}{
		{"what is promoted", func(l *netboot.Line) { l.Version = "" }, strings.Replace(ours, "@v2", "", 1)},
		{"another port", func(l *netboot.Line) { l.Ports.NFS = 12049 }, strings.Replace(ours, "576 ", "576,port=12049 ", 1)},
		{"no port mapper", func(l *netboot.Line) { l.Ports.Mapper = false }, strings.Replace(ours, "576 ", "576,port=2049 ", 1)},
		{"identity", func(l *netboot.Line) { l.Hostname, l.MachineID = "pi-01", "0123" }, ours + " systemd.hostname=pi-01 systemd.machine_id=0123"},
		{"bare", func(l *netboot.Line) { l.Bare = true }, strings.TrimSuffix(strings.Replace(ours, " rw ", " ro ", 1), " overlayroot=tmpfs:recurse=0")},
		{"bare, no port mapper", func(l *netboot.Line) { l.Bare, l.Ports.Mapper = true, false },
			strings.TrimSuffix(strings.Replace(strings.Replace(ours, " rw ", " ro ", 1), "576 ", "576,port=2049,mountport=2049 ", 1), " overlayroot=tmpfs:recurse=0")},
		{"a draft", func(l *netboot.Line) { l.Draft = true }, draft},
		{"a draft, bare", func(l *netboot.Line) { l.Draft, l.Bare = true, true }, draft},
		{"a draft on another port", func(l *netboot.Line) { l.Draft, l.Ports.NFS = true, 12049 }, strings.Replace(draft, "wsize=1048576 ", "wsize=1048576,port=12049 ", 1)},
		{"a draft of an image with overlays", func(l *netboot.Line) {
			l.Draft, l.Words = true, strings.Fields("quiet init=/sbin/init-overlay overlayroot=tmpfs rootnfsd.overlay=tmpfs overlaytmpfs=yes ro")
		}, "quiet " + draft},
		{"a draft of a node with overlays", func(l *netboot.Line) {
			l.Draft, l.Own = true, "panic=10 overlayroot=device:dev=/dev/sda rootnfsd.overlay=loop:size=2G ro init=/bin/sh"
		}, without(draft, "panic=120") + " panic=10 init=/bin/sh"},
		{"the node's own", func(l *netboot.Line) { l.Own = "isolcpus=3 panic=10" }, without(ours, "panic=120") + " isolcpus=3 panic=10"},
		{"in place of ours", func(l *netboot.Line) { l.Own = "ip=:::::eth1:dhcp overlayroot=tmpfs:swap=1" },
			without(ours, "ip=dhcp", "overlayroot=tmpfs:recurse=0") + " ip=:::::eth1:dhcp overlayroot=tmpfs:swap=1"},
		{"in place of the image's", func(l *netboot.Line) { l.Words, l.Own = words, "console=ttyAMA0 console=tty2" }, "quiet init=/sbin/init-overlay " + ours + " console=ttyAMA0 console=tty2"},
		{"another overlay", func(l *netboot.Line) { l.Own = "rootnfsd.overlay=ram" }, strings.TrimSuffix(ours, " overlayroot=tmpfs:recurse=0") + " rootnfsd.version=0123456789abcdef rootnfsd.overlay=ram"},
		{"another overlay, and no version", func(l *netboot.Line) { l.Own, l.Version = "rootnfsd.overlay=ram", "" }, strings.Replace(strings.TrimSuffix(ours, " overlayroot=tmpfs:recurse=0"), "@v2", "", 1) + " rootnfsd.overlay=ram"},
		{"read-only", func(l *netboot.Line) { l.Own = "ro" }, strings.Replace(ours, " rw ", " ", 1) + " ro"},
		{"for init", func(l *netboot.Line) { l.Words, l.Own = []string{"quiet", "--", "single"}, "panic=1 -- -b" }, "quiet " + without(ours, "panic=120") + " panic=1 -- single -b"},
		{"quotes", func(l *netboot.Line) { l.Own = `a="b c" panic=1` }, without(ours, "panic=120") + ` a="b c" panic=1`},
		{"the image's panic", func(l *netboot.Line) { l.Words = []string{"panic=10"} }, "panic=10 " + without(ours, "panic=120")},
		{"the node's panic, not the image's", func(l *netboot.Line) { l.Words, l.Own = []string{"panic=10"}, "panic=0" }, without(ours, "panic=120") + " panic=0"},
		{"the image's panic for init", func(l *netboot.Line) { l.Words = []string{"--", "panic=10"} }, ours + " -- panic=10"},
		{"IPv4 in IPv6", func(l *netboot.Line) { l.Server = netip.MustParseAddr("::ffff:192.0.2.1") }, ours},
		{"IPv6", func(l *netboot.Line) { l.Server = netip.MustParseAddr("fd00::1") }, strings.Replace(ours, "192.0.2.1", "SERVER-IPV4", 1)},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := piLine()
			c.change(&l)
			if got := textOf(t, l); got != c.want {
				t.Errorf("%s\nwant\n%s", got, c.want)
			}
		})
	}
}

// TestWhoseInit looks whose the words for init are, and the dashes before them.
func TestWhoseInit(t *testing.T) {
	for _, c := range []struct{ name, image, own, want string }{
		{"the image's", "-- single", "quiet", "--:image single:image"},
		{"the node's", "quiet", "-- -b", "--:node -b:node"},
		{"both", "-- single", "-- -b", "--:image single:image -b:node"},
		{"nothing behind the image's dashes", "quiet --", "-- -b", "--:node -b:node"},
		{"none", "quiet", "panic=1", ""},
	} {
		l := piLine()
		l.Words, l.Own = strings.Fields(c.image), c.own
		words, err := l.All()
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		var got []string
		for _, w := range words {
			if w.Text == "--" || got != nil {
				got = append(got, w.Text+":"+string(w.By))
			}
		}
		if text := strings.Join(got, " "); text != c.want {
			t.Errorf("%s: %q; want %q", c.name, text, c.want)
		}
	}
}

// TestLineSays: each word has a reason, those that are left out, too.
func TestLineSays(t *testing.T) {
	l := piLine()
	l.Words, l.Own = strings.Fields("root=/dev/sda1 ip=off quiet foo console=tty1"), "console=tty2 bar overlayroot=tmpfs"
	words, err := l.All()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]bool{}
	for _, w := range words {
		if w.Why == "" || w.By == "" {
			t.Errorf("%+v: no reason", w)
		}
		for _, o := range w.Options {
			if o.Why == "" || !strings.Contains(w.Text, ","+o.Text) {
				t.Errorf("%+v", o)
			}
		}
		if w.LeftOut {
			out[w.Text] = true
		}
	}
	for _, text := range []string{"root=/dev/sda1", "ip=off", "console=tty1", "overlayroot=tmpfs:recurse=0"} {
		if !out[text] {
			t.Errorf("%s is not among those that are left out", text)
		}
	}
	if len(out) != 4 {
		t.Errorf("left out: %v", out)
	}
}

func TestLineIsBounded(t *testing.T) {
	for _, c := range []struct {
		name      string
		image     int // bytes
		own       string
		least     int
		most      int
		wantError string
	}{
		{"fits", 1000, "", 1000, 2048, ""},
		{"long", 3000, "", 3000, 4096, "most kernels"},
		{"too long", 5000, "panic=1", 0, 400, "image's words are left out"},
		{"a quote of the node's", 10, `a="b`, 0, 400, "quote"},
	} {
		l := piLine()
		l.Words, l.Own = strings.Fields(strings.Repeat("abcdefghi ", c.image/10)), c.own
		words, err := l.All()
		if n := len(netboot.Text(words)); n < c.least || n > c.most {
			t.Errorf("%s: %d bytes", c.name, n)
		}
		if (err != nil) != (c.wantError != "") || err != nil && !strings.Contains(err.Error(), c.wantError) {
			t.Errorf("%s: %v; want %q", c.name, err, c.wantError)
		}
		if !strings.Contains(netboot.Text(words), "root=/dev/nfs") {
			t.Errorf("%s: no root", c.name)
		}
	}
}

func FuzzCmdline(f *testing.F) {
	for _, seed := range []string{"console=tty1 root=/dev/sda1\r\n", `a="b c" "d e"=f`, "\xff\xfe", "-- x", "systemd.run=/boot/firstrun.sh systemd.unit=x", "\n\n a", "root-flags=1 ro"} {
		f.Add(seed, seed)
	}
	f.Fuzz(func(t *testing.T, image, own string) {
		words, err := netboot.ParseCmdline(image)
		if err != nil && len(words) > 0 {
			t.Errorf("%q: %q and %v", image, words, err)
		}
		l := piLine()
		l.Words = words
		if own, err := netboot.ParseCmdline(own); err == nil && len(own) < 100 { // as the inventory has them
			l.Own = strings.Join(own, " ")
		}
		all, _ := l.All()
		text := netboot.Text(all)
		if strings.ContainsAny(text, "\n\r\x00") {
			t.Errorf("%q: not one line: %q", image, text)
		}
		if len(l.Own) < 1024 && len(text) > netboot.MostLine {
			t.Errorf("%q: %d bytes", image, len(text))
		}
		again, err := netboot.ParseCmdline(text)
		if err != nil {
			t.Fatalf("%q: what is made of it cannot be read: %v", image, err)
		}
		kept := 0
		for _, w := range all {
			if !w.LeftOut {
				kept++
			}
		}
		if len(again) != kept {
			t.Errorf("%q: %d words are read as %d: %q", image, kept, len(again), text)
		}
	})
}

func FuzzNamesCommandLine(f *testing.F) {
	for _, seed := range []string{"cmdline=nfs.txt\r\n", "cmdline=../x", "[pi4]\ncmdline=", "cmdline=/", "cmdline=a/./b\ncmdline=c"} {
		f.Add(seed, "nfs.txt")
	}
	f.Fuzz(func(t *testing.T, config, asked string) {
		if netboot.NamesCommandLine(config, asked) && (!strings.Contains(config, "cmdline=") || asked == "config.txt" || asked == "") {
			t.Errorf("%q names %q", config, asked)
		}
	})
}

func TestCompareVersions(t *testing.T) {
	for _, c := range []struct{ older, newer string }{
		{"6.1.0-9-amd64", "6.1.0-10-amd64"},
		{"6.1.0", "6.12.0"},
		{"5.15.0-100-raspi", "6.8.0-1005-raspi"},
		{"6.12~rc3", "6.12"},
		{"6.12", "6.12.1"},
		{"6.1-rpi-v8", "6.1.2-rpi-v8"},
	} {
		if netboot.CompareVersions(c.older, c.newer) >= 0 || netboot.CompareVersions(c.newer, c.older) <= 0 || netboot.CompareVersions(c.older, c.older) != 0 {
			t.Errorf("%s is not older than %s", c.older, c.newer)
		}
	}
}
