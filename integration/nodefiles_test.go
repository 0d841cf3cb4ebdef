package integration

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rootnfsd/rootnfsd/bench/rpc"
	"github.com/rootnfsd/rootnfsd/integration/lab"
)

// The answers of a server that a client may not, or cannot, have an object (RFC 1813, section 2.6).
const (
	statusNoEnt  = rpc.StatusError(2)
	statusIO     = rpc.StatusError(5)
	statusAccess = rpc.StatusError(13)
)

// ownNode is a node that looks at what it mounted.
type ownNode struct {
	t    *testing.T
	f    *fleet
	from netip.Addr
	in   *lab.Net // where it is; nil for where the test is
	uid  uint32
	user bool // it calls from a port that any user can have
	root []byte
}

func (n *ownNode) call(do func(c *rpc.Conn) error) error {
	var c *rpc.Conn
	dial := func() (err error) {
		c, err = rpc.Dial(n.f.addr, rpc.Options{Local: n.from, Reserved: !n.user})
		return err
	}
	there := func(f func() error) error { return f() }
	if n.in != nil {
		there = n.in.Enter
	}
	if err := there(dial); err != nil {
		return err
	}
	defer c.Close()
	c.Caller = rpc.NewCaller(n.uid, n.uid)
	return do(c)
}

