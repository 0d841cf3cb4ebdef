package nodeside

import (
	"archive/tar"
	"io"
	"strings"
	"time"

	"github.com/rootnfsd/rootnfsd/fs"
)

// WriteTar writes a tar archive of files, each with a path that is relative to the root of a tree. The same files are
// the same archive.
func WriteTar(w io.Writer, files []File) error {
	out := tar.NewWriter(w)
	for _, f := range files {
		h := tar.Header{
			Name: strings.TrimPrefix(f.Path, "/"), Mode: int64(f.Mode), Uname: "root", Gname: "root",
			ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR,
		}
		switch f.Kind {
		case fs.Symlink:
			h.Typeflag, h.Linkname = tar.TypeSymlink, f.Content
		case fs.Directory:
			h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
		default:
			h.Typeflag, h.Size = tar.TypeReg, int64(len(f.Content))
		}
		if err := out.WriteHeader(&h); err != nil {
			return err
		}
		if f.Kind == fs.Regular {
			if _, err := io.WriteString(out, f.Content); err != nil {
				return err
			}
		}
	}
	return out.Close()
}
