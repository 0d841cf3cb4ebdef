package lint

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
)

// initramfs is what there is to know of one.
type initramfs struct {
	modules  map[string]bool // of those that matter here, names as lsmod has them
	releases map[string]bool // of kernels whose modules are there
	builtin  map[string]bool // what modules.builtin says is in the kernel itself
	network  bool            // has a driver of a network card as a module
	nfsMount bool            // has what mounts a root over NFS
}

// maxEntries is how many files are looked at in an initramfs.
const maxEntries = 1 << 20

// readInitramfs reads an initramfs, which may be several archives one after the
// other, each compressed or not (Documentation/driver-api/early-userspace).
func readInitramfs(r io.Reader) (*initramfs, error) {
	u := unpacker{unpacked: maxUnpacked, entries: maxEntries}
	u.ram = &initramfs{modules: map[string]bool{}, releases: map[string]bool{}, builtin: map[string]bool{}}
	err := u.read(bufio.NewReaderSize(r, 64<<10), 0)
	if err == nil && u.archives == 0 {
		err = errFormat
	}
	return u.ram, err
}

// unpacker reads an initramfs within bounds.
type unpacker struct {
	ram      *initramfs
	unpacked int64 // how much more may be unpacked
	entries  int   // how many more may be looked at
	archives int   // that were read to their end
}

// read reads archives one after the other.
func (u *unpacker) read(r *bufio.Reader, depth int) error {
	const deepest = 2
	for {
		head, err := r.Peek(6)
		if len(head) == 0 {
			return ignoreEOF(err)
		}
		switch {
		case head[0] == 0: // archives are padded with zeros
			_, err = r.Discard(1)
		case strings.HasPrefix(string(head), "07070"):
			err = u.archive(r)
		case compressionOf(head) != nil && depth < deepest:
			err = u.compressed(r, depth)
		case u.archives > 0: // the kernel stops here, too
			return nil
		default:
			err = errFormat
		}
		if err != nil {
			return err
		}
	}
}

// compressed reads archives out of a compressed stream. Not every decompressor
// stops where its stream ends, so what follows the first archive may be lost.
func (u *unpacker) compressed(r *bufio.Reader, depth int) error {
	z, err := decompress(r)
	if err != nil {
		return err
	}
	defer z.Close()
	limited := &io.LimitedReader{R: z, N: u.unpacked}
	before := u.archives
	err = u.read(bufio.NewReaderSize(limited, 64<<10), depth+1)
	if u.unpacked = limited.N; u.unpacked <= 0 {
		return fmt.Errorf("it unpacks to more than %d bytes", int64(maxUnpacked))
	}
	if u.archives > before && !errors.Is(err, errTooMany) {
		err = nil
	}
	return err
}

func ignoreEOF(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}

var errTooMany = fmt.Errorf("it has more than %d files", maxEntries)

// archive reads one cpio archive, of the format newc.
func (u *unpacker) archive(r *bufio.Reader) error {
	for {
		name, size, err := cpioHeader(r)
		if err != nil {
			return eofUnexpected(err)
		}
		if name == "TRAILER!!!" {
			u.archives++
			return nil
		}
		if u.entries--; u.entries < 0 {
			return errTooMany
		}
		content := &io.LimitedReader{R: r, N: size}
		if err := u.ram.add(path.Clean("/"+name), content); err != nil {
			return err
		}
		// int64 all the way, since a size of 32 bits is more than an int of 32 bits holds.
		rest := content.N + -size&3
		if n, err := io.CopyN(io.Discard, r, rest); err != nil {
			return fmt.Errorf("%s ends after %d of %d bytes: %w", quoted(name), size-rest+n, size, eofUnexpected(err))
		}
	}
}