// boot mounts as nfsmount does in an initramfs.
func (n *ownNode) boot() *ownNode {
	n.t.Helper()
	err := n.call(func(c *rpc.Conn) (err error) {
		c.Caller = rpc.Caller{}
		n.root, err = c.Mount("/images")
		return err
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return n
}

// find follows a path from a handle.
func (n *ownNode) find(from []byte, path string) (handle []byte, a rpc.Attr, err error) {
	handle = from
	err = n.call(func(c *rpc.Conn) error {
		for name := range strings.SplitSeq(path, "/") {
			reply, err := c.Do(1, c.AppendLookup(nil, 1, handle, []byte(name)))
			if err == nil {
				err = reply.Err()
			}
			if err != nil {
				return err
			}
			h, ok := reply.Lookup(&a)
			if !ok {
				return errors.New("a malformed LOOKUP")
			}
			handle = bytes.Clone(h)
		}
		return nil
	})
	return handle, a, err
}

// read reads the file that has a handle.
func (n *ownNode) read(handle []byte) (content string, err error) {
	err = n.call(func(c *rpc.Conn) error {
		reply, err := c.Do(1, c.AppendRead(nil, 1, handle, 0, 4096))
		if err == nil {
			err = reply.Err()
		}
		if err != nil {
			return err
		}
		count, _, _ := reply.Read()
		data, ok := reply.Data(count)
		content = string(data)
		if !ok {
			return errors.New("a malformed READ")
		}
		return nil
	})
	return content, err
}

func (n *ownNode) getattr(handle []byte) (a rpc.Attr, err error) {
	err = n.call(func(c *rpc.Conn) error {
		reply, err := c.Do(1, c.AppendGetattr(nil, 1, handle))
		if err == nil {
			err = reply.Err()
		}
		if err == nil && !reply.Getattr(&a) {
			err = errors.New("a malformed GETATTR")
		}
		return err
	})
	return a, err
}

// list lists the directory that has a handle, a few names at a time.
func (n *ownNode) list(handle []byte) (names []string, err error) {
	err = n.call(func(c *rpc.Conn) error {
		var cookie, verifier uint64
		for range 1000 {
			reply, err := c.Do(1, c.AppendReaddirplus(nil, 1, handle, cookie, verifier, 512))
			if err == nil {
				err = reply.Err()
			}
			if err != nil {
				return err
			}
			l := reply.Readdirplus()
			for e := (rpc.Entry{}); l.Next(&e); cookie = e.Cookie {
				names = append(names, string(e.Name))
			}
			if verifier = l.Verifier; l.EOF {
				return nil
			}
		}
		return errors.New("the listing does not end")
	})
	return names, err
}

// expect looks at a file that the node reaches from what it mounted.
func (n *ownNode) expect(path, want string) {
	n.t.Helper()
	h, _, err := n.find(n.root, path)
	var got string
	if err == nil {
		got, err = n.read(h)
	}
	if got != want || err != nil {
		n.t.Errorf("%s at %s: %q, %v; want %q", path, n.from, got, err, want)
	}
}

// TestNodeFiles has nodes with files of their own over one version, across crashes of the server.
func TestNodeFiles(t *testing.T) {
	f := &fleet{t: t, store: newStore(t, map[string]files{
		"v1": {"etc/issue": "golden", "etc/hostname": "golden\n", "etc/bad": "golden", "etc/ssh/sshd_config": "", "usr/lib/x": ""},
	})}
	f.at = "--export=" + f.store
	if err := os.Symlink("usr/lib", filepath.Join(f.store, "v1/lib")); err != nil {
		t.Fatal(err)
	}
	cli(t, "seal", f.at)
	cli(t, "promote", "v1", "--force", f.at)
	type version struct{ Name, Digest string }
	sealed := fmt.Sprint(cliJSON[[]version](t, "versions", f.at))
	node := func(i byte) *ownNode { return &ownNode{t: t, f: f, from: netip.AddrFrom4([4]byte{127, 1, 0, i})} }
	cli(t, "node", "set", "pi-01", "--address", "127.1.0.1", "--label", "canary", f.at)
	cli(t, "node", "set", "pi-02", "--address", "127.1.0.2", "--hostname", "two.example", f.at)
	dir := t.TempDir()
	for path, content := range map[string]string{
		"_all/etc/motd.tmpl":     `{{.Hostname}} at {{.Address}} runs {{.Version}}{{if .HasLabel "canary"}} first{{end}}`,
		"_all/etc/bad.tmpl":      "{{.Nothing}}",
		"_all/etc/ssh":           "this shadows a directory",
		"_all/lib/y":             "through a symlink",
		"_all/new/directory/x":   "new",
		"pi-01/etc/secret":       "one",
		"127.1.0.3/etc/hostname": "three\n",
	} {
		write(t, filepath.Join(dir, path), content)
	}
	if err := os.Chmod(filepath.Join(dir, "pi-01/etc/secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.start("--node-files", dir)

	one, two, three := node(1).boot(), node(2).boot(), node(3).boot()
	one.expect("etc/hostname", "pi-01\n")
	two.expect("etc/hostname", "two.example\n")
	three.expect("etc/hostname", "three\n")
	one.expect("etc/motd", "pi-01 at 127.1.0.1 runs v1 first")
	two.expect("etc/motd", "two.example at 127.1.0.2 runs v1")
	for _, n := range []*ownNode{one, two, three} {
		n.expect("etc/issue", "golden")
		n.expect("etc/bad", "golden")
		n.expect("new/directory/x", "new")
	}
	etc, _, err := one.find(one.root, "etc")
	if err != nil {
		t.Fatal(err)
	}
	secret, attr, err := one.find(etc, "secret")
	if err != nil {
		t.Fatal(err)
	}

	t.Run("others cannot read them", func(t *testing.T) {
		for _, thief := range []*ownNode{two, three, node(4)} {
			if _, err := thief.read(secret); !errors.Is(err, statusAccess) {
				t.Errorf("READ from %s: %v; want ACCES", thief.from, err)
			}
			if _, err := thief.getattr(secret); !errors.Is(err, statusAccess) {
				t.Errorf("GETATTR from %s: %v; want ACCES", thief.from, err)
			}
			if _, _, err := thief.find(etc, "secret"); !errors.Is(err, statusNoEnt) {
				t.Errorf("LOOKUP from %s: %v; want NOENT", thief.from, err)
			}
			if names, err := thief.list(etc); err != nil || slices.Contains(names, "secret") {
				t.Errorf("READDIRPLUS from %s: %q, %v", thief.from, names, err)
			}
		}
		names, err := one.list(etc)
		slices.Sort(names)
		if want := ". .. bad hostname issue machine-id motd secret ssh"; strings.Join(names, " ") != want || err != nil {
			t.Errorf("etc has %q, %v; want %s", names, err, want)
		}
		user := node(1)
		user.uid = 1000
		if _, err := user.read(secret); !errors.Is(err, statusAccess) {
			t.Errorf("READ by an ordinary user: %v; want ACCES", err)
		}
		forger := node(1) // who says that he is root
		forger.user = true
		if _, err := forger.read(secret); !errors.Is(err, statusAccess) {
			t.Errorf("READ from a port that is not reserved: %v; want ACCES", err)
		}
		if _, _, err := forger.find(etc, "secret"); !errors.Is(err, statusNoEnt) {
			t.Errorf("LOOKUP from a port that is not reserved: %v; want NOENT", err)
		}
		forger.boot().expect("etc/hostname", "golden\n")
		one.expect("etc/secret", "one")
		key, a, err := one.find(etc, "ssh/ssh_host_ed25519_key")
		if err != nil || a.Mode != 0o600 || a.UID != 0 {
			t.Errorf("a host key: %+v, %v", a, err)
		}
		if _, err := user.read(key); !errors.Is(err, statusAccess) {
			t.Errorf("READ of a host key by an ordinary user: %v; want ACCES", err)
		}
	})
	t.Run("changes apply at the next mount, across crashes", func(t *testing.T) {
		write(t, filepath.Join(dir, "pi-01/etc/secret"), "two")
		again := node(1)
		for range 3 {
			f.restart("--node-files", dir)
			if got, err := one.read(secret); got != "one" || err != nil {
				t.Errorf("by the handle from before: %q, %v", got, err)
			}
			if a, err := one.getattr(secret); a != attr || err != nil {
				t.Errorf("attributes by the handle from before: %+v, %v; were %+v", a, err, attr)
			}
			again.boot().expect("etc/secret", "two")
			one.expect("etc/secret", "one")
		}
		if bytes.Equal(again.root, one.root) {
			t.Error("the handle is the same")
		}
	})
	t.Run("what cannot be given is said", func(t *testing.T) {
		user := node(1)
		user.user = true
		user.boot()
		f.stop()
		for _, want := range []string{
			"_all/etc/bad.tmpl: line 1", "--node-ports any", "/etc/ssh: in the version, that is a directory", "/lib/y: in the version, /lib is a symlink to usr/lib: put it into /usr/lib/y",
		} {
			if !strings.Contains(f.log.String(), want) {
				t.Errorf("the log does not say %q:\n%s", want, &f.log)
			}
		}
	})
	t.Run("damage is not served", func(t *testing.T) {
		kept, err := filepath.Glob(filepath.Join(f.store, ".rootnfsd/node-layers/*"))
		if err != nil || len(kept) != 4 {
			t.Fatalf("%d layers are kept, %v; want those of three nodes and one from before", len(kept), err)
		}
		for _, path := range kept {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			write(t, path, string(b[:len(b)/2])+"x"+string(b[len(b)/2+1:]))
		}
		f.start("--node-files", dir)
		if _, err := one.read(secret); !errors.Is(err, statusIO) {
			t.Errorf("READ: %v; want IO", err)
		}
		one.expect("etc/issue", "golden")
		f.stop()
		if n := strings.Count(f.log.String(), "is damaged"); n != 1 {
			t.Errorf("it is said %d times:\n%s", n, &f.log)
		}
	})
	t.Run("the version is what it was", func(t *testing.T) {
		if now := fmt.Sprint(cliJSON[[]version](t, "versions", f.at)); now != sealed {
			t.Errorf("%s; was %s", now, sealed)
		}
		cli(t, "verify", f.at)
	})
	t.Run("without identity nodes have what the version has", func(t *testing.T) {
		f.start("--no-node-identity")
		node(1).boot().expect("etc/hostname", "golden\n")
		if h := node(2).boot().root; len(h) != 32 {
			t.Errorf("a handle of %d bytes; want one without a layer", len(h))
		}
		f.stop()
	})
	t.Run("behind a NAT that changes ports", func(t *testing.T) {
		f.start("--node-ports", "any")
		n := node(1)
		n.user = true
		n.boot().expect("etc/hostname", "pi-01\n")
		f.stop()
	})
}

// TestAddressChangesHands: another machine that gets a node's address, as by DHCP, is not the node. The machines are told apart by
// what the kernel knows of its neighbours.
func TestAddressChangesHands(t *testing.T) {
	net := newNet(t)
	store := newStore(t, map[string]files{"v1": {"etc/issue": "golden", "etc/hostname": "golden\n", "etc/ssh/sshd_config": ""}})
	at := "--export=" + store
	cli(t, "seal", at)
	cli(t, "promote", "v1", "--force", at)
	const address, card1, card2 = "192.0.2.21", "02:00:00:00:00:01", "02:00:00:00:00:02"
	cli(t, "node", "set", "pi-01", "--address", address, at)
	homes := []string{at, "--allow=192.0.2.0/24", "--home=" + t.TempDir()}
	daemon := serve(t, net, homes...)
	f := &fleet{t: t, addr: lab.ServerAddress + ":2049"}

	// boots has a machine with the address boot and unplugs it. It is the node, or a stranger.
	boots := func(mac string, node bool) {
		t.Helper()
		host, err := net.Host(address, mac)
		if err != nil {
			t.Fatal(err)
		}
		defer host.Close()
		n := &ownNode{t: t, f: f, from: netip.MustParseAddr(address), in: host}
		n.boot()
		hostname, _, err := n.find(n.root, "etc/hostname")
		if err != nil {
			t.Fatal(err)
		}
		got, err := n.read(hostname)
		if want := map[bool]string{true: "pi-01\n", false: "golden\n"}[node]; got != want || err != nil {
			t.Errorf("%s has the host name %q, %v; want %q", mac, got, err, want)
		}
		if _, _, err := n.find(n.root, "etc/ssh/ssh_host_ed25519_key"); (err == nil) != node {
			t.Errorf("%s looks for the host key: %v", mac, err)
		}
		err = n.call(func(c *rpc.Conn) error {
			_, err := c.Mount("/home")
			return err
		})
		if (err == nil) != node {
			t.Errorf("%s mounts the home: %v", mac, err)
		}
	}
	boots(card1, true)
	boots(card2, false)
	type told struct{ Hints []string }
	want := "the machine at the address of pi-01 is " + card2 + ", not " + card1
	if n := cliJSON[[]told](t, "node", "show", "pi-01", at); len(n) != 1 || !strings.Contains(strings.Join(n[0].Hints, " "), want) {
		t.Errorf("nodes: %+v; want %q", n, want)
	}
	daemon.Kill()
	serve(t, net, homes...)
	boots(card2, false)
	boots(card1, true)
	cli(t, "node", "set", "pi-01", "--mac", card2, at) // another board
	boots(card1, false)
	boots(card2, true)
}
