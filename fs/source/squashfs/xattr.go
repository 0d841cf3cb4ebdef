package squashfs

import (
	"fmt"

	"github.com/rootnfsd/rootnfsd/fs/source"
	"github.com/rootnfsd/rootnfsd/fs/source/volume"
)

// prefixes are what the type of an attribute stands for.
var prefixes = [...]string{"user.", "trusted.", "security."}

const (
	elsewhere = 0x100    // in a type: the value is a reference
	maxValue  = 64 << 10 // of an attribute
	maxValues = 1 << 20  // of an object in all; several may share a value
)

// Xattrs implements volume.Volume.
func (v *Volume) Xattrs(ino uint64) ([]source.Xattr, error) {
	n, err := v.inode(ino)
	if err != nil || n.xattr == none || v.xattrs.count == 0 {
		return nil, err
	}
	var b [16]byte
	if err := v.record(v.xattrs, uint64(n.xattr), b[:]); err != nil {
		return nil, err
	}
	c, err := v.at(v.values, le.Uint64(b[:]))
	if err != nil {
		return nil, err
	}
	var xattrs []source.Xattr
	total := 0
	for range le.Uint32(b[8:]) {
		x, err := c.xattr()
		if err != nil {
			return nil, err
		}
		if total += 4 + len(x.Name) + len(x.Value); total > maxValues {
			return nil, fmt.Errorf("damaged: extended attributes of more than %d bytes", maxValues)
		}
		if source.Carries(x.Name) {
			xattrs = append(xattrs, x)
		}
	}
	return xattrs, volume.SortXattrs(xattrs)
}

// xattr reads a type, the length of the name, the name, the length of the value, and
// the value.
func (c *cursor) xattr() (x source.Xattr, err error) {
	var b [4]byte
	if err := c.read(b[:]); err != nil {
		return x, err
	}
	kind, name := le.Uint16(b[:]), make([]byte, le.Uint16(b[2:]))
	if len(name) > 255 || int(kind&^elsewhere) >= len(prefixes) {
		return x, errDamaged
	}
	if err := c.read(name); err != nil {
		return x, err
	}
	x.Name = prefixes[kind&^elsewhere] + string(name)
	value, err := c.value()
	if err == nil && kind&elsewhere != 0 {
		if len(value) != 8 {
			return x, errDamaged
		}
		var there cursor
		if there, err = c.v.at(c.v.values, le.Uint64(value)); err == nil {
			value, err = there.value()
		}
	}
	x.Value = value
	return x, err
}

// value reads a length and that many bytes.
func (c *cursor) value() ([]byte, error) {
	var b [4]byte
	if err := c.read(b[:]); err != nil {
		return nil, err
	}
	n := le.Uint32(b[:])
	if n > maxValue {
		return nil, fmt.Errorf("damaged: an extended attribute of %d bytes", n)
	}
	value := make([]byte, n)
	return value, c.read(value)
}
