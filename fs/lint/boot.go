package lint

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

const (
	updateInitramfs = "chroot . update-initramfs -u -k all"
	mostModules     = "set MODULES=most in etc/initramfs-tools/initramfs.conf, then " + updateInitramfs
)

// bootRules are about kernels and what is loaded with them.
func bootRules() []Rule {
	return []Rule{{
		ID: "kernel-modules", Severity: Warning,
		Looks:  "kernels without their directory in `/lib/modules`; the release is read inside the image",
		Reason: "A node that boots this kernel finds no modules once it has left the initramfs: no drivers, no network file systems, no containers.",
		Fix:    "Install the kernel's package, or remove the image: `ls lib/modules boot`. Load the kernel of the version that is served.",
		check:  checkKernelModules,
	}, {
		ID: "kernel-unreadable", Severity: Info,
		Looks:  "kernel images and initramfs that this program cannot read",
		Reason: "Nothing is known about what it is or holds; it may be damaged, cut off, or in a format that is not known here (LZO, bzip2).",
		Fix:    "`file boot/…`; make an initramfs again with `" + updateInitramfs + "`.",
		check:  checkUnreadable,
	}, {
		ID: "initramfs-missing", Severity: Warning,
		Looks:  "kernels without an initramfs, beside others that have one or with overlayroot installed",
		Reason: "overlayroot lives in the initramfs. A node that boots this kernel has a root that it cannot write to. On a Raspberry Pi 5 that is `kernel_2712.img`, which takes `initramfs_2712`.",
		Fix:    "`" + updateInitramfs + "`",
		check:  checkInitramfsMissing,
	}, {
		ID: "initramfs-other-kernel", Severity: Error,
		Looks:  "an initramfs with modules for other kernels only",
		Reason: "None of its modules can be loaded: a node has no NFS, no overlay, or no network, and waits for its root for ever.",
		Fix:    "`" + updateInitramfs + "`",
		check: initramfsCheck(updateInitramfs, func(k *kernel) string {
			if k.release == "" || len(k.ram.releases) == 0 || k.ram.releases[k.release] {
				return ""
			}
			return fmt.Sprintf("it has modules for %s, and the kernel is %s: none can be loaded", some(sorted(k.ram.releases)), k.release)
		}),
	}, {
		ID: "initramfs-no-nfs", Severity: Error,
		Looks:  "an initramfs that cannot mount a root over NFS: no `nfsmount` (or dracut's `nfsroot`), or no modules `nfs` and `nfsv3`, which the kernel does not have built in either",
		Reason: "A kernel with an initramfs leaves the root to it. This one cannot mount it.",
		Fix:    "Debian: `MODULES=most` in `etc/initramfs-tools/initramfs.conf`, then `" + updateInitramfs + "`. dracut: `--add nfs`.",
		check: initramfsCheck(mostModules, func(k *kernel) string {
			switch {
			case !k.ram.nfsMount:
				return "it has nothing that mounts a root over NFS (nfsmount)"
			case k.lacks("nfs") || k.lacks("nfsv3"):
				return "it lacks the modules nfs and nfsv3, and the kernel does not have them built in"
			}
			return ""
		}),
	}, {
		ID: "initramfs-no-network", Severity: Error,
		Looks:  "an initramfs without a driver for a network card, for a kernel that has none built in",
		Reason: "The root comes over the network, which the node never gets.",
		Fix:    "Debian: `MODULES=most` in `etc/initramfs-tools/initramfs.conf`, then `" + updateInitramfs + "`.",
		check: initramfsCheck(mostModules, func(k *kernel) string {
			if k.ram.network || k.builtin[builtinNetwork] {
				return ""
			}
			return "it has no driver of a network card, and the kernel has none built in"
		}),
	}, {
		ID: "initramfs-no-overlay", Severity: Warning,
		Looks:  "an initramfs without the module `overlay`, for a kernel that does not have it built in",
		Reason: "overlayroot gives up with `overlay: No such device`, and the node runs on a root that it cannot write to.",
		Fix:    "`echo overlay >> etc/initramfs-tools/modules`, then `" + updateInitramfs + "`. Installing overlayroot does the same.",
		check: initramfsCheck("echo overlay >> etc/initramfs-tools/modules; "+updateInitramfs, func(k *kernel) string {
			if !k.lacks("overlay") {
				return ""
			}
			return "it lacks the module overlay: the root stays read-only"
		}),
	}, {
		ID: "initramfs-modules-dep", Severity: Warning,
		Looks:  "`MODULES=dep` or `list` in the settings of initramfs-tools",
		Reason: "An initramfs then has the drivers of the machine that it was made on, which are not those of the nodes.",
		Fix:    "`MODULES=most` in the file that is named, then `" + updateInitramfs + "`.",
		check:  checkModulesDep,
	}}
}

