package netboot

import (
	"encoding/hex"
	"path"
	"strings"

	"github.com/rootnfsd/rootnfsd/exports"
	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/netboot/tftp"
)

// wanted is what the name of a request says.
type wanted struct {
	id    exports.BootID
	who   string   // the directory that says who asks, as it was written; empty if none does
	names []string // the components of the path below that; at least one
}

// last is the file's own name.
func (w *wanted) last() string { return w.names[len(w.names)-1] }

// parseName takes a name apart: that of a file in the boot directory, or of one in a directory that says who asks, as a
// Raspberry Pi's serial number or a MAC address. The error is what the client is told.
func parseName(name string) (w wanted, err error) {
	for part := range strings.SplitSeq(name, "/") {
		switch {
		case part == "" || part == ".":
			continue
		case part == "..":
			return w, &tftp.Error{Code: tftp.CodeAccess, Message: "\"..\" leads nowhere"}
		case len(part) > fs.MaxName || strings.IndexByte(part, 0) >= 0:
			return w, &tftp.Error{Code: tftp.CodeAccess, Message: "no file has such a name"}
		}
		w.names = append(w.names, part)
	}
	if len(w.names) == 0 {
		return w, &tftp.Error{Code: tftp.CodeNotFound, Message: "a file has a name"}
	}
	if len(w.names) > 1 {
		if id := parseID(w.names[0]); id != (exports.BootID{}) {
			w.id, w.who, w.names = id, w.names[0], w.names[1:]
		}
	}
	return w, nil
}

// parseID returns who a directory's name stands for: 8 or 16 digits of a serial number, or a MAC address, before which
// PXELINUX writes the type of the network. It is the zero BootID for any other name.
func parseID(name string) exports.BootID {
	name = strings.ToLower(name)
	switch len(name) {
	case 8, 16:
		if isHex(name) {
			return exports.BootID{Serial: name[len(name)-8:]}
		}
	case len("01-dc-a6-32-01-36-c2"):
		var ok bool
		if name, ok = strings.CutPrefix(name, "01-"); ok && name[2] == '-' {
			return parseMAC(name)
		}
	case len("dc-a6-32-01-36-c2"):
		return parseMAC(name)
	}
	return exports.BootID{}
}

func parseMAC(name string) (id exports.BootID) {
	separator := name[2]
	if separator != '-' && separator != ':' {
		return id
	}
	parts := strings.Split(name, string(separator))
	if len(parts) != 6 {
		return id
	}
	for _, part := range parts {
		if len(part) != 2 || !isHex(part) {
			return id
		}
	}
	return exports.BootID{MAC: strings.Join(parts, ":")}
}

func isHex(s string) bool {
	_, err := hex.DecodeString(s)
	return err == nil
}

// The names of files that are made, or looked for, for each node.
const (
	commandLineFile = "cmdline.txt"
	configFile      = "config.txt"
	scriptFile      = "boot.ipxe"
	kernelFile      = "vmlinuz"
	initramfsFile   = "initrd.img"
)

// steps are where in a boot the files are asked for whose names tell, by patterns of path.Match.
var steps = []struct {
	pattern string
	step    exports.BootStep
}{
	{"bootcode.bin", exports.BootFirst},
	{"start*.elf", exports.BootFirst},
	{configFile, exports.BootFirst}, // of a Pi 5, whose firmware is in its EEPROM
	{scriptFile, exports.BootFirst},
	{"*.efi", exports.BootFirst},
	{commandLineFile, exports.BootLast},
	{"kernel*.img", exports.BootLast},
	{"vmlinuz*", exports.BootLast},
	{"image", exports.BootLast},
	{"u-boot*.bin", exports.BootLast},
}

func stepOf(name string) exports.BootStep {
	name = strings.ToLower(name)
	for _, s := range steps {
		if ok, err := path.Match(s.pattern, name); ok && err == nil {
			return s.step
		}
	}
	return exports.BootAny
}
