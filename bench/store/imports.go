package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/rootnfsd/rootnfsd/bench"
)

// Names of what is measured.
const (
	benchImport = "import"
	alone       = "decompressor alone"
	toFile      = "decompressor, to a synced file"
)

// Imports measures importing what is compressed, in turn with the program that takes
// the compression off and does nothing else. All that it makes is below one directory,
// and is removed when it has been measured.
type Imports struct {
	// Program is the path of rootnfsd.
	Program string
	// Dir is the directory to work in: its disk is what is measured.
	Dir string
	// Sources are compressed files. They are only read.
	Sources []string
	// Tree is a golden tree of which archives and an image are made, besides. It is only
	// read, and may be empty.
	Tree string
	// Runs is how often everything is repeated.
	Runs int

	// Say is told what is being done, and Note what is worth a line of its own.
	Say, Note func(string)
}

// decompressors are programs that take compressions off, by what these begin with. Xz
// would use all processors if it could.
var decompressors = []struct {
	magic string
	args  []string
}{
	{"\x1f\x8b", []string{"gzip", "-dc"}},
	{"BZh", []string{"bzip2", "-dc"}},
	{"\xfd7zXZ\x00", []string{"xz", "-dc", "-T1"}},
	{"\x28\xb5\x2f\xfd", []string{"zstd", "-dcq"}},
}

// recipes are what is made of a tree, $1, as it is published: archives, and the image of
// a disk. What is compressed is $2, and is left in $3.
var recipes = []struct{ work, source, script string }{
	{"tar.zst", "tar", `zstd -q -c "$2" >"$3"`},
	{"tar.gz", "tar", `gzip -c "$2" >"$3"`},
	{"tar.xz", "tar", `xz -T0 -c "$2" >"$3"`},
	{"tar.xz, of one block", "tar", `xz -T1 -c "$2" >"$3"`},
	{"img.zst", "img", `zstd -q -c "$2" >"$3"`},
	{"img.xz", "img", `xz -T0 -c "$2" >"$3"`},
}

// bases are what is compressed, $2, and made of the tree $1.
var bases = map[string]string{
	"tar": `tar --numeric-owner --xattrs --xattrs-include='*' --format=pax -cf "$2" -C "$1" .`,
	"img": `mkfs.ext4 -q -F -d "$1" "$2" $(($(du -sm "$1" | cut -f1) * 3 / 2 + 64))M`,
}

// Check refuses what cannot be measured.
func (b *Imports) Check() error {
	switch {
	case b.Runs < 1:
		return errors.New("there must be at least one run")
	case b.Tree == "" && len(b.Sources) == 0:
		return errors.New("there is nothing to import: name a compressed archive or image, or a tree")
	}
	return nil
}

// About says what is measured.
func (b *Imports) About() map[string]string {
	var programs []string
	for _, d := range decompressors {
		if version := firstLine(d.args[0], "--version"); version != "" { // bzip2 says nothing there
			programs = append(programs, version)
		}
	}
	return map[string]string{
		ours:   firstLine(b.Program, "--version"),
		alone:  "into /dev/null: " + strings.Join(programs, "; "),
		toFile: "the same into a new file, and sync -f",
		"disk": diskOf(b.Dir),
	}
}

// Run adds the results to a report.
func (b *Imports) Run(ctx context.Context, report *bench.Report) error {
	return inDir(b.Dir, b.Say, b.Note, func(dir string) error {
		for _, source := range b.Sources {
			if err := b.source(ctx, dir, filepath.Base(source), source, report); err != nil {
				return err
			}
		}
		if b.Tree == "" {
			return nil
		}
		for _, r := range recipes {
			if err := b.recipe(ctx, dir, r.work, r.source, r.script, report); err != nil {
				return err
			}
		}
		return nil
	})
}

// recipe measures what a script makes of the tree.
func (b *Imports) recipe(ctx context.Context, dir, work, base, script string, report *bench.Report) error {
	b.Say("making " + work)
	from, source := filepath.Join(dir, base), filepath.Join(dir, "source")
	if _, err := os.Stat(from); errors.Is(err, os.ErrNotExist) {
		if err := shell(ctx, bases[base], b.Tree, from); err != nil {
			return err
		}
	}
	if err := shell(ctx, script, b.Tree, from, source); err != nil {
		return err
	}
	if err := b.source(ctx, dir, work, source, report); err != nil {
		return err
	}
	return os.Remove(source)
}

func shell(ctx context.Context, script string, args ...string) error {
	_, err := run(ctx, "sh", append([]string{"-ec", script, "sh"}, args...)...)
	return err
}

// source measures one file.
func (b *Imports) source(ctx context.Context, dir, work, source string, report *bench.Report) error {
	decompress, err := decompressor(source)
	if err != nil {
		return err
	}
	i := &importing{b, dir, source, append(decompress, source), 0}
	if i.bytes, err = i.size(ctx); err != nil {
		return err
	}
	ways := []struct {
		server  string
		measure func(context.Context) (bench.Run, error)
	}{{ours, i.imported}, {alone, i.alone}, {toFile, i.toFile}}
	for n := range b.Runs {
		b.Say(fmt.Sprintf("importing %s: run %d of %d", work, n+1, b.Runs))
		for k := range ways {
			way := ways[(n+k)%len(ways)] // who is first differs
			if err := syncDisk(dir); err != nil {
				return err
			}
			r, err := way.measure(ctx)
			if err != nil {
				return err
			}
			r.Bytes = i.bytes
			report.Add(bench.Case{Bench: benchImport, Work: work, Server: way.server}, r)
		}
	}
	return nil
}

// decompressor returns the command that takes the compression off a file, but for its
// name.
func decompressor(path string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var start [8]byte
	if _, err := io.ReadFull(f, start[:]); err != nil && err != io.ErrUnexpectedEOF && err != io.EOF {
		return nil, err
	}
	for _, d := range decompressors {
		if strings.HasPrefix(string(start[:]), d.magic) {
			return append([]string(nil), d.args...), nil
		}
	}
	return nil, fmt.Errorf("%s: it is not compressed by gzip, bzip2, xz or zstd, so there is nothing to compare with", path)
}

// importing is a file that is imported, and unpacked.
type importing struct {
	*Imports
	dir        string
	source     string
	decompress []string
	bytes      uint64 // in it
}

// size returns how much is in the file, which is read for that, so that the first run is
// no colder than the others.
func (i *importing) size(ctx context.Context) (uint64, error) {
	cmd := exec.CommandContext(ctx, i.decompress[0], i.decompress[1:]...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	n, err := io.Copy(io.Discard, out)
	return uint64(n), errors.Join(err, cmd.Wait())
}

func (i *importing) imported(ctx context.Context) (bench.Run, error) {
	store := filepath.Join(i.dir, "images")
	if err := os.Mkdir(store, 0o755); err != nil {
		return bench.Run{}, err
	}
	r, err := run(ctx, i.Program, "import", i.source, "v1", "--export", store)
	return r, errors.Join(err, remove(store))
}

func (i *importing) alone(ctx context.Context) (bench.Run, error) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return bench.Run{}, err
	}
	defer null.Close()
	return runTo(ctx, null, i.decompress[0], i.decompress[1:]...)
}

func (i *importing) toFile(ctx context.Context) (r bench.Run, err error) {
	path := filepath.Join(i.dir, "plain")
	begun := time.Now()
	f, err := os.Create(path)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, f.Close(), remove(path)) }()
	if r, err = runTo(ctx, f, i.decompress[0], i.decompress[1:]...); err != nil {
		return r, err
	}
	err = f.Sync()
	r.Wall = time.Since(begun)
	return r, err
}
