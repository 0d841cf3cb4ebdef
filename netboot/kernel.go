package netboot

import (
	"cmp"
	"strings"

	"github.com/rootnfsd/rootnfsd/fs"
)

// kernelPair returns the kernel that vmlinuz stands for, and the initramfs of the same version, nil if it
// has none: what the links of Debian lead to, which are in / or, as Ubuntu has them, in /boot, else the newest
// kernel. One of them alone must not be looked for by its link, for the two are replaced one after the other.
func (dir *spot) kernelPair() (kernel, initramfs *spot, err error) {
	root := dir.root()
	boot, err := root.find("boot")
	if err != nil || !boot.isDir() {
		boot = dir
	}
	for _, at := range []*spot{dir, root, boot} {
		if kernel, err = at.regular(kernelFile); err == nil {
			return kernel, initramfsOf(kernel, at), nil
		}
	}
	for _, at := range []*spot{dir, boot} {
		kernel, initramfs, err = at.newestKernel()
		if kernel != nil || err != nil {
			return kernel, initramfs, err
		}
	}
	return nil, nil, fs.ErrNotExist
}

// initramfsOf returns the initramfs of a kernel, which a link in a directory led to: that of the kernel's version or, if its
// name tells none, the one beside the link. It is nil if there is none.
func initramfsOf(kernel, linkIn *spot) *spot {
	var found *spot
	var err error
	if version, ok := strings.CutPrefix(kernel.names[len(kernel.names)-1], kernelFile+"-"); ok {
		found, err = kernel.parent().regular(initramfsFile + "-" + version)
	} else {
		found, err = linkIn.regular(initramfsFile)
	}
	if err != nil {
		return nil
	}
	return found
}

// newestKernel returns the newest kernel in a directory and its initramfs, by the versions in their names; one that has an
// initramfs if any has.
func (dir *spot) newestKernel() (kernel, initramfs *spot, err error) {
	newest := ""
	err = dir.each(func(name string) bool {
		version, ok := strings.CutPrefix(name, kernelFile+"-")
		if !ok || isLeftOver(name) {
			return true
		}
		k, err := dir.regular(name)
		if err != nil {
			return true
		}
		ram := initramfsOf(k, dir)
		if kernel == nil || ram != nil && initramfs == nil || (ram != nil) == (initramfs != nil) && compareVersions(version, newest) > 0 {
			kernel, initramfs, newest = k, ram, version
		}
		return true
	})
	return kernel, initramfs, err
}

// isLeftOver reports whether a file is what packages and people leave behind.
func isLeftOver(name string) bool {
	for _, suffix := range []string{".old", ".bak", ".dpkg-bak", ".dpkg-new", ".dpkg-tmp", ".sig", ".hmac", "~"} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return false
}

// compareVersions compares versions of kernels: numbers in them by their value, what is between by its bytes, a release
// candidate (6.1~rc1) before the release.
func compareVersions(a, b string) int {
	for a != "" || b != "" {
		textA, textB := cutRun(&a, false), cutRun(&b, false)
		if c := compareText(textA, textB); c != 0 {
			return c
		}
		numA, numB := strings.TrimLeft(cutRun(&a, true), "0"), strings.TrimLeft(cutRun(&b, true), "0")
		if c := cmp.Or(cmp.Compare(len(numA), len(numB)), strings.Compare(numA, numB)); c != 0 {
			return c
		}
	}
	return 0
}

// cutRun cuts the digits, or what is none, off the front of s.
func cutRun(s *string, digits bool) string {
	n := strings.IndexFunc(*s, func(r rune) bool { return (r >= '0' && r <= '9') != digits })
	if n < 0 {
		n = len(*s)
	}
	run := (*s)[:n]
	*s = (*s)[n:]
	return run
}

func compareText(a, b string) int {
	for i := range min(len(a), len(b)) {
		if (a[i] == '~') != (b[i] == '~') {
			return cmp.Compare(order(a[i]), order(b[i]))
		}
		if a[i] != b[i] {
			return cmp.Compare(a[i], b[i])
		}
	}
	// What ends comes first, but for a tilde.
	switch {
	case len(a) > len(b):
		return order(a[len(b)])
	case len(b) > len(a):
		return -order(b[len(a)])
	}
	return 0
}

func order(c byte) int {
	if c == '~' {
		return -1
	}
	return 1
}
