package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/go-git/go-billy/v5"
	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs/durable"
	"github.com/rootnfsd/rootnfsd/fs/source"
)

// SealResult tells what a seal did.
type SealResult struct {
	Info
	Unchanged bool   // the version was sealed with this very content before
	NewBytes  uint64 // content added to the store; the rest was there already
	Warnings  []string
}

// SealOptions say how to seal. The zero value is right unless there is a reason.
type SealOptions struct {
	// ReadAll reads every file. Without it, one that is by all that stat says the
	// one that it was when the same directory was sealed last is not read again.
	ReadAll bool
	// DryRun says what would come of it, and stores nothing.
	DryRun bool
	// MaxBytes is how large the files may be in all, holes counted; 0 is no limit.
	MaxBytes uint64
	// Progress, if not nil, is called a few times in a second, by one goroutine.
	Progress func(Progress)
}

// errChanged is the error for a tree that changes while it is being sealed.
var errChanged = errors.New("changed while it was being sealed: seal again when nothing writes to the tree")

// Seal makes version name of the tree src, which is one of package source. If
// there is a version of that name with other content, that one stays for the
// nodes that run it, under a name of its own (see Info).
//
// It waits for others who change the store until ctx ends. Whatever the error,
// and wherever the process is killed, the store is as it was before, or as it
// should be afterwards; a name is never without a version once it had one.
func (s *Store) Seal(ctx context.Context, name string, src billy.Filesystem, opts SealOptions) (SealResult, error) {
	if err := ValidName(name); err != nil {
		return SealResult{}, err
	}
	unlock, err := s.lock(ctx)
	if err != nil {
		return SealResult{}, fmt.Errorf("seal %s: %w", name, err)
	}
	defer unlock()
	s.atStep("locked")
	result, err := s.seal(ctx, name, src, opts)
	if err != nil {
		return SealResult{}, fmt.Errorf("seal %s: %w", name, s.explainSpace(err))
	}
	return result, nil
}

// explainRead adds to an error from reading the tree what can be done about it.
func explainRead(err error) error {
	switch {
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w (run as root, or give rootnfsd CAP_DAC_READ_SEARCH)", err)
	case errors.Is(err, os.ErrNotExist): // it was listed a moment ago
		return fmt.Errorf("%w: the tree %w", err, errChanged)
	}
	return err
}

// explainSpace adds to the error of a full disk how much room there is.
func (s *Store) explainSpace(err error) error {
	if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
		return err
	}
	_, free, statErr := s.disk()
	if statErr != nil {
		return err
	}
	return fmt.Errorf("%w: %s has %s free once what was written of this version is deleted", err, s.dir, formatBytes(free))
}

// seal is Seal with the lock held.
func (s *Store) seal(ctx context.Context, name string, src billy.Filesystem, opts SealOptions) (SealResult, error) {
	c := newClock(src)
	var last *recollection
	if !opts.ReadAll {
		last = s.recall(src, &c)
	}
	todo, err := s.estimate(ctx, src, last)
	if err != nil {
		return SealResult{}, err
	}
	b, err := newBuilder(s, src, c, last)
	if err != nil {
		return SealResult{}, err
	}
	defer b.close()
	b.dry, b.discard, b.walker.most = opts.DryRun, opts.DryRun, opts.MaxBytes
	b.meter = newMeter(opts.Progress, todo)
	s.atStep("begun")
	if err := b.build(ctx); err != nil {
		return SealResult{}, explainRead(err)
	}
	s.atStep("read")
	return s.conclude(name, b)
}

// conclude makes version name of what was built.
func (s *Store) conclude(name string, b *builder) (SealResult, error) {
	h, err := b.describe(time.Now())
	if err != nil {
		return SealResult{}, err
	}
	old, oldErr := readHeader(s.indexPath(name))
	if oldErr != nil && !isMissing(oldErr) {
		b.warn(fmt.Sprintf("the index that was there is replaced, not kept: %v", oldErr))
	}
	result := SealResult{Info: h.info(name), NewBytes: b.newBytes(), Warnings: b.walker.warnings}
	if oldErr == nil && old.digest == h.digest && b.pack == nil && (b.last.is(name, old) || s.intact(name)) {
		h = old
		result.Info, result.Unchanged = old.info(name), true
	}
	if b.dry {
		return result, nil
	}
	if !result.Unchanged {
		if err := s.publish(name, b, old, h); err != nil {
			return result, err
		}
	}
	if b.clock.ok && (b.fresh || !result.Unchanged) {
		if err := s.remember(name, b, h); err != nil {
			result.Warnings = append(result.Warnings, fmt.Sprintf("the next seal of this tree will read all of it again: %v", err))
		}
		s.atStep("stamps published")
	}
	return result, nil
}

// estimate returns what there is to seal, for reporting progress: as the last
// seal found it, if that is known. It fails if there is certainly no room.
func (s *Store) estimate(ctx context.Context, src billy.Filesystem, last *recollection) (totals, error) {
	if last != nil {
		return totals{last.index.counts[secInodes], last.index.bytes}, nil
	}
	todo, err := s.count(ctx, src)
	if err != nil {
		return todo, explainRead(err)
	}
	return todo, s.checkSpace(todo.bytes)
}

