package image

import (
	"context"
	"errors"
)

// Damage is one finding of Verify.
type Damage struct {
	Version string
	Path    string // the file; empty if the version as a whole is concerned
	Err     error
}

// Verify re-hashes the packs against the indexes of the versions named (all, if none is).
func (s *Store) Verify(ctx context.Context, names []string, progress func(Progress)) ([]Damage, error) {
	return nil, errors.New("soon")
}
