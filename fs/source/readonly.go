package source

import (
	"os"
	"path/filepath"

	"github.com/go-git/go-billy/v5"
)

// ReadOnly is the half of a billy.Filesystem that changes things, refusing.
// A read-only file system embeds it.
type ReadOnly struct{}

// Create refuses with billy.ErrReadOnly, as do all methods but Join.
func (ReadOnly) Create(string) (billy.File, error) { return nil, billy.ErrReadOnly }

// Rename refuses.
func (ReadOnly) Rename(string, string) error { return billy.ErrReadOnly }

// Remove refuses.
func (ReadOnly) Remove(string) error { return billy.ErrReadOnly }

// TempFile refuses.
func (ReadOnly) TempFile(string, string) (billy.File, error) { return nil, billy.ErrReadOnly }

// MkdirAll refuses.
func (ReadOnly) MkdirAll(string, os.FileMode) error { return billy.ErrReadOnly }

// Symlink refuses.
func (ReadOnly) Symlink(string, string) error { return billy.ErrReadOnly }

// Join joins path elements as filepath.Join does.
func (ReadOnly) Join(elem ...string) string { return filepath.Join(elem...) }

// Capabilities says that files can be read and sought in.
func (ReadOnly) Capabilities() billy.Capability {
	return billy.ReadCapability | billy.SeekCapability
}

// ReadOnlyFile is the half of a billy.File that changes things, refusing.
type ReadOnlyFile struct{}

// Write refuses with billy.ErrReadOnly, as does Truncate.
func (ReadOnlyFile) Write([]byte) (int, error) { return 0, billy.ErrReadOnly }

// Truncate refuses.
func (ReadOnlyFile) Truncate(int64) error { return billy.ErrReadOnly }

// Lock does nothing: what nobody can change needs no lock.
func (ReadOnlyFile) Lock() error { return nil }

// Unlock does nothing.
func (ReadOnlyFile) Unlock() error { return nil }