// kernel is a kernel image and its initramfs.
type kernel struct {
	path    string
	release string // empty if err is set
	err     error
	initrd  string          // path of the initramfs, "" if there is none
	ram     *initramfs      // nil if there is none or ramErr is set
	builtin map[string]bool // modules that are known to be in the kernel itself
	ramErr  error
}

// lacks reports whether neither the initramfs nor the kernel has a module.
func (k *kernel) lacks(module string) bool { return !k.ram.modules[module] && !k.builtin[module] }

// maxKernels is how many images are looked at.
const maxKernels = 32

// readKernels finds the kernels of the tree and reads them, once.
func (c *checker) readKernels() ([]*kernel, error) {
	if c.looked {
		return c.kernels, nil
	}
	for _, dir := range []string{"/boot", "/boot/firmware"} {
		entries, err := c.list(dir)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			initrds := initrdsOf(e.Name(), dir)
			if initrds == nil || len(c.kernels) == maxKernels {
				continue
			}
			k, err := c.readKernel(path.Join(dir, e.Name()), initrds)
			if err != nil {
				return nil, err
			}
			if k != nil {
				c.kernels = append(c.kernels, k)
			}
		}
	}
	c.looked = true
	return c.kernels, nil
}

// initrdsOf returns what the initramfs of a kernel image may be called, nil for
// what is no kernel image: Debian's vmlinuz-6.1.0, Fedora's, those that the
// firmware of a Raspberry Pi chooses (auto_initramfs in config.txt), and
// Ubuntu's for a Pi.
func initrdsOf(name, dir string) []string {
	for _, old := range []string{".old", ".bak", ".dpkg-bak", ".sig", ".hmac"} {
		if strings.HasSuffix(name, old) {
			return nil
		}
	}
	if version, ok := strings.CutPrefix(name, "vmlinuz-"); ok {
		return []string{"initrd.img-" + version, "initramfs-" + version + ".img", "initrd-" + version}
	}
	if name == "vmlinuz" && dir == "/boot/firmware" {
		return []string{"initrd.img"}
	}
	if kind, ok := strings.CutSuffix(name, ".img"); ok {
		switch kind {
		case "kernel", "kernel7", "kernel7l", "kernel8", "kernel_2712":
			return []string{"initramfs" + strings.TrimPrefix(kind, "kernel")}
		}
	}
	return nil
}

// readKernel reads an image and the first of some initramfs beside it. It
// returns nil if there is no such file.
func (c *checker) readKernel(p string, initrds []string) (*kernel, error) {
	f, err := c.open(p)
	if f == nil || err != nil {
		return nil, err
	}
	defer f.Close()
	k := &kernel{path: p, builtin: map[string]bool{}}
	k.release, k.err = kernelRelease(f)
	for _, name := range initrds {
		initrd := path.Join(path.Dir(p), name)
		g, err := c.open(initrd)
		if err != nil {
			return nil, err
		}
		if g == nil {
			continue
		}
		defer g.Close()
		k.initrd = initrd
		if k.ram, k.ramErr = readInitramfs(g); k.ramErr != nil {
			k.ram = nil
		} else {
			k.builtin = k.ram.builtin
		}
		break
	}
	if k.release == "" {
		return k, c.ctx.Err()
	}
	list, err := c.open("/lib/modules/" + k.release + "/modules.builtin")
	if list == nil || err != nil {
		return k, err
	}
	defer list.Close()
	return k, errors.Join(readBuiltin(list, k.builtin), c.ctx.Err())
}

