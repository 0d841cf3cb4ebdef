package integration

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rootnfsd/rootnfsd/bench/rpc"
)

const (
	statusExist = rpc.StatusError(17)
	statusXDev  = rpc.StatusError(18)
	statusRofs  = rpc.StatusError(30)
	statusStale = rpc.StatusError(70)
)

// Procedures of NFS version 3 that a draft sees, and a version does not (RFC 1813, section 3.3).
const (
	procSetattr = 2
	procWrite   = 7
	procCreate  = 8
	procMkdir   = 9
	procMknod   = 11
	procRename  = 14
	procLink    = 15
)

// xdr puts arguments of calls together: handles and names as opaque data, numbers as words.
func xdr(args ...any) (b []byte) {
	for _, a := range args {
		switch a := a.(type) {
		case int:
			b = binary.BigEndian.AppendUint32(b, uint32(a))
		case string:
			b = append(binary.BigEndian.AppendUint32(b, uint32(len(a))), a...)
			b = append(b, make([]byte, -len(a)&3)...)
		case []byte:
			b = append(b, xdr(string(a))...)
		}
	}
	return b
}

// sattr is a sattr3 that sets mode, user and group.
func sattr(mode, uid, gid int) []any { return []any{1, mode, 1, uid, 1, gid, 0, 0, 0} }

// do makes a call that changes something.
func (n *ownNode) do(proc uint32, args ...any) error {
	return n.call(func(c *rpc.Conn) error {
		reply, err := c.Do(1, c.AppendCall(nil, 1, rpc.ProgNFS, 3, proc, xdr(args...)))
		if err == nil {
			err = reply.Err()
		}
		return err
	})
}

// must is do for what must succeed.
func (n *ownNode) must(proc uint32, args ...any) {
	n.t.Helper()
	if err := n.do(proc, args...); err != nil {
		n.t.Fatalf("procedure %d: %v", proc, err)
	}
}

// at is the handle of something below the root.
func (n *ownNode) at(path string) []byte {
	n.t.Helper()
	h, _, err := n.find(n.root, path)
	if err != nil {
		n.t.Fatalf("%s: %v", path, err)
	}
	return h
}

// write writes a new file.
func (n *ownNode) write(dir []byte, name, content string) {
	n.t.Helper()
	n.must(procCreate, append([]any{dir, name, 1}, sattr(0o644, 0, 0)...)...)
	h, _, err := n.find(dir, name)
	if err != nil {
		n.t.Fatal(err)
	}
	n.must(procWrite, h, 0, 0, len(content), 2, content)
}

// mounts mounts a path from an initramfs and returns the error.
func (n *ownNode) mounts(path string) error {
	return n.call(func(c *rpc.Conn) (err error) {
		c.Caller = rpc.Caller{}
		n.root, err = c.Mount(path)
		return err
	})
}

// reboot is boot a second or more after the last call: the record of nodes tells no finer.
func (n *ownNode) reboot() *ownNode {
	n.t.Helper()
	time.Sleep(1100 * time.Millisecond)
	return n.boot()
}

// draftFleet is a served store with v1, promoted, and v2, and two nodes.
func draftFleet(t *testing.T) *fleet {
	f := &fleet{t: t, store: newStore(t, map[string]files{
		"v1": {"etc/issue": "one", "boot/vmlinuz": "kernel", "usr/bin/ping": "ping"},
		"v2": {"etc/issue": "two"},
	})}
	f.at, f.net = "--export="+f.store, byte(draftNets.Add(1))
	cli(t, "seal", f.at)
	cli(t, "promote", "v1", "--force", f.at)
	cli(t, "node", "set", "pi-01", "--address", f.address(1), f.at)
	cli(t, "node", "set", "pi-02", "--address", f.address(2), f.at)
	return f
}

// draftNets counts the networks of fleets: each call takes a reserved port, and closed connections keep theirs for a minute.
var draftNets atomic.Int32

