package ext4

import (
	"errors"
	"fmt"

	"github.com/rootnfsd/rootnfsd/fs/source/volume"
)

// List implements volume.Volume. The nodes of a hashed directory look like
// unused entries, so it is read like any other.
func (v *Volume) List(dir, parent uint64) ([]volume.Entry, error) {
	n, err := v.inode(dir)
	if err != nil {
		return nil, err
	}
	if n.format() != 0x4000 {
		return nil, errors.New("not a directory")
	}
	var l lister
	if n.flags()&flagInline != 0 {
		err = l.addInline(v, n)
	} else {
		err = l.addBlocks(v, dir, n)
	}
	if err == nil && l.parent != parent {
		err = volume.ErrElsewhere
	}
	return l.entries, err
}

// lister gathers the entries of a directory.
type lister struct {
	parent  uint64
	entries []volume.Entry
}

func (l *lister) addBlocks(v *Volume, dir uint64, n inode) error {
	if err := v.listings.Add(dir, n.size()); err != nil {
		return err
	}
	where, buf := v.blockMap(n), make([]byte, v.blockSize)
	seen := map[uint64]bool{}
	for logical := range n.size() / uint64(v.blockSize) {
		r, err := where(logical)
		if err != nil {
			return err
		}
		if r.physical == 0 {
			return errors.New("damaged: a hole in a directory")
		}
		if seen[r.physical] {
			return errors.New("damaged: a block that is in a directory twice")
		}
		seen[r.physical] = true
		if err := v.readBlocks(buf, r.physical, 0); err != nil {
			return err
		}
		if err := l.add(buf); err != nil {
			return err
		}
	}
	return nil
}

// addInline reads a directory in its inode: the number of "..", entries, and more
// of them in an attribute.
func (l *lister) addInline(v *Volume, n inode) error {
	data, err := v.inline(n)
	if err != nil {
		return err
	}
	if len(data) < blockBytes {
		return errors.New("damaged: a directory in its inode that is too short")
	}
	l.parent = uint64(le.Uint32(data))
	if err := l.add(data[4:blockBytes]); err != nil {
		return err
	}
	return l.add(data[blockBytes:])
}

// add reads records: an inode, the record's length, the name's, a type, the name.
func (l *lister) add(b []byte) error {
	const header = 8
	for len(b) >= header {
		ino, size, name := uint64(le.Uint32(b)), int(le.Uint16(b[4:])), int(b[6])
		if size == 0 || size == 0xFFFF { // 65536 does not fit
			size = 1 << 16
		}
		if size < header+name || size > len(b) {
			return fmt.Errorf("damaged: an entry of %d bytes", size)
		}
		switch s := string(b[header:][:name]); {
		case ino == 0 || s == ".":
		case s == "..":
			l.parent = ino
		default:
			l.entries = append(l.entries, volume.Entry{Name: s, Ino: ino})
		}
		b = b[size:]
	}
	return nil
}
