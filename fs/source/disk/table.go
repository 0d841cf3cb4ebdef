package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"unicode/utf16"
)

var le = binary.LittleEndian

// partition is a part of a disk, in bytes.
type partition struct {
	number     int
	start, end int64
	// What fstab(5) calls PARTUUID and PARTLABEL; the name is "" if it has none.
	uuid, name string
}

const mbrSector = 512

// firstLogical is the number of the first partition in an extended one.
const firstLogical = 5

// typeGPT is the type in an MBR that says that there is a GPT.
const typeGPT = 0xEE

// isExtended reports whether a type in an MBR is that of a partition with others in it.
func isExtended(kind byte) bool { return kind == 0x05 || kind == 0x0F || kind == 0x85 }

// isTable reports whether a sector is one with four entries for partitions.
func isTable(b *[mbrSector]byte) bool { return b[510] == 0x55 && b[511] == 0xAA }

// mbrEntry returns what an entry says, in bytes.
func mbrEntry(b *[mbrSector]byte, i int) (kind byte, start, end int64) {
	const first, size = 446, 16
	e := b[first+i*size:][:size]
	start = int64(le.Uint32(e[8:])) * mbrSector
	return e[4], start, start + int64(le.Uint32(e[12:]))*mbrSector
}

// readTable returns the partitions in an MBR or GPT, in the order in which they
// lie, none of which overlap. There are none if there is no table.
func readTable(r io.ReaderAt, size int64) ([]partition, error) {
	var mbr [mbrSector]byte
	if size < mbrSector {
		return nil, nil
	}
	if _, err := r.ReadAt(mbr[:], 0); err != nil {
		return nil, fmt.Errorf("read partition table: %w", err)
	}
	if !isTable(&mbr) {
		return nil, nil
	}
	all, err := readMBR(r, &mbr, size)
	if err != nil {
		return nil, err
	}
	for i, p := range all {
		if p.uuid == "" { // what Linux makes up where there is no GPT
			const signature = 440
			all[i].uuid = fmt.Sprintf("%08x-%02x", le.Uint32(mbr[signature:]), p.number)
		}
	}
	return all, check(all, size)
}

func readMBR(r io.ReaderAt, mbr *[mbrSector]byte, size int64) (all []partition, err error) {
	for i := range firstLogical - 1 {
		kind, start, end := mbrEntry(mbr, i)
		p := partition{number: i + 1, start: start, end: end}
		switch {
		case kind == typeGPT:
			return readGPT(r, size)
		case kind == 0:
		case isExtended(kind):
			if err := check([]partition{p}, size); err != nil {
				return nil, err
			}
			logical, err := readLogical(r, p)
			if err != nil {
				return nil, err
			}
			all = append(all, logical...)
		default:
			all = append(all, p)
		}
	}
	return all, nil
}

// check sorts partitions and refuses those that cannot be.
func check(all []partition, size int64) error {
	slices.SortFunc(all, func(a, b partition) int { return int(min(max(a.start-b.start, -1), 1)) })
	for i, p := range all {
		if p.start <= 0 || p.end <= p.start {
			return fmt.Errorf("partition %d goes from byte %d to %d", p.number, p.start, p.end)
		}
		if p.end > size {
			return fmt.Errorf("partition %d ends at byte %d, but the image has %d: is it cut off?", p.number, p.end, size)
		}
		if i > 0 && p.start < all[i-1].end {
			return fmt.Errorf("partitions %d and %d overlap", all[i-1].number, p.number)
		}
	}
	return nil
}

