package storm

import (
	"encoding/binary"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
)

// tamper forwards connections to a server and changes the replies to calls of one
// number: change gets a reply without its mark and returns what is sent, nil to hang
// up.
func tamper(t *testing.T, server string, xid uint32, change func(reply []byte) []byte) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer client.Close()
				upstream, err := net.Dial("tcp", server)
				if err != nil {
					return
				}
				defer upstream.Close()
				go io.Copy(upstream, client)
				forward(client, upstream, xid, change)
			}()
		}
	}()
	return ln.Addr().String()
}

func forward(client io.Writer, server io.Reader, xid uint32, change func([]byte) []byte) {
	var mark [4]byte
	for {
		if _, err := io.ReadFull(server, mark[:]); err != nil {
			return
		}
		reply := make([]byte, binary.BigEndian.Uint32(mark[:])&^(1<<31))
		if _, err := io.ReadFull(server, reply); err != nil {
			return
		}
		if binary.BigEndian.Uint32(reply) == xid {
			if reply = change(reply); reply == nil {
				return
			}
		}
		binary.BigEndian.PutUint32(mark[:], 1<<31|uint32(len(reply)))
		if _, err := client.Write(append(mark[:], reply...)); err != nil {
			return
		}
	}
}

// TestFaults sees that whatever is wrong with a reply is counted.
func TestFaults(t *testing.T) {
	addr, _ := serve(t)
	trace := boot()
	plan, err := Scout(trace, "/", Config{Target: addr, MountTarget: addr})
	if err != nil {
		t.Fatal(err)
	}
	find := func(proc Proc, path string) uint32 {
		return uint32(slices.IndexFunc(trace.Calls, func(c Call) bool { return c.Proc == proc && c.Path == path }) - 1) // MNT is none
	}
	const status, count = 24, 24 + 4 + 4 + 84
	set := func(at int, v uint32) func([]byte) []byte {
		return func(reply []byte) []byte {
			binary.BigEndian.PutUint32(reply[at:], v)
			return reply
		}
	}
	for _, c := range []struct {
		name   string
		xid    uint32
		change func(reply []byte) []byte
		booted int
		want   string
	}{
		{"nothing wrong", 1 << 30, nil, 2, ""},
		{"an error", find(Getattr, "/"), set(status, 5), 2, "GETATTR: status 5"},
		{"no error where the name is missing", find(Lookup, "/usr/lib/none"), set(status, 0), 2, "LOOKUP: status 0"},
		{"another error", find(Lookup, "/usr/lib/none"), set(status, 13), 2, "LOOKUP: status 13"},
		{"not executed", find(Access, "/usr/lib"), set(20, 5), 2, "ACCESS: status"},
		{"a short READ", find(Read, "/usr/lib/big"), set(count, 1), 2, "READ: 1 bytes"},
		{"bytes that are missing", find(Read, "/usr/lib/big"), func(reply []byte) []byte { return reply[:len(reply)-4] }, 2, "READ: a reply of"},
		{"another handle", find(Lookup, "/usr/lib"), func(reply []byte) []byte { reply[40] ^= 1; return reply }, 2, "LOOKUP: another handle"},
		{"another call's reply", find(Getattr, "/"), set(0, 9999), 2, "waits for none"},
		{"half a reply", find(Readdirplus, "/etc"), func(reply []byte) []byte { return reply[:20] }, 0, "no reply"},
		{"a connection that breaks", find(Readlink, "/lib"), func([]byte) []byte { return nil }, 0, "waiting for READLINK"},
	} {
		t.Run(c.name, func(t *testing.T) {
			target := tamper(t, addr, c.xid, c.change)
			r := run(t, plan, Config{Target: target, MountTarget: addr, Nodes: 2})
			complaints := strings.Join(r.Complaints, "\n")
			wrong := uint64(2)
			if c.want == "" {
				wrong = 0
			}
			if r.Errors != wrong || r.Booted != c.booted || !strings.Contains(complaints, c.want) {
				t.Errorf("%d errors, %d of 2 nodes booted: %s; want %d errors, %d booted: %s", r.Errors, r.Booted, complaints, wrong, c.booted, c.want)
			}
		})
	}
	t.Run("another root", func(t *testing.T) {
		mount := tamper(t, addr, 0, func(reply []byte) []byte { reply[40] ^= 1; return reply })
		r := run(t, plan, Config{Target: addr, MountTarget: mount, Nodes: 2})
		if r.Errors != 2 || r.Booted != 0 {
			t.Errorf("%+v", r)
		}
	})
	t.Run("no server", func(t *testing.T) {
		r := run(t, plan, Config{Target: "127.0.0.1:1", MountTarget: "127.0.0.1:1", Nodes: 2})
		if r.Errors != 2 || r.Booted != 0 {
			t.Errorf("%+v", r)
		}
	})
}

// TestScoutFaults sees that no storm is built upon wrong replies.
func TestScoutFaults(t *testing.T) {
	addr, _ := serve(t)
	trace := boot()
	for name, c := range map[string]struct {
		proc Proc
		path string
		at   int
		v    uint32
	}{
		"an error":             {Getattr, "/", 24, 5},
		"a READ too short":     {Read, "/usr/lib/big", 24 + 4 + 4 + 84, 17},
		"a refusal to look up": {Lookup, "/usr/lib/none", 24, 13},
	} {
		xid := uint32(slices.IndexFunc(trace.Calls, func(x Call) bool { return x.Proc == c.proc && x.Path == c.path }) - 1)
		target := tamper(t, addr, xid, func(reply []byte) []byte {
			binary.BigEndian.PutUint32(reply[c.at:], c.v)
			return reply
		})
		if _, err := Scout(trace, "/", Config{Target: target, MountTarget: addr}); err == nil {
			t.Errorf("%s: a plan was made", name)
		}
	}
}
