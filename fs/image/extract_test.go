package image_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs/fstest"
	"github.com/rootnfsd/rootnfsd/fs/image"
)

func lstat(t *testing.T, path string) (st unix.Stat_t) {
	t.Helper()
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st
}

// expectOnly makes sure that a directory has these names in it and no other.
func expectOnly(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if err != nil || strings.Join(got, " ") != strings.Join(names, " ") {
		t.Errorf("in %s are %q, %v; want %q", dir, got, err, names)
	}
}

// TestExtract: a tree that was sealed, taken out and sealed again has the same
// digest, so nothing of it is lost; and no hole is filled on the way.
func TestExtract(t *testing.T) {
	dir, _ := sampleDir(t)
	// As setcap(8) writes it: cap_net_raw+ep, revision 2.
	capability := []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	// user::rw-, user:7:r--, group::r--, mask::r--, other::r--
	acl := []byte{2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 7, 0, 0, 0, 4, 0, 4, 0, 255, 255, 255, 255, 16, 0, 4, 0, 255, 255, 255, 255, 32, 0, 4, 0, 255, 255, 255, 255}
	for _, x := range []struct {
		path, name string
		value      []byte
	}{{"/bin/wall", "security.capability", capability}, {"/etc/passwd", "system.posix_acl_access", acl}, {"/empty", "user.why", []byte("because")}} {
		if err := unix.Setxattr(dir+x.path, x.name, x.value, 0); err != nil {
			t.Fatal(x, err)
		}
	}
	s := newStore(t)
	want := sealDir(t, s, "v1", dir)
	v := open(t, s, "v1")
	above := t.TempDir()
	to := filepath.Join(above, "out*[x]")
	var last image.Progress
	done, err := v.Extract(t.Context(), 1, to, image.ExtractOptions{Progress: func(p image.Progress) { last = p }})
	if err != nil {
		t.Fatal(err)
	}
	if done.Objects != want.Objects || last.Files != want.Objects || last.Bytes == 0 || done.LeftOut != (image.Privileged{}) {
		t.Errorf("%+v, last progress %+v; want %d objects", done, last, want.Objects)
	}
	expectOnly(t, above, "out*[x]")
	if got := sealDir(t, newStore(t), "again", to); got.Digest != want.Digest {
		t.Errorf("sealed again, it has digest %v, want %v", got.Digest, want.Digest)
		sealDir(t, s, "again", to)
		t.Errorf("differs in %q", changes(t, v, open(t, s, "again")))
	}
	if a, b := lstat(t, to+"/bin/su"), lstat(t, to+"/root/deep/third-name"); a.Ino != b.Ino || a.Nlink != 3 {
		t.Errorf("hard links became %+v and %+v", a, b)
	}
	if holes := lstat(t, to+"/sizes/holes"); holes.Size != 601_082 || holes.Blocks*512 > 300_000 {
		t.Errorf("a file of %d bytes with holes takes %d", holes.Size, holes.Blocks*512)
	}
	// An empty directory may be there, and is replaced.
	empty := filepath.Join(above, "empty")
	if err := os.Mkdir(empty, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Extract(t.Context(), lookup(t, v, "etc"), empty, image.ExtractOptions{}); err != nil {
		t.Error(err)
	}
	expectOnly(t, empty, "passwd", "shadow")
	// One that is not empty stays what it is.
	if _, err := v.Extract(t.Context(), lookup(t, v, "bin"), empty, image.ExtractOptions{}); !errors.Is(err, unix.ENOTEMPTY) {
		t.Errorf("onto a directory with files in it: %v", err)
	}
	expectOnly(t, empty, "passwd", "shadow")
	expectOnly(t, above, "empty", "out*[x]")
}

// TestExtractPlain makes a file as any program would.
func TestExtractPlain(t *testing.T) {
	dir, _ := sampleDir(t)
	s := newStore(t)
	sealDir(t, s, "v1", dir)
	v := open(t, s, "v1")
	above := t.TempDir()
	for range 2 { // the second time it is replaced
		if _, err := v.Extract(t.Context(), lookup(t, v, "bin/su"), above+"/su", image.ExtractOptions{Plain: true}); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := os.ReadFile(above + "/su"); err != nil || !bytes.Equal(b, fstest.Bytes(70_000)) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if st := lstat(t, above+"/su"); st.Mode&0o7000 != 0 || st.Nlink != 1 {
		t.Errorf("mode %o, %d links", st.Mode, st.Nlink)
	}
	done, err := v.Extract(t.Context(), lookup(t, v, "dev"), above+"/dev", image.ExtractOptions{Plain: true})
	if err != nil || done.LeftOut.Devices != 3 {
		t.Errorf("%+v, %v", done, err)
	}
	expectOnly(t, above+"/dev", "fifo", "log")
	expectOnly(t, above, "dev", "su")
}

// TestExtractStopped: what is stopped leaves nothing, and what is killed leaves
// nothing once it is tried again.
func TestExtractStopped(t *testing.T) {
	dir := writeFiles(t, small)
	if err := os.Chmod(dir+"/d", 0o500); err != nil {
		t.Fatal(err)
	}
	s := newStore(t)
	sealDir(t, s, "v1", dir)
	v := open(t, s, "v1")
	above := t.TempDir()
	to := filepath.Join(above, "out")
	ctx, stop := context.WithCancel(t.Context())
	stopIt := func(image.Progress) {
		expectOnly(t, filepath.Dir(to), firstName(t, above))
		stop()
	}
	if _, err := v.Extract(ctx, 1, to, image.ExtractOptions{Progress: stopIt}); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped: %v", err)
	}
	expectOnly(t, above)

	for _, name := range []string{"/.tmp-out-1/d", "/.tmp-out-2", "/.tmp-other-3"} {
		if err := os.MkdirAll(above+name, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	inUse, err := os.Open(above + "/.tmp-out-2")
	if err != nil {
		t.Fatal(err)
	}
	defer inUse.Close()
	if err := unix.Flock(int(inUse.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Extract(t.Context(), 1, to, image.ExtractOptions{NoOwner: true}); err != nil {
		t.Error(err)
	}
	expectOnly(t, above, ".tmp-other-3", ".tmp-out-2", "out")
}

func firstName(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) == 0 {
		t.Fatal(entries, err)
	}
	return entries[0].Name()
}

// TestExtractDamage: content that is damaged is not taken out.
func TestExtractDamage(t *testing.T) {
	s := newBrokenStore(t)
	sealDir(t, s, "v1", writeFiles(t, small))
	flip(t, packs(t, s)[0], 100)
	above := t.TempDir()
	_, err := open(t, s, "v1").Extract(t.Context(), 1, above+"/out", image.ExtractOptions{NoOwner: true})
	if err == nil || !strings.Contains(err.Error(), "cannot read") {
		t.Errorf("Extract: %v", err)
	}
	expectOnly(t, above)
}
