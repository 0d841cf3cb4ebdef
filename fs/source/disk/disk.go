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

// Open returns the tree in an image of size bytes, and says which partitions are not in
// it that may be missed. The image stays open, and must not change, for as long as the
// tree is used.
func Open(r io.ReaderAt, size int64) (tree *volume.FS, warnings []string, err error) {
	v, err := openRoot(r, size)
	if err == nil {
		return volume.New(v), nil, nil
	}
	if !errors.Is(err, errNoRoot) {
		return nil, nil, err
	}
	parts, err := readTable(r, size)
	if err != nil {
		return nil, nil, err
	}
	if len(parts) == 0 {
		return nil, nil, ErrNot
	}
	root, others, err := findRoot(r, parts)
	if err != nil {
		return nil, nil, err
	}
	warnings, err = mountOthers(root, others)
	return root, warnings, err
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

// content is a partition, and what is known of the file system in it.
type content struct {
	partition
	section   *io.SectionReader
	fat       *fat.Volume // nil for any other
	id, label string      // as mount(8) has them, "" if they are not known
	refused   error       // why it cannot be read
}

// findRoot returns the tree of the one partition that has a root, and all others.
func findRoot(r io.ReaderAt, parts []partition) (root *volume.FS, others []*content, err error) {
	var reasons []error
	rootAt := 0
	for _, p := range parts {
		c := &content{partition: p, section: io.NewSectionReader(r, p.start, p.end-p.start)}
		others = append(others, c)
		v, err := openRoot(c.section, c.section.Size())
		switch {
		case err == nil:
			if named, ok := v.(*ext4.Volume); ok {
				c.id, c.label = named.ID(), named.Label()
			}
			tree := volume.New(v)
			if _, err := tree.Lstat("/etc"); err != nil { // nothing that can be booted
				reasons = append(reasons, fmt.Errorf("partition %d has no /etc: %w", p.number, err))
				continue
			}
			if root != nil {
				return nil, nil, fmt.Errorf("partitions %d and %d both have an /etc: copy the one that is wanted to a file (dd), and import that", rootAt, p.number)
			}
			root, rootAt = tree, p.number
			others = others[:len(others)-1]
		case !errors.Is(err, errNoRoot):
			c.refused = err
			reasons = append(reasons, fmt.Errorf("partition %d: %w", p.number, err))
		default:
			if err := c.openFAT(fat.DefaultOptions); err != nil && !errors.Is(err, fat.ErrNot) {
				return nil, nil, fmt.Errorf("partition %d: %w", p.number, err)
			}
		}
	}
	if root == nil {
		return nil, nil, errors.Join(append([]error{errors.New("no partition has an ext4 or squashfs file system with an /etc in it")}, reasons...)...)
	}
	return root, others, nil
}

// openFAT opens the file system if it is FAT.
func (c *content) openFAT(opts fat.Options) error {
	v, err := fat.Open(c.section, c.section.Size(), opts)
	if err != nil {
		return err
	}
	c.fat, c.id = v, v.ID()
	if label, err := v.Label(); err == nil { // else the root is damaged, which is said where it matters
		c.label = label
	}
	return nil
}
