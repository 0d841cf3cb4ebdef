package lint

import (
	"path"
	"strings"
)

// Where a machine's identity lies, and where D-Bus has it.
const (
	machineIDPath = "/etc/machine-id"
	dbusIDPath    = "/var/lib/dbus/machine-id"
)

// identityRules are about what each node should have of its own.
func identityRules() []Rule {
	return []Rule{{
		ID: "machine-id", Severity: Warning,
		Looks:  "a `/etc/machine-id` that is filled in, or, as information, one that is missing or says `uninitialized` where systemd is",
		Reason: "All nodes are one machine: DHCP clients make their identifiers of it, so that nodes get the same address, and journals cannot be told apart. Without the file systemd takes each boot for the first: it sets services to their presets, and systemd-firstboot may ask questions on the console.",
		Fix:    "`: > etc/machine-id`: the file stays, empty, and systemd makes an identity at each boot (`--fix` does). A node that has a name (`rootnfsd node set`) gets one of its own, the same at each boot.",
		check:  checkMachineID,
	}, {
		ID: "ssh-host-keys", Severity: Warning,
		Looks:  "`/etc/ssh/ssh_host_*_key`",
		Reason: "All nodes share one secret: who has one node can pass for any other.",
		Fix:    "`rm etc/ssh/ssh_host_*`: a node that has a name (`rootnfsd node set`) gets keys of its own. For others, make them at boot with `ssh-keygen -A`, from before `ssh.service`.",
		check:  checkHostKeys,
	}}
}

func checkMachineID(c *checker) error {
	for _, p := range []string{machineIDPath, dbusIDPath} {
		filled, err := c.isFilled(p)
		if err != nil {
			return err
		}
		if filled {
			c.found(Warning, p, "all nodes get this identity, and with it maybe the same address by DHCP", ": > ."+p)
		}
	}
	first, err := c.isFirstBoot()
	if first {
		c.found(Info, machineIDPath, "systemd takes each boot for the first, because this is missing or says so", ": > ."+machineIDPath)
	}
	return err
}

// isFilled reports whether a machine's identity is in a file. D-Bus's is mostly
// a link to the other.
func (c *checker) isFilled(p string) (bool, error) {
	info, err := c.lstat(p)
	if info == nil || !info.Mode().IsRegular() || err != nil {
		return false, err
	}
	text, err := c.read(p)
	text = strings.TrimSpace(text)
	return text != "" && text != uninitialized, err
}

// uninitialized is what a machine-id says that is to be made at the first boot
// (machine-id(5)).
const uninitialized = "uninitialized"

// isFirstBoot reports whether systemd will take each boot for the first
// (ConditionFirstBoot= in systemd.unit(5)).
func (c *checker) isFirstBoot() (bool, error) {
	systemd, err := c.exists("/usr/lib/systemd/systemd", "/lib/systemd/systemd")
	if systemd == "" || err != nil {
		return false, err
	}
	if there, err := c.exists(machineIDPath); there == "" || err != nil {
		return there == "", err
	}
	text, err := c.read(machineIDPath)
	return strings.TrimSpace(text) == uninitialized, err
}

func checkHostKeys(c *checker) error {
	entries, err := c.list("/etc/ssh")
	var keys []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "ssh_host_") && strings.HasSuffix(e.Name(), "_key") {
			keys = append(keys, path.Join("/etc/ssh", e.Name()))
		}
	}
	c.foundAll(Warning, keys, "all nodes share this secret: who has one node can pass for any other", "rm etc/ssh/ssh_host_*")
	return err
}
