package integration

import (
	"strings"
	"testing"
	"time"

	"github.com/rootnfsd/rootnfsd/integration/lab"
)

// TestLongKernelRoot boots a kernel that mounts its root itself, without an
// initramfs, as older diskless setups do (fs/nfs/nfsroot.c).
func TestLongKernelRoot(t *testing.T) {
	long(t, "builds a kernel")
	require(t, "make", "gcc", "flex", "bison", "bc", "tar", "xz")
	kernel, err := lab.NFSRootKernel()
	if err != nil {
		t.Fatal(err)
	}
	golden := openGolden(t)
	net := newNet(t)
	cli(t, "promote", "v1", "--export", golden.Store)
	serve(t, net, "--export", golden.Store, "--allow", "127.0.0.0/8")
	start := time.Now()
	node := power(t, lab.Machine{
		Net: net, Kernel: kernel,
		Append: "root=/dev/nfs nfsroot=" + lab.UserServer + ":/images,v3,tcp ip=dhcp console=ttyS0 init=/usr/local/sbin/lab-init",
	})
	mounts := in(t, node, "grep ' / nfs ' /proc/mounts")
	t.Logf("booted in %.1f s", time.Since(start).Seconds())

	for _, want := range []string{"ro", "vers=3", "proto=tcp"} {
		if !strings.Contains(mounts, ","+want+",") && !strings.Contains(mounts, " "+want+",") {
			t.Errorf("the root is mounted as %q; want %s", mounts, want)
		}
	}
	compare(t, node, "/mnt", golden.Tree("v1"), listing)
	compare(t, node, "/mnt", golden.Tree("v1"), checksums)
}
