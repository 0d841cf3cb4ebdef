package image_test

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/rootnfsd/rootnfsd/fs/fstest"
	"github.com/rootnfsd/rootnfsd/fs/image"
)

func TestRemove(t *testing.T) {
	dir := writeFiles(t, map[string]string{"shared": string(fstest.Bytes(100_000)), "a": "only in v1"})
	s := newStore(t)
	sealDir(t, s, "v1", dir)
	write(t, dir+"/b", string(fstest.Bytes(50_000)))
	sealDir(t, s, "v2", dir)
	running := open(t, s, "v2")

	r, err := s.Remove("v2", image.Digest{})
	if err != nil || r.Kept != nil || r.Freed < 50_000 || r.Freed > 60_000 {
		t.Errorf("Remove: %+v, %v", r, err)
	}
	if n := len(packs(t, s)); n != 1 {
		t.Errorf("%d packs, want that of v1", n)
	}
	if readAll(t, running, "b") != string(fstest.Bytes(50_000)) {
		t.Error("a version that is open cannot be read after its removal")
	}
	if _, err := s.Open("v2"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Open of what was removed: %v", err)
	}
	if readAll(t, open(t, s, "v1"), "shared") != string(fstest.Bytes(100_000)) {
		t.Error("v1 is damaged")
	}
	if r, err := s.Remove("v1", image.Digest{}); err != nil || r.Kept != nil || r.Freed < 100_000 {
		t.Errorf("Remove: %+v, %v", r, err)
	}
	if n := len(packs(t, s)); n != 0 {
		t.Errorf("%d packs in an empty store", n)
	}
	sealDir(t, s, "v1", dir)
}

// TestRemoveOfAnother: what was sealed since the caller looked is not what it
// wants to be rid of.
func TestRemoveOfAnother(t *testing.T) {
	s := newStore(t)
	dir := writeFiles(t, map[string]string{"a": "old"})
	seen := sealDir(t, s, "v1", dir).Digest
	write(t, dir+"/a", "newer")
	sealDir(t, s, "v1", dir)
	if _, err := s.Remove("v1", seen); err == nil || !strings.Contains(err.Error(), "sealed again meanwhile") {
		t.Errorf("Remove: %v", err)
	}
	if got := readAll(t, open(t, s, "v1"), "a"); got != "newer" {
		t.Errorf("a is %q", got)
	}
	if _, err := s.Remove("v1", open(t, s, "v1").Info().Digest); err != nil {
		t.Error(err)
	}
	if got := versionNames(t, s); !slices.Equal(got, []string{"v1~" + seen.Short()}) {
		t.Errorf("versions %v", got)
	}
}

// TestRemoveBesideDamage: no pack is deleted that a version may need whose
// index cannot be read, but the version is.
func TestRemoveBesideDamage(t *testing.T) {
	s := newBrokenStore(t)
	sealDir(t, s, "v1", writeFiles(t, map[string]string{"a": "1"}))
	sealDir(t, s, "v2", writeFiles(t, map[string]string{"a": "2"}))
	flip(t, indexOf(s, "v1"), 300)
	r, err := s.Remove("v2", image.Digest{})
	if err != nil || r.Kept == nil || !strings.Contains(r.Kept.Error(), "version v1") {
		t.Errorf("Remove: %+v, %v, want that packs are kept because of v1", r, err)
	}
	if _, err := s.Open("v2"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Open of what was removed: %v", err)
	}
	if n := len(packs(t, s)); n != 2 {
		t.Errorf("%d packs, want 2", n)
	}
	if r, err := s.Remove("v1", image.Digest{}); err != nil || r.Kept != nil {
		t.Errorf("Remove of a damaged version: %+v, %v", r, err)
	}
	if n := len(packs(t, s)); n != 0 {
		t.Errorf("%d packs, want none", n)
	}
}