// publish writes the index of a version, of which h is the header, and gives it and
// the pack their names. Each step leaves a store in order: a pack that nobody refers
// to is garbage, but no harm. old is the header of the index that is replaced, nil if
// there is none that can be read.
func (s *Store) publish(name string, b *builder, old, h *header) (err error) {
	index, err := b.write(h)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, durable.Discard(index)) }()
	s.atStep("written")
	if b.pack != nil {
		if err := durable.Commit(b.pack.f, packPath(s.packsDir(), b.packDigest)); err != nil {
			return err
		}
	}
	s.atStep("pack published")
	if old != nil && old.digest != h.digest {
		if err := s.keep(name, supersededName(name, old.digest)); err != nil {
			return err
		}
	}
	s.atStep("old version kept")
	if err := durable.Commit(index, s.indexPath(name)); err != nil {
		return err
	}
	s.atStep("index published")
	return nil
}

// intact reports whether a version can be read, as far as opening it tells.
func (s *Store) intact(name string) bool {
	v, err := s.Open(name)
	return err == nil && len(v.Problems()) == 0
}

// keep gives the version that is about to be replaced a name of its own. If an
// earlier seal left the same version there, that may be damaged by now, and is
// replaced by one that is not.
func (s *Store) keep(name, kept string) error {
	err := os.Link(s.indexPath(name), s.indexPath(kept))
	if errors.Is(err, os.ErrExist) {
		err = nil
		if s.intact(name) {
			err = s.linkOver(s.indexPath(name), s.indexPath(kept))
		}
	}
	if err != nil {
		return err
	}
	return durable.SyncDir(s.versionsDir())
}

// linkOver makes to another name of the file from, whatever was there.
func (s *Store) linkOver(from, to string) error {
	temp := filepath.Join(s.versionsDir(), durable.TempPattern+"kept")
	if err := os.Link(from, temp); err != nil {
		return err
	}
	if err := os.Rename(temp, to); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	// Between two names of one file rename(2) does nothing at all.
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// disk tells the size of the store's disk, and what is free of it for this
// process.
func (s *Store) disk() (size, free uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(s.dir, &st); err != nil {
		return 0, 0, &os.PathError{Op: "statfs", Path: s.dir, Err: err}
	}
	return st.Blocks * uint64(st.Bsize), st.Bavail * uint64(st.Bsize), nil
}

// reserve is what sealing leaves free of a disk, for what must still be written
// when it is full: which version is promoted, and which nodes run what. It is
// the 100th part of a small disk.
func reserve(size uint64) uint64 { return min(16<<20, size/100) }

// frugal is a file of the store that is written as long as the reserve is left.
type frugal struct {
	store *Store
	f     *os.File
}

func (w frugal) Write(b []byte) (int, error) {
	if err := w.check(uint64(len(b))); err != nil {
		return 0, err
	}
	return w.f.Write(b)
}

// check fails if n bytes more would not leave the reserve.
func (w frugal) check(n uint64) error {
	size, free, err := w.store.disk()
	if err != nil {
		return err
	}
	if keep := reserve(size); free < n+keep {
		return fmt.Errorf("write %s: %w but %s in reserve", w.f.Name(), unix.ENOSPC, formatBytes(keep))
	}
	return nil
}

// allocate makes the file, which is empty, n bytes long and finds room for them.
func (w frugal) allocate(n uint64) error {
	if err := w.check(n); err != nil {
		return err
	}
	for {
		err := unix.Fallocate(int(w.f.Fd()), 0, 0, int64(n))
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EOPNOTSUPP: // on a few file systems
			_, err = io.CopyN(w.f, zeroReader{}, int64(n))
			return err
		}
		return err
	}
}

// zeroReader reads zeros without end.
type zeroReader struct{}

func (zeroReader) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// checkSpace fails if there is certainly no room for n bytes: with packs in the
// store most of the content may be there already.
func (s *Store) checkSpace(n uint64) error {
	packs, err := s.packs.list()
	if err != nil || len(packs) > 0 {
		return err
	}
	_, free, err := s.disk()
	if err != nil {
		return err
	}
	if n > free {
		return fmt.Errorf("the tree has %s of content, but only %s are free on the disk of %s: %w",
			formatBytes(n), formatBytes(free), filepath.Dir(s.packsDir()), unix.ENOSPC)
	}
	return nil
}

// formatBytes writes a number of bytes for people.
func formatBytes(n uint64) string {
	const units = "kMGTPE"
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	v, i := float64(n)/1000, 0
	for v >= 999.95 {
		v /= 1000
		i++
	}
	return fmt.Sprintf("%.1f %cB", v, units[i])
}

// meter reports progress, not more often than people can read it.
type meter struct {
	report func(Progress)
	now    Progress
	next   time.Time
}

const meterPeriod = 100 * time.Millisecond

func newMeter(report func(Progress), todo totals) *meter {
	return &meter{report: report, now: Progress{TotalFiles: todo.objects, TotalBytes: todo.bytes}}
}

func (m *meter) add(files, bytes uint64) {
	m.now.Files += files
	m.now.Bytes += bytes
	if m.now.TotalFiles > 0 { // which may have been an estimate
		m.now.TotalFiles, m.now.TotalBytes = max(m.now.TotalFiles, m.now.Files), max(m.now.TotalBytes, m.now.Bytes)
	}
	if m.report == nil {
		return
	}
	if t := time.Now(); t.After(m.next) {
		m.next = t.Add(meterPeriod)
		m.report(m.now)
	}
}

// finish reports the end.
func (m *meter) finish() {
	m.now.TotalFiles, m.now.TotalBytes = m.now.Files, m.now.Bytes
	if m.report != nil {
		m.report(m.now)
	}
}

// xattrReader returns the part of a source that reads extended attributes.
func xattrReader(src billy.Filesystem) func(string) ([]source.Xattr, error) {
	if r, ok := src.(source.XattrReader); ok {
		return r.Xattrs
	}
	return func(string) ([]source.Xattr, error) { return nil, nil }
}
