package lint

import (
	"path"
	"slices"
	"strconv"
	"strings"
)

// mount is a line of an fstab (fstab(5)).
type mount struct {
	line    int // in the file, from 0
	spec    string
	file    string
	kind    string
	options []string
}

// parseFstab reads the lines of an fstab that have all fields that they need.
func parseFstab(text string) []mount {
	var all []mount
	n := -1
	for line := range strings.Lines(text) {
		n++
		fields := strings.Fields(line)
		if len(fields) < 3 || fields[0][0] == '#' {
			continue
		}
		m := mount{line: n, spec: unescape(fields[0]), file: unescape(fields[1]), kind: fields[2]}
		if len(fields) > 3 {
			m.options = strings.Split(fields[3], ",")
		}
		all = append(all, m)
	}
	return all
}

// unescape replaces the octal codes that stand for blanks.
func unescape(s string) string {
	var b strings.Builder
	for {
		plain, rest, ok := strings.Cut(s, `\`)
		b.WriteString(plain)
		if !ok {
			return b.String()
		}
		if code, err := strconv.ParseUint(rest[:min(len(rest), 3)], 8, 8); err == nil && len(rest) >= 3 {
			b.WriteByte(byte(code))
			rest = rest[3:]
		} else {
			b.WriteByte('\\')
		}
		s = rest
	}
}

// option reports whether a mount has one of some options.
func (m *mount) option(names ...string) bool {
	return slices.ContainsFunc(m.options, func(o string) bool { return slices.Contains(names, o) })
}

// isSwap reports whether this is swap space.
func (m *mount) isSwap() bool { return m.kind == "swap" }

// onDisk reports whether what is mounted is on a disk that a node does not have.
func (m *mount) onDisk() bool {
	for _, tag := range []string{"LABEL=", "UUID=", "PARTUUID=", "PARTLABEL=", "ID="} {
		if strings.HasPrefix(m.spec, tag) {
			return true
		}
	}
	dev, ok := strings.CutPrefix(path.Clean(m.spec), "/dev/")
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

// needed reports whether systemd waits for the mount when it boots.
func (m *mount) needed() bool { return !m.option("noauto", "nofail", "x-systemd.automount") }
