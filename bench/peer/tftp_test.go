package peer_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rootnfsd/rootnfsd/bench/benchtest"
	"github.com/rootnfsd/rootnfsd/bench/peer"
)

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
	full, empty := benchtest.BootTree(t, "content"), benchtest.BootTree(t, "")
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
