package lint

import (
	"path"
	"slices"
	"strings"

	"github.com/rootnfsd/rootnfsd/fs/fstab"
)

const overlayrootConf = "/etc/overlayroot.conf"

// overlayRules are about overlayroot, which lays an overlay in memory over the
// root.
func overlayRules() []Rule {
	return []Rule{{
		ID: "overlayroot-conf", Severity: Warning,
		Looks:  "settings in `/etc/overlayroot.conf` that overlayroot does not know, or that lose data",
		Reason: "overlayroot reads two variables, `overlayroot` and `overlayroot_cfgdisk`, and knows the keys `swap`, `recurse`, `debug`, `dir`, `driver` and those of its devices; all else it ignores without a word, `size=` among it. Without `recurse=0` it lays an overlay in memory over each line of `/etc/fstab`, a home over NFS too, and what is written there is lost.",
		Fix:    "`echo 'overlayroot=\"tmpfs:recurse=0\"' > etc/overlayroot.conf` (`--fix` does)",
		check:  checkOverlayroot,
	}, {
		ID: "overlayroot-media", Severity: Warning,
		Looks:  "overlayroot without a directory `/media`",
		Reason: "overlayroot moves the root below it to `/media/root-ro`. If `/media` is a symlink or a file, that fails and the node boots without its overlay; if it is missing, overlayroot makes it in the overlay, which others that do the same do not.",
		Fix:    "`mkdir media`",
		check:  checkMedia,
	}}
}

// hasOverlayroot reports whether overlayroot is installed or set up.
func (c *checker) hasOverlayroot() (bool, error) {
	p, err := c.exists("/usr/share/initramfs-tools/scripts/init-bottom/overlayroot", "/etc/initramfs-tools/scripts/init-bottom/overlayroot", overlayrootConf)
	return p != "", err
}

func checkMedia(c *checker) error {
	uses, err := c.hasOverlayroot()
	if !uses || err != nil {
		return err
	}
	info, err := c.lstat("/media")
	switch {
	case err != nil:
		return err
	case info == nil:
		c.found(Info, "/media", "it is missing: overlayroot makes it in the overlay, others that do the same do not", "mkdir media")
	case !info.IsDir():
		c.found(Warning, "/media", "it is no directory: overlayroot cannot move the root below it, and gives up", "rm media; mkdir media")
	}
	return nil
}

func checkOverlayroot(c *checker) error {
	var value, by string
	err := each([]string{overlayrootConf, "/etc/overlayroot.local.conf"}, func(p string) error {
		lines, err := c.lines(p)
		for _, line := range lines {
			key, v, ok := strings.Cut(line, "=")
			switch {
			case ok && key == "overlayroot":
				value, _ = shellValue(v)
				by = p
			case ok && strings.HasPrefix(key, "overlayroot") && key != "overlayroot_cfgdisk":
				c.found(Warning, p, quoted(key)+" is ignored: overlayroot knows overlayroot and overlayroot_cfgdisk", "remove the line")
			}
		}
		return err
	})
	mode, options, _ := strings.Cut(value, ":")
	if err != nil || !isOverlayMode(mode) {
		return err
	}
	recurse := true
	for _, option := range strings.Split(options, ",") {
		key, v, _ := strings.Cut(option, "=")
		switch {
		case key == "recurse":
			recurse = v != "0"
		case key == "" || slices.Contains(overlayrootKeys(mode), key):
		default:
			c.found(Warning, by, quoted(option)+" is ignored: overlayroot has no such key", "remove it; rootnfsd.overlay=tmpfs:size=SIZE has a size (rootnfsd node-files --for debian)")
		}
	}
	text, err := c.read(fstabPath)
	if err != nil || !recurse {
		return err
	}
	for _, m := range fstab.Parse(text) {
		if path.Clean(m.File) == "/" {
			continue // the root is meant to be laid over
		}
		if strings.HasPrefix(m.Kind, "nfs") || m.Kind == "cifs" || m.Kind == "ext4" || m.Kind == "xfs" || m.Kind == "btrfs" {
			if needed(&m) || strings.HasPrefix(m.Kind, "nfs") {
				c.found(Warning, by, "without recurse=0 what is written to "+printable(m.File)+" (/etc/fstab) lands in memory and is lost", `echo 'overlayroot="tmpfs:recurse=0"' > etc/overlayroot.conf`)
			}
		}
	}
	return nil
}

// shellValue splits what is behind the "=" in a file that a shell reads into the
// value, without quotes, and what comes behind it, a remark for one.
func shellValue(s string) (value, rest string) {
	var b strings.Builder
	quote := byte(0)
	for i := range len(s) {
		switch ch := s[i]; {
		case ch == quote:
			quote = 0
		case quote == 0 && (ch == '"' || ch == '\''):
			quote = ch
		case quote == 0 && strings.IndexByte(" \t;", ch) >= 0:
			return b.String(), s[i:]
		default:
			b.WriteByte(ch)
		}
	}
	return b.String(), ""
}

// isOverlayMode reports whether overlayroot lays an overlay in a mode.
func isOverlayMode(mode string) bool {
	return slices.Contains([]string{"tmpfs", "device", "crypt"}, mode)
}

// overlayrootKeys are the keys that a mode of overlayroot takes.
func overlayrootKeys(mode string) []string {
	keys := []string{"swap", "recurse", "debug", "dir", "driver"}
	switch mode {
	case "device":
		keys = append(keys, "dev", "timeout", "mkfs")
	case "crypt":
		keys = append(keys, "dev", "timeout", "mkfs", "mapname", "pass", "fstype")
	}
	return keys
}
