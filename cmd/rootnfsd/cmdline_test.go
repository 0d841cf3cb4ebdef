package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// sealedStore is a store with two sealed versions, of which v1 is promoted.
func sealedStore(t *testing.T) string {
	t.Helper()
	store := filepath.Join(t.TempDir(), "images")
	for version, words := range map[string]string{"v1": "console=tty1 root=PARTUUID=1-02 rootwait quiet\n", "v2": "\xff\x00"} {
		dir := filepath.Join(store, version, "boot", "firmware")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "cmdline.txt"), []byte(words), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("ROOTNFSD_EXPORT", store)
	t.Setenv("ROOTNFSD_CONFIG", filepath.Join(store, ".rootnfsd", "none.yaml"))
	if err := os.MkdirAll(filepath.Join(store, ".rootnfsd"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(store, ".rootnfsd", "none.yaml"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{"seal", "promote v1", "node set pi-07 --address 192.168.1.57 --hostname kitchen", "node set pi-08 --pin v2"} {
		if _, err := runApp(strings.Fields(args)...); err != nil {
			t.Fatal(err)
		}
	}
	return store
}

// runApp runs a command in this process and returns its output.
func runApp(args ...string) (string, error) {
	app := newApp()
	var out bytes.Buffer
	app.Writer = &out
	err := app.Run(flagsFirst(app, append([]string{"rootnfsd"}, args...)))
	return out.String(), err
}

func TestCmdline(t *testing.T) {
	sealedStore(t)
	if _, err := runApp("node", "set", "pi-07", "--cmdline", `panic=3  console="tty 2"`); err != nil {
		t.Fatal(err)
	}
	const options = ",v3,tcp,nolock,ro,nocto,acregmin=86400,acregmax=86400,acdirmin=86400,acdirmax=86400,rsize=1048576"
	for _, c := range []struct{ name, args, want string }{
		{"a node that nobody knows", "--server 10.0.0.1",
			"console=tty1 quiet root=/dev/nfs rw nfsroot=10.0.0.1:/images@v1" + options + " ip=dhcp panic=120 overlayroot=tmpfs:recurse=0"},
		{"at an address", "--node 192.168.1.99 --server 10.0.0.1",
			"console=tty1 quiet root=/dev/nfs rw nfsroot=10.0.0.1:/images@v1" + options + " ip=dhcp panic=120 overlayroot=tmpfs:recurse=0"},
		{"another port, following", "--server 10.0.0.1:12049 --follow",
			"console=tty1 quiet root=/dev/nfs rw nfsroot=10.0.0.1:/images" + options + ",port=12049 ip=dhcp panic=120 overlayroot=tmpfs:recurse=0"},
		{"words of its own", "--node pi-07 --server 10.0.0.1 --no-node-identity",
			"quiet root=/dev/nfs rw nfsroot=10.0.0.1:/images@v1" + options + ` ip=dhcp overlayroot=tmpfs:recurse=0 panic=3 console="tty 2"`},
		{"by its address", "--node 192.168.1.57 --server 10.0.0.1 --no-node-identity --for kernel",
			"quiet root=/dev/nfs ro nfsroot=10.0.0.1:/images@v1" + options + ` ip=dhcp panic=3 console="tty 2"`},
		{"pinned to what has junk for words", "--node pi-08 --server 10.0.0.1",
			"root=/dev/nfs rw nfsroot=10.0.0.1:/images@v2" + options + " ip=dhcp panic=120 overlayroot=tmpfs:recurse=0 systemd.hostname=pi-08"},
		{"of a version", "--node pi-08 --server 10.0.0.1 --version v1 --no-node-identity",
			"console=tty1 quiet root=/dev/nfs rw nfsroot=10.0.0.1:/images@v1" + options + " ip=dhcp panic=120 overlayroot=tmpfs:recurse=0"},
	} {
		got, err := runApp(append([]string{"cmdline"}, strings.Fields(c.args)...)...)
		if err != nil || got != c.want+"\n" {
			t.Errorf("%s: %s, %v; want\n%s", c.name, got, err, c.want)
		}
		var said cmdlineJSON
		text, err := runApp(append([]string{"cmdline", "--json"}, strings.Fields(c.args)...)...)
		if err != nil || json.Unmarshal([]byte(text), &said) != nil || said.Line != c.want {
			t.Errorf("%s as JSON: %s, %v", c.name, text, err)
		}
		text, err = runApp(append([]string{"cmdline", "--explain"}, strings.Fields(c.args)...)...)
		if err != nil || !strings.HasSuffix(text, "\n"+c.want+"\n") {
			t.Errorf("%s, explained: %s, %v", c.name, text, err)
		}
		for word := range strings.FieldsSeq(strings.ReplaceAll(c.want, "tty 2", "tty+2")) {
			word, _, _ = strings.Cut(word, ",")
			if !strings.Contains(strings.ReplaceAll(text, "tty 2", "tty+2"), "\n"+word+" ") {
				t.Errorf("%s: %s is not explained:\n%s", c.name, word, text)
			}
		}
	}
	// The machine-id is a node's own and stays the same.
	first, err := runApp("cmdline", "--node", "pi-07")
	if err != nil || !strings.Contains(first, " systemd.hostname=kitchen systemd.machine_id=") {
		t.Errorf("identity: %s, %v", first, err)
	}
	if again, err := runApp("cmdline", "--node", "pi-07"); err != nil || again != first {
		t.Errorf("%s, %v; before it was %s", again, err, first)
	}
	for args, want := range map[string]string{
		"--node pi-09": "did you mean pi-07", "--for u-boot": "klibc or kernel", "--server fd00::1": "IPv4", "--server 10.0.0.1:0": "--server",
		"--version v3": "there is no version v3", "--follow --version v1": "leave out --version", "v1": "one argument too many",
	} {
		if got, err := runApp(append([]string{"cmdline"}, strings.Fields(args)...)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %s, %v; want %s", args, got, err, want)
		}
	}
	if _, err := runApp("node", "set", "pi-07", "--cmdline", `a="b`); err == nil {
		t.Error("a quote may stay open")
	}
	if list, err := runApp("node", "list"); err != nil || !strings.Contains(list, `panic=3 console="tty 2"`) {
		t.Errorf("%s, %v", list, err)
	}
	if _, err := runApp("node", "set", "pi-07", "--cmdline", ""); err != nil {
		t.Error(err)
	}
	if list, err := runApp("node", "list"); err != nil || strings.Contains(list, "CMDLINE") {
		t.Errorf("%s, %v", list, err)
	}
}
