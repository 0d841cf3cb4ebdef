package peer_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rootnfsd/rootnfsd/bench/benchtest"
	"github.com/rootnfsd/rootnfsd/bench/peer"
)

// bootTree makes a tree, with a boot file or without, that any user may read.
func bootTree(t *testing.T, content string) string {
	t.Helper()
	tree, err := os.MkdirTemp("", "rootnfsd-tftp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(tree) })
	boot := filepath.Join(tree, peer.BootDir)
	if err := errors.Join(os.Chmod(tree, 0o755), os.MkdirAll(boot, 0o755)); err != nil {
		t.Fatal(err)
	}
	if content != "" {
		if err := os.WriteFile(filepath.Join(boot, peer.BootFile), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return tree
}

// TestTFTPServers starts all servers of boot files, which are there when they have given
// one out, and has them say so when there is none.
func TestTFTPServers(t *testing.T) {
	benchtest.Need(t, errors.Join(peer.MissingDnsmasq(), peer.MissingTFTPD()))
	if !benchtest.InNetwork(t) {
		return
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	full, empty := bootTree(t, "content"), bootTree(t, "")
	for name, start := range map[string]func(ctx context.Context, tree string) (*peer.Server, error){
		"dnsmasq":   peer.Dnsmasq,
		"tftpd-hpa": peer.TFTPD,
		"pin/tftp": func(ctx context.Context, tree string) (*peer.Server, error) {
			return peer.PinTFTP(ctx, program, tree)
		},
	} {
		s, err := start(t.Context(), full)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if s.Name != name || len(strings.Fields(s.About)) < 4 || !s.TFTPAddr.IsValid() {
			t.Errorf("%s is called %q, is %q and at %v", name, s.Name, s.About, s.TFTPAddr)
		}
		if !strings.Contains(s.About, "cannot be told") && s.Family().CPU() <= 0 {
			t.Errorf("%s took no processor time", name)
		}
		s.Stop()
		if s.Alive() {
			t.Errorf("%s is alive after it was stopped", name)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		if s, err := start(ctx, empty); err == nil {
			t.Errorf("%s gives out a boot file that is not there", name)
			s.Stop()
		} else if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "it says") {
			t.Errorf("%s without a boot file: %v", name, err)
		}
		cancel()
	}
}
