package integration

import (
	"context"
	_ "embed"
	"strings"
	"testing"
	"time"

	"github.com/rootnfsd/rootnfsd/integration/lab"
)

//go:embed build.sh
var buildScript string

// TestLongHomeBuild has a user of a node clone a repository into a home, build a
// program there, and go on to work with both, while the server is restarted over and over.
func TestLongHomeBuild(t *testing.T) {
	long(t, "builds a program under emulation")
	dir := t.TempDir()
	h := serveHomesTo(t, lab.OpenBuildWorkbench, dir, nil, "--home-layout", "shared", "--home-squash", "none")
	g := h.boot(t, 1)[0]
	mountHome(t, g)
	h.hold(t)
	in(t, g, "mkdir /tmp/home/user && chown 1000:1000 /tmp/home/user")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
	defer cancel()
	end := restartMeanwhile(t, h.Daemon, waiting, h.Stop)
	out, err := g.Run(ctx, "cat >/tmp/build.sh <<'BUILD.SH ENDS'\n"+buildScript+"BUILD.SH ENDS\nsetpriv --reuid 1000 --regid 1000 --clear-groups sh /tmp/build.sh")
	end()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(out, "cloned, built and removed\n") {
		t.Error(out)
	}
}
