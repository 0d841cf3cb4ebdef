package homes

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/bench/peer"
	"github.com/rootnfsd/rootnfsd/bench/rpc"
)

// Target is a server that is put to work.
type Target struct {
	Name   string
	Server *peer.Server
	// Export is the directory that is mounted, and Dir the one in it that is used.
	Export, Dir string
	// Durable says that Dir was made Durable: so that attributes are as safe as
	// names, COMMIT follows SETATTR.
	Durable bool
	// NamesOnly keeps the target out of works that change no names: in those it is
	// no other than one that is Durable.
	NamesOnly bool
	// Options say as whom to call. It must be the owner of Dir.
	Options rpc.Options

	root []byte // the handle of Dir
	runs int
}

// Prepare makes the directory of a target, with its durability, and mounts it.
func (t *Target) Prepare() error {
	if err := os.MkdirAll(t.Dir, 0o755); err != nil {
		return err
	}
	if t.Durable {
		if err := syncNames(t.Dir); err != nil {
			return err
		}
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(t.Dir, int(t.Options.UID), int(t.Options.GID)); err != nil {
			return err
		}
	}
	root, err := rpc.Mount(t.Server.MountAddr, t.Server.MountPath, t.Options)
	if err != nil {
		return fmt.Errorf("%s: %w", t.Name, err)
	}
	if t.Dir == t.Export {
		t.root = root
		return nil
	}
	c, err := rpc.Dial(t.Server.Addr, t.Options)
	if err != nil {
		return fmt.Errorf("%s: %w", t.Name, err)
	}
	defer c.Close()
	const xid = 1
	r, err := c.Do(xid, c.AppendLookup(nil, xid, root, []byte(filepath.Base(t.Dir))))
	if err == nil {
		err = r.Err()
	}
	if err != nil {
		return fmt.Errorf("%s: look up %s: %w", t.Name, filepath.Base(t.Dir), err)
	}
	var a rpc.Attr
	handle, _ := r.Lookup(&a)
	t.root = bytes.Clone(handle)
	return nil
}

var errNoSyncedNames = errors.New("the file system has no directories whose names are synced (chattr +D)")

// syncNames makes a directory, and those that will be made in it, one of which the
// kernel brings every change of names to the disk before it returns from it (the
// attribute D of chattr(1)). Ext4 does that, and Btrfs.
func syncNames(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	const dirsync = 0x00010000 // FS_DIRSYNC_FL in include/uapi/linux/fs.h
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags|dirsync)
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %w", dir, errNoSyncedNames, err)
	}
	return nil
}
