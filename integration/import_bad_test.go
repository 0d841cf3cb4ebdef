package integration

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// smallDisk mounts a file system in memory of some bytes, and makes a store in it.
func smallDisk(t *testing.T, size string) (store string) {
	t.Helper()
	store = newStore(t, nil)
	if err := syscall.Mount("tmpfs", store, "tmpfs", 0, "size="+size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(store, 0); err != nil {
			t.Error(err)
		}
	})
	write(t, filepath.Join(store, "v1/etc/hostname"), "node\n")
	cli(t, "seal", "v1", "--export="+store)
	return store
}

// used is how many blocks of a file system are in use.
func used(t *testing.T, dir string) uint64 {
	t.Helper()
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	return fs.Blocks - fs.Bfree
}

// expectUntouched does something, after which the store is as it was.
func expectUntouched(t *testing.T, store string, do func()) {
	t.Helper()
	before := list(t, store)
	do()
	if after := list(t, store); !slices.Equal(after, before) {
		t.Errorf("the store was\n%q\nand is\n%q", before, after)
	}
}

// expectNoRoomTaken is expectUntouched for a store that has a disk for itself.
func expectNoRoomTaken(t *testing.T, store string, do func()) {
	t.Helper()
	before := used(t, store)
	expectUntouched(t, store, do)
	if after := used(t, store); after > before {
		t.Errorf("%d blocks of the disk are in use, and were %d", after, before)
	}
}

// TestImportNoSpace imports more than there is room for.
func TestImportNoSpace(t *testing.T) {
	require(t, "tar", "mkfs.ext4", "zstd")
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	write(t, in("root/etc/large"), randomBytes(12<<20))
	program(t, "tar", "-cf", in("tar"), "-C", in("root"), ".")
	program(t, "mkfs.ext4", "-q", "-d", in("root"), in("img"), "24M")
	program(t, "zstd", "-q", in("img"), "-o", in("img.zst"))
	store := smallDisk(t, "8m")
	expectNoRoomTaken(t, store, func() {
		for _, source := range []string{"tar", "img", "img.zst", "root"} {
			expectFailure(t, []string{"import", in(source), "v2", "--export=" + store}, "nothing was changed", "no space left", "free")
		}
	})
	cli(t, "verify", "--export="+store)
}

// compress packs each part by itself and puts them one behind the other, as all
// compressors allow; zeros of many megabytes come out for little work that way.
func compress(t *testing.T, compressor, to string, first []byte, more int) {
	t.Helper()
	var all bytes.Buffer
	part := func(b []byte) []byte {
		cmd := exec.Command("sh", "-c", compressor)
		cmd.Stdin = bytes.NewReader(b)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v", compressor, err)
		}
		return out
	}
	all.Write(part(first))
	all.Write(bytes.Repeat(part(make([]byte, bombPart)), more))
	write(t, to, all.String())
}

const bombPart = 32 << 20

// TestImportBombs: what is small and becomes large is refused, and takes no room before.
func TestImportBombs(t *testing.T) {
	require(t, "mkfs.ext4", "xz", "zstd", "gzip")
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	store := smallDisk(t, "8m")
	disk := make([]byte, bombPart)
	disk[510], disk[511] = 0x55, 0xAA
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "zeros", Mode: 0o644, Size: 4 << 40}); err != nil {
		t.Fatal(err)
	}
	expectNoRoomTaken(t, store, func() {
		for _, compressor := range []string{"gzip -1", "zstd -1", "xz -0"} {
			compress(t, compressor, in("bomb"), archive.Bytes(), 1)
			expectFailure(t, []string{"import", in("bomb"), "v2", "--export=" + store}, "nothing was changed", "larger in all", "--max-size")
			if compressor == "xz -0" {
				continue // which takes a while
			}
			compress(t, compressor, in("bomb"), disk, 32) // 1 GiB, and a bit
			expectFailure(t, []string{"import", in("bomb"), "v2", "--max-size=1", "--export=" + store}, "nothing was changed", "there are more than 1.1 GB", "--max-size")
		}
		// A file system that is small itself, with files that are not.
		write(t, in("root/etc/zeros"), "")
		if err := os.Truncate(in("root/etc/zeros"), 1<<40); err != nil {
			t.Fatal(err)
		}
		program(t, "mkfs.ext4", "-q", "-d", in("root"), in("img"), "8M")
		expectFailure(t, []string{"import", in("img"), "v2", "--max-size=1023", "--export=" + store}, "nothing was changed", "larger in all")
	})
}