// initramfsCheck returns a check that reports what is wrong with each initramfs. That is
// an error if it is wrong with all of them, and it is known what the kernel has built in:
// otherwise a node may boot another one, or without it.
func initramfsCheck(fix string, wrong func(*kernel) string) func(*checker) error {
	return func(c *checker) error {
		kernels, err := c.readKernels()
		if err != nil {
			return err
		}
		severity := c.rule.Severity
		reasons := map[*kernel]string{}
		for _, k := range kernels {
			if k.ram != nil {
				reasons[k] = wrong(k)
			}
			if reasons[k] == "" || len(k.builtin) == 0 {
				severity = min(severity, Warning)
			}
		}
		for _, k := range kernels {
			if reasons[k] != "" {
				c.found(severity, k.initrd, reasons[k], fix)
			}
		}
		return nil
	}
}

func checkKernelModules(c *checker) error {
	kernels, err := c.readKernels()
	if err != nil {
		return err
	}
	for _, k := range kernels {
		if k.release == "" {
			continue
		}
		if dir, err := c.exists("/lib/modules/" + k.release); err != nil {
			return err
		} else if dir != "" {
			continue
		}
		entries, err := c.list("/lib/modules")
		if err != nil {
			return err
		}
		there := "there is none"
		if len(entries) > 0 {
			var names []string
			for _, e := range entries {
				names = append(names, e.Name())
			}
			there = "there is " + some(names)
		}
		c.found(Warning, k.path, fmt.Sprintf("it is %s, for which there are no modules in /lib/modules (%s)", k.release, there),
			"install the package of this kernel, or remove the image")
	}
	return nil
}

func checkUnreadable(c *checker) error {
	kernels, err := c.readKernels()
	for _, k := range kernels {
		if k.err != nil {
			c.found(Info, k.path, "this kernel image cannot be read: "+k.err.Error(), "look at what it is: file boot/…")
		}
		if k.ramErr != nil {
			c.found(Info, k.initrd, "this initramfs cannot be read: "+k.ramErr.Error(), updateInitramfs)
		}
	}
	return err
}

func checkInitramfsMissing(c *checker) error {
	kernels, err := c.readKernels()
	if err != nil {
		return err
	}
	overlay, err := c.hasOverlayroot()
	if err != nil {
		return err
	}
	wanted := overlay || slices.ContainsFunc(kernels, func(k *kernel) bool { return k.initrd != "" })
	for _, k := range kernels {
		if wanted && k.initrd == "" {
			c.found(Warning, k.path, "this kernel has no initramfs, which the overlay is laid by", updateInitramfs)
		}
	}
	return nil
}

func checkModulesDep(c *checker) error {
	files, err := c.dropIns("", "/etc/initramfs-tools/conf.d")
	if err != nil {
		return err
	}
	var by, value string
	err = each(append([]string{"/etc/initramfs-tools/initramfs.conf"}, files...), func(p string) error {
		lines, err := c.lines(p)
		for _, line := range lines {
			if v, ok := strings.CutPrefix(line, "MODULES="); ok {
				by = p
				value, _ = shellValue(v)
			}
		}
		return err
	})
	if value == "dep" || value == "list" {
		c.found(Warning, by, "MODULES="+value+": the next initramfs has the drivers of the machine that it is made on",
			"set MODULES=most in it, then "+updateInitramfs)
	}
	return err
}

// sorted returns what is in a set.
func sorted(set map[string]bool) []string {
	var all []string
	for name := range set {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}
