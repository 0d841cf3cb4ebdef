package oci

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// OpenDir finds the image for a platform, such as linux/arm64, in an OCI image layout;
// "" is the only one. It is ErrNoImage if the directory is none.
func OpenDir(dir, platform string) (*Image, error) {
	if _, err := os.Stat(filepath.Join(dir, "oci-layout")); err != nil {
		return nil, fmt.Errorf("%s: %w", dir, ErrNoImage)
	}
	return choose(dirFiles(dir), platform)
}

// dirFiles is a directory. What it is asked for has no ".." in it.
type dirFiles string

func (d dirFiles) open(name string) (io.ReadCloser, uint64, error) {
	if !filepath.IsLocal(name) {
		return nil, 0, fmt.Errorf("%q leads out of the image", name)
	}
	f, err := os.Open(filepath.Join(string(d), name))
	if errors.Is(err, os.ErrNotExist) {
		return nil, 0, fmt.Errorf("%s %w", name, errNoFile)
	}
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil, 0, errors.Join(err, f.Close(), fmt.Errorf("%s is no file", name))
	}
	return f, uint64(info.Size()), nil
}

// MayBegin reports whether an archive whose first entry has that name may be a
// container image.
func MayBegin(name string) bool {
	first, rest, _ := strings.Cut(path.Clean(name), "/")
	switch first {
	case "blobs", "oci-layout", "index.json", "manifest.json", "repositories":
		return true
	}
	id := strings.TrimSuffix(first, ".json")
	return len(id) == 64 && strings.Trim(id, "0123456789abcdef") == "" && strings.Count(rest, "/") == 0
}

// maxMembers is how many files an archive of an image may have.
const maxMembers = 100_000

// OpenArchive is OpenDir for an archive of tar, which is used until the image was read.
func OpenArchive(f *os.File, platform string) (*Image, error) {
	files, err := members(f)
	if err != nil {
		return nil, err
	}
	return choose(files, platform)
}

// archive is the files in an archive, by name.
type archive struct {
	f     io.ReaderAt
	files map[string]member
}

type member struct {
	off, size int64
	link      string // the name of the file that it is
}

func members(f io.ReaderAt) (*archive, error) {
	const most = 1<<63 - 1
	r := io.NewSectionReader(f, 0, most)
	a := &archive{f: f, files: make(map[string]member)}
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if err == io.EOF {
			return a, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoImage, err)
		}
		if path.Clean(h.Name) == "." || h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if !MayBegin(h.Name) || len(a.files) == maxMembers {
			return nil, fmt.Errorf("%w: there is %.80q in it", ErrNoImage, h.Name)
		}
		off, err := r.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		name := path.Clean(h.Name)
		switch h.Typeflag {
		case tar.TypeReg:
			a.files[name] = member{off: off, size: h.Size}
		case tar.TypeSymlink:
			a.files[name] = member{link: path.Join(path.Dir(name), h.Linkname)}
		case tar.TypeLink:
			a.files[name] = member{link: path.Clean(h.Linkname)}
		}
	}
}

func (a *archive) open(name string) (io.ReadCloser, uint64, error) {
	m, ok := a.files[name]
	if ok && m.link != "" { // the same layer twice
		name = m.link
		m, ok = a.files[name]
	}
	if !ok || m.link != "" {
		return nil, 0, fmt.Errorf("%s %w", name, errNoFile)
	}
	return io.NopCloser(io.NewSectionReader(a.f, m.off, m.size)), uint64(m.size), nil
}
