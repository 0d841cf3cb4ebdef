package lint

// serviceRules are about what runs on a node.
func serviceRules() []Rule {
	return []Rule{{
		ID: "journal-persistent", Severity: Warning,
		Looks:  "a journal that is kept: `Storage=persistent`, or, as information, `/var/log/journal` with the default `Storage=auto`",
		Reason: "The journal is written to the overlay, in memory, where it may take a tenth of it, and is lost all the same.",
		Fix:    "`mkdir -p etc/systemd/journald.conf.d; printf '[Journal]\\nStorage=volatile\\nRuntimeMaxUse=64M\\n' > etc/systemd/journald.conf.d/99-diskless.conf` (`--fix` does). The file that comes last by its name counts: if another one would, take a name that comes behind it.",
		check:  checkJournal,
	}, {
		ID: "containers", Severity: Warning,
		Looks:  "docker, containerd, k3s and snapd",
		Reason: "Their images and layers lie on overlayfs, which is not stacked upon the overlay of the root nor upon NFS, and all that is pulled would fill the memory. snapd mounts squashfs images and keeps its state, which is gone at each boot.",
		Fix:    "Give `/var/lib/docker` (or the like) a file system of its own, a local disk or a tmpfs of known size, or the `native` or `fuse-overlayfs` snapshotter; or remove the package.",
		check:  checkContainers,
	}, {
		ID: "first-boot", Severity: Warning,
		Looks:  "services for the first boot from a card: resize2fs_once, regenerate_ssh_host_keys, rpi-eeprom-update, userconfig, cloud-init and others",
		Reason: "For a node that forgets everything each boot is the first. They resize a card that is not there, make other keys at each boot, ask for a user, or change firmware for nothing; they fail or make the boot slow.",
		Fix:    "`ln -sf /dev/null etc/systemd/system/UNIT` (`--fix` does, but for cloud-init, which some set nodes up with)",
		check:  checkFirstBoot,
	}, {
		ID: "background-updates", Severity: Warning,
		Looks:  "apt-daily and unattended-upgrades, where `APT::Periodic` makes them do something",
		Reason: "Each node downloads the lists of packages, and upgrades itself, in memory, again after each boot, and all nodes at once.",
		Fix:    "`ln -sf /dev/null etc/systemd/system/apt-daily.timer`, the same for `apt-daily-upgrade.timer` and `unattended-upgrades.service` (`--fix` does); upgrade the tree instead",
		check:  checkUpdates,
	}}
}

// journalDropIns returns what adds to the settings of the journal, in the order in
// which it is read.
func (c *checker) journalDropIns() ([]string, error) {
	return c.dropIns(".conf", "/etc/systemd/journald.conf.d", "/usr/local/lib/systemd/journald.conf.d", "/usr/lib/systemd/journald.conf.d", "/lib/systemd/journald.conf.d")
}

func checkJournal(c *checker) error {
	files, err := c.journalDropIns()
	if err != nil {
		return err
	}
	first, err := c.exists("/etc/systemd/journald.conf", "/usr/local/lib/systemd/journald.conf", "/usr/lib/systemd/journald.conf", "/lib/systemd/journald.conf")
	if err != nil {
		return err
	}
	if first != "" {
		files = append([]string{first}, files...)
	}
	storage, by := "auto", ""
	err = each(files, func(p string) error {
		sections, err := c.settings(p)
		for _, s := range sections {
			if v := s.values["Storage"]; s.name == "Journal" && v != "" {
				storage, by = v, p
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	const fix = "set Storage=volatile and RuntimeMaxUse=64M in etc/systemd/journald.conf.d/99-diskless.conf, or in a file there that comes last by its name"
	switch storage {
	case "persistent":
		c.found(Warning, by, "the journal goes to the overlay, in memory, and is lost with it", fix)
	case "auto":
		if info, err := c.stat("/var/log/journal"); err != nil {
			return err
		} else if info != nil && info.IsDir() {
			c.found(Info, "/var/log/journal", "the journal goes to the overlay, in memory, because this is there, and is lost with it", fix)
		}
	}
	return nil
}

func checkContainers(c *checker) error {
	for _, program := range []struct {
		name, data string
		paths      []string
	}{
		{"docker", "/var/lib/docker", []string{"/usr/bin/dockerd", "/usr/sbin/dockerd"}},
		{"containerd", "/var/lib/containerd", []string{"/usr/bin/containerd", "/usr/local/bin/containerd"}},
		{"k3s", "/var/lib/rancher", []string{"/usr/local/bin/k3s", "/usr/bin/k3s"}},
		{"snapd", "/var/lib/snapd", []string{"/usr/lib/snapd/snapd", "/usr/libexec/snapd/snapd"}},
	} {
		p, err := c.exists(program.paths...)
		if err != nil {
			return err
		}
		if p != "" {
			c.found(Warning, p, program.name+" keeps what it has in "+program.data+", which would be in the overlay, in memory, where overlayfs does not work",
				"mount a tmpfs or a local disk at "+program.data+", or remove "+program.name)
		}
	}
	return nil
}

// firstBootUnits are for the first boot from a card. All but cloud-init's do
// nothing useful on a node without one.
func firstBootUnits() []string {
	return []string{
		"resize2fs_once.service", "rpi-resize.service", "rpi-resizerootfs.service", "armbian-resize-filesystem.service", "systemd-growfs-root.service",
		"regenerate_ssh_host_keys.service", "armbian-firstrun.service", "userconfig.service", "piwiz.service", "rpi-eeprom-update.service", "apply_noobs_os_config.service",
	}
}

func checkFirstBoot(c *checker) error {
	for _, unit := range firstBootUnits() {
		by, err := c.enabled(unit)
		if err != nil {
			return err
		}
		if by != "" {
			c.found(Warning, by, unit+" is for the first boot from a card, and runs at each boot of each node", mask(unit))
		}
	}
	unit, by, err := c.firstEnabled("cloud-init.service", "cloud-init-main.service")
	if by == "" || err != nil {
		return err
	}
	if off, err := c.exists("/etc/cloud/cloud-init.disabled"); off != "" || err != nil {
		return err
	}
	c.found(Warning, by, unit+" takes each boot for the first: it makes keys and users again", "touch etc/cloud/cloud-init.disabled, unless nodes are set up by it")
	return nil
}

// updateUnits download and install packages.
func updateUnits() []string {
	return []string{"apt-daily.timer", "apt-daily-upgrade.timer", "unattended-upgrades.service"}
}

func checkUpdates(c *checker) error {
	periodic, err := c.aptPeriodic()
	isOn := func(option string) bool { return periodic[option] != "" && periodic[option] != "0" }
	off := periodic["enable"] == "0" // of all that the timers do
	if err != nil || off || !isOn("update-package-lists") && !isOn("unattended-upgrade") {
		return err
	}
	return each(updateUnits(), func(unit string) error {
		by, err := c.enabled(unit)
		if by != "" {
			c.found(Warning, by, unit+" downloads and installs packages, into memory, on each node", mask(unit))
		}
		return err
	})
}
