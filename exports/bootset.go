package exports

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/rootnfsd/rootnfsd/fs"
)

// BootSet is what nodes read while they booted a version, as far as the server
// saw it. Files are named by path, so that it serves for the next version, too.
type BootSet struct {
	Format int `json:"format"`
	Ref
	// Initramfs is set if it was learnt from nodes that certainly booted, and
	// not from whoever mounted the version.
	Initramfs bool       `json:"initramfs"`
	Files     []BootFile `json:"files"` // in the order of their paths
}

// BootFile is a file of a BootSet and the blocks that were read of it.
type BootFile struct {
	Path   string `json:"path"`
	Blocks Blocks `json:"blocks"`
}

// Blocks are numbers of blocks of 64 KiB, ascending.
type Blocks []uint64

// MarshalText writes ranges, such as 0-12,14, for JSON.
func (b Blocks) MarshalText() ([]byte, error) {
	var text []byte
	for i := 0; i < len(b); i++ {
		first := i
		for i+1 < len(b) && b[i+1] == b[i]+1 {
			i++
		}
		if first > 0 {
			text = append(text, ',')
		}
		text = strconv.AppendUint(text, b[first], 10)
		if i > first {
			text = append(text, '-')
			text = strconv.AppendUint(text, b[i], 10)
		}
	}
	return text, nil
}

// parseBlocks reads what MarshalText wrote, unless it is more than so many blocks.
func parseBlocks(text string, most int) (Blocks, error) {
	if text == "" {
		return nil, nil
	}
	var b Blocks
	for part := range strings.SplitSeq(text, ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		first, err := strconv.ParseUint(from, 10, blockBits)
		last, errLast := strconv.ParseUint(to, 10, blockBits)
		if err != nil || errLast != nil || first > last {
			return nil, fmt.Errorf("%.80q are no blocks", part)
		}
		if last-first >= uint64(most-len(b)) {
			return nil, fmt.Errorf("there are more than %d blocks", mostSetBlocks)
		}
		for ; first <= last; first++ {
			b = append(b, first)
		}
	}
	return b, nil
}

// UnmarshalJSON reads a set, unless it is larger than any that is saved: a few
// bytes of a damaged file could stand for more blocks than fit into memory.
func (b *BootSet) UnmarshalJSON(text []byte) error {
	type plain BootSet // without this method
	in := struct {
		*plain
		Files []struct{ Path, Blocks string } `json:"files"`
	}{plain: (*plain)(b)}
	if err := json.Unmarshal(text, &in); err != nil {
		return err
	}
	b.Files = nil
	room := mostSetBlocks
	for _, f := range in.Files {
		blocks, err := parseBlocks(f.Blocks, room)
		if err != nil {
			return fmt.Errorf("%.80q: %w", f.Path, err)
		}
		room -= len(blocks)
		b.Files = append(b.Files, BootFile{f.Path, blocks})
	}
	return nil
}

const (
	bootFormat   = 1
	bootDir      = "boot" // of a file for each version, by digest
	mostBootSets = 8      // beyond, the one that was not changed for longest is deleted
	mostBootJSON = 16 << 20

	mostSetBlocks = 1 << bootLogBits // of all files together: what a bootLog can hold
)

func (s *State) bootPath(d fs.Digest) string {
	return filepath.Join(s.dir, bootDir, d.Short()+".json")
}

// BootSet returns what a node that boots the version is likely to read: what
// nodes read that did, or else that booted the promoted version, or else the
// version seen last. It is nil if none did. A set that cannot be read does not
// keep from finding another; it is the error if there is none.
func (s *State) BootSet(version Ref) (*BootSet, error) {
	rollout, err := s.Rollout()
	if err != nil {
		return nil, err
	}
	paths := []string{s.bootPath(version.Digest)}
	if promoted, ok := rollout.Promoted(); ok {
		paths = append(paths, s.bootPath(promoted.Digest))
	}
	saved, err := s.bootSets()
	if err != nil {
		return nil, err
	}
	var unreadable error // the first
	for _, path := range append(paths, saved...) {
		set, err := readBootSet(path)
		if set != nil {
			return set, nil
		}
		if unreadable == nil {
			unreadable = err
		}
	}
	return nil, unreadable
}

// bootSets returns the paths of all boot sets, the one that was changed last first.
func (s *State) bootSets() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, bootDir))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	changed := map[string]int64{}
	var paths []string
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() || !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		path := filepath.Join(s.dir, bootDir, e.Name())
		changed[path] = info.ModTime().UnixNano()
		paths = append(paths, path)
	}
	slices.SortFunc(paths, func(a, b string) int { return cmp.Compare(changed[b], changed[a]) })
	return paths, nil
}

// initramfs reports whether there is a boot set that was learnt from nodes which
// boot by an initramfs.
func (s *State) initramfs() bool {
	paths, _ := s.bootSets() // a state that cannot be read says so elsewhere
	return slices.ContainsFunc(paths, func(path string) bool {
		set, err := readBootSet(path)
		return err == nil && set != nil && set.Initramfs
	})
}

