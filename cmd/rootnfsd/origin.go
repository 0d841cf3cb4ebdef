package main

import (
	"archive/tar"
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"sync/atomic"

	"github.com/go-git/go-billy/v5"
	"golang.org/x/term"

	"github.com/rootnfsd/rootnfsd/fs/source"
	"github.com/rootnfsd/rootnfsd/fs/source/compressed"
	"github.com/rootnfsd/rootnfsd/fs/source/disk"
	"github.com/rootnfsd/rootnfsd/fs/source/oci"
	"github.com/rootnfsd/rootnfsd/fs/source/tarball"
)

// origin is what a version can be imported from: a tree, or something that fills a sink.
type origin struct {
	tree     billy.Filesystem
	fill     func(source.Sink) error
	warnings []string                    // about what is not in the tree
	progress func() (done, total uint64) // nil if the store knows better
	closers  []io.Closer
}

func (o *origin) close() {
	for _, c := range o.closers {
		c.Close()
	}
}

// spooler copies a stream, which is read by way of a counter, into a file without a name.
type spooler func(io.Reader, *counter) (*os.File, error)

// openOrigin finds out what an argument names.
func openOrigin(ctx context.Context, arg, platform string, spool spooler) (*origin, error) {
	if arg == "-" {
		if err := refuseTerminal(os.Stdin, term.IsTerminal); err != nil {
			return nil, err
		}
		return openStream(ctx, os.Stdin, platform, spool)
	}
	info, err := os.Stat(arg)
	switch {
	case errors.Is(err, os.ErrNotExist) && strings.Contains(arg, "@"):
		return openVersion(arg)
	case err != nil:
		return nil, err
	case info.IsDir():
		return openTree(ctx, arg, platform)
	}
	f, err := os.Open(arg)
	if err != nil {
		return nil, err
	}
	o, err := openStream(ctx, f, platform, spool)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", arg, err)
	}
	o.closers = append(o.closers, f)
	return o, nil
}

// openVersion opens a version of another store.
func openVersion(arg string) (*origin, error) {
	at := strings.LastIndex(arg, "@")
	s, err := openStore(arg[:at])
	if err != nil {
		return nil, err
	}
	info, err := s.info(arg[at+1:])
	if err != nil {
		return nil, err
	}
	v, err := s.Open(info.Name)
	if err != nil {
		return nil, explainPermission(err)
	}
	return &origin{tree: v.Filesystem()}, nil
}

// openTree opens a directory: that of a container image, or a tree.
func openTree(ctx context.Context, dir, platform string) (*origin, error) {
	i, err := oci.OpenDir(dir, platform)
	if err == nil {
		return imageOrigin(ctx, i), nil
	}
	if !errors.Is(err, oci.ErrNoImage) {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	src, err := source.OpenDir(dir)
	if err != nil {
		return nil, err
	}
	return &origin{tree: src, closers: []io.Closer{src}}, nil
}

func imageOrigin(ctx context.Context, i *oci.Image) *origin {
	return &origin{fill: func(to source.Sink) error { return i.Read(ctx, to) }, progress: i.Progress}
}

// counter counts what is read of a file or a pipe.
type counter struct {
	r     io.Reader
	n     atomic.Uint64
	total uint64 // how much there is, 0 if that is not known
}

func (c *counter) progress() (done, total uint64) { return c.n.Load(), c.total }

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n.Add(uint64(n))
	return n, err
}

// sniffSize is how much of a stream its kind is told by.
const sniffSize = 4096

// openStream finds out what is in a file or a pipe.
func openStream(ctx context.Context, f *os.File, platform string, spool spooler) (*origin, error) {
	counted := &counter{r: f}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	regular := info.Mode().IsRegular()
	if regular {
		counted.total = uint64(info.Size())
	}
	plain, format, err := compressed.Open(counted)
	if err != nil {
		return nil, err
	}
	in := compressed.Ahead(ctx, plain)
	start, err := in.Peek(sniffSize)
	if err != nil {
		return nil, err
	}
	start = bytes.Clone(start) // for what is asked of it when more was read
	if !isTar(start) && isDisk(start) {
		if regular && format == "" {
			return diskOrigin(f)
		}
		return unpackedDisk(in, counted, spool)
	}
	if !isTar(start) {
		return nil, notTar(start, format)
	}
	o := &origin{fill: func(to source.Sink) error { return tarball.Read(in, to) }}
	if regular {
		o.progress = counted.progress
		if format == "" {
			return archiveOrigin(ctx, o, f, start, platform)
		}
	}
	if !oci.MayBegin(nameIn(start)) {
		return o, nil
	}
	// What an image consists of is said behind it, or before it, in any order.
	temp, err := spool(in, counted)
	if err != nil {
		return nil, err
	}
	o.fill = func(to source.Sink) error { return tarball.Read(io.NewSectionReader(temp, 0, 1<<62), to) }
	o.closers = append(o.closers, temp)
	return archiveOrigin(ctx, o, temp, start, platform)
}

