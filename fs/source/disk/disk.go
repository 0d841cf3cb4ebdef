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
	var boots []bootPartition
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
			v, err := fat.Open(part, part.Size(), fat.DefaultOptions)
			if err == nil {
				boots = append(boots, bootPartition{p, part, v})
			} else if !errors.Is(err, fat.ErrNot) {
				return nil, fmt.Errorf("partition %d: %w", p.number, err)
			}
		}
	}
	if root == nil {
		return nil, errors.Join(append([]error{errors.New("no partition has an ext4 or squashfs file system with an /etc in it")}, reasons...)...)
	}
	if len(boots) > 0 {
		if err := mountBoot(root, boots); err != nil {
			return nil, err
		}
	}
	return root, nil
}
