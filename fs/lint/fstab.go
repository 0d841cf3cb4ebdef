package lint

import (
	"path"
	"strings"

	"github.com/rootnfsd/rootnfsd/fs/fstab"
)

// fstabPath is where an fstab lies.
const fstabPath = "/etc/fstab"

// onDisk reports whether what is mounted is on a disk that a node does not have.
func onDisk(m *fstab.Mount) bool {
	for _, tag := range []string{"LABEL=", "UUID=", "PARTUUID=", "PARTLABEL=", "ID="} {
		if strings.HasPrefix(m.Spec, tag) {
			return true
		}
	}
	dev, ok := strings.CutPrefix(path.Clean(m.Spec), "/dev/")
	if !ok {
		return false
	}
	for _, disk := range []string{"mmcblk", "sd", "nvme", "vd", "xvd", "hd", "disk/", "mapper/", "md", "loop"} {
		if strings.HasPrefix(dev, disk) {
			return true
		}
	}
	return false
}

// waitsForDisk reports whether systemd waits at boot for a disk that a node does not have.
func waitsForDisk(m *fstab.Mount) bool { return onDisk(m) && needed(m) }

// swapsToFile reports whether this is swap space in a file, which lies in the overlay.
func swapsToFile(m *fstab.Mount) bool {
	return m.IsSwap() && strings.HasPrefix(m.Spec, "/") && !strings.HasPrefix(m.Spec, "/dev/") && !m.Has("noauto")
}

// needed reports whether systemd waits for the mount when it boots.
func needed(m *fstab.Mount) bool { return !m.Has("noauto", "nofail", "x-systemd.automount") }
