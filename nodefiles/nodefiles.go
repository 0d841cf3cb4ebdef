package nodefiles

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/layer"
)

// Node is who the files are for. Templates use its fields.
type Node struct {
	Name     string // empty for a node that nobody named
	Address  netip.Addr
	Hostname string // what the node calls itself; empty for its name or, without one, its address
	MAC      string // as in dc:a6:32:01:36:c2
	Serial   string // eight hexadecimal digits
	Labels   []string
	Image    string
	Version  string
}

// HasLabel reports whether the node has a label.
func (n Node) HasLabel(label string) bool { return slices.Contains(n.Labels, label) }

// key is what the node's directory is called.
func (n Node) key() string {
	if n.Name != "" {
		return n.Name
	}
	return n.Address.String()
}

// Options say which files there are.
type Options struct {
	// Dir has a directory for each node, and one for all; empty for none.
	Dir string
	// Identity is whether nodes that have a name get a host name, a machine-id and host
	// keys.
	Identity bool
	// Secrets is the directory where these are kept. It is made when it is needed.
	Secrets string
}

// Maker makes files of nodes. Its methods may be called by many goroutines at once.
type Maker struct {
	Options
	secrets      [32]sync.Mutex // a node's keys are made under one of these
	templateTime time.Duration  // that templates of one node may take together
}

// New returns a Maker, unless there is no such directory as Dir.
func New(o Options) (*Maker, error) {
	if o.Dir != "" {
		info, err := os.Stat(o.Dir)
		switch {
		case errors.Is(err, os.ErrNotExist):
			return nil, fmt.Errorf("there is no directory %s for the files of nodes", o.Dir)
		case err != nil:
			return nil, err
		case !info.IsDir():
			return nil, fmt.Errorf("%s is not a directory, the files of nodes need one", o.Dir)
		}
	}
	return &Maker{Options: o, templateTime: mostTemplateTime}, nil
}

// allNodes is the directory with the files of every node.
const allNodes = "_all"

// For returns the files of a node that mounts base, within the bounds of a layer, and what is wrong
// with those that it leaves out. The same node has the same files until somebody changes them. It may
// wait for a disk, and makes the secrets of a node that has none.
func (m *Maker) For(n Node, base fs.Tree) (files []layer.File, problems []error) {
	key := n.key()
	if !isName(key) {
		return nil, []error{fmt.Errorf("%q can be no node's name", key)}
	}
	n.Hostname = cmp.Or(n.Hostname, key)
	s := &set{files: map[string]layer.File{}, time: m.templateTime}
	if m.Identity && n.Name != "" {
		m.addIdentity(s, n, base)
	}
	if m.Dir != "" {
		if err := s.addFrom(m.Dir, n); err != nil {
			s.refuse(err)
		}
	}
	if s.unsaid > 0 {
		s.problems = append(s.problems, fmt.Errorf("and %d more", s.unsaid))
	}
	return slices.Collect(maps.Values(s.files)), s.problems
}

// isName reports whether a name can be that of a directory of a node.
func isName(name string) bool {
	return name != "" && name == filepath.Base(name) && !strings.ContainsAny(name[:1], "._/") && len(name) <= fs.MaxName
}

// set is the files of a node, as far as they are made.
type set struct {
	files    map[string]layer.File // by path
	bytes    int                   // of content
	problems []error
	unsaid   int           // problems that are only counted
	seen     int           // entries of directories
	time     time.Duration // that is left to templates
}

// mostProblems is how many of them are told one by one.
const mostProblems = 20

func (s *set) refuse(err error) {
	if len(s.problems) == mostProblems {
		s.unsaid++
		return
	}
	s.problems = append(s.problems, err)
}

var (
	errTooMany  = fmt.Errorf("the node has more than %d files: this and what comes behind it is left out", layer.MaxFiles)
	errTooLarge = fmt.Errorf("the files of the node have more than %d bytes with this one, which is left out", layer.MaxBytes)
)

// room is how many bytes a file may have that is to be put.
func (s *set) room(path string) int { return layer.MaxBytes - s.bytes + len(s.files[path].Content) }

// put adds a file, or puts it in place of the one with its path.
func (s *set) put(f layer.File) error {
	old, replaces := s.files[f.Path]
	switch {
	case !replaces && len(s.files) == layer.MaxFiles:
		return errTooMany
	case len(f.Content) > s.room(f.Path):
		return errTooLarge
	}
	s.bytes += len(f.Content) - len(old.Content)
	s.files[f.Path] = f
	return nil
}