// TestImportEncrypted: what is encrypted is refused, with what to do.
func TestImportEncrypted(t *testing.T) {
	require(t, "tar", "bsdtar", "mkfs.ext4", "cryptsetup", "gpg", "gpg-agent", "gpgconf", "sfdisk")
	store := newStore(t, map[string]files{"v1": smallTree})
	at := "--export=" + store
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	program(t, "tar", "-cf", in("tar"), "-C", filepath.Join(store, "v1"), ".")
	write(t, in("key"), "secret")
	home := in("gnupg")
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program(t, "gpgconf", "--homedir", home, "--kill", "gpg-agent") })
	encrypt := []string{"--homedir", home, "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase-file", in("key"), "--s2k-count", "1024", "--symmetric"}
	program(t, "gpg", append(encrypt, "--output", in("tar.gpg"), in("tar"))...)
	program(t, "gpg", append(encrypt, "--output", in("tar.asc"), "--armor", in("tar"))...)
	for kind, name := range map[string]string{"luks1": "luks1", "luks2": "luks"} {
		write(t, in(name), "")
		if err := os.Truncate(in(name), 20<<20); err != nil {
			t.Fatal(err)
		}
		program(t, "cryptsetup", "luksFormat", "--batch-mode", "--type", kind, "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", in(name), in("key"))
	}
	program(t, "sh", "-ec", `truncate -s 22M "$2"; printf 'label: gpt\nstart=2048, size=40960\n' | sfdisk -q "$2"; dd if="$1" of="$2" bs=1M seek=1 conv=notrunc,sparse 2>&1`, "sh", in("luks"), in("disk"))
	program(t, "bsdtar", "--format=zip", "--options=zip:encryption=aes256", "--passphrase=secret", "-cf", in("zip"), "-C", filepath.Join(store, "v1/etc"), "hostname")
	program(t, "mkfs.ext4", "-q", "-O", "encrypt", in("fscrypt"), "4M")
	for source, want := range map[string][]string{
		"tar.gpg": {"encrypted", "gpg"}, "tar.asc": {"encrypted", "gpg"}, "zip": {"encrypted zip"}, "fscrypt": {"encrypt", "mount it"}, "luks": {"LUKS", "cryptsetup"},
		"luks1": {"LUKS", "cryptsetup"}, "disk": {"partition 1", "LUKS", "cryptsetup"},
	} {
		expectFailure(t, []string{"import", in(source), "v2", at}, append(want, "nothing was changed")...)
	}
}

// TestImportMachine: a warning says when the programs are for other machines than the
// store's.
func TestImportMachine(t *testing.T) {
	require(t, "tar")
	store := newStore(t, map[string]files{"v1": smallTree})
	at := "--export=" + store
	program(t, "cp", "/bin/sh", filepath.Join(store, "v1/usr/bin/sh"))
	cli(t, "seal", "v1", at)
	dir := t.TempDir()
	program(t, "cp", "-a", filepath.Join(store, "v1"), dir)
	sh := filepath.Join(dir, "v1/usr/bin/sh")
	for _, c := range []struct {
		machine uint16
		warning string
	}{{0, ""}, {0xF3, "is for riscv64, but v1 for "}} {
		if c.machine != 0 {
			program := read(t, sh)
			binary.LittleEndian.PutUint16(program[18:], c.machine)
			write(t, sh, string(program))
		}
		program(t, "tar", "-cf", dir+"/tar", "-C", filepath.Join(dir, "v1"), ".")
		got := cliJSON[importOutput](t, "import", dir+"/tar", "v2", at).Warnings
		if (len(got) > 0) != (c.warning != "") || !strings.Contains(strings.Join(got, ""), c.warning) {
			t.Errorf("machine %#x: warnings %q; want %q", c.machine, got, c.warning)
		}
	}
}

// TestImportStopped stops imports, of an archive and while an image is unpacked, by
// signals. What one cannot clean up the next command does.
func TestImportStopped(t *testing.T) {
	require(t, "tar", "zstd")
	store := newStore(t, map[string]files{"v1": smallTree})
	at, dir := "--export="+store, t.TempDir()
	cli(t, "seal", "v1", at)
	image := []byte(randomBytes(6 << 20))
	image[510], image[511] = 0x55, 0xAA
	write(t, dir+"/img", string(image))
	program(t, "tar", "-cf", dir+"/tar", "-C", dir, "img")
	program(t, "zstd", "-q", dir+"/img")
	for _, source := range []string{"tar", "img.zst"} {
		content := read(t, filepath.Join(dir, source))
		for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
			expectUntouched(t, store, func() {
				stopImport(t, at, content[:len(content)*2/3], signal)
				cli(t, "seal", "v1", at)
			})
		}
	}
}

// stopImport has an import read some content, wait for more, and get a signal.
func stopImport(t *testing.T, at string, content []byte, signal syscall.Signal) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, rootnfsd, "import", "-", "v2", "--fix", at)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write(content); err != nil {
		t.Error(err)
	}
	if err := cmd.Process.Signal(signal); err != nil {
		t.Error(err)
	}
	err = cmd.Wait()
	if ctx.Err() != nil || err == nil || signal != syscall.SIGKILL && cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("%v: %v, %v", signal, err, ctx.Err())
	}
}
