package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/rootnfsd/rootnfsd/exports"
)

// newStoreOf returns a store of a name with golden trees. One that is not sealable has a file where its packs would go.
func newStoreOf(t *testing.T, name string, sealable bool, trees ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	for _, tree := range append(trees, ".rootnfsd") {
		if err := os.MkdirAll(filepath.Join(dir, tree), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if !sealable {
		if err := os.WriteFile(filepath.Join(dir, ".rootnfsd", "packs"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestSealNew: a store that cannot be sealed does not keep the others from being served.
func TestSealNew(t *testing.T) {
	for _, c := range []struct {
		name   string
		stores []string // those that begin with "bad" cannot be sealed
		want   string   // what is promoted in each
		err    bool
	}{
		{"all are sealed", []string{"one", "two"}, "v1 v1", false},
		{"the first is not", []string{"bad", "two"}, "- v1", false},
		{"the last is not", []string{"one", "bad"}, "v1 -", false},
		{"none is", []string{"bad", "bad2"}, "- -", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var stores []*openedStore
			for _, name := range c.stores {
				s, err := openStore(newStoreOf(t, name, !strings.HasPrefix(name, "bad"), "v1"))
				if err != nil {
					t.Fatal(err)
				}
				stores = append(stores, s)
			}
			core, logs := observer.New(zap.ErrorLevel)
			log := zap.New(core)
			x, err := exports.New(exports.Config{Images: imagesOf(stores, log), Starting: true, Log: log})
			if err != nil {
				t.Fatal(err)
			}
			if err := noneEmpty(stores); err != nil {
				t.Error(err)
			}
			if err := sealNew(t.Context(), stores, x, log); (err != nil) != c.err {
				t.Errorf("%v", err)
			}
			var got []string
			for _, s := range x.Serving() {
				if s.Promoted.Version == "" {
					s.Promoted.Version = "-"
				}
				got = append(got, s.Promoted.Version)
			}
			if got := strings.Join(got, " "); got != c.want {
				t.Errorf("promoted: %s; want %s", got, c.want)
			}
			if n := logs.FilterMessage("a tree is not served").Len(); n != strings.Count(c.want, "-") {
				t.Errorf("log: %v", logs.All())
			}
		})
	}
}

// TestServeAnEmptyStore: that one of several stores is empty is said before anybody is answered.
func TestServeAnEmptyStore(t *testing.T) {
	full, empty := newStoreOf(t, "full", true, "v1"), newStoreOf(t, "empty", true)
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // it would go on for ever otherwise
	err := newApp().RunContext(ctx, []string{"rootnfsd", "serve", "--export", full, "--export", empty, "--listen", "127.0.0.1:0", "--portmap", "off"})
	if err == nil || !strings.Contains(err.Error(), empty+" is empty") {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(full, ".rootnfsd", "versions", "v1.index")); err == nil {
		t.Error("the other store was sealed first")
	}
}

// TestServeIsStoppedWhileSealing: that is no failure, or systemd would say that the unit failed.
func TestServeIsStoppedWhileSealing(t *testing.T) {
	store := newStoreOf(t, "images", true, "v1")
	app := newApp()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	args := []string{"rootnfsd", "serve", "--export", store, "--listen", "127.0.0.1:0", "--portmap", "off", "--log-level", "error"}
	if err := app.RunContext(ctx, args); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(store, ".rootnfsd", "versions", "v1.index")); err == nil {
		t.Error("a tree was sealed after the stop")
	}
}

// TestSealedBeforeOthers: a store is served as soon as it is sealed, whatever is still to be done.
func TestSealedBeforeOthers(t *testing.T) {
	var stores []*openedStore
	for _, name := range []string{"one", "two"} {
		s, err := openStore(newStoreOf(t, name, true, "v1"))
		if err != nil {
			t.Fatal(err)
		}
		stores = append(stores, s)
	}
	x, err := exports.New(exports.Config{Images: imagesOf(stores, zap.NewNop()), Starting: true, Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range stores { // both have a version, and one of them is said to be ready
		if err := s.sealTrees(t.Context(), zap.NewNop()); err != nil {
			t.Fatal(err)
		}
	}
	if err := x.Sealed("one"); err != nil {
		t.Fatal(err)
	}
	if s := x.Serving(); s[0].Promoted.Version != "v1" || s[1].Promoted.Version != "" {
		t.Errorf("%+v", s)
	}
}

// writerFunc is a Writer that is a function.
type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) {
	f(p)
	return len(p), nil
}

// TestServerAddress: the line that serve announces, and the one that a node fetches, have the address at which NFS is bound, or the one
// that the operator says.
func TestServerAddress(t *testing.T) {
	store := newStoreOf(t, "images", true, "v1/boot/firmware")
	if err := os.WriteFile(filepath.Join(store, "v1/boot/firmware/cmdline.txt"), []byte("quiet\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "rootnfsd.yaml")
	if err := os.WriteFile(file, []byte("server-address: 198.51.100.7\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	none := filepath.Join(t.TempDir(), "none.yaml")
	if err := os.WriteFile(none, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, config string
		flags        []string
		want         string
	}{
		{"bound to one address", none, nil, "127.0.0.1"},
		{"by the configuration", file, nil, "198.51.100.7"},
		{"by a flag", file, []string{"--server-address", "198.51.100.8"}, "198.51.100.8"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var said, fetched string
			app := newApp()
			app.Writer = writerFunc(func(p []byte) {
				said = string(p)
				_, at, _ := strings.Cut(said, "boot files: TFTP on ")
				at, _, _ = strings.Cut(at, "\n")
				fetched = fetchSmall(t, at, "cmdline.txt")
				cancel()
			})
			args := append([]string{"rootnfsd", "serve", "--config", c.config, "--export", store, "--listen", "127.0.0.1:0", "--portmap", "off", "--tftp", "127.0.0.2:0", "--log-level", "error"}, c.flags...)
			if err := app.RunContext(ctx, args); err != nil {
				t.Fatal(err)
			}
			if want := "nfsroot=" + c.want + ":/images,"; !strings.Contains(said, want) {
				t.Errorf("it says\n%s\nwant %s", said, want)
			}
			if want := "nfsroot=" + c.want + ":/images@v1,"; !strings.Contains(fetched, want) {
				t.Errorf("a node gets %q; want %s", fetched, want)
			}
		})
	}
	for args, want := range map[string]string{"serve --server-address fd00::1": "IPv4", "serve --server-address host": "--server-address host"} {
		if _, err := runApp(strings.Fields(args)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %s", args, err, want)
		}
	}
	text, err := runApp("cmdline", "--config", file, "--export", store)
	if err != nil || !strings.Contains(text, "nfsroot=198.51.100.7:/images@v1,") {
		t.Errorf("cmdline: %s, %v", text, err)
	}
}

// fetchSmall gets a file of less than 512 bytes by TFTP (RFC 1350).
func fetchSmall(t *testing.T, server, name string) string {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Error(err)
		return ""
	}
	defer pc.Close()
	to, err := net.ResolveUDPAddr("udp", server)
	if err != nil {
		t.Error(err)
		return ""
	}
	b := make([]byte, 1024)
	pc.SetDeadline(time.Now().Add(time.Minute))
	if _, err := pc.WriteTo([]byte("\x00\x01"+name+"\x00octet\x00"), to); err != nil {
		t.Error(err)
		return ""
	}
	n, from, err := pc.ReadFrom(b)
	if err != nil || n < 4 || b[1] != 3 {
		t.Errorf("%q, %v", b[:n], err)
		return ""
	}
	if _, err := pc.WriteTo([]byte{0, 4, 0, 1}, from); err != nil {
		t.Error(err)
	}
	return string(b[4:n])
}
