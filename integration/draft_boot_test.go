package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rootnfsd/rootnfsd/integration/lab"
)

// makePackage makes a Debian package that leaves what an NFS server gets wrong easily.
func makePackage(t *testing.T, path string) {
	t.Helper()
	require(t, "dpkg-deb")
	dir := filepath.Join(t.TempDir(), "package")
	write(t, filepath.Join(dir, "DEBIAN/control"), "Package: lab-hello\nVersion: 1.0\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: says hello\n")
	write(t, filepath.Join(dir, "DEBIAN/postinst"), `#!/bin/sh
set -e
mkdir -p /opt/lab
mknod /opt/lab/null c 1 3
mkfifo /opt/lab/fifo
ln /usr/bin/lab-hello /opt/lab/hard
ln -s ../../usr/bin/lab-hello /opt/lab/soft
install -o ubuntu -g adm -m 6750 /dev/null /opt/lab/owned
touch -d '2001-02-03 04:05:06.123456789 UTC' /opt/lab/owned
`)
	write(t, filepath.Join(dir, "usr/bin/lab-hello"), "#!/bin/sh\necho hello\n")
	for _, program := range []string{"DEBIAN/postinst", "usr/bin/lab-hello"} {
		if err := os.Chmod(filepath.Join(dir, program), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("dpkg-deb", "--root-owner-group", "--build", dir, path).CombinedOutput(); err != nil {
		t.Fatalf("dpkg-deb: %v\n%s", err, out)
	}
}

// draftLine is the command line of a node with the draft v2.
func draftLine(m lab.Machine) lab.Machine {
	m.Append = strings.ReplaceAll(m.Append, "/images,v3,tcp,ro", "/images@v2,v3,tcp,nolock,rw,hard")
	m.Append = strings.ReplaceAll(m.Append, "overlayroot=tmpfs", "overlayroot=disabled")
	return m
}

// TestDraftBoot boots Debian from a draft, installs a package there by apt, and makes a version of it.
func TestDraftBoot(t *testing.T) {
	t.Parallel()
	golden := openGolden(t)
	store := filepath.Join(t.TempDir(), "images")
	mkdir(t, store)
	if err := os.Symlink(golden.Tree("v1"), filepath.Join(store, "v1")); err != nil {
		t.Fatal(err)
	}
	at := "--export=" + store
	cli(t, "promote", "v1", at)
	golden.Close() // for others
	net := newNet(t)
	serve(t, net, "--export", store, "--allow", lab.ServerAddress+"/24")
	cli(t, "node", "set", "pi-01", "--address", lab.NodeAddress(1), at)
	cli(t, "draft", "v2", "--from", "v1", "--node", "pi-01", at)
	compareTrees(t, golden.Tree("v1"), filepath.Join(store, "v2"))
	makePackage(t, filepath.Join(store, "v2/root/lab-hello.deb"))

	m, err := net.Node(1)
	if err == nil {
		m, err = golden.Boot("v1", m)
	}
	if err != nil {
		t.Fatal(err)
	}
	node := boot(t, draftLine(m))
	if got := in(t, node, "findmnt -no FSTYPE,OPTIONS /"); !strings.HasPrefix(got, "nfs ") || !slices.Contains(strings.FieldsFunc(got, func(r rune) bool { return r == ' ' || r == ',' || r == '\n' }), "rw") {
		t.Errorf("the root is %q; want NFS, rw", got)
	}
	in(t, node, "apt-get -y install /root/lab-hello.deb && rm /root/lab-hello.deb")
	const look = "lab-hello; dpkg-query -W lab-hello; stat -c '%F %a %U:%G %h %Y %t:%T %n' /opt/lab/* | sort; readlink /opt/lab/soft"
	installed := in(t, node, look)
	if !strings.HasPrefix(installed, "hello\nlab-hello\t1.0\n") || !strings.Contains(installed, "regular empty file 6750 ubuntu:adm 1 981173106 ") || !strings.Contains(installed, "character special file 644 root:root 1 ") {
		t.Errorf("after the installation: %s", installed)
	}
	// The tools of a package manager lock and sync, and others wait for them.
	in(t, node, `flock /var/lib/dpkg/lock sh -c '! flock --nonblock /var/lib/dpkg/lock true' && echo x >/opt/lab/synced && sync /opt/lab/synced`)
	if got := cliJSON[[]nodeState](t, "nodes", at); len(got) != 1 || got[0].OnDraft != "v2" || got[0].Running != "v2" {
		t.Errorf("the nodes are %+v", got)
	}
	expectFailure(t, []string{"seal", "v2", at}, "pi-01 is on the draft v2")
	installed = in(t, node, look+"; sync")
	node.Stop()
	cli(t, "seal", "v2", "--force", at)
	if got := cli(t, "cat", "v2:/usr/bin/lab-hello", "v2:/opt/lab/synced", at); got != "#!/bin/sh\necho hello\nx\n" {
		t.Errorf("the version has %q", got)
	}
	if got := strings.Join(strings.Fields(cli(t, "ls", "-n", "v2:/opt/lab", at)), " "); !strings.Contains(got, "crw-r--r-- 1 0 0 1, 3 ") || !strings.Contains(got, "-rwsr-s--- 1 1000 4 0 ") {
		t.Errorf("the version has %s", got)
	}
	cli(t, "promote", "v2", "--force", at)

	if os.Getenv("ROOTNFSD_TEST_LONG") == "" {
		return
	}
	other, err := net.Node(2)
	if err == nil {
		other, err = golden.Boot("v1", other)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := in(t, boot(t, other), look); got != installed {
		t.Errorf("another node has %s; want %s", got, installed)
	}
}

// compareTrees compares two directories of this machine.
func compareTrees(t *testing.T, a, b string) {
	t.Helper()
	list := func(dir string) string {
		out, err := exec.Command("sh", "-c", `cd "$0" && find . -xdev -printf '%P %y %m %U:%G %s %T@ %l\n' | sed 's/ d \(.*\) [0-9]* \([0-9.]* $\)/ d \1 \2/' | sort`, dir).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	if list(a) != list(b) {
		t.Errorf("%s is not as %s", b, a)
	}
}
