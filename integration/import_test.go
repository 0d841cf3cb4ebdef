package integration

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// importOutput is what import --json prints.
type importOutput struct {
	Digest   string
	Objects  int
	NewBytes uint64 `json:"new_bytes"`
	Warnings []string
	DryRun   bool       `json:"dry_run"`
	Fixes    []struct{} // what --fix changed
}

// importedTree is a store with version v1, and its digest.
func importedTree(t *testing.T) (store, at, digest string) {
	t.Helper()
	store = newStore(t, map[string]files{"v1": smallTree})
	specialTree(t, store, "v1")
	write(t, filepath.Join(store, "v1/large"), randomBytes(3_000_000)+strings.Repeat("\x00", 500_000))
	// Whole seconds are what all formats have.
	program(t, "find", filepath.Join(store, "v1"), "-exec", "touch", "-h", "-d", "@1700000000", "{}", "+")
	at = "--export=" + store
	cli(t, "seal", "v1", at)
	return store, at, cliJSON[[]versionRow](t, "versions", at)[0].Digest
}

// program runs a program of others.
func program(t *testing.T, name string, args ...string) {
	t.Helper()
	if r := finish(t, exec.Command(name, args...)); r.status != 0 {
		t.Fatalf("%s %q: exit status %d\n%s%s", name, args, r.status, r.stdout, r.stderr)
	}
}

// TestImport makes the version again of all that can be made of its tree.
func TestImport(t *testing.T) {
	require(t, "tar", "bsdtar", "umoci", "sqfstar", "unsquashfs", "gzip", "bzip2", "xz", "zstd")
	store, at, digest := importedTree(t)
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	tree := filepath.Join(store, "v1")
	check := func(source string, more ...string) {
		t.Helper()
		got := cliJSON[importOutput](t, append([]string{"import", source, "again", at}, more...)...)
		if got.Digest != digest || got.NewBytes != 0 {
			t.Errorf("import %s %q: %+v; want the digest %s and nothing new", filepath.Base(source), more, got, digest)
		}
	}
	program(t, "tar", "--format=pax", "--numeric-owner", "-cf", in("tree"), "-C", tree, ".")
	for _, compress := range []string{"gzip", "bzip2", "xz", "zstd"} {
		program(t, "sh", "-c", compress+" -c <"+in("tree")+" >"+in(compress))
		check(in(compress))
	}
	program(t, "xz", "-k", "--block-size=1MiB", in("tree"))
	check(in("tree.xz"))
	check(in("tree"))
	check(in("tree"), "--dry-run")
	check(tree)
	check(store + "@v1")
	piped := exec.Command(rootnfsd, "import", "-", "piped", at)
	piped.Stdin = bytes.NewReader(read(t, in("xz")))
	if r := finish(t, piped); r.status != 0 || !strings.Contains(r.stdout, digest[:12]) {
		t.Errorf("import - of a pipe: %+v", r)
	}

	// A container image has the root that it begins with, so it is compared with what umoci makes of it.
	for _, args := range [][]string{{"init", "--layout", in("oci")}, {"new", "--image", in("oci:t")}, {"unpack", "--image", in("oci:t"), in("bundle")}} {
		program(t, "umoci", args...)
	}
	program(t, "cp", "-aT", tree, in("bundle/rootfs"))
	program(t, "umoci", "repack", "--refresh-bundle", "--image", in("oci:t"), in("bundle"))
	program(t, "rm", "-r", in("bundle/rootfs/usr/bin"), in("bundle/rootfs/etc/hostname"))
	program(t, "umoci", "repack", "--image", in("oci:t"), in("bundle"))
	program(t, "umoci", "unpack", "--image", in("oci:t"), in("unpacked"))
	cli(t, "seal", "unpacked", "--from", in("unpacked/rootfs"), at)
	digest = digestOf(t, at, "unpacked")
	check(in("oci"))
	program(t, "tar", "-cf", in("oci.tar"), "-C", in("oci"), ".")
	check(in("oci.tar"))
	for _, what := range []string{".", "./index.json ./blobs ./oci-layout", "--pax-option=comment=x ."} { // headers of their own are before each entry, and one before all
		program(t, "sh", "-c", "cd "+in("oci")+" && tar --format=pax -cf "+in("oci.pax.tar")+" "+what)
		check(in("oci.pax.tar"))
	}
	program(t, "sh", "-c", "cd "+in("oci")+" && tar -czf "+in("oci.tgz")+" *")
	check(in("oci.tgz"))
	expectFailure(t, []string{"import", in("oci"), "other", "--platform", "linux/riscv64", at}, "riscv64", "linux/")
	blobs, err := filepath.Glob(in("oci/blobs/sha256/*"))
	if err != nil || len(blobs) < 4 {
		t.Fatalf("blobs %q, %v", blobs, err)
	}
	for _, blob := range blobs {
		content := read(t, blob)
		if !bytes.HasPrefix(content, []byte("\x1f\x8b")) {
			continue
		}
		// The time in the header of gzip changes nothing but the digest.
		content[4] ^= 1
		write(t, blob, string(content))
	}
	expectFailure(t, []string{"import", in("oci"), "other", at}, "damaged", "digest")
	if names := versionNames(t, store); slices.Contains(names, "other") {
		t.Errorf("after failures there are %q", names)
	}
}

