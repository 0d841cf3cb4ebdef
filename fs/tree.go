package fs

import (
	"context"
	"os"
)

// Tree is a file tree whose objects are named by NodeID, never by path: NFSv3
// is handle based, and a path that is walked again is a chance for a symlink to
// be swapped in. The methods enforce permissions for the Cred that they get.
//
// All methods may be called by many goroutines at once. Errors are of the kinds
// of Error; every method answers ErrStale for a NodeID that the tree does not
// have. Byte slices that come back alias the tree's memory: they are read-only
// and valid while the caller holds the Tree.
//
// A Tree is dropped by letting go of it: what it holds open or mapped is
// released when the garbage collector finds that nobody can call it any more.
// So a call that is under way when a version is removed still ends well, and no
// call ever pays for a reference count.
type Tree interface {
	// FSID is the identity of the tree: never zero, the same for the same
	// content on every server, distinct for distinct content.
	FSID() uint64

	// Root is the directory at the top.
	Root() NodeID

	// Getattr fills a. It needs no rights.
	Getattr(id NodeID, a *Attr) error

	// Lookup finds name in the directory dir. It needs MayExec on dir, answers
	// "." with dir itself, ".." with the parent, and ".." in the root with the
	// root: nobody leaves a tree by its names. Errors: ErrNotDir, ErrAccess,
	// ErrNotExist.
	Lookup(c *Cred, dir NodeID, name Name) (NodeID, error)

	// Readlink returns the text of a symlink, which nobody on the server ever
	// follows. Errors: ErrInvalid if id is something else.
	Readlink(id NodeID) ([]byte, error)

	// ReadDir fills entries with those that follow cookie, 0 meaning from the
	// start, and returns how many it filled and whether the last of them is the
	// last of the directory. "." and ".." come first. It needs MayRead on dir.
	// A cookie that the directory cannot have given out is ErrInvalid.
	ReadDir(c *Cred, dir NodeID, cookie uint64, entries []DirEntry) (n int, eof bool, err error)

	// Read copies content from off on into p. It returns less than len(p) only
	// at the end of the file, eof then being true; an offset at or beyond the
	// end is n == 0 and eof. It needs CanRead. Errors: ErrIsDir, ErrInvalid for
	// what has no content, ErrIO. With nowait it answers ErrWouldBlock, having
	// read nothing of use, where it would have to wait for a disk.
	Read(c *Cred, id NodeID, off uint64, p []byte, nowait bool) (n int, eof bool, err error)

	// Statfs tells the size of the tree as a file system.
	Statfs() Statfs
}

// Spanner is a Tree that can say where in host files the bytes of a file lie,
// so that a server sends them without copying.
type Spanner interface {
	Tree

	// Spans is Read, but fills spans with where the bytes lie instead of
	// copying them. It covers as much of [off, off+count) as the file has and
	// len(spans) can describe; n is the number of spans filled, and eof tells
	// whether they reach the end of the file. Rights, errors and nowait are
	// those of Read. A file that lies in no host file is ErrNotSupported: it is
	// to be Read.
	Spans(c *Cred, id NodeID, off uint64, count uint32, spans []Span, nowait bool) (n int, eof bool, err error)
}

// Span is a run of bytes in a host file, or of zeros where File is nil. The
// bytes never change. Whoever holds the Span keeps File open by holding it.
type Span struct {
	File *os.File
	Off  int64
	Len  int64
}

// Warmer is a Tree that can bring content into memory before anybody asks for it.
type Warmer interface {
	Tree

	// Warm makes the ranges ready to be read without waiting, as far as memory
	// suffices for all that wants it, and returns how many bytes it read. It
	// leaves out what cannot be read: that is for whoever asks for it to hear.
	// Now and then it calls progress, unless that is nil, with the bytes done
	// and those to do. The error is that of ctx.
	Warm(ctx context.Context, ranges []Range, progress func(done, total uint64)) (uint64, error)
}

// Range is a part of the content of a file. It may reach beyond the end.
type Range struct {
	ID  NodeID
	Off uint64
	Len uint64
}

// DirEntry is one name in a directory.
type DirEntry struct {
	ID     NodeID
	FileID uint64
	// Cookie continues a listing behind this entry. Cookies ascend within a
	// directory, are never zero and fit 63 bits.
	Cookie uint64
	Kind   Kind
	Name   []byte
}

// Statfs is the size of a tree as a file system, for df(1).
type Statfs struct {
	Bytes     uint64 // stored content
	FreeBytes uint64
	Files     uint64 // objects
	FreeFiles uint64
}
