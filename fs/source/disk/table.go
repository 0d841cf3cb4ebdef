package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
)

var le = binary.LittleEndian

// partition is a part of a disk, in bytes.
type partition struct {
	number     int
	start, end int64
}

const mbrSector = 512

// Types in an MBR that matter.
const (
	typeExtended, typeExtendedLBA = 0x05, 0x0F
	typeGPT                       = 0xEE
)

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
	if mbr[510] != 0x55 || mbr[511] != 0xAA {
		return nil, nil
	}
	const first, entrySize, count = 446, 16, 4
	var all []partition
	for i := range count {
		e := mbr[first+i*entrySize:][:entrySize]
		start, sectors := int64(le.Uint32(e[8:])), int64(le.Uint32(e[12:]))
		switch e[4] {
		case 0, typeExtended, typeExtendedLBA: // what is in these is not looked at
			continue
		case typeGPT:
			var err error
			if all, err = readGPT(r, size); err != nil {
				return nil, err
			}
			return all, check(all, size)
		}
		all = append(all, partition{i + 1, start * mbrSector, (start + sectors) * mbrSector})
	}
	return all, check(all, size)
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

// readGPT reads the first of the two tables that there are.
func readGPT(r io.ReaderAt, size int64) ([]partition, error) {
	const headerSize, minEntry, maxEntry, maxEntries = 92, 128, 4096, 1024
	var h [headerSize]byte
	sector := int64(0)
	for _, s := range []int64{512, 4096} {
		if _, err := r.ReadAt(h[:], s); err == nil && string(h[:8]) == "EFI PART" {
			sector = s
			break
		}
	}
	if sector == 0 {
		return nil, errors.New("the GPT is damaged: let gdisk or sfdisk restore it from its copy")
	}
	sum := le.Uint32(h[16:])
	clear(h[16:20])
	table, count, entrySize := le.Uint64(h[72:]), int64(le.Uint32(h[80:])), int64(le.Uint32(h[84:]))
	if le.Uint32(h[12:]) != headerSize || crc32.ChecksumIEEE(h[:]) != sum ||
		entrySize < minEntry || entrySize > maxEntry || count > maxEntries || table > uint64(size/sector) {
		return nil, errors.New("the header of the GPT is damaged: let gdisk or sfdisk restore it from its copy")
	}
	entries := make([]byte, count*entrySize)
	if _, err := r.ReadAt(entries, int64(table)*sector); err != nil {
		return nil, fmt.Errorf("read GPT: %w", err)
	}
	if crc32.ChecksumIEEE(entries) != le.Uint32(h[88:]) {
		return nil, errors.New("the GPT is damaged: let gdisk or sfdisk restore it from its copy")
	}
	var all []partition
	for i := range int(count) {
		e := entries[int64(i)*entrySize:]
		if [16]byte(e) == ([16]byte{}) {
			continue
		}
		first, last, most := le.Uint64(e[32:]), le.Uint64(e[40:]), uint64(size/sector)
		if first > most || last >= most {
			return nil, fmt.Errorf("partition %d goes from sector %d to %d, but the image has %d: is it cut off?", i+1, first, last, most)
		}
		all = append(all, partition{i + 1, int64(first) * sector, int64(last+1) * sector})
	}
	return all, nil
}