// readBootSet returns nil if there is none.
func readBootSet(path string) (*BootSet, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	set := new(BootSet)
	if err := json.NewDecoder(io.LimitReader(f, mostBootJSON)).Decode(set); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w; it can be deleted, and is learnt anew from boots after the next start of the server", path, err)
	}
	if set.Format != bootFormat {
		return nil, fmt.Errorf("%s: format %d is not known to this version of rootnfsd, which writes format %d", path, set.Format, bootFormat)
	}
	return set, nil
}

// saveBootSet saves what was learnt of a version, together with what was known
// before, and deletes what is old.
func (s *State) saveBootSet(set *BootSet) error {
	path := s.bootPath(set.Digest)
	before, err := readBootSet(path)
	switch {
	case err != nil || before == nil: // nothing that could be kept
	case before.Initramfs && !set.Initramfs: // what is there is known better
		return nil
	case before.Initramfs == set.Initramfs && !set.add(before):
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := replaceJSON(path, set); err != nil {
		return err
	}
	return s.pruneBootSets()
}

func (s *State) pruneBootSets() error {
	paths, err := s.bootSets()
	if err != nil {
		return err
	}
	for _, path := range paths[min(mostBootSets, len(paths)):] {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// add adds what other holds, and reports whether b holds more than other. It
// does not if it would be too much to be read again: no boots read that much, so
// there is nothing in it to learn.
func (b *BootSet) add(other *BootSet) (more bool) {
	merged := map[string]Blocks{}
	for _, f := range b.Files {
		merged[f.Path] = f.Blocks
	}
	for _, f := range other.Files {
		all := append(merged[f.Path], f.Blocks...)
		slices.Sort(all)
		merged[f.Path] = slices.Compact(all)
	}
	b.setFiles(merged)
	n := b.blocks()
	return n > other.blocks() && n <= mostSetBlocks
}

func (b *BootSet) setFiles(blocks map[string]Blocks) {
	b.Files = b.Files[:0]
	for _, path := range slices.Sorted(maps.Keys(blocks)) {
		b.Files = append(b.Files, BootFile{path, blocks[path]})
	}
}

func (b *BootSet) blocks() (n int) {
	for _, f := range b.Files {
		n += len(f.Blocks)
	}
	return n
}

// In finds the set in a tree: that of the version, or one that followed it.
// Files that are not there are left out.
func (b *BootSet) In(tree fs.Tree) []fs.Range {
	var ranges []fs.Range
	for _, f := range b.Files {
		id, err := lookUp(tree, f.Path)
		if err != nil {
			continue
		}
		for _, block := range f.Blocks {
			ranges = append(ranges, fs.Range{ID: id, Off: block * bootBlock, Len: bootBlock})
		}
	}
	return ranges
}

// lookUp finds an object by a path without following symlinks.
func lookUp(tree fs.Tree, path string) (fs.NodeID, error) {
	names, err := splitPath(path)
	id := tree.Root()
	for _, name := range names {
		if id, err = tree.Lookup(&fs.Cred{}, id, fs.Name(name)); err != nil {
			break
		}
	}
	return id, err
}

// bootSet returns what is in the log by path.
func (l *bootLog) bootSet(v *version, tree fs.Tree) (*BootSet, error) {
	blocks := map[fs.NodeID]Blocks{}
	for _, key := range l.keys() {
		id := fs.NodeID(key >> blockBits)
		blocks[id] = append(blocks[id], key&(1<<blockBits-1))
	}
	set := &BootSet{Format: bootFormat, Ref: Ref{Version: v.name, Digest: v.digest}, Initramfs: l.initramfs}
	files := map[string]Blocks{}
	err := eachFile(tree, func(path string, id fs.NodeID) bool {
		if b := blocks[id]; b != nil && utf8.ValidString(path) { // as JSON holds nothing else
			slices.Sort(b)
			files[path] = b
			delete(blocks, id)
		}
		return len(blocks) > 0
	})
	set.setFiles(files)
	return set, err
}

// eachFile calls do with a path of each regular file until it returns false.
func eachFile(tree fs.Tree, do func(path string, id fs.NodeID) bool) error {
	type directory struct {
		id   fs.NodeID
		path string
	}
	entries := make([]fs.DirEntry, 256)
	dirs := uint64(0)
	for queue := []directory{{tree.Root(), ""}}; len(queue) > 0; queue = queue[1:] {
		dir := queue[0]
		if dirs++; dirs > tree.Statfs().Files { // directories that contain each other
			return fs.ErrIO
		}
		for cookie, last := uint64(0), false; !last; {
			n, eof, err := tree.ReadDir(&fs.Cred{}, dir.id, cookie, entries)
			if err != nil {
				return err
			}
			for i := range entries[:n] {
				e := &entries[i]
				cookie = e.Cookie
				path := dir.path + "/" + string(e.Name)
				switch {
				case fs.Name(e.Name).IsDot() || fs.Name(e.Name).IsDotDot():
				case e.Kind == fs.Directory:
					queue = append(queue, directory{e.ID, path})
				case e.Kind == fs.Regular && !do(path, e.ID):
					return nil
				}
			}
			last = eof || n == 0
		}
	}
	return nil
}
