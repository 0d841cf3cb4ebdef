package source

import (
	"bytes"
	"encoding/binary"
	"slices"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// cName is a name as the kernel wants it: with a zero behind it.
type cName []byte

// here stands for what is open itself, rather than an entry of it.
var here = cName{0}

// String returns the name, whose bytes nobody changes any more.
func (n cName) String() string { return unsafe.String(unsafe.SliceData(n), len(n)-1) }

// direntBuffers are for getdents(2). One holds most directories whole.
var direntBuffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// readNames returns the names in the directory that is open as fd, sorted by their
// bytes. They share memory, of which each directory has its own.
func readNames(fd int) ([]cName, error) {
	buf := direntBuffers.Get().(*[32 << 10]byte)
	defer direntBuffers.Put(buf)
	var all []byte
	count := 0
	for {
		n, err := unix.Getdents(fd, buf[:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			break
		}
		if all == nil {
			all = make([]byte, 0, n) // enough, but for large directories
		}
		all = appendNames(all, buf[:n], &count)
	}
	names := make([]cName, count)
	for i := range names {
		end := bytes.IndexByte(all, 0) + 1
		names[i], all = all[:end:end], all[end:]
	}
	slices.SortFunc(names, func(a, b cName) int { return bytes.Compare(a, b) })
	return names, nil
}

// appendNames appends the names in records of getdents(2) but for "." and "..",
// each with its zero. A record has an inode and an offset of 64 bits each, its
// own length, a type of 8 bits, and the name (struct linux_dirent64).
func appendNames(all, records []byte, count *int) []byte {
	const lenOffset, nameOffset = 16, 19
	for len(records) > nameOffset {
		size := binary.NativeEndian.Uint16(records[lenOffset:])
		gone := binary.NativeEndian.Uint64(records) == 0 // as os.ReadDir has it
		name := records[nameOffset:size]
		name = name[:bytes.IndexByte(name, 0)+1]
		records = records[size:]
		if !gone && string(name) != ".\x00" && string(name) != "..\x00" {
			all = append(all, name...)
			*count++
		}
	}
	return all
}
