package oci

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/rootnfsd/rootnfsd/fs/source"
)

// memory is files by name.
type memory map[string]string

func (m memory) open(name string) (io.ReadCloser, uint64, error) {
	content, ok := m[name]
	if !ok {
		return nil, 0, fmt.Errorf("%s %w", name, errNoFile)
	}
	return io.NopCloser(strings.NewReader(content)), uint64(len(content)), nil
}

// FuzzChoose gives the documents of an image any content.
func FuzzChoose(f *testing.F) {
	digest := "sha256:" + strings.Repeat("0", 64)
	f.Add(`{"manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"`+digest+`"}]}`, "")
	f.Add("", `[{"Config":"c.json","Layers":["l/layer.tar"]}]`)
	f.Fuzz(func(t *testing.T, index, saved string) {
		files := memory{"manifest.json": saved, "c.json": `{"os":"linux","architecture":"arm64","rootfs":{"diff_ids":["` + digest + `"]}}`, "l/layer.tar": ""}
		if index != "" {
			files = memory{"index.json": index}
		}
		i, err := choose(files, "")
		if err == nil && len(i.layers) > maxLayers {
			t.Errorf("%d layers", len(i.layers))
		}
	})
}

func TestPick(t *testing.T) {
	arm, arm64 := platform{"linux", "arm", "v7"}, platform{"linux", "arm64", ""}
	for _, c := range []struct {
		have   []platform
		wanted string
		is     int
		err    string
	}{
		{[]platform{arm}, "", 0, ""},
		{[]platform{arm, arm64}, "linux/arm64", 1, ""},
		{[]platform{arm64, arm}, "linux/arm/v7", 1, ""},
		{[]platform{arm64, arm}, "linux/arm", 1, ""},
		{[]platform{arm, arm64}, "", 0, "--platform"},
		{[]platform{arm}, "linux/amd64", 0, "linux/arm/v7"},
		{[]platform{arm, arm}, "linux/arm", 0, "one alone"},
		{nil, "", 0, "no image"},
	} {
		i, err := pick(c.have, c.wanted)
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) || i != c.is {
			t.Errorf("%v of %v: %d, %v; want %d, %q", c.wanted, c.have, i, err, c.is, c.err)
		}
	}
}

// layout is the files of an OCI layout whose index has an entry n times. The entry is what
// make returns, who is given a function that adds a document and returns its descriptor.
func layout(n int, make func(add func(mediaType, content string) string) string) memory {
	files := memory{}
	add := func(mediaType, content string) string {
		digest := fmt.Sprintf("%x", sha256.Sum256([]byte(content)))
		files["blobs/sha256/"+digest] = content
		return fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.%s.v1+json","digest":"sha256:%s"}`, mediaType, digest)
	}
	files["index.json"] = indexOf(n, make(add))
	return files
}

func indexOf(n int, entry string) string {
	return `{"manifests":[` + strings.TrimSuffix(strings.Repeat(entry+",", n), ",") + "]}"
}

// TestMany: a small layout that says that there is much is refused before there is.
func TestMany(t *testing.T) {
	arm64 := func(add func(string, string) string, layers, padding int) string {
		conf := add("config", `{"os":"linux","architecture":"arm64"`+strings.Repeat(" ", padding)+`}`)
		blobs := strings.TrimSuffix(strings.Repeat(conf+",", layers), ",")
		return add("manifest", `{"config":`+conf+`,"layers":[`+blobs+`]}`)
	}
	index := func(add func(string, string) string, n int, entry string) string {
		return add("index", indexOf(n, entry))
	}
	type adder = func(string, string) string
	for name, c := range map[string]struct {
		n     int
		entry func(adder) string
		want  string // "" if it is all right
	}{
		"an image":       {1, func(add adder) string { return arm64(add, 1000, 0) }, ""},
		"images":         {1001, func(add adder) string { return arm64(add, 1, 0) }, "more than 1000 images"},
		"in indexes":     {3, func(add adder) string { return index(add, 400, arm64(add, 1, 0)) }, "more than 1000 images"},
		"layers":         {1, func(add adder) string { return arm64(add, 1001, 0) }, "1001 layers"},
		"large images":   {100, func(add adder) string { return arm64(add, 1, 1<<20) }, "too many images and indexes"},
		"empty indexes":  {200, func(add adder) string { return index(add, 200, index(add, 0, "")) }, "too many images and indexes"},
		"layers unasked": {1, func(add adder) string { return arm64(add, 1, 0) + "," + arm64(add, 1001, 1) }, "1001 layers"},
	} {
		_, err := choose(layout(c.n, c.entry), "linux/arm64")
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
	}
	entry := `{"Config":"c.json","Layers":[]}`
	saved := memory{"manifest.json": "[" + entry + "]", "c.json": `{"os":"linux","rootfs":{"diff_ids":["` + strings.Repeat(`","`, 1000) + `"]}}`}
	if _, err := choose(saved, ""); err == nil || !strings.Contains(err.Error(), "1001 layers") {
		t.Errorf("saved, with 1001 digests: %v", err)
	}
	saved = memory{"manifest.json": "[" + entry + strings.Repeat(","+entry, 99) + "]", "c.json": `{"os":"linux"` + strings.Repeat(" ", 1<<20) + "}"}
	if _, err := choose(saved, "linux/arm64"); err == nil || !strings.Contains(err.Error(), "too many images and indexes") {
		t.Errorf("saved, 100 images of a MiB: %v", err)
	}
}

// removals is a sink that says what is removed.
type removals struct {
	source.Sink
	removed []string
}

func (r *removals) Remove(p string) error {
	r.removed = append(r.removed, p)
	return nil
}

func (r *removals) Link(string, string) error { return nil }

func TestWhiteouts(t *testing.T) {
	for name, c := range map[string]struct {
		size uint64
		want string // "" if it is refused
	}{
		"./a/.wh.b": {0, "a/b"},
		".wh.c":     {0, "c"},
		".wh.d":     {1, ""},
		"a/.wh...":  {0, ""},
		"a/.wh.":    {0, ""},
	} {
		r := &removals{}
		err := (&whiteouts{r}).Put(name, &source.Meta{Size: c.size}, "", nil, nil)
		if got := strings.Join(r.removed, " "); got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%q of %d bytes removes %q, %v; want %q", name, c.size, got, err, c.want)
		}
		if c.size > 0 {
			continue
		}
		r = &removals{}
		err = (&whiteouts{r}).Link(name, "./a/.wh.another")
		if got := strings.Join(r.removed, " "); got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%q as a hard link removes %q, %v; want %q", name, got, err, c.want)
		}
	}
}

// TestSaved reads what older releases of docker save write, up to its layers.
func TestSaved(t *testing.T) {
	files := memory{
		"manifest.json": `[{"Config":"c.json","RepoTags":["a:b"],"Layers":["l/layer.tar"]}]`,
		"c.json":        `{"os":"linux","architecture":"arm64","rootfs":{"diff_ids":["sha256:00"]}}`,
		"l/layer.tar":   "12345",
	}
	i, err := choose(files, "linux/arm64")
	if err != nil || i.total != 5 || len(i.layers) != 1 || i.layers[0].diff != "sha256:00" {
		t.Errorf("%+v, %v", i, err)
	}
	if _, err := choose(memory{}, ""); !errors.Is(err, ErrNoImage) {
		t.Errorf("of nothing: %v", err)
	}
	if _, _, err := dirFiles(t.TempDir()).open("../etc/shadow"); err == nil || !strings.Contains(err.Error(), "out of") {
		t.Errorf("out of the directory: %v", err)
	}
}
