package ext4

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/rootnfsd/rootnfsd/fs/source"
	"github.com/rootnfsd/rootnfsd/fs/source/volume"
)

// prefixes are what the number in an attribute's record stands for.
var prefixes = map[byte]string{
	1: "user.", 2: "system.posix_acl_access", 3: "system.posix_acl_default", 4: "trusted.", 6: "security.", 7: "system.",
}

const (
	xattrMagic  = 0xEA020000
	xattrHeader = 32 // of a block
	maxValue    = 64 << 10
	maxValues   = 1 << 20 // of an object in all; several records may share a value
)

// attribute is one as it lies on the disk.
type attribute struct {
	name  string
	value []byte
}

// Xattrs implements volume.Volume.
func (v *Volume) Xattrs(ino uint64) ([]source.Xattr, error) {
	n, err := v.inode(ino)
	if err != nil {
		return nil, err
	}
	all, err := v.inInode(n)
	if err != nil {
		return nil, err
	}
	if block := uint64(le.Uint32(n[0x68:])) | uint64(le.Uint16(n[0x76:]))<<32; block != 0 {
		b := make([]byte, v.blockSize)
		if err := v.readBlocks(b, block, 0); err != nil {
			return nil, err
		}
		if le.Uint32(b) != xattrMagic {
			return nil, errors.New("damaged: a block of extended attributes")
		}
		more, err := v.attributes(b[xattrHeader:], b)
		if err != nil {
			return nil, err
		}
		all = append(all, more...)
	}
	var xattrs []source.Xattr
	for _, a := range all {
		if !source.Carries(a.name) {
			continue
		}
		if strings.HasPrefix(a.name, "system.posix_acl_") {
			if a.value, err = acl(a.value); err != nil {
				return nil, err
			}
		}
		xattrs = append(xattrs, source.Xattr{Name: a.name, Value: a.value})
	}
	return xattrs, volume.SortXattrs(xattrs)
}

// inInode returns the attributes that lie behind the fields of an inode.
func (v *Volume) inInode(n inode) ([]attribute, error) {
	if len(n) < 132 {
		return nil, nil
	}
	start := 128 + int(le.Uint16(n[0x80:]))
	if start+4 > len(n) || le.Uint32(n[start:]) != xattrMagic {
		return nil, nil
	}
	return v.attributes(n[start+4:], n[start+4:])
}

// attributes reads records: the name's length, its prefix, where the value is in
// values, the inode that it is in instead, its size, a hash, the name.
func (v *Volume) attributes(records, values []byte) ([]attribute, error) {
	const header = 16
	damaged := errors.New("damaged: extended attributes")
	var all []attribute
	total := int64(0)
	for len(records) >= 4 && le.Uint32(records) != 0 {
		length := int(records[0])
		if len(records) < header+length {
			return nil, damaged
		}
		off, ino, size := int64(le.Uint16(records[2:])), le.Uint32(records[4:]), int64(le.Uint32(records[8:]))
		var a attribute // without a name, which nobody wants, where the kernel shows nothing either
		if prefix, ok := prefixes[records[1]]; ok {
			a.name = prefix + string(records[header:][:length])
		}
		total += size
		switch {
		case size > maxValue:
			return nil, fmt.Errorf("damaged: an extended attribute of %d bytes", size)
		case total > maxValues:
			return nil, fmt.Errorf("damaged: extended attributes of more than %d bytes", maxValues)
		case ino != 0:
			if !source.Carries(a.name) { // so nobody wants it
				break
			}
			var err error
			if a.value, err = v.valueOf(uint64(ino), size); err != nil {
				return nil, err
			}
		case off+size > int64(len(values)):
			return nil, damaged
		default:
			a.value = slices.Clone(values[off:][:size])
		}
		all = append(all, a)
		records = records[min(len(records), header+(length+3)&^3):]
	}
	return all, nil
}

// valueOf reads a value that has an inode of its own.
func (v *Volume) valueOf(ino uint64, size int64) ([]byte, error) {
	n, err := v.inode(ino)
	if err != nil {
		return nil, err
	}
	if n.flags()&flagInline != 0 || n.size() < uint64(size) {
		return nil, errors.New("damaged: an inode of an extended attribute")
	}
	c, err := v.content(n)
	if err != nil {
		return nil, err
	}
	value := make([]byte, size)
	if n, err := c.ReadAt(value, 0); n < len(value) {
		return nil, err
	}
	return value, nil
}

// inline returns the content that lies in an inode: what fits where otherwise block
// numbers are, and the attribute system.data. That of a directory has no size.
func (v *Volume) inline(n inode) ([]byte, error) {
	data := slices.Clone(n.block())
	all, err := v.inInode(n)
	if err != nil {
		return nil, err
	}
	for _, a := range all {
		if a.name == "system.data" {
			data = append(data, a.value...)
		}
	}
	if n.size() > uint64(len(data)) {
		return nil, errors.New("damaged: content in an inode that is too short")
	}
	return data[:n.size()], nil
}

// acl turns an ACL of the disk into that of getxattr(2), in which every entry has an
// id: version 1 and entries of 4 or 8 bytes, version 2 and entries of 8.
func acl(b []byte) ([]byte, error) {
	const user, group, noID = 2, 8, 0xFFFFFFFF
	damaged := errors.New("damaged: an ACL")
	if len(b) < 4 || le.Uint32(b) != 1 {
		return nil, damaged
	}
	out := binary.LittleEndian.AppendUint32(nil, 2)
	for b = b[4:]; len(b) > 0; {
		size := 4
		if len(b) >= 4 && (le.Uint16(b) == user || le.Uint16(b) == group) {
			size = 8
		}
		if len(b) < size {
			return nil, damaged
		}
		out = append(out, b[:4]...)
		if size == 8 {
			out = append(out, b[4:8]...)
		} else {
			out = le.AppendUint32(out, noID)
		}
		b = b[size:]
	}
	return out, nil
}