func (f *fleet) node(i byte) *ownNode {
	return &ownNode{t: f.t, f: f, from: netip.AddrFrom4([4]byte{127, 2, f.net, i})}
}

// address is that of a node.
func (f *fleet) address(i byte) string { return f.node(i).from.String() }

// nodeState is what is of interest here of what nodes --json says.
type nodeState struct {
	Name, Running, Promised, Why, Draft string
	OnDraft                             string `json:"on_draft"`
}

func (f *fleet) state(name string) nodeState {
	f.t.Helper()
	all := cliJSON[[]nodeState](f.t, "nodes", name, f.at)
	if len(all) != 1 {
		f.t.Fatalf("%d nodes %s", len(all), name)
	}
	return all[0]
}

// TestDraft has a node work in a draft, across crashes of the server, and another node get what came of it.
func TestDraft(t *testing.T) {
	f := draftFleet(t)
	f.start()
	out := cli(t, "draft", "v3", "--from", "v1", "--node", "pi-01", f.at)
	for _, want := range []string{filepath.Join(f.store, "v3"), "pi-01", "/images@v3,v3,tcp,nolock,rw,hard", "overlayroot=disabled", "no rootnfsd.overlay="} {
		if !strings.Contains(out, want) {
			t.Errorf("draft says %q; want %q in it", out, want)
		}
	}
	one, two := f.node(1).boot(), f.node(2).boot()
	two.expect("etc/issue", "one")
	if err := two.do(procMkdir, append([]any{two.root, "x"}, sattr(0o755, 0, 0)...)...); !errors.Is(err, statusRofs) {
		t.Errorf("MKDIR in a version: %v; want ROFS", err)
	}

	etc := one.at("etc")
	one.write(etc, "new", "written")
	secret := one.at("etc/new")
	t.Run("all that a root needs", func(t *testing.T) {
		tree := filepath.Join(f.store, "v3")
		stat := func(path string) *syscall.Stat_t {
			t.Helper()
			info, err := os.Lstat(filepath.Join(tree, path))
			if err != nil {
				t.Fatal(err)
			}
			return info.Sys().(*syscall.Stat_t)
		}
		one.must(procSetattr, append(append([]any{secret}, sattr(0o4755, 1000, 100)...), 0)...)
		if st := stat("etc/new"); st.Uid != 1000 || st.Gid != 100 || st.Mode != syscall.S_IFREG|0o4755 {
			t.Errorf("after SETATTR: %d:%d %o", st.Uid, st.Gid, st.Mode)
		}
		const charDevice = 4
		one.must(procMknod, append(append([]any{one.root, "null", charDevice}, sattr(0o666, 0, 0)...), 1, 3)...)
		if st := stat("null"); st.Rdev != 1<<8|3 || st.Mode != syscall.S_IFCHR|0o666 {
			t.Errorf("a device: %d, %o", st.Rdev, st.Mode)
		}
		one.must(procLink, secret, etc, "linked")
		if a, b := stat("etc/new"), stat("etc/linked"); a.Ino != b.Ino || a.Nlink != 2 {
			t.Errorf("a hard link: inodes %d and %d, %d names", a.Ino, b.Ino, a.Nlink)
		}
		one.must(procRename, etc, "linked", one.root, "moved")
		one.expect("moved", "written")
		user := f.node(1)
		user.uid = 1000
		user.root = one.root
		if err := user.do(procMkdir, append([]any{etc, "x"}, sattr(0o755, 0, 0)...)...); !errors.Is(err, statusAccess) {
			t.Errorf("MKDIR by a user in a directory of root: %v; want ACCES", err)
		}
		if a, err := one.getattr(secret); err != nil || a.FileID >= 1<<32 {
			t.Errorf("file id %d, %v; want one below 2^32", a.FileID, err)
		}
	})
	t.Run("it is one node's alone", func(t *testing.T) {
		for _, thief := range []*ownNode{two, f.node(9)} {
			if _, err := thief.read(secret); !errors.Is(err, statusAccess) {
				t.Errorf("READ from %s: %v; want ACCES", thief.from, err)
			}
			if _, _, err := thief.find(one.root, "etc"); !errors.Is(err, statusAccess) {
				t.Errorf("LOOKUP from %s: %v; want ACCES", thief.from, err)
			}
			if err := thief.do(procWrite, secret, 0, 0, 1, 2, "x"); !errors.Is(err, statusAccess) {
				t.Errorf("WRITE from %s: %v; want ACCES", thief.from, err)
			}
			if err := thief.mounts("/images@v3"); !errors.Is(err, statusAccess) {
				t.Errorf("MOUNT from %s: %v; want ACCES", thief.from, err)
			}
		}
		user := f.node(1)
		user.user = true
		if _, err := user.read(secret); !errors.Is(err, statusAccess) {
			t.Errorf("READ from a port that is not reserved: %v; want ACCES", err)
		}
		for _, path := range []string{"/images", "/images@v3"} {
			if err := user.mounts(path); !errors.Is(err, statusAccess) {
				t.Errorf("MOUNT of %s from a port that is not reserved: %v; want ACCES", path, err)
			}
		}
		version := f.node(1)
		if err := version.mounts("/images@v2"); err != nil {
			t.Error(err)
		}
		version.expect("etc/issue", "two")
	})
	t.Run("it outlives crashes of the server", func(t *testing.T) {
		for range 2 {
			f.restart()
			one.expect("etc/new", "written")
			if got, err := one.read(secret); got != "written" || err != nil {
				t.Errorf("by the handle from before: %q, %v", got, err)
			}
		}
		again := f.node(1)
		if err := again.mounts("/images@v3"); err != nil || string(again.root) != string(one.root) {
			t.Errorf("another mount gives %x, %v; want %x", again.root, err, one.root)
		}
		if _, err := os.Stat(filepath.Join(f.store, ".rootnfsd/versions/v3.index")); err == nil {
			t.Error("the server has sealed the draft")
		}
	})
	t.Run("it is seen", func(t *testing.T) {
		if got, want := f.state("pi-01"), (nodeState{"pi-01", "v3", "v3", "draft", "v3", "v3"}); got != want {
			t.Errorf("%+v; want %+v", got, want)
		}
		if got, want := f.state("pi-02"), (nodeState{Name: "pi-02", Running: "v1", Promised: "v1", Why: "promoted"}); got != want {
			t.Errorf("%+v; want %+v", got, want)
		}
		for command, want := range map[string]string{"nodes": "on draft v3", "versions": "draft of v1 for pi-01", "status": "draft of v1 for pi-01", "draft": "pi-01", "history": "of v1"} {
			if out := cli(t, command, f.at); !strings.Contains(out, want) {
				t.Errorf("%s says %q; want %q in it", command, out, want)
			}
		}
		for _, args := range [][]string{{"promote", "v2", "--force"}, {"pin", "pi-01", "v2"}, {"rollback"}} {
			r := finish(t, exec.Command(rootnfsd, append(args, f.at)...))
			if r.status != 0 || !strings.Contains(r.stderr, "pi-01 has the draft v3") {
				t.Errorf("%s: %+v", args, r)
			}
		}
		if got := f.state("pi-01"); got.Promised != "v3" {
			t.Errorf("a node with a draft is promised %s", got.Promised)
		}
		cli(t, "unpin", "pi-01", f.at)
	})
	t.Run("bad input", func(t *testing.T) {
		for _, c := range []struct {
			args string
			want string
		}{
			{"draft v4 --from v1", "--node"},
			{"draft v4 --from v1 --node pi-03", "did you mean pi-0"},
			{"draft v4 --from vv1 --node pi-02", "there are v1, v2"},
			{"draft v4 --from v3 --node pi-02", "v3 is a draft of node pi-01"},
			{"draft v3 --from v1 --node pi-02", "v3 is a draft already"},
			{"draft v2 --from v1 --node pi-02", "there is a version v2"},
			{"draft v4 --from v1 --node pi-01", "pi-01 has the draft v3 already"},
			{"draft v4/x --from v1 --node pi-02", "letters, digits"},
			{"draft v3 --node pi-02", "pi-01 is on the draft v3"},
			{"draft --abandon v4", "there are v3"},
			{"draft --abandon v3", "pi-01 is on the draft v3"},
			{"draft --abandon --release v3", "choose one"},
			{"draft v4 --force --from v1 --node pi-02", "--abandon"},
			{"seal v3", "pi-01 is on the draft v3"},
			{"seal v3 --from " + f.store + "/v1", "draft of node pi-01"},
			{"promote v3", "pi-01 is on the draft v3"},
			{"pin pi-02 v3", "v3 is a draft"},
			{"remove v3", "v3 is a draft"},
			{"node remove pi-01", "it has the draft v3"},
			{"node set pi-01 --address=", "it has the draft v3"},
			{"import /dev/null v3", "v3 is a draft"},
		} {
			expectFailure(t, append(strings.Fields(c.args), f.at), c.want)
		}
		if out := cli(t, "seal", f.at); !strings.Contains(out, "nothing to do") {
			t.Errorf("seal without a version says %q", out)
		}
		one.expect("etc/new", "written")
	})
	t.Run("it follows the address of its node", func(t *testing.T) {
		moved := f.node(7)
		moved.root = one.root
		cli(t, "node", "set", "pi-01", "--address", f.address(7), f.at)
		cli(t, "nodes", f.at) // the server looks what was changed
		moved.expect("etc/new", "written")
		if _, err := one.read(secret); !errors.Is(err, statusAccess) {
			t.Errorf("READ from the old address: %v; want ACCES", err)
		}
		cli(t, "node", "set", "pi-01", "--address", f.address(1), f.at)
		cli(t, "nodes", f.at)
		one.expect("etc/new", "written")
	})
	t.Run("seal", func(t *testing.T) {
		cli(t, "draft", "--release", "v3", f.at)
		one.expect("etc/new", "written") // until it boots again
		expectFailure(t, []string{"seal", "v3", f.at}, "pi-01 is on the draft v3")
		rebooted := f.node(1).reboot()
		rebooted.expect("etc/issue", "one")
		if got, want := f.state("pi-01"), (nodeState{Name: "pi-01", Running: "v1", Promised: "v1", Why: "promoted"}); got != want {
			t.Errorf("%+v; want %+v", got, want)
		}
		write(t, filepath.Join(f.store, "v3/etc/fstab"), "/dev/mmcblk0p2 / ext4 defaults 0 1\n")
		if r := finish(t, exec.Command(rootnfsd, "seal", "v3", f.at)); r.status != 0 || !strings.Contains(r.stdout, "warning: /etc/fstab: line 1 mounts /dev/mmcblk0p2") {
			t.Errorf("seal: exit status %d, %s%s; want that lint finds the line of fstab", r.status, r.stdout, r.stderr)
		}
		if _, err := one.read(secret); !errors.Is(err, statusStale) {
			t.Errorf("READ in what was a draft: %v; want STALE", err)
		}
		if _, err := two.read(secret); !errors.Is(err, statusStale) {
			t.Errorf("READ from elsewhere in what was a draft: %v; want STALE", err)
		}
		cli(t, "promote", "v3", "--nodes", "pi-02", "--force", f.at)
		sealed := f.node(2).boot()
		f.node(1).boot().expect("etc/issue", "one")
		if got := f.state("pi-01"); got.Promised != "v1" {
			t.Errorf("promoted for pi-02, v3 is promised to pi-01: %+v", got)
		}
		cli(t, "promote", "v3", "--force", f.at)
		sealed.expect("etc/new", "written")
		if err := sealed.do(procMkdir, append([]any{sealed.root, "x"}, sattr(0o755, 0, 0)...)...); !errors.Is(err, statusRofs) {
			t.Errorf("MKDIR in a version: %v; want ROFS", err)
		}
		f.node(1).reboot().expect("moved", "written")
		if got := f.state("pi-01"); got.Running != "v3" || got.OnDraft != "" || got.Why != "promoted" {
			t.Errorf("%+v", got)
		}
		if out := cli(t, "history", f.at); !strings.Contains(out, "release") || !strings.Contains(out, "seal") {
			t.Errorf("history says %q", out)
		}
	})
	t.Run("abandon", func(t *testing.T) {
		cli(t, "draft", "v4", "--from", "v2", "--node", "pi-02", f.at)
		cli(t, "draft", "v5", "--node", "pi-01", f.at)
		n := f.node(2).boot()
		n.write(n.root, "file", "x")
		expectFailure(t, []string{"draft", "--abandon", "v4", f.at}, "pi-02 is on the draft v4")
		cli(t, "draft", "--abandon", "v4", "--force", f.at)
		if _, err := n.list(n.root); !errors.Is(err, statusStale) {
			t.Errorf("READDIRPLUS in what was a draft: %v; want STALE", err)
		}
		if out := cli(t, "draft", "--abandon", "v5", "--dry-run", f.at); !strings.Contains(out, "can be abandoned") {
			t.Errorf("--dry-run says %q", out)
		}
		cli(t, "draft", "--abandon", "v5", f.at)
		names, err := os.ReadDir(f.store)
		if err != nil || slices.ContainsFunc(names, func(e os.DirEntry) bool { return strings.Contains(e.Name(), "draft") || e.Name() >= "v4" }) {
			t.Errorf("in the store are %v, %v", names, err)
		}
		f.node(2).boot().expect("etc/issue", "one")
	})
	t.Run("taken away", func(t *testing.T) {
		cli(t, "draft", "v6", "--from", "v2", "--node", "pi-02", f.at)
		n := f.node(2).boot()
		n.write(n.root, "file", "x")
		cli(t, "seal", "v6", "--force", f.at)
		if _, err := n.list(n.root); !errors.Is(err, statusStale) {
			t.Errorf("READDIRPLUS in what was a draft: %v; want STALE", err)
		}
		cli(t, "cat", "v6:/file", f.at)
	})
	f.stop()
}