// cpioHeader reads the header of a file in an archive and its name, with what
// pads them. The header is a magic number of 6 digits and 13 numbers of 8
// hexadecimal digits each.
func cpioHeader(r *bufio.Reader) (name string, size int64, err error) {
	const (
		headerSize = 6 + 13*8
		sizeAt     = 6 + 6*8
		nameSizeAt = 6 + 11*8
	)
	var buf [headerSize]byte
	if _, err := io.ReadFull(r, buf[:]); err != nil {
		return "", 0, err
	}
	header := string(buf[:])
	if !strings.HasPrefix(header, "070701") && !strings.HasPrefix(header, "070702") {
		return "", 0, fmt.Errorf("an archive of another kind than newc, or damaged: %w", errFormat)
	}
	length, err := strconv.ParseUint(header[sizeAt:sizeAt+8], 16, 32)
	if err != nil {
		return "", 0, fmt.Errorf("a file in the archive: %w", errFormat)
	}
	nameSize, err := strconv.ParseUint(header[nameSizeAt:nameSizeAt+8], 16, 32)
	if err != nil || nameSize == 0 || nameSize > maxPath {
		return "", 0, fmt.Errorf("a name in the archive: %w", errFormat)
	}
	padded := nameSize + -(headerSize+nameSize)&3
	text := make([]byte, padded)
	if _, err := io.ReadFull(r, text); err != nil {
		return "", 0, err
	}
	name, _, _ = strings.Cut(string(text[:nameSize]), "\x00")
	return name, int64(length), nil
}

// add takes note of a file.
func (i *initramfs) add(p string, content io.Reader) error {
	base := path.Base(p)
	switch base {
	case "nfsmount", "nfsroot", "mount.nfs", "parse-nfsroot.sh": // klibc's and busybox's; dracut's
		i.nfsMount = true
	}
	if strings.HasSuffix(base, "-parse-nfsroot.sh") {
		i.nfsMount = true
	}
	rest, ok := strings.CutPrefix(strings.TrimPrefix(p, "/usr"), "/lib/modules/")
	release, below, more := strings.Cut(rest, "/")
	if !ok || !more {
		return nil
	}
	if below == "modules.builtin" {
		return readBuiltin(content, i.builtin)
	}
	name, ok := moduleName(base)
	if !ok {
		return nil
	}
	// An archive may have any number of names, of any length, so few are kept.
	const mostReleases = 64
	if name == "nfs" || name == "nfsv3" || name == "overlay" {
		i.modules[name] = true
	}
	if len(release) < maxRelease && len(i.releases) < mostReleases {
		i.releases[release] = true
	}
	i.network = i.network || isNetworkDriver(below)
	return nil
}

// moduleName returns the name of the module in a file.
func moduleName(file string) (string, bool) {
	name, rest, ok := strings.Cut(file, ".ko")
	return strings.ReplaceAll(name, "-", "_"), ok && (rest == "" || rest[0] == '.')
}

// isNetworkDriver reports whether a module, by its path, is the driver of a card
// with a cable, or of one that a hypervisor has.
func isNetworkDriver(p string) bool {
	_, p, ok := strings.Cut("/"+p, "/drivers/net/")
	if !ok {
		return false
	}
	for _, prefix := range []string{"ethernet/", "usb/", "virtio_net.", "vmxnet3/", "hyperv/", "xen-netfront."} {
		if strings.HasPrefix(p, prefix) {
			return true
		}
	}
	return false
}

// builtinNetwork is how readBuiltin says that a network driver is in the kernel;
// no module has that name.
const builtinNetwork = "/network"

// maxBuiltin is how many modules are taken note of that a kernel has built in, of
// several lists: several times what any has.
const maxBuiltin = 1 << 14

// readBuiltin reads a list of the modules that are in the kernel itself.
func readBuiltin(r io.Reader, into map[string]bool) error {
	const maxName = 59 // MODULE_NAME_LEN in linux/module.h where it is largest, less what ends it
	lines := bufio.NewScanner(io.LimitReader(r, maxConfig))
	lines.Buffer(nil, maxPath)
	for lines.Scan() {
		name, ok := moduleName(path.Base(lines.Text()))
		if ok && len(name) <= maxName && len(into) < maxBuiltin-1 {
			into[strings.Clone(name)] = true
			into[builtinNetwork] = into[builtinNetwork] || isNetworkDriver(lines.Text())
		}
	}
	if err := lines.Err(); !errors.Is(err, bufio.ErrTooLong) {
		return err
	}
	return nil
}
