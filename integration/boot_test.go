package integration

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/rootnfsd/rootnfsd/integration/lab"
)

// dhcpLine is a kernel command line of the form that people use: no port
// options, and an address from DHCP.
const dhcpLine = "root=/dev/nfs rw nfsroot=" + lab.UserServer + ":/images,v3,tcp,ro" +
	" modules-load=overlay overlayroot=tmpfs ip=dhcp console=ttyS0"

// TestBoot boots a Debian node by its own initramfs (klibc's nfsmount,
// overlayroot) and looks at the root it got.
func TestBoot(t *testing.T) {
	golden := openGolden(t)
	net := newNet(t)
	cli(t, "promote", "v1", "--export", golden.Store)
	serve(t, net, "--export", golden.Store, "--allow", "127.0.0.0/8")
	machine, err := golden.Boot("v1", lab.Machine{Net: net, Append: dhcpLine})
	if err != nil {
		t.Fatal(err)
	}
	node := boot(t, machine)

	t.Run("a writable overlay lies over NFS", func(t *testing.T) { checkMounts(t, node) })
	t.Run("an ordinary user can su", func(t *testing.T) { checkSu(t, node) })
	t.Run("every object is as in the golden tree", func(t *testing.T) {
		compare(t, node, "/media/root-ro", golden.Tree("v1"), listing)
	})
	t.Run("inode numbers fit 32-bit programs", func(t *testing.T) {
		if wide := in(t, node, "cd /media/root-ro && "+wideInodes); wide != "" {
			t.Errorf("inode numbers of 2^32 and more:\n%s", wide)
		}
	})
	t.Run("every byte is as in the golden tree", func(t *testing.T) {
		compare(t, node, "/media/root-ro", golden.Tree("v1"), checksums)
	})
	t.Run("mount without options falls back to version 3", func(t *testing.T) {
		in(t, node, "mount -t nfs "+lab.UserServer+":/images /mnt")
		if got := in(t, node, "cat /mnt/etc/version-marker; findmnt -no OPTIONS /mnt"); !strings.HasPrefix(got, "v1\n") || !strings.Contains(got, "vers=3") {
			t.Errorf("the version marker and the options of the mount: %q; want v1 and vers=3", got)
		}
		in(t, node, "umount /mnt")
	})
}

func checkMounts(t *testing.T, node *lab.Guest) {
	for _, c := range []struct {
		mount, fstype string
		options       []string
	}{
		{"/", "overlay", []string{"rw", "lowerdir=/media/root-ro"}},
		{"/media/root-ro", "nfs", []string{"ro", "vers=3", "proto=tcp"}},
	} {
		out := in(t, node, "findmnt -no FSTYPE,OPTIONS "+c.mount)
		fstype, options, _ := strings.Cut(strings.TrimSpace(out), " ")
		if fstype != c.fstype {
			t.Errorf("%s is of type %q; want %s", c.mount, fstype, c.fstype)
		}
		for _, want := range c.options {
			if !strings.Contains(","+strings.TrimSpace(options)+",", ","+want+",") {
				t.Errorf("%s is mounted with %q; want %s", c.mount, options, want)
			}
		}
	}
}

func checkSu(t *testing.T, node *lab.Guest) {
	if mode := in(t, node, "stat -Lc '%a %u' /bin/su /media/root-ro/bin/su"); mode != "4755 0\n4755 0\n" {
		t.Errorf("mode and owner of su in the overlay and below: %q; want 4755 0", mode)
	}
	got := in(t, node, `runuser -u ubuntu -- sh -c 'id -u; echo golden | su -c "id -u" 2>/dev/null'`)
	if got != "1000\n0\n" {
		t.Errorf("user ids before and after su: %q; want 1000 and 0", got)
	}
}

// Scripts that describe the tree in the working directory, one line an object.
// Inode numbers become the first name of the object, which shows the hard
// links. Sizes and link counts of directories are the file system's own affair.
const (
	listing = `export LC_ALL=C; find . -xdev -print0 | sort -z |
		xargs -0 stat --printf '%F\t%a\t%u\t%g\t%h\t%s\t%t:%T\t%.9Y\t%i\t%N\n' |
		awk -F '\t' -v OFS='\t' '
			$1 == "directory" { $5 = $6 = "-" }
			!($9 in first) { first[$9] = $10 }
			{ $9 = "is " first[$9]; print }'`
	checksums  = `export LC_ALL=C; find . -xdev -type f -print0 | sort -z | xargs -0 sha256sum`
	wideInodes = `find . -xdev -printf '%i %p\n' | awk '$1 >= 4294967296'`
)

// compare runs a script in a directory of a node and in the golden tree and
// names the lines that differ.
func compare(t *testing.T, node *lab.Guest, dir, tree, script string) {
	t.Helper()
	local := exec.Command("sh", "-c", script)
	local.Dir = tree
	want := finish(t, local)
	if want.status != 0 {
		t.Fatalf("in the golden tree: %s", want.stderr)
	}
	got := in(t, node, "cd "+dir+" && "+script)
	if got == want.stdout {
		return
	}
	shown := 0
	served, golden := lines(got), lines(want.stdout)
	for line := range served {
		if !golden[line] && shown < 20 {
			shown++
			t.Errorf("served, but not in the golden tree: %s", line)
		}
	}
	for line := range golden {
		if !served[line] && shown < 40 {
			shown++
			t.Errorf("in the golden tree, but not served: %s", line)
		}
	}
	t.Errorf("%d objects are served; the golden tree has %d", len(served), len(golden))
}

func lines(s string) map[string]bool {
	set := map[string]bool{}
	for line := range strings.Lines(s) {
		set[strings.TrimSuffix(line, "\n")] = true
	}
	return set
}