// TestDraftAndHome: what one node may write to stays apart.
func TestDraftAndHome(t *testing.T) {
	f := draftFleet(t)
	home := t.TempDir()
	f.start("--home", home, "--home-squash", "none")
	cli(t, "draft", "v3", "--node", "pi-01", f.at)
	n, h := f.node(1).boot(), f.node(1)
	if err := h.mounts("/home"); err != nil {
		t.Fatal(err)
	}
	n.write(n.root, "file", "of the draft")
	h.write(h.root, "file", "of the home")
	if err := n.do(procLink, n.at("file"), h.root, "linked"); !errors.Is(err, statusXDev) {
		t.Errorf("LINK from the draft to the home: %v; want XDEV", err)
	}
	for name, dirs := range map[string][2][]byte{"to the home": {n.root, h.root}, "to the draft": {h.root, n.root}} {
		if err := n.do(procRename, dirs[0], "file", dirs[1], "moved"); !errors.Is(err, statusXDev) {
			t.Errorf("RENAME %s: %v; want XDEV", name, err)
		}
	}
	n.expect("file", "of the draft")
	h.expect("file", "of the home")
	f.stop()
}

// TestDraftNetboot has a node fetch kernel and command line of its draft, and mount that.
func TestDraftNetboot(t *testing.T) {
	f, at := serveBootFiles(t, nil)
	f.net = byte(draftNets.Add(1))
	cli(t, "node", "set", "pi-01", "--address", f.address(1), "--serial", "0660cd37", "--cmdline", "panic=10 overlayroot=tmpfs:swap=1", f.at)
	f.start("--tftp", at.String())
	cli(t, "draft", "v3", "--node", "pi-01", f.at)
	write(t, filepath.Join(f.store, "v3/boot/firmware/kernel8.img"), "a kernel that was installed in the draft")
	get := func(from, name string) string {
		t.Helper()
		pi := &firmware{t, at, netip.MustParseAddr(from)}
		content, err := pi.fetch(transfer{packet: ask(tftpRead, name, "octet"), block: 512})
		if err != nil {
			t.Fatalf("%s at %s: %v", name, from, err)
		}
		return string(content)
	}
	if got := get(f.address(1), "0660cd37/kernel8.img"); got != "a kernel that was installed in the draft" {
		t.Errorf("the kernel is %q", got)
	}
	const want = "console=serial0,115200 console=tty1 quiet root=/dev/nfs rw nfsroot=127.0.0.1:/images@v3,v3,tcp,nolock,rw,hard,rsize=1048576,wsize=1048576,port=PORT ip=dhcp overlayroot=disabled systemd.hostname=pi-01 panic=10\n"
	line := get(f.address(1), "0660cd37/cmdline.txt")
	words := strings.Fields(line)
	line = strings.Join(slices.DeleteFunc(words, func(w string) bool { return strings.HasPrefix(w, "systemd.machine_id=") }), " ") + "\n"
	if got := strings.Replace(line, "port="+f.addr[strings.LastIndexByte(f.addr, ':')+1:], "port=PORT", 1); got != want {
		t.Errorf("the command line is\n%s; want\n%s", got, want)
	}
	printed := cli(t, "cmdline", "--node", "pi-01", "--server", f.addr, f.at)
	if got := strings.Join(slices.DeleteFunc(strings.Fields(printed), func(w string) bool { return strings.HasPrefix(w, "systemd.machine_id=") }), " ") + "\n"; strings.Replace(got, "port="+f.addr[strings.LastIndexByte(f.addr, ':')+1:], "port=PORT", 1) != want {
		t.Errorf("cmdline prints\n%s; want\n%s", got, want)
	}
	if got := get(f.address(9), "0660cd37/cmdline.txt"); !strings.Contains(got, "/images@v1,") {
		t.Errorf("who says that it is the node and is elsewhere gets %s", got)
	}
	if got := f.state("pi-01"); got.OnDraft != "v3" {
		t.Errorf("a node that fetches its kernel: %+v", got)
	}
	n := f.node(1)
	if err := n.mounts("/images@v3"); err != nil {
		t.Fatal(err)
	}
	n.write(n.root, "file", "x")
	if got, want := f.state("pi-01"), (nodeState{"pi-01", "v3", "v3", "draft", "v3", "v3"}); got != want {
		t.Errorf("%+v; want %+v", got, want)
	}
	f.stop()
}

