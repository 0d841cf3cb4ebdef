package lint

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz/lzma"

	"github.com/rootnfsd/rootnfsd/fs/fstab"
)

// tool runs a program over input. A program that is missing skips the test, but
// not where all tests must run.
func tool(t *testing.T, input string, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		if os.Getenv("ROOTNFSD_TEST_ALL") != "" {
			t.Fatalf("nothing may be left out (ROOTNFSD_TEST_ALL is set): %v", err)
		}
		t.Skip(err)
	}
	cmd := exec.Command(name, args...)
	cmd.Stdin, cmd.Stderr = strings.NewReader(input), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", cmd, err)
	}
	return string(out)
}

// compressors are how initramfs and kernels are packed.
func compressors() map[string][]string {
	return map[string][]string{
		"gzip": {"gzip", "-9"}, "xz": {"xz", "--check=crc32"}, "xz in blocks": {"xz", "--block-size=65536"}, "xz without check": {"xz", "-C", "none"},
		"zstd": {"zstd", "-q"}, "lz4": {"lz4", "-q", "-l"}, "lz4 frames": {"lz4", "-q"}, "lzma": {"xz", "--format=lzma"},
	}
}

// TestInitramfsFormats reads an initramfs that the usual programs have packed:
// microcode in front of it, modules in an archive of their own, padding between.
func TestInitramfsFormats(t *testing.T) {
	modules, rest := ramdisk("6.1").without("bin/"), ramdisk("6.1").without("modules")
	rest["usr/bin/large"] = strings.Repeat("0123456789abcdef", 20_000) // several blocks
	early := cpio(files{"kernel/x86/microcode/GenuineIntel.bin": "\x01\x00\x00\x00"})
	for name, c := range compressors() {
		t.Run(name, func(t *testing.T) {
			packed := tool(t, cpio(rest), c[0], c[1:]...)
			got, err := readInitramfs(strings.NewReader(early + strings.Repeat("\x00", 512) + cpio(modules) + strings.Repeat("\x00", 256) + packed))
			if err != nil {
				t.Fatal(err)
			}
			if !got.nfsMount || !got.network || !got.modules["overlay"] || !got.modules["nfsv3"] || !got.releases["6.1"] || !got.builtin["ext4"] {
				t.Errorf("reads %+v", got)
			}
			if got, err := readInitramfs(strings.NewReader(packed)); err != nil || !got.nfsMount || got.network {
				t.Errorf("alone it is %+v, %v", got, err)
			}
			if _, err := readInitramfs(strings.NewReader(packed[:len(packed)/2])); err == nil {
				t.Error("half of it is read without an error")
			}
		})
	}
}

// TestInitramfsAfterGzip reads what follows a compressed archive, where it is
// known where that ends.
func TestInitramfsAfterGzip(t *testing.T) {
	for _, c := range [][]string{{"gzip"}, {"zstd", "-q"}, {"xz", "--check=crc32"}} {
		first, second := tool(t, cpio(files{"init": "x"}), c[0], c[1:]...), tool(t, cpio(ramdisk("6.1")), c[0], c[1:]...)
		got, err := readInitramfs(strings.NewReader(first + second))
		if err != nil || !got.nfsMount || !got.network {
			t.Errorf("two archives by %s: %+v, %v", c[0], got, err)
		}
	}
}

// TestInitramfsBounds refuses what would unpack to more than there should be.
func TestInitramfsBounds(t *testing.T) {
	large := tool(t, cpio(files{"large": strings.Repeat("\x00", 1<<20)}), "gzip")
	u := unpacker{unpacked: 1 << 19, entries: 10, ram: &initramfs{}}
	if err := u.read(bufio.NewReader(strings.NewReader(large)), 0); err == nil || !strings.Contains(err.Error(), "unpacks to more") {
		t.Errorf("unpacks too much: %v", err)
	}
	many := files{}
	for _, name := range strings.Split("abcdefghijkl", "") {
		many[name] = ""
	}
	for _, archive := range []string{cpio(many), tool(t, cpio(many), "gzip")} {
		u = unpacker{unpacked: 1 << 19, entries: 10, ram: &initramfs{}}
		if err := u.read(bufio.NewReader(strings.NewReader(archive)), 0); err != errTooMany {
			t.Errorf("too many files: %v; want %v", err, errTooMany)
		}
	}
	// A dictionary of 4 GiB, and a file of 4 GiB in an archive that ends behind its header.
	hugeDict := "\xfd7zXZ\x00\x00\x01\x69\x22\xde\x36" + "\x02\x00\x21\x01\x28\x00\x00\x00\x00\x00\x00\x00"
	if _, err := readInitramfs(strings.NewReader(hugeDict)); err == nil || !strings.Contains(err.Error(), "a dictionary of 4294967295 bytes") {
		t.Errorf("a huge dictionary: %v", err)
	}
	hugeFile := cpio(files{"x": ""})
	hugeFile = hugeFile[:54] + "ffffffff" + hugeFile[62:]
	for _, s := range []string{hugeDict, hugeFile, "\x5d\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "07070", "", "\x00\x00"} {
		if _, err := readInitramfs(strings.NewReader(s)); err == nil {
			t.Errorf("%q is read without an error", s)
		}
	}
}

