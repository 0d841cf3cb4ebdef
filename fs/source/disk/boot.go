package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/rootnfsd/rootnfsd/fs/fstab"
	"github.com/rootnfsd/rootnfsd/fs/source/fat"
	"github.com/rootnfsd/rootnfsd/fs/source/volume"
)

// bootPlaces are where distributions mount the FAT partition, the likeliest first.
var bootPlaces = []string{"/boot/firmware", "/boot", "/boot/efi"}

// mountOthers shows what it can of the other partitions, and says what is missing.
func mountOthers(root *volume.FS, others []*content) (warnings []string, err error) {
	text, err := readFstab(root)
	if err != nil {
		return nil, err
	}
	table := fstab.Parse(text)
	boot, err := mountBoot(root, others, table)
	return leftOut(others, table, boot), err
}

// mountBoot shows the boot partition where the root expects it, and returns it, or nil
// if there is none, or no place for it.
func mountBoot(root *volume.FS, others []*content, table []fstab.Mount) (*content, error) {
	boot, mount := choose(others, table)
	if boot == nil {
		return nil, nil
	}
	place, opts := "", fat.DefaultOptions
	if mount != nil {
		place, opts = mountPlace(mount), masks(mount.Options)
	} else if place = emptyPlace(root); place == "" {
		return nil, nil
	}
	if err := boot.openFAT(opts); err != nil {
		return nil, err
	}
	if err := root.Mount(place, boot.fat); err != nil {
		return nil, fmt.Errorf("the boot partition belongs to %s: %w", place, err)
	}
	return boot, nil
}

// choose returns the FAT partition that a table mounts at the likeliest of bootPlaces,
// and how it does. If the table names none of those that there are, as one that was
// written for another disk, it is the first; the mount is nil if the table has none.
func choose(others []*content, table []fstab.Mount) (*content, *fstab.Mount) {
	fats := slices.DeleteFunc(slices.Clone(others), func(c *content) bool {
		m := c.mount(table)
		return c.fat == nil || m != nil && !slices.Contains(bootPlaces, mountPlace(m))
	})
	if len(fats) == 0 {
		return nil, nil
	}
	var first *fstab.Mount
	for _, place := range bootPlaces {
		for i := range table {
			m := &table[i]
			if m.Kind != "vfat" && m.Kind != "auto" || mountPlace(m) != place {
				continue
			}
			if first == nil {
				first = m
			}
			named := func(c *content) bool { return c.is(m.Spec) }
			if at := slices.IndexFunc(fats, named); at >= 0 {
				return fats[at], m
			}
		}
	}
	return fats[0], first
}

// leftOut says which partitions a machine would show that the tree does not: what the
// table mounts, and what may be a boot partition of which it says nothing.
func leftOut(others []*content, table []fstab.Mount, boot *content) (warnings []string) {
	for _, c := range others {
		if c == boot {
			continue
		}
		m := c.mount(table)
		switch {
		case m != nil && c.refused != nil:
			warnings = append(warnings, fmt.Sprintf("partition %d is left out, which the fstab mounts at %s: %v", c.number, m.File, c.refused))
		case m != nil:
			warnings = append(warnings, fmt.Sprintf("partition %d is left out, which the fstab mounts at %s", c.number, m.File))
		case c.fat != nil && boot == nil:
			warnings = append(warnings, fmt.Sprintf("partition %d (FAT) is left out: the fstab does not mount it, and neither %s nor %s is an empty directory", c.number, bootPlaces[0], bootPlaces[1]))
		case c.fat != nil:
			warnings = append(warnings, fmt.Sprintf("partition %d (FAT) is left out: the fstab does not mount it", c.number))
		}
	}
	return warnings
}

// mount returns what a table does with a partition, nil for nothing.
func (c *content) mount(table []fstab.Mount) *fstab.Mount {
	at := slices.IndexFunc(table, func(m fstab.Mount) bool { return !m.IsSwap() && c.is(m.Spec) })
	if at < 0 {
		return nil
	}
	return &table[at]
}

func mountPlace(m *fstab.Mount) string { return strings.TrimSuffix(m.File, "/") }

// emptyPlace returns where a root has a directory for a boot partition of which its
// table says nothing, "" if it has none. What has something in it may be the boot files
// themselves.
func emptyPlace(root *volume.FS) string {
	for _, p := range bootPlaces[:2] {
		if infos, err := root.ReadDir(p); err == nil && len(infos) == 0 {
			return p
		}
	}
	return ""
}

// numbered matches names of devices that end with the number of a partition.
var numbered = regexp.MustCompile(`^/dev/(?:(?:s|v|xv|h)d[a-z]+|[a-z]+[0-9]+(?:n[0-9]+)?p)([0-9]+)$`)

// is reports whether a table means this partition, by what fstab(5) calls the device.
func (c *content) is(spec string) bool {
	if by, ok := strings.CutPrefix(spec, "/dev/disk/by-"); ok { // links that udev makes
		spec = strings.Replace(by, "/", "=", 1)
	}
	tag, value, ok := strings.Cut(spec, "=")
	if !ok {
		m := numbered.FindStringSubmatch(spec)
		return m != nil && m[1] == strconv.Itoa(c.number)
	}
	if value = strings.Trim(value, `"'`); value == "" {
		return false
	}
	switch strings.ToUpper(tag) {
	case "PARTUUID":
		return strings.EqualFold(value, c.uuid)
	case "PARTLABEL":
		return value == c.name
	case "UUID":
		return strings.EqualFold(value, c.id)
	case "LABEL":
		return value == c.label
	}
	return false
}

// maxFstab bounds what is read of a file.
const maxFstab = 1 << 20

func readFstab(root *volume.FS) (string, error) {
	info, err := root.Lstat("/etc/fstab")
	if errors.Is(err, os.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	f, err := root.Open("/etc/fstab")
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFstab))
	return string(b), err
}

// masks reads umask, fmask and dmask, the later one counting.
func masks(options []string) fat.Options {
	opts := fat.DefaultOptions
	for _, o := range options {
		name, value, _ := strings.Cut(o, "=")
		mask, err := strconv.ParseUint(value, 8, 9)
		if err != nil {
			continue
		}
		switch name {
		case "umask":
			opts = fat.Options{FileMask: uint32(mask), DirMask: uint32(mask)}
		case "fmask":
			opts.FileMask = uint32(mask)
		case "dmask":
			opts.DirMask = uint32(mask)
		}
	}
	return opts
}