func digestOf(t *testing.T, at, version string) string {
	t.Helper()
	for _, v := range cliJSON[[]versionRow](t, "versions", at) {
		if v.Name == version {
			return v.Digest
		}
	}
	t.Fatalf("there is no version %s", version)
	return ""
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestExport: what import makes of an export has the same digest.
func TestExport(t *testing.T) {
	require(t, "sqfstar", "unsquashfs", "zstd")
	_, at, digest := importedTree(t)
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	cli(t, "export", "v1", "-o", in("tar"), at)
	if got := cli(t, "export", "v1", at); got != string(read(t, in("tar"))) {
		t.Error("two exports of one version differ")
	}
	cli(t, "export", "v1", "--format", "dir", "-o", in("dir"), at)
	cli(t, "export", "v1", "--format", "squashfs", "-o", in("squashfs"), at)
	program(t, "unsquashfs", "-quiet", "-no-progress", "-dest", in("unsquashed"), in("squashfs"))
	program(t, "zstd", "-q", in("squashfs"), "-o", in("squashfs.zst"))
	for _, source := range []string{in("tar"), in("dir"), in("unsquashed"), in("squashfs"), in("squashfs.zst")} {
		if got := cliJSON[importOutput](t, "import", source, "again", at); got.Digest != digest {
			t.Errorf("import of %s: %+v; want %s", source, got, digest)
		}
	}
	expectFailure(t, []string{"export", "v1", "--format", "squashfs", at}, "-o")
	expectFailure(t, []string{"export", "v1", "--format", "zip", at}, "zip")
	if left, _ := filepath.Glob(in(".tmp*")); left != nil {
		t.Errorf("export leaves %q", left)
	}
}

// TestImportDisk: an image is imported, compressed has the same digest, and it is put
// right on the way.
func TestImportDisk(t *testing.T) {
	require(t, "mkfs.ext4", "xz", "tar", "sfdisk")
	_, at, _ := importedTree(t)
	dir := t.TempDir()
	if err := errors.Join(os.MkdirAll(dir+"/root/etc", 0o755), os.Mkdir(dir+"/root/sbin", 0o755)); err != nil {
		t.Fatal(err)
	}
	write(t, dir+"/root/sbin/init", "#!/bin/sh\n")
	write(t, dir+"/root/etc/fstab", "/dev/mmcblk0p1 /boot vfat defaults 0 2\n")
	img := dir + "/img"
	program(t, "mkfs.ext4", "-q", "-F", "-d", dir+"/root", img, "16M")
	program(t, "xz", "-0", "--keep", img)
	want := cliJSON[importOutput](t, "import", img, "disk", at).Digest
	if got := cliJSON[importOutput](t, "import", img+".xz", "disk2", at).Digest; got != want {
		t.Errorf("the digest of the compressed image is %s, of the image itself %s", got, want)
	}
	// In a table beside it is what the fstab mounts and the version has not: that is said.
	program(t, "sh", "-c", "truncate -s 26M "+img+".table && printf 'label: dos\nstart=2048, size=16384\nstart=18432, size=32768\n' | sfdisk -q "+img+".table")
	program(t, "mkfs.ext4", "-q", "-F", "-E", "offset=1048576", img+".table", "8M")
	program(t, "dd", "if="+img, "of="+img+".table", "bs=1M", "seek=9", "conv=notrunc,sparse")
	got := cliJSON[importOutput](t, "import", img+".table", "disk3", at)
	if got.Digest != want || len(got.Warnings) != 1 || !strings.Contains(got.Warnings[0], "partition 1 is left out, which the fstab mounts at /boot") {
		t.Errorf("with another partition: %+v; want the digest %s and a warning", got, want)
	}
	if out := cli(t, "import", img+".table", "disk3", "--dry-run", at); !strings.Contains(out, "warning: partition 1 is left out") {
		t.Errorf("--dry-run says\n%s", out)
	}
	if names := cli(t, "ls", "disk:/", at); !strings.Contains(names, "etc") {
		t.Errorf("in the image is %q", names)
	}
	if diff := cli(t, "import", img, "fixed", "--fix", at); !strings.Contains(diff, "-/dev/mmcblk0p1") {
		t.Errorf("--fix shows %q", diff)
	}
	if fstab := cli(t, "cat", "fixed:/etc/fstab", at); !strings.HasPrefix(fstab, "#") || !strings.Contains(fstab, "mmcblk0p1") {
		t.Errorf("the fstab that was put right is %q", fstab)
	}
	// Of what comes in one pass the same version comes as of a directory.
	program(t, "tar", "--format=pax", "-cf", dir+"/tar", "-C", dir+"/root", ".")
	want = cliJSON[importOutput](t, "import", dir+"/root", "dir-fixed", "--fix", at).Digest
	for _, more := range []string{"--dry-run", "--fix"} {
		got := cliJSON[importOutput](t, "import", dir+"/tar", "tar-fixed", "--fix", more, at)
		if got.Digest != want || len(got.Fixes) == 0 {
			t.Errorf("import --fix %s of an archive: %+v; want the digest %s", more, got, want)
		}
	}
	if diff := cli(t, "import", dir+"/tar", "tar-fixed", "--fix", at); !strings.Contains(diff, "-/dev/mmcblk0p1") {
		t.Errorf("--fix of an archive shows %q", diff)
	}
}

// TestImportFails: what is no good is refused in words, and the store stays as it was.
func TestImportFails(t *testing.T) {
	require(t, "tar", "gzip", "bzip2", "xz", "zstd")
	store, at, _ := importedTree(t)
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	program(t, "tar", "--format=pax", "-cf", in("tree"), "-C", filepath.Join(store, "v1"), ".")
	before := strings.Join(list(t, store), "\n")
	for _, compress := range []string{"cat", "gzip", "bzip2", "xz", "zstd"} {
		program(t, "sh", "-c", compress+" <"+in("tree")+" >"+in(compress))
		whole := read(t, in(compress))
		write(t, in("cut"), string(whole[:len(whole)*2/3]))
		expectFailure(t, []string{"import", in("cut"), "v2", at}, "nothing was changed", "cut short")
		if compress == "cat" {
			continue // has no sum by which it could be known
		}
		damaged := bytes.Clone(whole)
		for i := range 16 {
			damaged[len(damaged)/2+i] ^= 0x55
		}
		write(t, in("damaged"), string(damaged))
		expectFailure(t, []string{"import", in("damaged"), "v2", at}, "nothing was changed")
	}
	for content, want := range map[string]string{
		"":                        "empty",
		"LUKS\xba\xbe\x00\x01":    "LUKS",
		"PK\x03\x04\x14\x00\x01":  "encrypted zip",
		"-----BEGIN PGP MESSAGE-": "gpg",
		"what is this?":           "neither",
	} {
		write(t, in("file"), content)
		expectFailure(t, []string{"import", in("file"), "v2", at}, in("file"), want)
	}
	expectFailure(t, []string{"import", in("none"), "v2", at}, "none")
	expectFailure(t, []string{"import", in("tree"), at}, "want a source and a version")
	expectFailure(t, []string{"import", store + "@v11", "v2", at}, "v11", "v1")
	if after := strings.Join(list(t, store), "\n"); after != before {
		t.Errorf("the store was\n%s\nand is\n%s", before, after)
	}
}

// list lists what is in a store's state, but for the lock.
func list(t *testing.T, store string) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(store, ".rootnfsd/*/*"))
	hidden, err2 := filepath.Glob(filepath.Join(store, ".rootnfsd/*/.*"))
	temp, err3 := filepath.Glob(filepath.Join(store, ".tmp*"))
	if err != nil || err2 != nil || err3 != nil {
		t.Fatal(err, err2, err3)
	}
	return slices.Concat(all, hidden, temp)
}