// TestKernelFormats reads the release out of kernels as they are packed.
func TestKernelFormats(t *testing.T) {
	const want = "6.6.31+rpt-rpi-v8"
	image := arm64Image(want)
	gz := tool(t, image, "gzip")
	zboot := "MZ\x00\x00zimg\x00\x10\x00\x00" + strings.Repeat("\x00", 4096-12) + gz
	zImage := strings.Repeat("\x00", 0x24) + "\x18\x28\x6f\x01" + strings.Repeat("\x1f\x8b\x07", 1000) + tool(t, image, "gzip", "-n")
	kernels := map[string]string{"bzImage": bzImage(want), "Image": image, "EFI": zboot, "zImage": zImage}
	for name, c := range compressors() {
		kernels["Image by "+name] = tool(t, image, c[0], c[1:]...)
	}
	for name, k := range kernels {
		if got, err := kernelRelease(strings.NewReader(k)); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
	}
	for name, k := range map[string]string{
		"nothing": "", "zeros": strings.Repeat("\x00", 1<<20), "cut": bzImage(want)[:0x20f], "outside": bzImage(want)[:0x600], "half": gz[:len(gz)/2],
		"a path": bzImage("6.1/../../etc"), "no end": bzImage(strings.Repeat("6", 100)), "EFI, cut": zboot[:4096], "control": bzImage("6.1\x1b[2J"),
	} {
		if got, err := kernelRelease(strings.NewReader(k)); err == nil {
			t.Errorf("%s: %q; want an error", name, got)
		}
	}
	for at := windowSize - 100; at <= windowSize; at++ { // where one window ends and the next begins
		k := strings.Repeat("\x00", at) + "Linux version " + want + " (x)" + strings.Repeat("\x00", windowSize)
		if got, err := kernelRelease(strings.NewReader(k)); err != nil || got != want {
			t.Fatalf("at %d: %q, %v; want %q", at, got, err, want)
		}
	}
}

// TestHost looks at a real kernel and initramfs, those of this machine if it
// has any.
func TestHost(t *testing.T) {
	kernels, err := filepath.Glob("/boot/vmlinuz-*")
	if len(kernels) == 0 || err != nil {
		t.Skip("this machine has no kernel")
	}
	f, err := os.Open(kernels[0])
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	if got, err := kernelRelease(f); err != nil || !strings.HasSuffix(kernels[0], "-"+got) {
		t.Errorf("%s: %q, %v", kernels[0], got, err)
	}
}

// TestBuiltinBounds keeps no more names of modules than a kernel could have, and none
// that are longer than a kernel takes.
func TestBuiltinBounds(t *testing.T) {
	var list strings.Builder
	fmt.Fprintf(&list, "kernel/%s.ko\nkernel/%s.ko\n", strings.Repeat("x", 59), strings.Repeat("x", 60))
	for i := range 2 * maxBuiltin {
		fmt.Fprintf(&list, "%d.ko\n", i)
	}
	into := map[string]bool{}
	for range 2 {
		if err := readBuiltin(strings.NewReader(list.String()), into); err != nil {
			t.Fatal(err)
		}
	}
	if len(into) > maxBuiltin || len(into) < maxBuiltin/2 || !into[strings.Repeat("x", 59)] || into[strings.Repeat("x", 60)] {
		t.Errorf("%d modules", len(into))
	}
}

// FuzzInitramfs reads what may be in any format that is known.
func FuzzInitramfs(f *testing.F) {
	archive := []byte(cpio(ramdisk("6.1")))
	f.Add(archive)
	for _, open := range []func(io.Writer) (io.WriteCloser, error){
		func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil },
		func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) },
		func(w io.Writer) (io.WriteCloser, error) { return lz4.NewWriter(w), nil },
		func(w io.Writer) (io.WriteCloser, error) {
			z := lz4.NewWriter(w)
			return z, z.Apply(lz4.LegacyOption(true))
		},
		func(w io.Writer) (io.WriteCloser, error) { return lzma.NewWriter(w) },
	} {
		var b bytes.Buffer
		z, err := open(&b)
		if err != nil {
			f.Fatal(err)
		}
		if _, err := z.Write(archive); err != nil {
			f.Fatal(err)
		}
		if err := z.Close(); err != nil {
			f.Fatal(err)
		}
		if got, err := readInitramfs(bytes.NewReader(b.Bytes())); err != nil || !got.nfsMount {
			f.Fatalf("%x: %+v, %v", b.Bytes()[:4], got, err)
		}
		f.Add(b.Bytes())
	}
	f.Add([]byte("\xfd7zXZ\x00\x00\x01\x69\x22\xde\x36\x02\x00\x21\x01\x16\x00\x00\x00\x74\x2f\xe5\xa3\x01\x00\x05070701\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		u := unpacker{unpacked: 1 << 20, entries: 1000, ram: &initramfs{modules: map[string]bool{}, releases: map[string]bool{}, builtin: map[string]bool{}}}
		if err := u.read(bufio.NewReader(bytes.NewReader(b)), 0); err == nil && u.archives > len(b)/110 && compressionOf(b) == nil {
			t.Errorf("%d archives in %d bytes", u.archives, len(b))
		}
	})
}

func FuzzKernelRelease(f *testing.F) {
	f.Add([]byte(bzImage("6.1")))
	f.Add([]byte("Linux version 6.1 (x)"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if compressionOf(b) != nil {
			return // these are slow, and fuzzed above
		}
		got, err := kernelRelease(bytes.NewReader(b))
		if err == nil && (got == "" || len(got) >= maxRelease || strings.ContainsAny(got, "/ \x00\n\x1b")) {
			t.Errorf("release %q", got)
		}
	})
}

func FuzzFstab(f *testing.F) {
	f.Add("PARTUUID=1-01 /boot\\040x vfat defaults,nofail 0 2\n# x\nproc /proc proc\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, m := range fstab.Parse(text) {
			onDisk(&m)
		}
		parseSections(strings.Split(text, "\n"))
		unmanagesWired(text)
	})
}
