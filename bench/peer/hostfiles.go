package peer

import (
	"os"
	"path/filepath"

	"github.com/go-git/go-billy/v5"
)

// hostFiles shows a directory of the host to go-nfs, read-only, by nothing but
// package os: what is measured is go-nfs.
type hostFiles struct{ root string }

var _ billy.Filesystem = hostFiles{}

type hostFile struct{ *os.File }

func (hostFile) Lock() error   { return billy.ErrNotSupported }
func (hostFile) Unlock() error { return billy.ErrNotSupported }

func (h hostFiles) host(name string) string { return filepath.Join(h.root, filepath.Join("/", name)) }

func (hostFiles) Capabilities() billy.Capability {
	return billy.ReadCapability | billy.SeekCapability
}

func (h hostFiles) Open(name string) (billy.File, error) {
	f, err := os.Open(h.host(name))
	if err != nil {
		return nil, err
	}
	return hostFile{f}, nil
}

func (h hostFiles) OpenFile(name string, flag int, _ os.FileMode) (billy.File, error) {
	if flag != os.O_RDONLY {
		return nil, billy.ErrReadOnly
	}
	return h.Open(name)
}

func (h hostFiles) Stat(name string) (os.FileInfo, error)  { return os.Stat(h.host(name)) }
func (h hostFiles) Lstat(name string) (os.FileInfo, error) { return os.Lstat(h.host(name)) }
func (h hostFiles) Readlink(name string) (string, error)   { return os.Readlink(h.host(name)) }

func (h hostFiles) ReadDir(name string) ([]os.FileInfo, error) {
	entries, err := os.ReadDir(h.host(name))
	if err != nil {
		return nil, err
	}
	var infos []os.FileInfo
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			infos = append(infos, info)
		}
	}
	return infos, nil
}

func (hostFiles) Join(elem ...string) string { return filepath.Join(elem...) }
func (hostFiles) Root() string               { return "/" }

func (h hostFiles) Chroot(name string) (billy.Filesystem, error) {
	return hostFiles{h.host(name)}, nil
}

func (hostFiles) Create(string) (billy.File, error)           { return nil, billy.ErrReadOnly }
func (hostFiles) TempFile(string, string) (billy.File, error) { return nil, billy.ErrReadOnly }
func (hostFiles) Rename(string, string) error                 { return billy.ErrReadOnly }
func (hostFiles) Remove(string) error                         { return billy.ErrReadOnly }
func (hostFiles) MkdirAll(string, os.FileMode) error          { return billy.ErrReadOnly }
func (hostFiles) Symlink(string, string) error                { return billy.ErrReadOnly }
