package lint

import (
	"fmt"
	"path"
	"strings"

	"github.com/rootnfsd/rootnfsd/fs/fstab"
)

// diskRules are about what assumes that there is a disk.
func diskRules() []Rule {
	return []Rule{{
		ID: "fstab-disk", Severity: Error,
		Looks:  "lines in `/etc/fstab` for `/dev/mmcblk*`, `/dev/sd*` and the like, `LABEL=`, `UUID=` and `PARTUUID=`",
		Reason: "systemd waits 90 seconds for the disk that is not there, and then stops in emergency mode instead of booting. The line of the root itself, and swap, only cost time. Lines with `nofail` or `noauto` are left alone.",
		Fix:    "Put a `#` in front of the line (`--fix` does).",
		check:  checkFstab,
	}, {
		ID: "swap", Severity: Warning,
		Looks:  "swap files in the tree or in `/etc/fstab`, and the services that make them: dphys-swapfile, rpi-swap, dracut's and zram's",
		Reason: "What is written to the root lands in memory: a swap file there takes memory to save memory, until the node freezes. zram is harmless but for taking its share of the memory that the overlay needs.",
		Fix:    "Remove the file and its line in `etc/fstab`; `ln -sf /dev/null etc/systemd/system/dphys-swapfile.service` (`--fix` masks the services).",
		check:  checkSwap,
	}, {
		ID: "cmdline", Severity: Warning,
		Looks:  "`cmdline.txt` of a Raspberry Pi with `root=` for a card, `init=`, `systemd.run=`, `fsck.repair=` or `rootfstype=`",
		Reason: "A node that is sent this file as it is waits for a card that is not there, or runs what was meant for the first boot from one, again at each boot.",
		Fix:    "Nothing where nodes get their boot files from `rootnfsd serve --tftp`, which leaves out what is about a card, and an `init=` or `systemd.run=` that Raspberry Pi OS or Raspberry Pi Imager put there for the first boot. Elsewhere send them the line that `rootnfsd cmdline` prints, without these words: `root=/dev/nfs nfsroot=… ip=dhcp …`. Both keep any other `init=` or `systemd.run=`: take it out of the file.",
		check:  checkCmdline,
	}}
}

func checkFstab(c *checker) error {
	text, err := c.read(fstabPath)
	for _, m := range fstab.Parse(text) {
		if !waitsForDisk(&m) {
			continue
		}
		fix := fmt.Sprintf("put a # in front of line %d", m.Line+1)
		switch what := fmt.Sprintf("line %d mounts %s at %s", m.Line+1, printable(m.Spec), printable(m.File)); {
		case m.IsSwap():
			c.found(Warning, fstabPath, fmt.Sprintf("line %d swaps to %s: systemd waits 90 seconds for it", m.Line+1, printable(m.Spec)), fix)
		case path.Clean(m.File) == "/":
			c.found(Warning, fstabPath, what+": the root comes over NFS, and remounting it like this may fail", fix)
		default:
			c.found(Error, fstabPath, what+": systemd waits 90 seconds for it, then the boot ends in emergency mode", fix)
		}
	}
	return err
}

// printable is quoted for what may well need no quotes.
func printable(s string) string {
	if q := quoted(s); q != `"`+s+`"` {
		return q
	}
	return s
}

// swapUnits are what makes or uses swap space when a node boots.
func swapUnits() []string {
	return []string{"dphys-swapfile.service", "rpi-setup-loop@var-swap.service", "rpi-resize-swap-file.service", "swapspace.service"}
}

// zramUnits are what makes swap space of compressed memory.
func zramUnits() []string {
	return []string{"zramswap.service", "zram-config.service", "zram-swap.service", "zramswap.target", "armbian-zram-config.service"}
}

func checkSwap(c *checker) error {
	for _, p := range []string{"/swapfile", "/swap.img", "/var/swap", "/swap"} {
		if info, err := c.stat(p); err != nil {
			return err
		} else if info != nil && info.Mode().IsRegular() && info.Size() > 0 {
			c.found(Warning, p, fmt.Sprintf("a swap file of %d MiB: used, it would be copied into the overlay, in memory", info.Size()>>20), "rm ."+p)
		}
	}
	text, err := c.read(fstabPath)
	if err != nil {
		return err
	}
	for _, m := range fstab.Parse(text) {
		if swapsToFile(&m) {
			c.found(Warning, fstabPath, fmt.Sprintf("line %d swaps to the file %s, which lies in the overlay, in memory", m.Line+1, printable(m.Spec)), fmt.Sprintf("put a # in front of line %d", m.Line+1))
		}
	}
	if unit, by, err := c.firstEnabled(swapUnits()...); err != nil {
		return err
	} else if unit != "" {
		c.found(Warning, by, unit+" makes a swap file in the overlay, in memory: the node freezes", mask(unit))
	}
	unit, by, err := c.firstEnabled(zramUnits()...)
	if err != nil {
		return err
	}
	if unit == "" {
		if by, err = c.exists("/etc/systemd/zram-generator.conf", "/usr/lib/systemd/zram-generator.conf"); by == "" || err != nil {
			return err
		}
		unit = "zram-generator"
	}
	c.found(Info, by, unit+" compresses memory: harmless, but the overlay lives in what is left", "nothing needs to be done")
	return nil
}

// mask is the command that masks a unit.
func mask(unit string) string { return "ln -sf /dev/null etc/systemd/system/" + unit }

func checkCmdline(c *checker) error {
	const (
		ofCard      = "nothing with rootnfsd serve --tftp, which leaves it out; else send nodes the line that rootnfsd cmdline prints"
		ofFirstBoot = "nothing if Raspberry Pi OS or Raspberry Pi Imager put it there: rootnfsd serve --tftp and rootnfsd cmdline leave that out; else take it out of the file"
	)
	for _, p := range []string{"/boot/firmware/cmdline.txt", "/boot/cmdline.txt"} {
		text, err := c.read(p)
		if err != nil {
			return err
		}
		for _, word := range strings.Fields(text) {
			key, value, _ := strings.Cut(word, "=")
			reason, fix := "", ofCard
			switch {
			case key == "root" && value != "/dev/nfs" && !strings.HasPrefix(value, "nfs"):
				reason = "a node that is sent this waits for a card with its root"
			case key == "init" && value != "/sbin/init" && !strings.HasSuffix(value, "/systemd") && value != "/sbin/init-overlay":
				reason, fix = "meant for the first boot from a card: a node that is sent this resizes the card, or reboots, at each boot", ofFirstBoot
			case key == "systemd.run":
				reason, fix = "meant for the first boot from a card: a node that is sent this runs it at each boot", ofFirstBoot
			case key == "fsck.repair", key == "rootfstype" && !strings.HasPrefix(value, "nfs"):
				reason = "is about a root on a card"
			}
			if reason != "" {
				c.found(Warning, p, quoted(word)+": "+reason, fix)
			}
		}
	}
	return nil
}
