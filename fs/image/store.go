package image

import (
	"context"
	"time"

	"github.com/go-git/go-billy/v5"

	"github.com/rootnfsd/rootnfsd/fs"
)

// Digest identifies the content of a version: SHA-256 over its canonical index.
type Digest = fs.Digest

// Store is a directory of golden trees and the versions sealed from them.
type Store struct {
	dir string
}

// OpenStore opens the store at dir (created state lives in dir/.rootnfsd).
func OpenStore(dir string) (*Store, error) { panic("todo") }

// Dir is the absolute path of the store.
func (s *Store) Dir() string { return s.dir }

// StateDir is where the store and exports keep their files: Dir()/.rootnfsd.
func (s *Store) StateDir() string { panic("todo") }

// Info describes one sealed version without opening its content.
type Info struct {
	Name    string // as the user said it; a superseded seal of v1 is "v1~" and 12 hex digits of its digest
	Digest  Digest
	Sealed  time.Time
	Objects uint64
	Bytes   uint64 // of content, holes left out
	Err     error  // the index is corrupt: why; the other fields but Name are zero
}

// Versions lists the sealed versions in natural order of their names (v2 before v10).
func (s *Store) Versions() ([]Info, error) { panic("todo") }

// Trees lists the golden trees: the names of the directories in the store.
func (s *Store) Trees() ([]string, error) { panic("todo") }

// Progress is what Seal and Verify tell while they run. Totals are zero while unknown.
type Progress struct {
	Files, TotalFiles uint64
	Bytes, TotalBytes uint64
}

// SealResult tells what a seal did.
type SealResult struct {
	Info
	Unchanged bool   // the version was sealed with this very content before
	NewBytes  uint64 // content added to the store; the rest was there already
	Warnings  []string
}

// Seal makes version name of the tree src.
func (s *Store) Seal(ctx context.Context, name string, src billy.Filesystem, progress func(Progress)) (SealResult, error) {
	panic("todo")
}

// Open opens a version for reading.
func (s *Store) Open(name string) (*Version, error) { panic("todo") }

// Remove deletes a version and the packs that no other version needs, and returns the bytes freed.
func (s *Store) Remove(name string) (freed uint64, err error) { panic("todo") }

// Damage is one finding of Verify.
type Damage struct {
	Version string
	Path    string // the file; empty if the version as a whole is concerned
	Err     error
}

// Verify re-hashes the packs against the indexes of the versions named (all, if none is).
func (s *Store) Verify(ctx context.Context, names []string, progress func(Progress)) ([]Damage, error) {
	panic("todo")
}

// Version is one sealed version, opened: an immutable tree in memory.
type Version struct{}

// Info describes the version.
func (v *Version) Info() Info { panic("todo") }

var _ fs.Spanner = (*Version)(nil)

func (v *Version) FSID() uint64                           { panic("todo") }
func (v *Version) Root() fs.NodeID                        { panic("todo") }
func (v *Version) Getattr(id fs.NodeID, a *fs.Attr) error { panic("todo") }
func (v *Version) Readlink(id fs.NodeID) ([]byte, error)  { panic("todo") }
func (v *Version) Statfs() fs.Statfs                      { panic("todo") }
func (v *Version) Lookup(c *fs.Cred, dir fs.NodeID, name fs.Name) (fs.NodeID, error) {
	panic("todo")
}
func (v *Version) ReadDir(c *fs.Cred, dir fs.NodeID, cookie uint64, entries []fs.DirEntry) (int, bool, error) {
	panic("todo")
}
func (v *Version) Read(c *fs.Cred, id fs.NodeID, off uint64, p []byte, nowait bool) (int, bool, error) {
	panic("todo")
}
func (v *Version) Spans(c *fs.Cred, id fs.NodeID, off uint64, count uint32, spans []fs.Span, nowait bool) (int, bool, error) {
	panic("todo")
}
