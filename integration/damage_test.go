package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDamage damages a version under the daemon's feet and looks at what becomes
// of it and of the others.
func TestDamage(t *testing.T) {
	require(t, "nfs-cat")
	good, bad := strings.Repeat("good", 50_000), strings.Repeat("evil", 50_000)
	store := newStore(t, map[string]files{
		"v1": {"etc/hostname": "one\n", "big": bad},
		"v2": {"etc/hostname": "two\n", "big": good},
	})
	at := "--export=" + store
	cli(t, "seal", at)
	cli(t, "promote", "v2", at)

	flip(t, filepath.Join(store, ".rootnfsd/versions/v1.index"), 300)
	packs, err := filepath.Glob(filepath.Join(store, ".rootnfsd/packs/*.pack"))
	if err != nil || len(packs) != 2 {
		t.Fatalf("packs %q, %v; want two", packs, err)
	}
	net := newNet(t)
	daemon := serve(t, net, at)
	expectOutput(t, net, good, "nfs-cat", "nfs://127.0.0.1/images/big?version=3")

	if r := finish(t, net.Command("nfs-cat", "nfs://127.0.0.1/images@v1/etc/hostname?version=3")); r.status == 0 {
		t.Errorf("a version whose index is damaged is served: %q", r.stdout)
	}
	expectLog(t, daemon, "v1", "damaged")

	// A pack that goes bad while the daemon is away is noticed by the first read.
	daemon.Kill()
	for _, p := range packs {
		flip(t, p, 5000)
	}
	serve(t, net, at)
	if r := finish(t, net.Command("nfs-cat", "nfs://127.0.0.1/images/big?version=3")); !strings.HasPrefix(good, r.stdout) || len(r.stdout) == len(good) {
		t.Errorf("nfs-cat of a damaged file: %d bytes; want an error, and no wrong bytes before it", len(r.stdout))
	}
	expectOutput(t, net, "two\n", "nfs-cat", "nfs://127.0.0.1/images/etc/hostname?version=3")
	if r := finish(t, net.Command(rootnfsd, "verify", "v2", at)); r.status != 1 || !strings.Contains(r.stdout+r.stderr, "/big") {
		t.Errorf("verify: exit status %d, %s%s; want 1, and the file named", r.status, r.stdout, r.stderr)
	}
}

// flip changes a byte of a file.
func flip(t *testing.T, path string, off int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x40
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
}