// archiveOrigin is the image in a file, or o if there is none.
func archiveOrigin(ctx context.Context, o *origin, f *os.File, start []byte, platform string) (*origin, error) {
	if !oci.MayBegin(nameIn(start)) {
		return o, nil
	}
	i, err := oci.OpenArchive(f, platform)
	if errors.Is(err, oci.ErrNoImage) {
		return o, nil
	}
	if err != nil {
		return nil, err
	}
	image := imageOrigin(ctx, i)
	image.closers = o.closers
	return image, nil
}

const tarHeader = 512

// isTar reports whether a file begins as an archive does: with a header whose sum is
// right, or with nothing.
func isTar(b []byte) bool {
	if len(b) < tarHeader {
		return false
	}
	const at, end = 148, 156
	var want, sum int64
	for _, c := range bytes.Trim(b[at:end], " \x00") {
		if c < '0' || c > '7' {
			return false
		}
		want = want<<3 | int64(c-'0')
	}
	for i, c := range b[:tarHeader] {
		if i >= at && i < end {
			c = ' '
		}
		sum += int64(c)
	}
	return sum == want
}

// nameIn is the name of the first entry that is neither the root nor a remark about all,
// in an archive of which this is the start. It is "" if that does not reach so far.
func nameIn(start []byte) string {
	for t := tar.NewReader(bytes.NewReader(start)); ; {
		h, err := t.Next()
		if err != nil {
			return ""
		}
		if h.Typeflag != tar.TypeXGlobalHeader && path.Clean(h.Name) != "." {
			return h.Name
		}
	}
}

// notTar says what a file seems to be that is no archive.
func notTar(b []byte, format string) error {
	if err := disk.Refused(b); err != nil {
		return err
	}
	for _, k := range []struct{ magic, what string }{
		{"-----BEGIN PGP MESSAGE", "it is encrypted (OpenPGP): decrypt it with gpg first"},
		{"age-encryption.org/", "it is encrypted (age): decrypt it first"},
		{"Salted__", "it is encrypted (openssl): decrypt it first"},
		{"7z\xbc\xaf\x27\x1c", "it is a 7-Zip archive: unpack it first"},
	} {
		if bytes.HasPrefix(b, []byte(k.magic)) {
			return errors.New(k.what)
		}
	}
	switch {
	case len(b) == 0:
		return errors.New("it is empty")
	case bytes.HasPrefix(b, []byte("PK\x03\x04")) && len(b) > 6 && b[6]&1 != 0:
		return errors.New("it is an encrypted zip archive: unpack it first")
	case bytes.HasPrefix(b, []byte("PK\x03\x04")):
		return errors.New("it is a zip archive: unpack it first (bsdtar --format pax -cf - @FILE.zip makes a tar of it)")
	case b[0] == 0x84 || b[0] == 0x85 || b[0] == 0x8c || b[0] == 0xc1 || b[0] == 0xc3:
		return errors.New("it seems to be encrypted (OpenPGP): decrypt it with gpg first")
	case format != "":
		return fmt.Errorf("what is in it, compressed by %s, is neither a tar archive nor a container image", format)
	}
	return errors.New("it is neither a tar archive nor a container image")
}

// machines are names of ELF machines as Debian has them.
var machines = map[elf.Machine]string{
	elf.EM_AARCH64: "arm64", elf.EM_ARM: "arm", elf.EM_X86_64: "amd64", elf.EM_386: "i386", elf.EM_RISCV: "riscv64",
}

// elfMachine is for which machines a program is, "" if it is none.
func elfMachine(f billy.File) string {
	var b [20]byte
	if _, err := f.ReadAt(b[:], 0); err != nil || string(b[:4]) != elf.ELFMAG || b[5] != byte(elf.ELFDATA2LSB) {
		return ""
	}
	m := elf.Machine(uint16(b[18]) | uint16(b[19])<<8)
	if name := machines[m]; name != "" {
		return name
	}
	return m.String()
}
