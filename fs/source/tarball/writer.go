package tarball

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"path"
	"time"

	"github.com/go-git/go-billy/v5"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/source"
)

// Write writes a source as a PAX archive, which is the same for the same tree:
// parents before what is in them, names in the order of their bytes. Holes are
// written as zeros. A socket, of which tar knows nothing, is written as a FIFO with a
// record that tells Read; other programs make a FIFO of it.
func Write(ctx context.Context, to io.Writer, src billy.Filesystem) error {
	info, err := src.Lstat("/")
	if err != nil {
		return err
	}
	w := &writer{ctx: ctx, tar: tar.NewWriter(to), src: src, first: make(map[object]string)}
	if err := w.object("/", source.MetaOf(info)); err != nil {
		return err
	}
	return w.tar.Close()
}

// object is what tells objects of a source from each other.
type object struct{ dev, ino uint64 }

type writer struct {
	ctx   context.Context
	tar   *tar.Writer
	src   billy.Filesystem
	first map[object]string // name of those with several
}

var typeFlags = map[fs.Kind]byte{
	fs.Regular: tar.TypeReg, fs.Directory: tar.TypeDir, fs.Symlink: tar.TypeSymlink, fs.FIFO: tar.TypeFifo,
	fs.CharDevice: tar.TypeChar, fs.BlockDevice: tar.TypeBlock, fs.Socket: tar.TypeFifo,
}

// object writes the object at p and all that is in it.
func (w *writer) object(p string, m *source.Meta) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	if m == nil {
		return fmt.Errorf("%q: this source does not tell owners and modes", p)
	}
	h := &tar.Header{
		Format: tar.FormatPAX, Name: "." + p, Typeflag: typeFlags[m.Kind], Mode: int64(m.Mode), Uid: int(m.UID), Gid: int(m.GID),
		ModTime: time.Unix(m.Mtime.Sec, int64(m.Mtime.Nsec)), Devmajor: int64(m.Major), Devminor: int64(m.Minor),
	}
	if m.Kind != fs.Directory && m.Nlink > 1 {
		key := object{m.Dev, m.Ino}
		if name := w.first[key]; name != "" {
			h.Typeflag, h.Linkname, h.Devmajor, h.Devminor = tar.TypeLink, name, 0, 0
			return w.tar.WriteHeader(h)
		}
		w.first[key] = h.Name
	}
	if err := w.describe(h, p, m); err != nil {
		return err
	}
	if err := w.tar.WriteHeader(h); err != nil {
		return err
	}
	switch m.Kind {
	case fs.Regular:
		return w.content(p)
	case fs.Directory:
		return w.list(p)
	}
	return nil
}

// describe fills in what depends on the kind of an object, and its attributes.
func (w *writer) describe(h *tar.Header, p string, m *source.Meta) (err error) {
	h.PAXRecords = make(map[string]string)
	switch m.Kind {
	case fs.Regular:
		h.Size = int64(m.Size)
	case fs.Directory:
		h.Name = path.Clean(h.Name) + "/"
	case fs.Symlink:
		if h.Linkname, err = w.src.Readlink(p); err != nil {
			return err
		}
	case fs.Socket:
		h.PAXRecords[socketRecord] = "1"
	}
	r, ok := w.src.(source.XattrReader)
	if !ok {
		return nil
	}
	xattrs, err := r.Xattrs(p)
	for _, x := range xattrs {
		h.PAXRecords[xattrRecord+xattrEncoder.Replace(x.Name)] = string(x.Value)
	}
	return err
}

func (w *writer) content(p string) error {
	f, err := w.src.Open(p)
	if err != nil {
		return err
	}
	defer f.Close()
	// Not by way of ReadFrom, which reads in pieces of its own.
	_, err = io.CopyBuffer(struct{ io.Writer }{w.tar}, struct{ io.Reader }{f}, make([]byte, 256<<10))
	return err
}

func (w *writer) list(p string) error {
	infos, err := w.src.ReadDir(p)
	if err != nil {
		return err
	}
	for _, info := range infos {
		if err := w.object(path.Join(p, info.Name()), source.MetaOf(info)); err != nil {
			return err
		}
	}
	return nil
}
