// Package disk reads disk images, as Raspberry Pi OS and Ubuntu publish them: a
// partition table, a FAT partition that the firmware boots from, and a root of ext4 or
// squashfs. Both become one tree. A file with such a root and no table is one, too.
//
// It owns partition tables and how the parts are put together; the formats of
// the file systems are packages of their own.
package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/rootnfsd/rootnfsd/fs/fstab"
	"github.com/rootnfsd/rootnfsd/fs/source/ext4"
	"github.com/rootnfsd/rootnfsd/fs/source/fat"
	"github.com/rootnfsd/rootnfsd/fs/source/squashfs"
	"github.com/rootnfsd/rootnfsd/fs/source/volume"
)

// ErrNot says that something is no disk image.
var ErrNot = errors.New("neither a file system nor a partition table was found")

// Open returns the tree in an image of size bytes. The image stays open, and
// must not change, for as long as the tree is used.
func Open(r io.ReaderAt, size int64) (*volume.FS, error) {
	v, err := openRoot(r, size)
	if err == nil {
		return volume.New(v), nil
	}
	if !errors.Is(err, errNoRoot) {
		return nil, err
	}
	parts, err := readTable(r, size)
	if err != nil {
		return nil, err
	}
	if len(parts) == 0 {
		return nil, ErrNot
	}
	return assemble(r, parts)
}

// errNoRoot says that something is no file system that a root may be in.
var errNoRoot = errors.New("neither ext4 nor squashfs")

// openRoot opens what may be a root file system.
func openRoot(r io.ReaderAt, size int64) (volume.Volume, error) {
	var magic [6]byte
	if _, err := r.ReadAt(magic[:], 0); err != nil && err != io.EOF {
		return nil, err
	}
	if err := Refused(magic[:]); err != nil {
		return nil, err
	}
	if v, err := squashfs.Open(r, size); !errors.Is(err, squashfs.ErrNot) {
		return v, err
	}
	v, err := ext4.Open(r, size)
	if errors.Is(err, ext4.ErrNot) {
		err = errNoRoot
	}
	return v, err
}

// Refused says what a file or partition is that begins so, if it is of a kind that is
// known and cannot be read; else it is nil.
func Refused(start []byte) error {
	if bytes.HasPrefix(start, []byte("LUKS\xba\xbe")) {
		return errors.New("it is encrypted (LUKS): open it with cryptsetup, mount it, and import the directory")
	}
	return nil
}

// assemble finds the root and the boot partition, and puts them together.
func assemble(r io.ReaderAt, parts []partition) (*volume.FS, error) {
	var root *volume.FS
	var boot *io.SectionReader
	var reasons []error
	rootAt := 0
	for _, p := range parts {
		part := io.NewSectionReader(r, p.start, p.end-p.start)
		v, err := openRoot(part, part.Size())
		switch {
		case err == nil:
			tree := volume.New(v)
			if _, err := tree.Lstat("/etc"); err != nil { // nothing that can be booted
				reasons = append(reasons, fmt.Errorf("partition %d has no /etc: %w", p.number, err))
				continue
			}
			if root != nil {
				return nil, fmt.Errorf("partitions %d and %d both have an /etc: copy the one that is wanted to a file (dd), and import that", rootAt, p.number)
			}
			root, rootAt = tree, p.number
		case !errors.Is(err, errNoRoot):
			reasons = append(reasons, fmt.Errorf("partition %d: %w", p.number, err))
		default:
			_, err := fat.Open(part, part.Size(), fat.DefaultOptions)
			if err == nil && boot == nil {
				boot = part
			} else if err != nil && !errors.Is(err, fat.ErrNot) {
				return nil, fmt.Errorf("partition %d: %w", p.number, err)
			}
		}
	}
	if root == nil {
		return nil, errors.Join(append([]error{errors.New("no partition has an ext4 or squashfs file system with an /etc in it")}, reasons...)...)
	}
	if boot != nil {
		if err := mountBoot(root, boot); err != nil {
			return nil, err
		}
	}
	return root, nil
}

// bootPlaces are where distributions mount the FAT partition, the likeliest first.
var bootPlaces = []string{"/boot/firmware", "/boot", "/boot/efi"}

// mountBoot shows the boot partition where the root expects it, if it does.
func mountBoot(root *volume.FS, boot *io.SectionReader) error {
	table, err := readFstab(root)
	if err != nil {
		return err
	}
	place, opts, ok := inFstab(table)
	for _, p := range bootPlaces[:2] {
		if info, err := root.Lstat(p); !ok && err == nil && info.IsDir() {
			place, ok = p, true
		}
	}
	if !ok {
		return nil
	}
	v, err := fat.Open(boot, boot.Size(), opts)
	if err != nil {
		return err
	}
	if err := root.Mount(place, v); err != nil {
		return fmt.Errorf("the boot partition belongs to %s: %w", place, err)
	}
	return nil
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

// inFstab returns where an fstab mounts a FAT file system, and how.
func inFstab(table string) (place string, opts fat.Options, ok bool) {
	for _, m := range fstab.Parse(table) {
		place := strings.TrimSuffix(m.File, "/")
		if (m.Kind == "vfat" || m.Kind == "auto") && slices.Contains(bootPlaces, place) {
			return place, masks(m.Options), true
		}
	}
	return "", fat.DefaultOptions, false
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
