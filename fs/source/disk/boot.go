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

// bootPartition is a FAT file system in an image.
type bootPartition struct {
	partition
	part   *io.SectionReader
	volume *fat.Volume
}

// mountBoot shows the boot partition where the root expects it, if it does.
func mountBoot(root *volume.FS, found []bootPartition) error {
	table, err := readFstab(root)
	if err != nil {
		return err
	}
	boot, mount := choose(found, fstab.Parse(table))
	place, opts := "", fat.DefaultOptions
	if mount != nil {
		place, opts = mountPlace(mount), masks(mount.Options)
	} else if place = emptyPlace(root); place == "" {
		return nil
	}
	v, err := fat.Open(boot.part, boot.part.Size(), opts)
	if err != nil {
		return err
	}
	if err := root.Mount(place, v); err != nil {
		return fmt.Errorf("the boot partition belongs to %s: %w", place, err)
	}
	return nil
}

// choose returns the FAT partition that a table mounts at the likeliest of bootPlaces,
// and how it does. If the table names none of those that there are, as one that was
// written for another disk, it is the first; the mount is nil if the table has none.
func choose(found []bootPartition, table []fstab.Mount) (*bootPartition, *fstab.Mount) {
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
			named := func(p bootPartition) bool { return p.is(m.Spec) }
			if at := slices.IndexFunc(found, named); at >= 0 {
				return &found[at], m
			}
		}
	}
	return &found[0], first
}

func mountPlace(m *fstab.Mount) string { return strings.TrimSuffix(m.File, "/") }

// emptyPlace returns where a root has a directory for a boot partition of which its
// table says nothing, "" if it has none.
func emptyPlace(root *volume.FS) string {
	for _, p := range bootPlaces[:2] {
		if info, err := root.Lstat(p); err == nil && info.IsDir() {
			return p
		}
	}
	return ""
}

// numbered matches names of devices that end with the number of a partition.
var numbered = regexp.MustCompile(`^/dev/(?:(?:s|v|xv|h)d[a-z]+|[a-z]+[0-9]+(?:n[0-9]+)?p)([0-9]+)$`)

// is reports whether a table means this partition, by what fstab(5) calls the device.
func (b *bootPartition) is(spec string) bool {
	if by, ok := strings.CutPrefix(spec, "/dev/disk/by-"); ok { // links that udev makes
		spec = strings.Replace(by, "/", "=", 1)
	}
	tag, value, ok := strings.Cut(spec, "=")
	if !ok {
		m := numbered.FindStringSubmatch(spec)
		return m != nil && m[1] == strconv.Itoa(b.number)
	}
	if value = strings.Trim(value, `"'`); value == "" {
		return false
	}
	switch strings.ToUpper(tag) {
	case "PARTUUID":
		return strings.EqualFold(value, b.uuid)
	case "PARTLABEL":
		return value == b.name
	case "UUID":
		return strings.EqualFold(value, b.volume.ID())
	case "LABEL":
		label, err := b.volume.Label()
		return err == nil && value == label
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
