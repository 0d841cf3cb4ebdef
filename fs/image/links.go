package image

import (
	"runtime/debug"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/source"
)

// hasNames reports whether an object may have further names.
func hasNames(m *source.Meta) bool { return m.Kind != fs.Directory && m.Nlink > 1 }

// links finds objects that have, on the host, several names.
type links struct{ table hashTable }

// link is the record of an object.
//
//	0   its inode number in the tree
//	4   how many names it has in the tree
//	8   device, 64 bits
//	16  inode, 64 bits
type link [24]byte

func newLinks(s *Store) *links {
	hash := func(r []byte) uint32 { return hashObject(le.Uint64(r[8:]), le.Uint64(r[16:])) }
	return &links{hashTable{store: s, size: len(link{}), hash: hash}}
}

// hashObject spreads inode numbers, which follow each other, over 32 bits.
func hashObject(dev, ino uint64) uint32 {
	h := (dev*31 + ino) * 0x9e3779b97f4a7c15
	return uint32(h >> 32)
}

func (l *links) close() { l.table.close() }

// number returns the number of an object: next, unless it has one already.
func (l *links) number(m *source.Meta, next uint32) (inode uint32, isNew bool, err error) {
	defer guard(debug.SetPanicOnFault(true), &err)
	r, err := l.table.find(hashObject(m.Dev, m.Ino), func(r []byte) bool {
		return le.Uint64(r[8:]) == m.Dev && le.Uint64(r[16:]) == m.Ino
	})
	if err != nil {
		return 0, false, err
	}
	if !isFree(r) {
		le.PutUint32(r[4:], le.Uint32(r[4:])+1)
		return le.Uint32(r), false, nil
	}
	var n link
	le.PutUint32(n[0:], next)
	le.PutUint32(n[4:], 1)
	le.PutUint64(n[8:], m.Dev)
	le.PutUint64(n[16:], m.Ino)
	l.table.put(r, n[:])
	return next, true, nil
}

// each calls do for all objects that have several names in the tree.
func (l *links) each(do func(inode, names uint32) error) (err error) {
	defer guard(debug.SetPanicOnFault(true), &err)
	return l.table.runs(func(run [][]byte) error {
		for _, r := range run {
			if names := le.Uint32(r[4:]); names > 1 {
				if err := do(le.Uint32(r), names); err != nil {
					return err
				}
			}
		}
		return nil
	})
}
