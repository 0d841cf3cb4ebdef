package image

import (
	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/source"
)

// The extended attributes of an object lie in secXattrs as their number (32
// bits) and, for each, the length of its name (8 bits) and of its value (32
// bits), name, value. NFSv3 cannot carry them; they are kept for who looks into
// a version otherwise.

func appendXattrs(b []byte, xattrs []source.Xattr) []byte {
	b = le.AppendUint32(b, uint32(len(xattrs)))
	for _, x := range xattrs {
		b = append(b, byte(len(x.Name)))
		b = le.AppendUint32(b, uint32(len(x.Value)))
		b = append(b, x.Name...)
		b = append(b, x.Value...)
	}
	return b
}

// parseXattrs reads what appendXattrs wrote; more may follow it.
func parseXattrs(b []byte) ([]source.Xattr, error) {
	if len(b) < 4 {
		return nil, fs.ErrIO
	}
	count := le.Uint32(b)
	b = b[4:]
	var xattrs []source.Xattr
	for range count {
		if len(b) < 5 {
			return nil, fs.ErrIO
		}
		name, value := int(b[0]), le.Uint32(b[1:])
		b = b[5:]
		if len(b) < name || uint64(len(b)-name) < uint64(value) {
			return nil, fs.ErrIO
		}
		xattrs = append(xattrs, source.Xattr{Name: string(b[:name]), Value: append([]byte(nil), b[name:][:value]...)})
		b = b[name:][value:]
	}
	return xattrs, nil
}
