package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/rootnfsd/rootnfsd/bench"
)

// Names of what is measured.
const (
	ours       = "rootnfsd"
	copying    = "cp -a"
	notSynced  = "cp -a, not synced"
	workSeal   = "seal"
	workAgain  = "seal again"
	workOpen   = "open"
	benchStore = "store"
)

// Bench measures a store. All that it makes is below one directory, and is
// removed when it has been measured.
type Bench struct {
	// Program is the path of rootnfsd.
	Program string
	// Dir is the directory to work in: its disk is what is measured.
	Dir string
	// Tree is a golden tree, which is only read. If it is empty, one is made up.
	Tree string
	// Objects are the sizes of trees that are made up to see what size costs.
	Objects []int
	// Runs is how often everything is repeated, and Duration how long calls are
	// made at a time.
	Runs     int
	Duration time.Duration
	// Cold also seals with the page cache dropped.
	Cold bool
	// Settle is how long made-up trees are left alone before they are sealed.
	Settle time.Duration

	// Say is told what is being done, and Note what is worth a line of its own.
	Say, Note func(string)
}

// Check refuses what cannot be measured.
func (b *Bench) Check() error {
	switch {
	case b.Runs < 1:
		return errors.New("there must be at least one run")
	case b.Duration <= 0:
		return errors.New("the duration must be more than nothing")
	case len(b.Objects) > 0 && slices.Min(b.Objects) < 1:
		return errors.New("a tree has at least one object")
	case len(b.Objects) > 0 && slices.Max(b.Objects) > maxTree:
		return fmt.Errorf("made-up trees have %d objects at most", maxTree)
	}
	return nil
}

// maxTree bounds what is put on the disk: each object takes 4 KiB of it, twice.
const maxTree = 5_000_000

// About says what is measured.
func (b *Bench) About() map[string]string {
	return map[string]string{
		ours:      firstLine(b.Program, "--version"),
		copying:   firstLine("cp", "--version") + ", and sync -f",
		notSynced: "the same, without sync -f",
		"disk":    diskOf(b.Dir),
	}
}

// Run measures sealing, and then what the size of a tree costs, and adds the
// results to a report.
func (b *Bench) Run(ctx context.Context, report *bench.Report) error {
	return inDir(b.Dir, b.Say, b.Note, func(dir string) error {
		if err := b.seals(ctx, dir, report); err != nil {
			return err
		}
		return b.sizes(ctx, dir, report)
	})
}

// inDir calls do with a new directory below parent, and removes that.
func inDir(parent string, say, note func(string), do func(dir string) error) error {
	dir, err := os.MkdirTemp(parent, "rootnfsd-bench-")
	if err != nil {
		return err
	}
	defer func() {
		say("removing what was made")
		if err := os.RemoveAll(dir); err != nil {
			note(err.Error())
		}
	}()
	return do(dir)
}

// made is a made-up tree, or one of the user's.
type made struct {
	path    string
	objects int
	ready   time.Time // when a seal can rely on what stat says of it
}

// Settled is how long after its last change a file must have been left alone when
// it is sealed, for the next seal to believe stat(2) that it did not change. It
// is longer where the kernel was told to keep changes in memory for more than its
// default of 30 seconds.
const Settled = 75 * time.Second

// make makes up a tree of n objects.
func (b *Bench) make(ctx context.Context, dir string, n int) (made, error) {
	b.Say(fmt.Sprintf("making a tree of %d objects", n))
	t := made{path: filepath.Join(dir, fmt.Sprintf("tree-%d", n)), objects: n}
	if err := makeTree(ctx, t.path, n); err != nil {
		return t, err
	}
	t.ready = time.Now().Add(b.Settle)
	return t, nil
}

// settle waits until the tree is ready.
func (b *Bench) settle(ctx context.Context, t made) error {
	wait := time.Until(t.ready)
	if wait <= 0 {
		return nil
	}
	b.Say(fmt.Sprintf("waiting %v, so that the tree is not a new one", wait.Round(time.Second)))
	select {
	case <-time.After(wait):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
