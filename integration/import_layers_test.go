package integration

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// dockerLayers are what layers have, by path. One is what a builder makes of a step that
// changes no file: an archive with nothing in it, not even the root.
var dockerLayers = []files{
	{"etc/passwd": "root:x:0:0::/:/bin/sh\n", "etc/gone": "1", "opt/old/deep/file": "1", "srv/dir/file": "1", "srv/file": "1", "usr/bin/sh": "1"},
	{"etc/.wh.gone": "", "opt/.wh..wh..opq": "", "opt/new": "2", "srv/dir": "a file for a directory", "srv/.wh.never": ""},
	nil,
	{"srv/file/in": "a directory for a file", "usr/.wh.bin": "", "usr/sbin/init": "3", "opt/old/again": "3"},
}

// dockerTree is what these are together.
var dockerTree = files{
	"etc/passwd": "root:x:0:0::/:/bin/sh\n", "opt/new": "2", "opt/old/again": "3", "srv/dir": "a file for a directory",
	"srv/file/in": "a directory for a file", "usr/sbin/init": "3",
}

// dockerSave makes what docker save makes of an image: for each layer a directory with
// its archive, or with a symlink to an equal one.
func dockerSave(t *testing.T, dir string) {
	t.Helper()
	digest := func(b []byte) string {
		sum := sha256.Sum256(b)
		return hex.EncodeToString(sum[:])
	}
	image := filepath.Join(dir, "image")
	var layers, diffs []string
	for _, layer := range dockerLayers {
		content := make([]byte, 1024)
		if layer != nil {
			tree := t.TempDir()
			for path, content := range layer {
				write(t, filepath.Join(tree, path), content)
			}
			tarOf(t, tree, filepath.Join(dir, "layer.tar"))
			content = read(t, filepath.Join(dir, "layer.tar"))
		}
		sum := digest(content)
		layers, diffs = append(layers, sum+"/layer.tar"), append(diffs, "sha256:"+sum)
		write(t, filepath.Join(image, sum, "layer.tar"), string(content))
		write(t, filepath.Join(image, sum, "VERSION"), "1.0")
	}
	again := digest([]byte("again"))
	last := len(layers) - 1
	mkdir(t, filepath.Join(image, again))
	if err := os.Symlink("../"+layers[last], filepath.Join(image, again, "layer.tar")); err != nil {
		t.Fatal(err)
	}
	layers, diffs = append(layers, again+"/layer.tar"), append(diffs, diffs[last])

	config, err := json.Marshal(map[string]any{"os": "linux", "architecture": "arm64", "rootfs": map[string]any{"type": "layers", "diff_ids": diffs}})
	if err != nil {
		t.Fatal(err)
	}
	name := digest(config) + ".json"
	write(t, filepath.Join(image, name), string(config))
	manifest, err := json.Marshal([]map[string]any{{"Config": name, "RepoTags": []string{"golden:latest"}, "Layers": layers}})
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(image, "manifest.json"), string(manifest))
	program(t, "sh", "-c", "cd "+image+" && tar -cf ../saved.tar *")
}

// tarOf makes an archive of a tree, of which all objects get one time.
func tarOf(t *testing.T, tree, to string) {
	t.Helper()
	program(t, "find", tree, "-exec", "touch", "-h", "-d", "@1700000000", "{}", "+")
	program(t, "tar", "--format=pax", "--numeric-owner", "-cf", to, "-C", tree, ".")
}

// TestImportDocker imports an image of several layers that docker saved, in which names
// are gone, directories are opaque, and files and directories take each other's place.
func TestImportDocker(t *testing.T) {
	require(t, "tar", "gzip")
	store := newStore(t, map[string]files{"v1": dockerTree})
	at, dir := "--export="+store, t.TempDir()
	tarOf(t, filepath.Join(store, "v1"), filepath.Join(dir, "tar"))
	cli(t, "seal", "v1", at)
	want := digestOf(t, at, "v1")

	dockerSave(t, dir)
	saved := filepath.Join(dir, "saved.tar")
	program(t, "gzip", "-k", saved)
	for _, source := range []string{saved, saved + ".gz"} {
		if got := cliJSON[importOutput](t, "import", source, "image", "--platform=linux/arm64", at).Digest; got != want {
			t.Errorf("the digest is %s, of what the layers are together it is %s\n%s", got, want, cli(t, "diff", "v1", "image", at))
		}
	}
	piped := exec.Command(rootnfsd, "import", "-", "piped", at)
	piped.Stdin = strings.NewReader(string(read(t, saved)))
	if r := finish(t, piped); r.status != 0 || !strings.Contains(r.stdout, want[:12]) {
		t.Errorf("import - of a pipe: %+v", r)
	}
	content := read(t, saved)
	damaged := strings.Replace(string(content), "a file for a directory", "A file for a directory", 1)
	write(t, saved, damaged)
	expectFailure(t, []string{"import", saved, "v2", at}, "nothing was changed", "layer 2 of 5", "digest")
	expectFailure(t, []string{"import", saved, "v2", "--platform=linux/amd64", at}, "linux/arm64")
}

// TestImportPlatforms has an OCI layout with images for two platforms.
func TestImportPlatforms(t *testing.T) {
	require(t, "umoci")
	store := newStore(t, map[string]files{"v1": {"etc/arm64": "1"}, "v2": {"etc/amd64": "2"}})
	at, dir := "--export="+store, t.TempDir()
	layout, bundle := filepath.Join(dir, "oci"), filepath.Join(dir, "bundle-")
	program(t, "umoci", "init", "--layout", layout)
	for _, v := range []string{"v1", "v2"} {
		tag := layout + ":" + v
		arch := map[string]string{"v1": "arm64", "v2": "amd64"}[v]
		program(t, "umoci", "new", "--image", tag)
		program(t, "umoci", "config", "--image", tag, "--os", "linux", "--architecture", arch)
		program(t, "umoci", "unpack", "--image", tag, bundle+v)
		program(t, "cp", "-aT", filepath.Join(store, v), bundle+v+"/rootfs")
		program(t, "umoci", "repack", "--image", tag, bundle+v)
	}
	for platform, name := range map[string]string{"linux/arm64": "arm64", "linux/amd64": "amd64"} {
		cli(t, "import", layout, name, "--platform", platform, at)
		if got := cli(t, "ls", name+":/etc", at); !strings.Contains(got, name) || strings.Count(got, "\n") > 1 {
			t.Errorf("the image for %s has %q", platform, got)
		}
	}
	expectFailure(t, []string{"import", layout, "v3", at}, "linux/arm64", "linux/amd64", "--platform")
	expectFailure(t, []string{"import", layout, "v3", "--platform=linux/riscv64", at}, "linux/riscv64", "linux/arm64")
}
