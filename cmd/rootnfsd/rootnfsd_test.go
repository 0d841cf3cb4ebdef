package main

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFlagsFirst(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"promote v2", "promote -- v2"},
		{"promote v2 --export images", "promote --export images -- v2"},
		{"promote v2 --export=images --json", "promote --export=images --json -- v2"},
		{"promote --json v2 --export images", "promote --json --export images -- v2"},
		{"seal v1 v2 --from dir", "seal --from dir -- v1 v2"},
		{"seal -- --from", "seal -- --from"},
		{"versions --export", "versions --export"},
		{"versions", "versions"},
		{"bench serve-limit addr path", "bench serve-limit -- addr path"},
		{"bench", "bench"},
		{"--version", "--version"},
		{"nonsense v2 --json", "nonsense v2 --json"},
	} {
		args := append([]string{"rootnfsd"}, strings.Fields(c.in)...)
		got := strings.Join(flagsFirst(newApp(), args)[1:], " ")
		if got != c.want {
			t.Errorf("%s: %s; want %s", c.in, got, c.want)
		}
	}
}

func TestParseAllow(t *testing.T) {
	for _, c := range []struct {
		in   []string
		want string
	}{
		{[]string{"192.168.1.0/24"}, "192.168.1.0/24"},
		{[]string{"192.168.1.77/24"}, "192.168.1.0/24"},
		{[]string{"192.168.1.7", "fe80::1"}, "192.168.1.7/32, fe80::1/128"},
		{[]string{"0.0.0.0/0"}, "0.0.0.0/0"},
		{[]string{"nonsense"}, ""},
		{[]string{"192.168.1.0/33"}, ""},
		{[]string{"192.168.1.0/24", ""}, ""},
	} {
		got, err := parseAllow(c.in)
		if (err != nil) != (c.want == "") || err == nil && joinPrefixes(got) != c.want {
			t.Errorf("%q: %s, %v; want %q", c.in, joinPrefixes(got), err, c.want)
		}
	}
	if got, err := parseAllow(nil); err != nil || !strings.Contains(joinPrefixes(got), "192.168.0.0/16") {
		t.Errorf("nothing given: %v, %v; want the private ranges", got, err)
	}
}

func TestNearest(t *testing.T) {
	names := []string{"v1", "v2", "v10", "bookworm-2026-01", "bookworm-2026-02"}
	for _, c := range []struct{ in, want string }{
		{"V2", "v2"},
		{"bokworm-2026-01", "bookworm-2026-01"},
		{"xyz", ""},
	} {
		got := nearest(c.in, names)
		if c.want == "" && len(got) > 0 || c.want != "" && !strings.Contains(strings.Join(got, " "), c.want) {
			t.Errorf("%s: %v; want %q", c.in, got, c.want)
		}
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 5 << 20: "5.0 MiB", 1 << 63: "8.0 EiB"} {
		if got := size(n); got != want {
			t.Errorf("%d: %s; want %s", n, got, want)
		}
	}
}

func TestConfigFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "rootnfsd.yaml")
	store := filepath.Join(dir, "srv")
	if err := os.Mkdir(store, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(s string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(s), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{"rootnfsd", "versions", "--json", "--config", file}

	write("export: [" + store + "]\n")
	if err := run(args); err != nil {
		t.Errorf("the store of the configuration: %v", err)
	}
	write("export: [" + filepath.Join(dir, "nowhere") + "]\n")
	if err := run(args); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("a store that is not there: %v; want its path", err)
	}
	if err := run(append(args, "--export", store)); err != nil {
		t.Errorf("a flag over the configuration: %v", err)
	}
	write("exprot: [" + store + "]\n")
	if err := run(args); err == nil || !strings.Contains(err.Error(), "exprot") {
		t.Errorf("a misspelt setting: %v; want it named", err)
	}
	if err := run([]string{"rootnfsd", "versions", "--config", filepath.Join(dir, "none.yaml")}); err == nil {
		t.Error("a configuration file that is named and not there was ignored")
	}
}

// TestHelp holds every command to a description with examples, and every flag to
// a word on what it does.
func TestHelp(t *testing.T) {
	for _, cmd := range newApp().Commands {
		if cmd.Usage == "" || !strings.Contains(cmd.Description, "rootnfsd "+cmd.Name) {
			t.Errorf("%s: want a usage, and a description with an example", cmd.Name)
		}
		for _, f := range cmd.Flags {
			if !strings.Contains(f.String(), "\t") || strings.HasSuffix(strings.TrimSpace(f.String()), "\t") {
				t.Errorf("%s --%s has no usage", cmd.Name, f.Names()[0])
			}
		}
	}
}

func TestCommandLine(t *testing.T) {
	v4, v6 := netip.MustParseAddr("192.168.1.66"), netip.MustParseAddr("fd00::1")
	registered := func(context.Context) error { return nil }
	for _, c := range []struct {
		server netip.Addr
		socks  sockets
		want   string
		not    string
	}{
		{v4, sockets{nfs: 2049, portmap: 111}, "nfsroot=192.168.1.66:/images,v3,tcp,", "port="},
		{v4, sockets{nfs: 2049, unregister: registered}, "nfsroot=192.168.1.66:/images,v3,tcp,", "port="},
		{v4, sockets{nfs: 2049}, ",port=2049 ", "IPV4"},
		{v4, sockets{nfs: 12049, portmap: 111}, ",port=12049 ", "IPV4"},
		{v6, sockets{nfs: 2049, portmap: 111}, "nfsroot=SERVER-IPV4:/images,", "fd00"},
	} {
		line := commandLine(c.server, "images", c.socks.bootPorts())
		if !strings.Contains(line, c.want) || strings.Contains(line, c.not) {
			t.Errorf("%v, %+v: %s; want %q and no %q", c.server, c.socks, line, c.want, c.not)
		}
	}
}
