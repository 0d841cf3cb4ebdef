package integration

import (
	"os"
	"testing"
)

// TestHomePosix has the table of integration/posix done in a guest, on its home
// and on a local file system. The guest protects links and what is in sticky
// directories, as the server's kernel may, so that it does not matter what the
// server's is set to.
func TestHomePosix(t *testing.T) {
	for _, squash := range []string{"none", "root"} {
		t.Run("squash "+squash, func(t *testing.T) {
			skel := t.TempDir()
			if err := os.Chmod(skel, 0o777); err != nil {
				t.Fatal(err)
			}
			h := serveHomes(t, t.TempDir(), []string{"./integration/posix"}, "--home-skel", skel, "--home-squash", squash)
			g := h.boot(t, 1)[0]
			mountHome(t, g)
			t.Log(in(t, g, `
				cd /proc/sys/fs && echo 1 | tee protected_hardlinks protected_symlinks protected_regular protected_fifos >/dev/null &&
				mkdir -m 777 /data/local && /data/posix -local /data/local -remote /tmp/home -squash `+squash))
		})
	}
}
