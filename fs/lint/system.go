package lint

import (
	"os"
	"slices"
	"strings"
)

// systemRules are about the tree as a whole.
func systemRules() []Rule {
	return []Rule{{
		ID: "no-init", Severity: Error,
		Looks:  "an operating system without `/sbin/init`",
		Reason: "The kernel and the initramfs start `/sbin/init`. Without it a node panics, or ends in a shell on its console. Container images usually have none.",
		Fix:    "Install an init, on Debian `chroot . apt-get install systemd-sysv`. A symlink that leads nowhere counts as missing.",
		check:  checkInit,
	}, {
		ID: "no-users", Severity: Error,
		Looks:  "an operating system without `/etc/passwd`, and nothing that would make it",
		Reason: "No service finds the user that it runs as and nobody can log in.",
		Fix:    "Take the whole root, with `/etc`. systemd-sysusers makes the file where `/usr/lib/sysusers.d` says how.",
		check:  checkUsers,
	}, {
		ID: "no-mount-points", Severity: Error,
		Looks:  "`/dev`, `/proc`, `/run` and `/sys` that are missing",
		Reason: "The initramfs moves its own mounts there before it starts init; the root is read-only, so nobody can make the directories at that time, and the node panics.",
		Fix:    "`mkdir -p dev proc run sys`",
		check:  checkMountPoints,
	}, {
		ID: "file-capabilities", Severity: Warning,
		Looks:  "programs with file capabilities (`security.capability`), such as ping, newuidmap and mtr-packet, that are not setuid root as well",
		Reason: "NFS version 3 has no extended attributes: the node sees the program without them, and for an ordinary user it fails with `Operation not permitted`.",
		Fix:    "Where ordinary users need the program, make it setuid (`chmod u+s FILE`, `--caps setuid`), or set the capabilities in the overlay at boot (`--caps restore`). Without a need, ignore it.",
		check:  checkCapabilities,
	}}
}

// isSystem reports whether the tree looks like a root that somebody boots, and
// not like files that are merely served.
func (c *checker) isSystem() (bool, error) {
	if init, err := c.exists("/sbin/init"); init != "" || err != nil {
		return init != "", err
	}
	release, err := c.exists("/etc/os-release", "/usr/lib/os-release")
	if release == "" || err != nil {
		return false, err
	}
	parts, err := c.exists("/bin/sh", "/usr/lib/systemd", "/lib/systemd", "/lib/modules", "/sbin/openrc-init")
	return parts != "", err
}

func checkInit(c *checker) error {
	system, err := c.isSystem()
	if !system || err != nil {
		return err
	}
	if init, err := c.exists("/sbin/init"); init != "" || err != nil {
		return err
	}
	c.found(Error, "/sbin/init", "there is no init to start: a node panics or ends in a shell", "chroot . apt-get install systemd-sysv")
	return nil
}

func checkUsers(c *checker) error {
	system, err := c.isSystem()
	if !system || err != nil {
		return err
	}
	if there, err := c.exists("/etc/passwd", "/usr/lib/sysusers.d"); there != "" || err != nil {
		return err
	}
	c.found(Error, "/etc/passwd", "there are no users: no service starts and nobody can log in", "take the whole root, with /etc")
	return nil
}

func checkMountPoints(c *checker) error {
	system, err := c.isSystem()
	if !system || err != nil {
		return err
	}
	var lacking []string
	err = each([]string{"/dev", "/proc", "/run", "/sys"}, func(p string) error {
		info, err := c.stat(p)
		if err == nil && (info == nil || !info.IsDir()) {
			lacking = append(lacking, p)
		}
		return err
	})
	c.foundAll(Error, lacking, "the initramfs has nowhere to move its mounts to, and the root is read-only: the node panics", "mkdir -p dev proc run sys")
	return err
}

func checkCapabilities(c *checker) error {
	all, err := c.withCapabilities()
	if err != nil {
		return err
	}
	files, err := c.lacking(all)
	var paths []string
	for _, f := range files {
		paths = append(paths, f.path)
	}
	c.foundAll(Warning, paths, "NFS version 3 does not carry file capabilities: this fails for ordinary users, with Operation not permitted",
		"if ordinary users need it: chmod u+s FILE")
	return err
}

// capable is a program with file capabilities.
type capable struct {
	path  string
	info  os.FileInfo
	value []byte
}

// withCapabilities finds the programs that have file capabilities, by their
// paths. What cannot be executed has no use for them.
func (c *checker) withCapabilities() ([]capable, error) {
	var all []capable
	err := c.walkAll("/", func(p string, info os.FileInfo) error {
		if !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
			return nil
		}
		value, err := c.capability(p)
		if err == nil && grants(value) {
			all = append(all, capable{p, info, value})
		}
		return err
	})
	slices.SortFunc(all, func(a, b capable) int { return strings.Compare(a.path, b.path) })
	return all, err
}

// grants reports whether a value of security.capability gives any.
func grants(value []byte) bool {
	const smallest = 12 // the first version
	if len(value) < smallest {
		return false
	}
	permitted, inheritable := capSets(value)
	return permitted|inheritable != 0
}
