package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// stormDirs are the directories that everything moves between.
var stormDirs = []string{"a", "b", "c", "d"}

// storm is what one node does to directories that others change, too. It has
// files and directories of its own, of which it always knows where they are, and
// takes part in moving files that are everybody's.
type storm struct {
	dir, node string
	killed    bool
	rand      *rand.Rand
	own       []*drifter
	shared    []string

	moved, missed, repeated int
}

// drifter is a file or a directory of the node's own.
type drifter struct {
	name       string
	in         string // directory
	isDir      bool
	linked     bool // a file has a second name
	generation int  // of a file's content
}

func (d *drifter) content() string { return fmt.Sprintln(d.name, d.generation) }

// stormFor renames, links and replaces for a while, and then looks whether
// everything of its own is as it must be.
func stormFor(flags *flag.FlagSet, args []string) error {
	dir := flags.String("dir", ".", "where a, b, c and d are")
	node := flags.String("node", "", "what names of the node's own begin with")
	own := flags.Int("own", 24, "how many files and directories the node has of its own")
	shared := flags.String("shared", "", "files of all nodes, with commas")
	duration := flags.Duration("time", time.Minute, "how long it takes")
	killed := flags.Bool("killed", false, "the server may be killed: a call that it has carried out and did not answer may fail when the kernel repeats it")
	seed := flags.Uint64("seed", rand.Uint64N(1<<32), "what the operations follow from")
	flags.Parse(args)
	fmt.Printf("seed %d\n", *seed)
	s := startStorm(*dir, *node, *seed)
	s.killed, s.shared = *killed, strings.Split(*shared, ",")
	if err := s.makeOwn(*own); err != nil {
		return err
	}
	n := 0
	for end := time.Now().Add(*duration); time.Now().Before(end); n++ {
		if err := s.step(); err != nil {
			return fmt.Errorf("operation %d: %w", n, err)
		}
	}
	if err := s.checkOwn(); err != nil {
		return fmt.Errorf("after %d operations: %w", n, err)
	}
	fmt.Printf("%d operations; of the files of all %d were moved and %d were gone; %d operations were done and failed\n", n, s.moved, s.missed, s.repeated)
	return nil
}

func startStorm(dir, node string, seed uint64) *storm {
	return &storm{dir: dir, node: node, rand: rand.New(rand.NewPCG(seed, 0))}
}

// makeOwn makes so many files and directories of the node's own.
func (s *storm) makeOwn(n int) error {
	for i := range n {
		d := &drifter{name: fmt.Sprintf("%s-%d", s.node, i), in: "a", isDir: i%6 == 5}
		s.own = append(s.own, d)
		if err := s.make(d); err != nil {
			return err
		}
	}
	return nil
}

// checkOwn looks for everything of the node's own.
func (s *storm) checkOwn() error {
	for _, d := range s.own {
		if err := s.check(d); err != nil {
			return err
		}
	}
	return nil
}

func (s *storm) path(dir, name string) string { return filepath.Join(s.dir, dir, name) }

func (s *storm) anyDir() string { return stormDirs[s.rand.IntN(len(stormDirs))] }

func (s *storm) make(d *drifter) error {
	if d.isDir {
		return s.mkdir(s.path(d.in, d.name))
	}
	return os.WriteFile(s.path(d.in, d.name), []byte(d.content()), 0o644)
}

func (s *storm) step() error {
	if s.rand.IntN(3) == 0 {
		return s.moveShared()
	}
	d := s.own[s.rand.IntN(len(s.own))]
	switch n := s.rand.IntN(10); {
	case n < 6 || d.isDir && n < 9:
		return s.move(d)
	case d.isDir:
		return s.remake(d)
	case n < 8:
		return s.replace(d)
	}
	return s.link(d)
}

// moveShared moves a file that may be anywhere, and that others move as well.
func (s *storm) moveShared() error {
	name := s.shared[s.rand.IntN(len(s.shared))]
	err := os.Rename(s.path(s.anyDir(), name), s.path(s.anyDir(), name))
	if errors.Is(err, fs.ErrNotExist) {
		s.missed++
		return nil
	}
	s.moved++
	return err
}

// move moves what nobody else moves, so it is there.
func (s *storm) move(d *drifter) error {
	to := d.in
	for to == d.in {
		to = s.anyDir()
	}
	names := []string{d.name}
	if d.linked {
		names = append(names, d.name+".link")
	}
	for _, name := range names {
		from, to := s.path(d.in, name), s.path(to, name)
		if err := s.forgive(os.Rename(from, to), func() bool { return !exists(from) && exists(to) }); err != nil {
			return err
		}
	}
	d.in = to
	return nil
}

// replace does what editors do: the new content takes the name of the old.
func (s *storm) replace(d *drifter) error {
	temporary, path := s.path(d.in, d.name+".new"), s.path(d.in, d.name)
	d.generation++
	if err := os.WriteFile(temporary, []byte(d.content()), 0o644); err != nil {
		return err
	}
	if d.linked { // which goes on to be of the old
		if err := s.unlink(d); err != nil {
			return err
		}
	}
	return s.forgive(os.Rename(temporary, path), func() bool { return !exists(temporary) })
}

// link gives a file a second name, or takes it away.
func (s *storm) link(d *drifter) error {
	if d.linked {
		return s.unlink(d)
	}
	path := s.path(d.in, d.name)
	d.linked = true
	if err := s.forgive(os.Link(path, path+".link"), func() bool { return exists(path + ".link") }); err != nil {
		return err
	}
	return s.wantLinks(path, 2)
}

func (s *storm) unlink(d *drifter) error {
	path := s.path(d.in, d.name)
	d.linked = false
	if err := s.forgive(os.Remove(path+".link"), func() bool { return !exists(path + ".link") }); err != nil {
		return err
	}
	return s.wantLinks(path, 1)
}

// remake removes a directory and makes it again.
func (s *storm) remake(d *drifter) error {
	path := s.path(d.in, d.name)
	if err := s.forgive(syscall.Rmdir(path), func() bool { return !exists(path) }); err != nil {
		return err
	}
	return s.mkdir(path)
}

func (s *storm) mkdir(path string) error {
	return s.forgive(os.Mkdir(path, 0o755), func() bool { return exists(path) })
}

// forgive forgives an error if the server may have been killed between doing it
// and saying so, and if it is done.
func (s *storm) forgive(err error, done func() bool) error {
	if err == nil || !s.killed || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrExist) || !done() {
		return err
	}
	s.repeated++
	return nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func (s *storm) wantLinks(path string, want uint64) error {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if uint64(st.Nlink) != want {
		return fmt.Errorf("%s has %d names, want %d", path, st.Nlink, want)
	}
	return nil
}

// check looks for something of the node's own: it is where it must be, and nowhere
// else.
func (s *storm) check(d *drifter) error {
	for _, dir := range stormDirs {
		names := map[string]bool{d.name: dir == d.in, d.name + ".link": dir == d.in && d.linked, d.name + ".new": false}
		for name, want := range names {
			if got := exists(s.path(dir, name)); got != want {
				return fmt.Errorf("%s is there: %v, want %v", s.path(dir, name), got, want)
			}
		}
	}
	path := s.path(d.in, d.name)
	if d.isDir {
		return s.wantLinks(path, 2)
	}
	links := uint64(1)
	if d.linked {
		links = 2
	}
	content, err := os.ReadFile(path)
	if err == nil && string(content) != d.content() {
		err = fmt.Errorf("%s says %q, want %q", path, content, d.content())
	}
	return errors.Join(err, s.wantLinks(path, links))
}
