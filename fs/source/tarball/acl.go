package tarball

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// aclEntry is an entry of an ACL as Linux has it in an extended attribute.
type aclEntry struct {
	tag, perm uint16
	id        uint32
}

const (
	aclVersion = 2
	aclNoID    = 1<<32 - 1
	maxACL     = 4096 // entries; the kernel takes as many as fit 64 KiB
)

// The tags, for an entry without and with a user or group.
var aclTags = map[string][2]uint16{"user": {0x01, 0x02}, "group": {0x04, 0x08}, "mask": {0x10, 0}, "other": {0x20, 0}}

// aclSize is the size of an ACL of n entries.
func aclSize(n int) int { return 4 + 8*n }

// parseACL makes the extended attribute of an ACL in words (acl(5)), as GNU tar and
// bsdtar write it: user:1000:rwx, or user:name:rwx:1000.
func parseACL(text string) ([]byte, error) {
	var all []aclEntry
	for part := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ',' || r == '\n' }) {
		part, _, _ = strings.Cut(part, "#")
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		e, err := parseACLEntry(part)
		if err != nil {
			return nil, err
		}
		if all = append(all, e); len(all) > maxACL {
			return nil, fmt.Errorf("an ACL of more than %d entries", maxACL)
		}
	}
	slices.SortFunc(all, func(a, b aclEntry) int { return cmp.Or(cmp.Compare(a.tag, b.tag), cmp.Compare(a.id, b.id)) })
	b := binary.LittleEndian.AppendUint32(make([]byte, 0, aclSize(len(all))), aclVersion)
	for _, e := range all {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b, nil
}

func parseACLEntry(text string) (e aclEntry, err error) {
	fields := strings.Split(text, ":")
	tags, ok := aclTags[fields[0]]
	if !ok || len(fields) < 3 {
		return e, fmt.Errorf("%.40q is no entry of an ACL", text)
	}
	e = aclEntry{tag: tags[0], id: aclNoID}
	for _, r := range fields[2] {
		bit := strings.IndexRune("xwr", r)
		switch {
		case bit >= 0:
			e.perm |= 1 << bit
		case r != '-':
			return e, fmt.Errorf("%.40q is no entry of an ACL", text)
		}
	}
	if fields[1] == "" {
		return e, nil
	}
	e.tag = tags[1]
	number := fields[1]
	if len(fields) > 3 {
		number = fields[3]
	}
	id, err := strconv.ParseUint(number, 10, 32)
	if err != nil || e.tag == 0 {
		return e, fmt.Errorf("the ACL entry %.40q names no number: make the archive with --numeric-owner", text)
	}
	e.id = uint32(id)
	return e, nil
}
