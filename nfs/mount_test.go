package nfs

import (
	"bytes"
	"context"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	gonfs "github.com/willscott/go-nfs"

	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

func TestMountPaths(t *testing.T) {
	h := start(t, sample(), Limits{})
	c := h.dial(t)
	root := c.mount("/")
	for path, want := range map[string]gonfs.MountStatus{
		"/": 0, "/images": 0, "/images/": 0, "//images//.": 0, "/images@v1": 0, "/@v1": 0, "/srv/images": 0,
		"/nothing": gonfs.MountStatusErrNoEnt, "/images@v2": gonfs.MountStatusErrNoEnt, "/images/etc/nothing": gonfs.MountStatusErrNoEnt,
		"/images/etc/passwd": gonfs.MountStatusErrNotDir, "/images/links/absolute": gonfs.MountStatusErrNotDir,
		"": gonfs.MountStatusErrInval, ".": gonfs.MountStatusErrInval, "images": gonfs.MountStatusErrInval,
		"/images/../etc": gonfs.MountStatusErrInval, "/ima\x00ges": gonfs.MountStatusErrInval,
		"/" + strings.Repeat("p/", 512): gonfs.MountStatusErrNameTooLong, "/" + strings.Repeat("n", 256): gonfs.MountStatusErrNameTooLong,
	} {
		d := c.call(progMount, 3, 1, func(e *wire.Encoder) { e.String(path) })
		if s := gonfs.MountStatus(d.Uint32()); s != want {
			t.Errorf("MNT %q: status %d, want %d", path, s, want)
			continue
		}
		if want != 0 {
			if !d.Done() {
				t.Errorf("MNT %q: %d bytes after the status", path, d.Len())
			}
			continue
		}
		if got := d.Opaque(64); !bytes.Equal(got, root) {
			t.Errorf("MNT %q: not the root's handle", path)
		}
		if d.Uint32() != 2 || d.Uint32() != wire.AuthSys || d.Uint32() != wire.AuthNone || !d.Done() {
			t.Errorf("MNT %q: not the flavors AUTH_SYS and AUTH_NONE", path)
		}
	}
	if bytes.Equal(c.mount("/images/etc"), root) {
		t.Error("a subdirectory has the root's handle")
	}
	c.call(progMount, 3, 1, func(e *wire.Encoder) { e.String("/nothing") })
	h.stop()
	refused := h.logs.FilterMessage("mount refused").All()
	if !slices.ContainsFunc(refused, func(e observedEntry) bool {
		return strings.Contains(e.ContextMap()["error"].(string), "/images@v1")
	}) {
		t.Error("the log does not say what would have worked")
	}
}

// klibc's nfsmount sends AUTH_NONE, and takes what one read(2) gives it for the
// whole reply.
func TestMountAsKlibc(t *testing.T) {
	h := start(t, sample(), Limits{})
	c := h.dial(t)
	c.cred = authNone
	for _, prog := range []uint32{progPortmap, progMount} {
		if prog == progPortmap {
			c.push(prog, 2, 3, func(e *wire.Encoder) {
				for _, v := range []uint32{progMount, 3, protoTCP, 0} {
					e.Uint32(v)
				}
			})
		} else {
			c.push(prog, 3, 1, func(e *wire.Encoder) { e.String("/images") })
		}
		c.flush()
		buf := make([]byte, 200)
		n, err := c.conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		if size, last := wire.ParseMark(buf); int(size) != n-4 || !last {
			t.Errorf("one read gave %d bytes, a record of %d, last %v", n, size, last)
		}
		if verifier := buf[4+12 : 4+20]; !bytes.Equal(verifier, make([]byte, 8)) {
			t.Errorf("verifier % x", verifier)
		}
	}
}

func TestShowmount(t *testing.T) {
	h := start(t, sample(), Limits{})
	c := h.dial(t)
	c.mount("/images@v1")
	dump := func(vers uint32) (lines []string) {
		d := c.call(progMount, vers, uint32(gonfs.MountProcDump), nil)
		for d.Bool() {
			lines = append(lines, string(d.Opaque(255))+":"+string(d.Opaque(1024)))
		}
		if !d.Done() {
			t.Error("malformed DUMP")
		}
		return lines
	}
	for _, vers := range []uint32{1, 3} {
		d := c.call(progMount, vers, uint32(gonfs.MountProcExport), nil)
		var paths []string
		for d.Bool() {
			paths = append(paths, string(d.Opaque(1024)))
			clients := 0
			for d.Bool() {
				d.Opaque(255)
				clients++
			}
			if clients == 0 {
				t.Error("an export for nobody")
			}
		}
		if !d.Done() || !slices.Contains(paths, "/images@v1") || !slices.Contains(paths, "/") {
			t.Errorf("EXPORT of version %d: %q", vers, paths)
		}
		if got := dump(vers); !slices.Contains(got, "127.0.0.1:/images@v1") {
			t.Errorf("DUMP of version %d: %q", vers, got)
		}
	}
	c.call(progMount, 3, uint32(gonfs.MountProcUmnt), func(e *wire.Encoder) { e.String("/images@v1") })
	if got := dump(3); len(got) != 0 {
		t.Errorf("after UMNT: %q", got)
	}
	c.mount("/")
	c.call(progMount, 3, uint32(gonfs.MountProcUmntAll), nil)
	if got := dump(3); len(got) != 0 {
		t.Errorf("after UMNTALL: %q", got)
	}
}

// libnfs is a client that nobody here wrote.
func TestLibnfs(t *testing.T) {
	ls, err := exec.LookPath("nfs-ls")
	if err != nil {
		t.Skip("nfs-ls is missing: apt-get install libnfs-utils")
	}
	h := start(t, sample(), Limits{})
	_, port, _ := net.SplitHostPort(h.addr)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, ls, "-R", "nfs://127.0.0.1/images?version=3&nfsport="+port+"&mountport="+port).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{"etc/passwd", "70000 root/deep/third-name", "crw-rw-rw-  2"} {
		if !bytes.Contains(out, []byte(want)) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}
