package nodefiles

import (
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/layer"
)

// mostEntries bounds how much of a directory is looked at, for one that was meant to be another.
const mostEntries = 10 * layer.MaxFiles

// addFrom adds what an operator has put into a directory: first what is for all nodes,
// then what is for this one. It says which files it leaves out; the error is that of the
// directory.
func (s *set) addFrom(dir string, n Node) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("no files of nodes: %w", err)
	}
	defer root.Close()
	for _, top := range []string{allNodes, n.key()} {
		info, err := root.Lstat(top)
		switch {
		case errors.Is(err, os.ErrNotExist):
		case err != nil:
			s.refuse(err)
		case !info.IsDir():
			s.refuse(fmt.Errorf("%s is no directory", path.Join(dir, top)))
		default:
			s.addTree(root, top, n)
		}
	}
	return nil
}

// addTree adds the files below a directory.
func (s *set) addTree(root *os.Root, top string, n Node) {
	from := map[string]string{} // which file became one of that path
	err := iofs.WalkDir(root.FS(), top, func(name string, e iofs.DirEntry, err error) error {
		if s.seen++; s.seen > mostEntries {
			s.refuse(fmt.Errorf("%s: there are more than %d files and directories: this and what comes behind it is left out", name, mostEntries))
			return iofs.SkipAll
		}
		switch {
		case err != nil:
			s.refuse(err)
			return nil
		case e.IsDir():
			return nil
		}
		if err := s.addFile(root, top, name, e.Type(), n, from); err != nil {
			s.refuse(fmt.Errorf("%s: %w", name, err))
			if err == errTooMany {
				return iofs.SkipAll
			}
		}
		return nil
	})
	if err != nil {
		s.refuse(err)
	}
}

// addFile adds one file. What it finds in from became one of the same path.
func (s *set) addFile(root *os.Root, top, name string, kind os.FileMode, n Node, from map[string]string) error {
	at, expand := strings.CutSuffix(strings.TrimPrefix(name, top), templateSuffix)
	switch {
	case kind&os.ModeSymlink != 0:
		return errors.New("a symlink, and only regular files can be given to a node")
	case !kind.IsRegular():
		return errNotRegular
	case strings.HasSuffix(at, "/"):
		return errors.New("a template without a name")
	case from[at] != "":
		return fmt.Errorf("%s is of the same name", from[at])
	}
	from[at] = name
	f, err := read(root, name, s.room(at))
	if err == nil && expand {
		f.Content, err = s.expand(name, f.Content, n, s.room(at))
	}
	if err != nil {
		return err
	}
	f.Path = at
	return s.put(f)
}

var errNotRegular = errors.New("only regular files can be given to a node")

// read reads a file of at most so many bytes. It waits for nothing that is none.
func read(root *os.Root, name string, most int) (f layer.File, err error) {
	from, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return f, bare(err)
	}
	defer from.Close()
	info, err := from.Stat()
	if err != nil {
		return f, bare(err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !info.Mode().IsRegular() || !ok {
		return f, errNotRegular
	}
	b, err := io.ReadAll(io.LimitReader(from, int64(most)+1))
	if err != nil {
		return f, bare(err)
	}
	if len(b) > most {
		return f, errTooLarge
	}
	at := info.ModTime()
	return layer.File{
		Mode: stat.Mode & 0o7777, UID: stat.Uid, GID: stat.Gid,
		Mtime:   fs.Time{Sec: at.Unix(), Nsec: uint32(at.Nanosecond())},
		Content: string(b),
	}, nil
}

// bare is an error without the name that the caller says anyway.
func bare(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
