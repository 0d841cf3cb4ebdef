package exports

import "fmt"

// Ready returns why an image has nothing to give to nodes, or why what it gives is not what
// is on the disk; nil if each has a promoted version that can be opened.
func (x *Exports) Ready() error {
	if stale := x.stale.Load(); stale != nil {
		return fmt.Errorf("an old state is served: %w", *stale)
	}
	for _, img := range x.table.Load().images {
		if img.promoted == nil {
			return fmt.Errorf("image %s: no version is promoted, or it is gone: rootnfsd promote VERSION", img.name)
		}
		if _, err := img.promoted.Tree(); err != nil {
			return err
		}
	}
	return nil
}

// Warmed is how many bytes of content were brought into memory before nodes asked for
// them, since the server began.
func (x *Exports) Warmed() uint64 { return x.warmed.Load() }
