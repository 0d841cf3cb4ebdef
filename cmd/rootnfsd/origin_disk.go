package main

import (
	"bytes"
	"errors"
	"io"
	"os"

	"github.com/rootnfsd/rootnfsd/fs/source/disk"
)

// isDisk reports whether a file begins as a disk or a file system does that may be
// read in place.
func isDisk(b []byte) bool {
	const table, super = 510, 1080
	return len(b) > super+2 && (string(b[table:][:2]) == "\x55\xaa" || string(b[super:][:2]) == "\x53\xef")
}

// diskOrigin is the tree in a disk image, for which it must be a file that can be
// read anywhere.
func diskOrigin(f *os.File) (*origin, error) {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	tree, err := disk.Open(f, size)
	if err != nil {
		return nil, err
	}
	return &origin{tree: tree}, nil
}

// unpackedDisk is diskOrigin for what comes as a stream, which it writes to a file
// without a name in dir. What is empty takes no place there.
func unpackedDisk(in io.Reader, dir string) (*origin, error) {
	f, err := spooled(bytes.NewReader(nil), dir)
	if err != nil {
		return nil, err
	}
	var o *origin
	if err = writeHoles(f, in); err == nil {
		o, err = diskOrigin(f)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	o.closers = append(o.closers, f)
	return o, nil
}

// writeHoles copies in to an empty file and leaves out blocks of zeros.
func writeHoles(f *os.File, in io.Reader) error {
	var buf, zeros [64 << 10]byte
	for at := int64(0); ; {
		n, err := io.ReadFull(in, buf[:])
		if n > 0 && !bytes.Equal(buf[:n], zeros[:n]) {
			if _, err := f.WriteAt(buf[:n], at); err != nil {
				return err
			}
		}
		at += int64(n)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return f.Truncate(at)
		}
		if err != nil {
			return err
		}
	}
}
