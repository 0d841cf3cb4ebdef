package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/signal"
	"path"
	"strconv"
	"strings"
	"syscall"

	"github.com/go-git/go-billy/v5"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/image"
	"github.com/rootnfsd/rootnfsd/fs/source"
)

// inVersion is an object that an argument such as v2:/etc/hostname names.
type inVersion struct {
	*image.Version
	files  billy.Filesystem
	path   string // absolute and clean
	id     fs.NodeID
	object *image.Object
}

// find returns what VERSION:PATH names. It follows a symlink at the end of the
// path if follow is set, or if a slash is behind it.
func (s *openedStore) find(arg string, follow bool) (*inVersion, error) {
	name, p, ok := strings.Cut(arg, ":")
	if !ok && strings.Contains(name, "/") {
		return nil, fmt.Errorf("%s: want VERSION:PATH, such as v2:/etc/hostname", arg)
	}
	v, err := s.version(name)
	if err != nil {
		return nil, err
	}
	f := &inVersion{Version: v, files: v.Filesystem(), path: path.Clean("/" + p)}
	stat := f.files.Lstat
	if follow || strings.HasSuffix(p, "/") {
		stat = f.files.Stat
	}
	info, err := stat(f.path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return f, f.is(fs.NodeID(source.MetaOf(info).Ino))
}

// is makes f the object id.
func (f *inVersion) is(id fs.NodeID) (err error) {
	f.id = id
	if f.object, err = f.Object(id); err != nil {
		return fmt.Errorf("%s:%s: %w", f.Info().Name, f.path, err)
	}
	return nil
}

// contents returns what is in a directory.
func (f *inVersion) contents() ([]*inVersion, error) {
	infos, err := f.files.ReadDir(f.path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Info().Name, err)
	}
	all := make([]*inVersion, len(infos))
	for i, info := range infos {
		all[i] = &inVersion{Version: f.Version, files: f.files, path: join(f.path, info.Name())}
		if err := all[i].is(fs.NodeID(source.MetaOf(info).Ino)); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// names are what the users and groups of a version are called.
type names struct{ users, groups map[uint32]string }

// readNames reads /etc/passwd and /etc/group of a version, if it has them.
func readNames(files billy.Filesystem) names {
	return names{idsIn(files, "/etc/passwd"), idsIn(files, "/etc/group")}
}

// idsIn reads the names in a file of passwd(5) or group(5), which both have the
// number third.
func idsIn(files billy.Filesystem, path string) map[uint32]string {
	ids := map[uint32]string{}
	f, err := files.Open(path)
	if err != nil {
		return ids
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Split(lines.Text(), ":")
		if len(fields) < 3 {
			continue
		}
		id, err := strconv.ParseUint(fields[2], 10, 32)
		if _, known := ids[uint32(id)]; err == nil && !known {
			ids[uint32(id)] = fields[0]
		}
	}
	return ids
}

// nameOf is the name of a user or group, or its number.
func nameOf(ids map[uint32]string, id uint32) string {
	if name := ids[id]; name != "" {
		return printable(name)
	}
	return strconv.FormatUint(uint64(id), 10)
}

// stoppable is the context of a command that cleans up behind itself when it is
// stopped.
func stoppable(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
}
