package lint

import (
	"path"
	"strings"
)

// machineIDPath is where a machine's identity lies.
const machineIDPath = "/etc/machine-id"

// identityRules are about what each node should have of its own.
func identityRules() []Rule {
	return []Rule{{
		ID: "machine-id", Severity: Warning,
		Looks:  "a `/etc/machine-id` that is filled in",
		Reason: "All nodes are one machine: DHCP clients make their identifiers of it, so that nodes get the same address, and journals cannot be told apart.",
		Fix:    "`: > etc/machine-id`: the file stays, empty, and systemd makes an identity at each boot (`--fix` does).",
		check:  checkMachineID,
	}, {
		ID: "ssh-host-keys", Severity: Warning,
		Looks:  "`/etc/ssh/ssh_host_*_key`",
		Reason: "All nodes share one secret: who has one node can pass for any other.",
		Fix:    "`rm etc/ssh/ssh_host_*`, and keep keys for each node where only that node reads them, or make them at boot with `ssh-keygen -A`, from before `ssh.service`.",
		check:  checkHostKeys,
	}}
}

func checkMachineID(c *checker) error {
	for _, p := range []string{machineIDPath, "/var/lib/dbus/machine-id"} {
		info, err := c.lstat(p)
		if err != nil {
			return err
		}
		if info == nil || !info.Mode().IsRegular() { // D-Bus's is a link to the other
			continue
		}
		text, err := c.read(p)
		if err != nil {
			return err
		}
		if text = strings.TrimSpace(text); text != "" && text != "uninitialized" {
			c.found(Warning, p, "all nodes get this identity, and with it maybe the same address by DHCP", ": > ."+p)
		}
	}
	return nil
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
