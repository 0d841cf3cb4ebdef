// Package oci reads container images into a source.Sink: an OCI image layout, as a
// directory or as an archive of tar, and what docker save writes. Each blob is held
// against its digest. It knows nothing of registries.
package oci

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"path"
	"strings"
	"sync/atomic"

	"github.com/rootnfsd/rootnfsd/fs/source"
	"github.com/rootnfsd/rootnfsd/fs/source/compressed"
	"github.com/rootnfsd/rootnfsd/fs/source/tarball"
)

// ErrNoImage is the error for what is no container image.
var ErrNoImage = errors.New("not a container image")

// Image is one image of those that are in a place.
type Image struct {
	files  files
	layers []layer
	total  uint64
	done   atomic.Uint64
	read   uint64 // of documents, in bytes
}

// files is where an image lies.
type files interface {
	// open opens the file of that name and tells its size.
	open(name string) (io.ReadCloser, uint64, error)
}

// layer is a file of an image and what it must be.
type layer struct {
	name string
	size uint64
	// The digest of the file, or of what is in it when it is not compressed.
	digest, diff string
}

// Documents of the OCI image specification, as far as they are used.
type (
	descriptor struct {
		MediaType string    `json:"mediaType"`
		Digest    string    `json:"digest"`
		Size      int64     `json:"size"`
		Platform  *platform `json:"platform"`
	}
	index struct {
		Manifests []descriptor `json:"manifests"`
	}
	manifest struct {
		Config descriptor   `json:"config"`
		Layers []descriptor `json:"layers"`
	}
	platform struct {
		OS      string `json:"os"`
		Arch    string `json:"architecture"`
		Variant string `json:"variant"`
	}
	config struct {
		platform
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	// saved is an image in the manifest.json of docker save.
	saved struct {
		Config string
		Layers []string
	}
)

func (p platform) String() string {
	return strings.TrimSuffix(p.OS+"/"+p.Arch+"/"+p.Variant, "/")
}

// is reports whether a platform is the one that is wanted, of which the variant may be
// left out.
func (p platform) is(wanted string) bool {
	return wanted == p.String() || wanted == p.OS+"/"+p.Arch
}

const (
	maxDocument = 4 << 20 // bytes
	maxLayers   = 1000
	maxImages   = 1000 // in an index, and in all
	maxDepth    = 4    // of indexes in indexes
	// maxRead bounds all documents together, of which each counts for some bytes at
	// least: a small layout may name one of them over and over.
	maxRead  = 64 << 20
	minCount = 4 << 10
)

// choose finds the image for a platform, or the only one if that is "".
func choose(f files, wanted string) (*Image, error) {
	i := &Image{files: f}
	var top index
	err := i.document("index.json", "", &top)
	switch {
	case err == nil:
		err = i.chooseManifest(&top, wanted)
	case errors.Is(err, errNoFile):
		err = i.chooseSaved(wanted)
	}
	if err != nil {
		return nil, err
	}
	for _, l := range i.layers {
		i.total += l.size
	}
	return i, nil
}

// errNoFile is wrapped by what open says of a file that is not there.
var errNoFile = errors.New("is not there")

// document reads a small file, of which the digest is known or "".
func (i *Image) document(name, digest string, v any) error {
	f, size, err := i.files.open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if size > maxDocument {
		return fmt.Errorf("%s is %d bytes long", name, size)
	}
	if i.read += max(size, minCount); i.read > maxRead {
		return errors.New("there are too many images and indexes in it: save one image alone")
	}
	b, err := io.ReadAll(io.LimitReader(f, maxDocument))
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if sum := sha256.Sum256(b); digest != "" && digest != "sha256:"+hex.EncodeToString(sum[:]) {
		return fmt.Errorf("%s is damaged: it is not what its digest says", name)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// blob is where a blob lies.
func blob(digest string) (string, error) {
	sum, ok := strings.CutPrefix(digest, "sha256:")
	if b, err := hex.DecodeString(sum); !ok || err != nil || len(b) != sha256.Size {
		return "", fmt.Errorf("%.80q is no SHA-256 digest", digest)
	}
	return "blobs/sha256/" + strings.ToLower(sum), nil
}

func (i *Image) blob(d *descriptor, v any) error {
	name, err := blob(d.Digest)
	if err != nil {
		return err
	}
	return i.document(name, d.Digest, v)
}

// candidate is an image of those in an index. What its manifest says is read again if it
// is chosen, since there may be many.
type candidate struct {
	manifest descriptor
	platform platform
}

// manifest reads the manifest of an image.
func (i *Image) manifest(d *descriptor) (m manifest, err error) {
	if err = i.blob(d, &m); err == nil {
		err = checkLayers(len(m.Layers))
	}
	return m, err
}

func checkLayers(n int) error {
	if n > maxLayers {
		return fmt.Errorf("an image of %d layers", n)
	}
	return nil
}

func checkImages(n int) error {
	if n > maxImages {
		return fmt.Errorf("there are more than %d images in it: save one alone", maxImages)
	}
	return nil
}

// collect gathers the images in an index.
func (i *Image) collect(x *index, depth int, all *[]candidate) error {
	if depth > maxDepth {
		return errors.New("too many indexes in each other")
	}
	if err := checkImages(len(x.Manifests)); err != nil {
		return err
	}
	for _, d := range x.Manifests {
		switch {
		case d.Platform != nil && d.Platform.OS == "unknown": // an attestation, not an image
		case strings.Contains(d.MediaType, "index") || strings.Contains(d.MediaType, "manifest.list"):
			var below index
			if err := i.blob(&d, &below); err != nil {
				if errors.Is(err, errNoFile) {
					continue // of another platform than the one that was saved
				}
				return err
			}
			if err := i.collect(&below, depth+1, all); err != nil {
				return err
			}
		default:
			m, err := i.manifest(&d)
			if errors.Is(err, errNoFile) {
				continue
			}
			if err != nil {
				return err
			}
			var conf config
			if err := i.blob(&m.Config, &conf); err != nil {
				return err
			}
			c := candidate{d, conf.platform}
			if d.Platform != nil {
				c.platform = *d.Platform
			}
			*all = append(*all, c)
			if err := checkImages(len(*all)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (i *Image) chooseManifest(x *index, wanted string) error {
	var all []candidate
	if err := i.collect(x, 0, &all); err != nil {
		return err
	}
	platforms := make([]platform, len(all))
	for k := range all {
		platforms[k] = all[k].platform
	}
	k, err := pick(platforms, wanted)
	if err != nil {
		return err
	}
	m, err := i.manifest(&all[k].manifest)
	if err != nil {
		return err
	}
	for _, d := range m.Layers {
		if strings.Contains(d.MediaType, "encrypted") {
			return errors.New("its layers are encrypted: decrypt the image first")
		}
		name, err := blob(d.Digest)
		if err != nil {
			return err
		}
		i.layers = append(i.layers, layer{name: name, size: uint64(max(d.Size, 0)), digest: d.Digest})
	}
	return nil
}

// pick returns which of these is wanted.
func pick(platforms []platform, wanted string) (int, error) {
	found, n := 0, 0
	var names []string
	for k, p := range platforms {
		names = append(names, p.String())
		if wanted == "" || p.is(wanted) {
			found = k
			n++
		}
	}
	switch {
	case len(platforms) == 0:
		return 0, errors.New("there is no image in it")
	case n == 0:
		return 0, fmt.Errorf("there is no image for %s, but for %s", wanted, strings.Join(names, ", "))
	case n > 1 && wanted == "":
		return 0, fmt.Errorf("there are images for %s: say which one by --platform", strings.Join(names, ", "))
	case n > 1:
		return 0, fmt.Errorf("there are %d images for %s: save one alone", n, wanted)
	}
	return found, nil
}

// chooseSaved is for what docker save wrote before it wrote OCI layouts.
func (i *Image) chooseSaved(wanted string) error {
	var all []saved
	if err := i.document("manifest.json", "", &all); err != nil {
		if errors.Is(err, errNoFile) {
			return ErrNoImage
		}
		return err
	}
	if err := checkImages(len(all)); err != nil {
		return err
	}
	platforms := make([]platform, len(all))
	for k, s := range all {
		conf, err := i.savedConfig(&s)
		if err != nil {
			return err
		}
		platforms[k] = conf.platform
	}
	k, err := pick(platforms, wanted)
	if err != nil {
		return err
	}
	conf, err := i.savedConfig(&all[k])
	if err != nil {
		return err
	}
	diffs := conf.RootFS.DiffIDs
	if len(diffs) != len(all[k].Layers) {
		return fmt.Errorf("it has %d layers and the digests of %d", len(all[k].Layers), len(diffs))
	}
	for n, name := range all[k].Layers {
		f, size, err := i.files.open(path.Clean(name))
		if err != nil {
			return err
		}
		f.Close()
		i.layers = append(i.layers, layer{name: path.Clean(name), size: size, diff: diffs[n]})
	}
	return nil
}

// savedConfig reads what is said of an image.
func (i *Image) savedConfig(s *saved) (conf config, err error) {
	if err = i.document(path.Clean(s.Config), "", &conf); err == nil {
		err = checkLayers(len(conf.RootFS.DiffIDs))
	}
	return conf, err
}

// Progress tells how many bytes of the layers were read, and how many there are.
func (i *Image) Progress() (done, total uint64) { return i.done.Load(), i.total }

// Read puts what all layers together are into a sink.
func (i *Image) Read(ctx context.Context, to source.Sink) error {
	for n, l := range i.layers {
		to.Layer()
		if err := i.readLayer(ctx, &l, &whiteouts{to}); err != nil {
			return fmt.Errorf("layer %d of %d: %w", n+1, len(i.layers), err)
		}
	}
	return nil
}

func (i *Image) readLayer(ctx context.Context, l *layer, to source.Sink) (err error) {
	f, _, err := i.files.open(l.name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	raw := &summed{r: f, sum: sha256.New(), done: &i.done}
	plain, _, err := compressed.Open(raw)
	if err != nil {
		cancel()
		return errors.Join(err, f.Close())
	}
	content := &summed{r: plain, sum: sha256.New()}
	if l.diff == "" {
		content.sum = nil
	}
	ahead := compressed.Ahead(ctx, content)
	err = tarball.Read(ahead, to)
	if errors.Is(err, tarball.ErrEmpty) {
		err = nil // a step of a build that changed no file
	}
	if err == nil {
		_, err = io.Copy(io.Discard, ahead)
	}
	cancel()
	if err != nil {
		return err // the file is open until the goroutine that reads it has seen the end of ctx
	}
	defer f.Close()
	if _, err := io.Copy(io.Discard, raw); err != nil { // what is behind the compressed stream
		return err
	}
	if l.digest != "" && l.digest != raw.digest() || l.diff != "" && l.diff != content.digest() {
		return fmt.Errorf("%s is damaged: it is not what its digest says", l.name)
	}
	return nil
}

// summed takes the digest of what is read.
type summed struct {
	r    io.Reader
	sum  hash.Hash      // nil for none
	done *atomic.Uint64 // counts the bytes, if not nil
}

func (s *summed) Read(b []byte) (int, error) {
	n, err := s.r.Read(b)
	if s.sum != nil {
		s.sum.Write(b[:n])
	}
	if s.done != nil {
		s.done.Add(uint64(n))
	}
	return n, err
}

func (s *summed) digest() string { return "sha256:" + hex.EncodeToString(s.sum.Sum(nil)) }

// whiteouts is a sink that knows what names in a layer say that something of the
// layers below is gone.
type whiteouts struct{ source.Sink }

const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

// Put implements source.Sink.
func (w *whiteouts) Put(p string, m *source.Meta, text string, xattrs []source.Xattr, content io.Reader) error {
	if is, err := w.takeAway(p, m.Size); is || err != nil {
		return err
	}
	return w.Sink.Put(p, m, text, xattrs, content)
}

// Link implements source.Sink. Builders that had one empty file for all such names, as
// aufs has it, make links of them.
func (w *whiteouts) Link(p, old string) error {
	if is, err := w.takeAway(p, 0); is || err != nil {
		return err
	}
	return w.Sink.Link(p, old)
}

// takeAway does what a name with so much content says, and reports whether it says
// anything.
func (w *whiteouts) takeAway(p string, size uint64) (is bool, err error) {
	dir, base := path.Split(path.Clean(p))
	gone, is := strings.CutPrefix(base, whiteout)
	switch {
	case !is:
		return false, nil
	case size > 0: // which would be skipped, however large it is
		return true, fmt.Errorf("%q says that something is gone, and has content", p)
	case base == opaque:
		return true, w.Clear(dir)
	case strings.HasPrefix(gone, whiteout): // what aufs needed for itself
		return true, nil
	case gone == "" || gone == "." || gone == "..":
		return true, fmt.Errorf("%q says that nothing is gone", p)
	}
	return true, w.Remove(dir + gone)
}