// TestDraftKilled kills what makes, seals and deletes a draft at any moment. When the server has started anew, there is none, or a whole one.
func TestDraftKilled(t *testing.T) {
	tree := files{"etc/issue": "one"}
	for i := range 300 {
		tree[fmt.Sprintf("usr/lib/%03d", i)] = strings.Repeat("x", 100*i)
	}
	f := &fleet{t: t, store: newStore(t, map[string]files{"v1": tree}), net: byte(draftNets.Add(1))}
	f.at = "--export=" + f.store
	cli(t, "seal", f.at)
	cli(t, "promote", "v1", "--force", f.at)
	cli(t, "node", "set", "pi-01", "--address", f.address(1), f.at)
	type version struct {
		Name  string
		Draft *struct{ Node string }
	}
	seen := map[string]int{}
	before := "none"
	began := time.Now()
	cli(t, "draft", "v2", "--node", "pi-01", f.at)
	takes := time.Since(began)
	cli(t, "draft", "--abandon", "v2", f.at)
	for range 30 {
		args := []string{"draft", "v2", "--node", "pi-01"}
		if before != "none" {
			args = [][]string{{"seal", "v2", "--force"}, {"draft", "--abandon", "v2", "--force"}}[rand.IntN(2)]
		}
		cmd := exec.Command(rootnfsd, append(args, f.at)...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(rand.N(2 * takes))
		cmd.Process.Kill()
		cmd.Wait()

		f.start()
		n := f.node(1)
		if err := n.mounts("/images"); err != nil {
			f.kill()
			t.Fatalf("after %q, killed: %v\n%s", args, err, &f.log)
		}
		n.expect("usr/lib/299", strings.Repeat("x", 4096))
		err := n.do(procMkdir, append([]any{n.root, "x"}, sattr(0o755, 0, 0)...)...)
		draft, sealed := false, false
		for _, v := range cliJSON[[]version](t, "versions", f.at) {
			draft = draft || v.Name == "v2" && v.Draft != nil
			sealed = sealed || v.Name == "v2" && v.Draft == nil
		}
		var names []string
		entries, _ := os.ReadDir(f.store)
		for _, e := range entries {
			names = append(names, e.Name())
		}
		now, want := "none", ".rootnfsd v1"
		switch {
		case draft:
			now, want = "draft", ".rootnfsd v1 v2"
			if err != nil && !errors.Is(err, statusExist) {
				t.Errorf("MKDIR in the draft: %v", err)
			}
			if out, err := exec.Command("diff", "-rq", "--exclude=x", filepath.Join(f.store, "v1"), filepath.Join(f.store, "v2")).CombinedOutput(); err != nil {
				t.Errorf("the draft is not whole: %s", out)
			}
		case sealed && before == "both" && args[1] == "--abandon":
			now = "sealed" // by a seal before that was killed before it could say so
		case sealed:
			now, want = "sealed", ".rootnfsd v1 v2"
		}
		if draft && sealed {
			now = "both"
		}
		if !draft && !errors.Is(err, statusRofs) {
			t.Errorf("MKDIR where there is no draft: %v; want ROFS", err)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("after %q, killed: in the store are %s; want %s", args, got, want)
		}
		f.stop()
		if now == "sealed" {
			cli(t, "remove", "v2", "--force", f.at)
			if err := os.RemoveAll(filepath.Join(f.store, "v2")); err != nil {
				t.Fatal(err)
			}
			seen["sealed"]++
			now = "none"
		}
		seen[before+" to "+now]++
		before = now
		if t.Failed() {
			return
		}
	}
	t.Log(seen)
}

// TestDraftNoSpace makes a draft where there is no room for it.
func TestDraftNoSpace(t *testing.T) {
	require(t)
	store := newStore(t, nil)
	if err := syscall.Mount("tmpfs", store, "tmpfs", 0, "size=7m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(store, 0); err != nil {
			t.Error(err)
		}
	})
	write(t, filepath.Join(store, "v1/big"), randomBytes(3<<20))
	at := "--export=" + store
	cli(t, "promote", "v1", "--force", at)
	cli(t, "node", "set", "pi-01", "--address", "127.1.0.1", at)
	expectFailure(t, []string{"draft", "v2", "--node", "pi-01", at}, "nothing was made", "no space left")
	entries, err := os.ReadDir(store)
	if err != nil || len(entries) != 2 {
		t.Errorf("in the store are %v, %v", entries, err)
	}
	if out := cli(t, "draft", at); !strings.Contains(out, "there are no drafts") {
		t.Errorf("draft says %q", out)
	}
}

// TestDraftWithoutRoot has a server give a draft to a node that may not act for the node's users.
func TestDraftWithoutRoot(t *testing.T) {
	f := draftFleet(t)
	const nobody = 65534
	cli(t, "draft", "v3", "--node", "pi-01", f.at)
	if out, err := exec.Command("chown", "-R", fmt.Sprint(nobody), f.store).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for path := f.store; path != os.TempDir(); path = filepath.Dir(path) {
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	f.user = nobody
	f.start()
	n := f.node(1)
	if err := n.mounts("/images"); !errors.Is(err, statusAccess) {
		t.Errorf("MOUNT: %v; want ACCES", err)
	}
	f.node(2).boot().expect("etc/issue", "one")
	f.stop()
	if want := "drafts are served by root"; !strings.Contains(f.log.String(), want) {
		t.Errorf("the log does not say %q:\n%s", want, &f.log)
	}
}
