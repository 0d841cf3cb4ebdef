package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"

	"github.com/rootnfsd/rootnfsd/fs/image"
	"github.com/rootnfsd/rootnfsd/fs/lint"
)

// lintRecord is what was found in a version. To look takes half a second, most of
// which unpacks an initramfs, and what is found in a version does not change; so
// seal keeps it, in lint/ of the store's state, and promote need not wait.
type lintRecord struct {
	Program  string         `json:"program"` // another one may find something else
	Findings []lint.Finding `json:"findings"`
}

// lint returns what is wrong with a version.
func (s *openedStore) lint(ctx context.Context, info image.Info) ([]lint.Finding, error) {
	path := filepath.Join(s.lintDir(), info.Digest.String()+lintSuffix)
	var known lintRecord
	if b, err := os.ReadFile(path); err == nil && json.Unmarshal(b, &known) == nil && known.Program == buildVersion() {
		return known.Findings, nil
	}
	v, err := s.OpenDigest(info.Name, info.Digest)
	if err != nil {
		return nil, explainPermission(err)
	}
	findings, err := lint.Check(ctx, v.Filesystem())
	if err != nil {
		return nil, err
	}
	// That it cannot be kept, by a user who may only read, or on a full disk, costs
	// time and nothing else.
	_ = s.keepFindings(path, lintRecord{buildVersion(), findings})
	return findings, nil
}

const lintSuffix = ".json"

func (s *openedStore) lintDir() string { return filepath.Join(s.StateDir(), "lint") }

// keepFindings writes a record, and takes away those of versions that are gone.
func (s *openedStore) keepFindings(path string, r lintRecord) error {
	if err := os.MkdirAll(s.lintDir(), 0o755); err != nil {
		return err
	}
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	// Not by way of a temporary file: one that is cut off is no JSON, and so is as
	// good as none.
	if err := os.WriteFile(path, b, 0o644); err != nil {
		return err
	}
	versions, err := s.Versions()
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, v := range versions {
		there[v.Digest.String()] = true
	}
	entries, err := os.ReadDir(s.lintDir())
	for _, e := range entries {
		if digest, ok := strings.CutSuffix(e.Name(), lintSuffix); ok && !there[digest] {
			_ = os.Remove(filepath.Join(s.lintDir(), e.Name()))
		}
	}
	return err
}
