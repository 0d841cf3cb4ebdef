package tarball

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"strings"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/source"
)

// socketRecord is the PAX record by which a FIFO is meant to be a socket, of which
// tar knows nothing.
const socketRecord = "ROOTNFSD.socket"

const xattrRecord = "SCHILY.xattr."

// A record's name ends with the first "=", so that one in the name of an attribute is
// written otherwise, as GNU tar does it.
var (
	xattrEncoder = strings.NewReplacer("%", "%25", "=", "%3D")
	xattrDecoder = strings.NewReplacer("%25", "%", "%3D", "=")
)

// ErrEmpty is the error for an archive that has a mark of its end and nothing before it.
var ErrEmpty = errors.New("the archive is empty")

// Read puts what is in a tar archive into a sink: ustar, PAX and GNU, with long
// names, sparse files, hard links, devices, extended attributes and ACLs. It reads r
// to its end, also if the error is ErrEmpty. Users and groups count by number alone.
func Read(r io.Reader, to source.Sink) error {
	ends := &endReader{r: r}
	t := tar.NewReader(ends)
	objects := 0
	for ; ; objects++ {
		before := ends.n
		h, err := t.Next()
		if err == io.EOF {
			// Archive/tar takes the end of the stream for one, too.
			if ends.n >= before+blockSize && ends.isZero() {
				break
			}
			if objects == 0 {
				return errors.New("the archive is empty, or not one of tar")
			}
			return errors.New("the archive was cut short: it has no mark of its end")
		}
		if err == nil {
			err = put(t, h, to)
		}
		if err != nil {
			return explain(err)
		}
	}
	n, err := io.CopyN(io.Discard, r, maxTail+1) // so that a sum behind it is checked
	switch {
	case err == io.EOF && objects == 0:
		return ErrEmpty
	case err == io.EOF:
		return nil
	case err == nil && n > maxTail:
		return fmt.Errorf("there are more than %d MiB behind the end of the archive", maxTail>>20)
	}
	return err
}

// maxTail bounds what is read behind the end of an archive: programs fill a block up,
// which is of 10 KiB if nobody says otherwise.
const maxTail = 64 << 20

// explain says in other words what archive/tar says.
func explain(err error) error {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("the archive was cut short: %w", err)
	case errors.Is(err, tar.ErrHeader):
		return fmt.Errorf("the archive is damaged, or not one of tar: %w", err)
	}
	return err
}

const blockSize = 512

// endReader knows the last block that was read: one of zeros is the end of an archive.
type endReader struct {
	r    io.Reader
	n    uint64
	last [blockSize]byte
}

func (e *endReader) Read(b []byte) (int, error) {
	n, err := e.r.Read(b)
	e.n += uint64(n)
	if b = b[max(0, n-blockSize):n]; len(b) > 0 {
		copy(e.last[:], e.last[len(b):])
		copy(e.last[blockSize-len(b):], b)
	}
	return n, err
}

func (e *endReader) isZero() bool { return e.n%blockSize == 0 && e.last == [blockSize]byte{} }

// put puts an entry into the sink.
func put(t *tar.Reader, h *tar.Header, to source.Sink) error {
	kind := fs.Kind(0)
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		kind = fs.Regular
	case tar.TypeDir:
		kind = fs.Directory
	case tar.TypeSymlink:
		kind = fs.Symlink
	case tar.TypeChar:
		kind = fs.CharDevice
	case tar.TypeBlock:
		kind = fs.BlockDevice
	case tar.TypeFifo:
		kind = fs.FIFO
		if h.PAXRecords[socketRecord] != "" {
			kind = fs.Socket
		}
	case tar.TypeLink:
		return to.Link(h.Name, h.Linkname)
	case tar.TypeXGlobalHeader: // remarks
		return nil
	case 'V': // the label of a volume
		if h.Size > 0 {
			return fmt.Errorf("%q: a label with content", h.Name)
		}
		return nil
	default:
		return fmt.Errorf("%q: an entry of type %q cannot be imported", h.Name, h.Typeflag)
	}
	m, err := meta(h, kind)
	if err != nil {
		return fmt.Errorf("%q: %w", h.Name, err)
	}
	xattrs, err := xattrs(h)
	if err != nil {
		return fmt.Errorf("%q: %w", h.Name, err)
	}
	return to.Put(h.Name, m, h.Linkname, xattrs, t)
}

func meta(h *tar.Header, kind fs.Kind) (*source.Meta, error) {
	if !fits(int64(h.Uid)) || !fits(int64(h.Gid)) {
		return nil, fmt.Errorf("user %d and group %d: a number does not fit 32 bits", h.Uid, h.Gid)
	}
	m := &source.Meta{
		Kind: kind, Mode: uint32(h.Mode & 0o7777), UID: uint32(h.Uid), GID: uint32(h.Gid),
		Mtime: fs.Time{Sec: h.ModTime.Unix(), Nsec: uint32(h.ModTime.Nanosecond())},
	}
	switch kind {
	case fs.Regular:
		m.Size = uint64(h.Size)
	case fs.BlockDevice, fs.CharDevice:
		if h.Devmajor < 0 || h.Devminor < 0 || h.Devmajor > math.MaxUint32 || h.Devminor > math.MaxUint32 {
			return nil, fmt.Errorf("device %d, %d: a number does not fit 32 bits", h.Devmajor, h.Devminor)
		}
		m.Major, m.Minor = uint32(h.Devmajor), uint32(h.Devminor)
	}
	return m, nil
}

// fits reports whether an id is one. Where an int has 32 bits, archive/tar makes
// those of the upper half negative.
func fits(id int64) bool { return bits.UintSize == 32 || id >= 0 && id <= math.MaxUint32 }

// xattrs returns the extended attributes of an entry, ACLs among them.
func xattrs(h *tar.Header) ([]source.Xattr, error) {
	var all []source.Xattr
	for key, value := range h.PAXRecords {
		if name, ok := strings.CutPrefix(key, xattrRecord); ok {
			all = append(all, source.Xattr{Name: xattrDecoder.Replace(name), Value: []byte(value)})
		}
	}
	for _, kind := range []string{"access", "default"} {
		name := "system.posix_acl_" + kind
		text := h.PAXRecords["SCHILY.acl."+kind]
		if text == "" || h.PAXRecords[xattrRecord+name] != "" {
			continue
		}
		value, err := parseACL(text)
		if err != nil {
			return nil, err
		}
		if kind == "default" || len(value) > aclSize(3) { // otherwise the mode says it
			all = append(all, source.Xattr{Name: name, Value: value})
		}
	}
	return all, nil
}
