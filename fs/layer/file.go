package layer

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/rootnfsd/rootnfsd/fs"
)

// What a layer may have at most.
const (
	MaxFiles = 1000
	MaxBytes = 1 << 20 // of content, of all files together
	MaxPath  = 1024    // bytes of a path
)

// File is a regular file of a layer.
type File struct {
	Path     string // from the root of the tree, such as "/etc/hostname"
	Mode     uint32 // within 07777
	UID, GID uint32
	Mtime    fs.Time // its other times are the same
	Content  string
}

// MaxEncoded is the longest that Encode makes of a layer within the bounds, in bytes.
const MaxEncoded = 4 + MaxFiles*(fixedSize+MaxPath) + MaxBytes

// fixedSize is what a file takes in the encoding besides its path and content.
const fixedSize = 2 + 4 + 4 + 4 + 8 + 4 + 4

// Encode appends the files to b: their number, and for each the length of its path (16 bits), path, mode,
// owner and group, the seconds (64 bits) and nanoseconds of its mtime, the length of its
// content, and that. Numbers are of 32 bits where nothing else is said, and big-endian.
// The same files in the same order are the same bytes.
func Encode(b []byte, files []File) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(files)))
	for i := range files {
		f := &files[i]
		b = binary.BigEndian.AppendUint16(b, uint16(len(f.Path)))
		b = append(b, f.Path...)
		for _, n := range [...]uint32{f.Mode, f.UID, f.GID} {
			b = binary.BigEndian.AppendUint32(b, n)
		}
		b = binary.BigEndian.AppendUint64(b, uint64(f.Mtime.Sec))
		b = binary.BigEndian.AppendUint32(b, f.Mtime.Nsec)
		b = binary.BigEndian.AppendUint32(b, uint32(len(f.Content)))
		b = append(b, f.Content...)
	}
	return b
}

// Digest identifies a set of files by all that a client can see of it.
func Digest(files []File) fs.Digest { return sha256.Sum256(Encode(nil, files)) }

var errCut = errors.New("it ends too early")

// Decode reads what Encode wrote, and takes nothing else: all of b, and within
// the bounds of a layer. Whether the files can be laid over a tree is for Check
// to say. It does not keep b.
func Decode(b []byte) ([]File, error) {
	d := decoder{rest: b}
	count := d.uint32()
	if count > MaxFiles {
		return nil, fmt.Errorf("%d files, at most %d can be", count, MaxFiles)
	}
	files := make([]File, 0, min(int(count), len(b)/fixedSize))
	room := MaxBytes
	for range count {
		var f File
		n := int(d.uint16())
		if n > MaxPath {
			return nil, fmt.Errorf("a path of %d bytes, at most %d can be", n, MaxPath)
		}
		f.Path = d.string(n)
		f.Mode, f.UID, f.GID = d.uint32(), d.uint32(), d.uint32()
		f.Mtime = fs.Time{Sec: int64(d.uint64()), Nsec: d.uint32()}
		size := d.uint32()
		if uint64(size) > uint64(room) {
			return nil, fmt.Errorf("more than %d bytes of content", MaxBytes)
		}
		room -= int(size)
		f.Content = d.string(int(size))
		if d.short {
			return nil, errCut
		}
		files = append(files, f)
	}
	if d.short {
		return nil, errCut
	}
	if len(d.rest) > 0 {
		return nil, fmt.Errorf("%d bytes more than there should be", len(d.rest))
	}
	return files, nil
}

// decoder takes bytes from the front of rest. Once there were too few, short is
// set, and what it returns means nothing.
type decoder struct {
	rest  []byte
	short bool
}

func (d *decoder) take(n int) []byte {
	if n > len(d.rest) {
		d.short, d.rest = true, nil
		return nil
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) string(n int) string { return string(d.take(n)) }

func (d *decoder) uint16() uint16 {
	if b := d.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (d *decoder) uint32() uint32 {
	if b := d.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (d *decoder) uint64() uint64 {
	if b := d.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}