// readLogical returns the partitions in an extended one: each is named by a table of
// its own, which also says where the next one is.
func readLogical(r io.ReaderAt, extended partition) (all []partition, err error) {
	const most = 128 // a chain of tables may be a ring
	for at, n := int64(0), 0; ; n++ {
		if at > extended.end-extended.start-mbrSector || n == most {
			return nil, fmt.Errorf("partition %d is damaged: there are more than %d others in it, or one outside", extended.number, most)
		}
		var table [mbrSector]byte
		if _, err := r.ReadAt(table[:], extended.start+at); err != nil {
			return nil, fmt.Errorf("read the partitions in partition %d: %w", extended.number, err)
		}
		if !isTable(&table) {
			return nil, fmt.Errorf("partition %d is damaged: the partitions in it are not to be found", extended.number)
		}
		_, start, end := mbrEntry(&table, 0)
		p := partition{number: firstLogical + len(all), start: extended.start + at + start, end: extended.start + at + end}
		if end > start {
			if p.end > extended.end {
				return nil, fmt.Errorf("partition %d ends at byte %d, but partition %d, which it is in, at %d", p.number, p.end, extended.number, extended.end)
			}
			all = append(all, p)
		}
		kind, next, _ := mbrEntry(&table, 1)
		if !isExtended(kind) {
			return all, nil
		}
		at = next
	}
}

// errGPT is the error for a GPT of which no copy is sound.
var errGPT = errors.New("the GPT is damaged, and so is its copy: let gdisk or sfdisk restore it")

// readGPT reads the partitions of a GPT, which has a copy at the end of the disk.
func readGPT(r io.ReaderAt, size int64) ([]partition, error) {
	for _, sector := range []int64{512, 4096} {
		for _, at := range []int64{1, size/sector - 1} {
			if entries, entrySize := readGPTAt(r, size/sector, sector, at); entries != nil {
				return partitions(entries, entrySize, sector, size)
			}
		}
	}
	return nil, errGPT
}

// readGPTAt returns the table whose header is in sector at, nil if that is not sound.
func readGPTAt(r io.ReaderAt, sectors, sector, at int64) (entries []byte, entrySize int64) {
	const headerSize, minEntry, maxEntry, maxEntries = 92, 128, 4096, 1024
	var h [headerSize]byte
	if _, err := r.ReadAt(h[:], at*sector); err != nil || string(h[:8]) != "EFI PART" {
		return nil, 0
	}
	sum := le.Uint32(h[16:])
	clear(h[16:20])
	table, count, entrySize := le.Uint64(h[72:]), int64(le.Uint32(h[80:])), int64(le.Uint32(h[84:]))
	if le.Uint32(h[12:]) != headerSize || crc32.ChecksumIEEE(h[:]) != sum || le.Uint64(h[24:]) != uint64(at) ||
		entrySize < minEntry || entrySize > maxEntry || count > maxEntries || table > uint64(sectors) {
		return nil, 0
	}
	entries = make([]byte, count*entrySize)
	if _, err := r.ReadAt(entries, int64(table)*sector); err != nil || crc32.ChecksumIEEE(entries) != le.Uint32(h[88:]) {
		return nil, 0
	}
	return entries, entrySize
}

// partitions returns what a GPT has entries for.
func partitions(entries []byte, entrySize, sector, size int64) (all []partition, err error) {
	for i := 0; len(entries) > 0; i, entries = i+1, entries[entrySize:] {
		if [16]byte(entries) == ([16]byte{}) {
			continue
		}
		first, last, most := le.Uint64(entries[32:]), le.Uint64(entries[40:]), uint64(size/sector)
		if first > most || last >= most {
			return nil, fmt.Errorf("partition %d goes from sector %d to %d, but the image has %d: is it cut off?", i+1, first, last, most)
		}
		all = append(all, partition{
			number: i + 1, start: int64(first) * sector, end: int64(last+1) * sector,
			uuid: guid([16]byte(entries[16:])), name: partitionName(entries[56:128]),
		})
	}
	return all, nil
}

// guid writes a GUID as a GPT has it.
func guid(b [16]byte) string {
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(b[:]), le.Uint16(b[4:]), le.Uint16(b[6:]), b[8:10], b[10:])
}

// partitionName reads the name in an entry of a GPT, which ends with a zero, if it is short.
func partitionName(b []byte) string {
	var units []uint16
	for ; len(b) > 0 && le.Uint16(b) != 0; b = b[2:] {
		units = append(units, le.Uint16(b))
	}
	return string(utf16.Decode(units))
}
