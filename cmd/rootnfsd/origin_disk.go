package main

import (
	"errors"
	"io"
	"os"

	"github.com/rootnfsd/rootnfsd/fs/source/disk"
)

// isDisk reports whether a file begins as a disk or a file system does that may be
// read in place.
func isDisk(b []byte) bool {
	const table, super = 510, 1080
	return len(b) > super+2 && (string(b[table:][:2]) == "\x55\xaa" || string(b[super:][:2]) == "\x53\xef" || string(b[:4]) == "hsqs")
}

// diskOrigin is the tree in a disk image, for which it must be a file that can be
// read anywhere.
func diskOrigin(f *os.File) (*origin, error) {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	tree, warnings, err := disk.Open(f, size)
	if err != nil {
		return nil, err
	}
	return &origin{tree: tree, warnings: warnings}, nil
}

// unpackedDisk is diskOrigin for what comes as a stream, which it spools.
func unpackedDisk(in io.Reader, read *counter, spool spooler) (*origin, error) {
	f, err := spool(in, read)
	if err != nil {
		return nil, err
	}
	o, err := diskOrigin(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	o.closers = append(o.closers, f)
	return o, nil
}
