package source

import (
	"io"
	"strings"
)

// Sink takes a tree object by object, in the order in which an archive or a
// stream happens to have them. What comes later replaces what came before under
// the same path; a directory that is put again keeps what is in it.
//
// Paths may begin with "/" or "./", and must not contain "..". None leads through
// anything that is no directory, nor through a symlink; but one in a layer does, as if
// the tree were all that there is. Directories that were
// not put before something is put into them are root's, with mode 0755 and the
// time 0. The methods are for one goroutine.
type Sink interface {
	// Put makes an object. Of meta count Kind, Mode, UID, GID, Mtime, Size of a
	// regular file, and Major and Minor of a device. Text is that of a symlink, and
	// content, of which Size bytes are read, that of a regular file; it may be nil if
	// Size is 0. Xattrs that Carries does not name are left out.
	Put(path string, meta *Meta, text string, xattrs []Xattr, content io.Reader) error
	// Link makes another name for the object at the path old, which is no directory.
	Link(path, old string) error
	// Layer begins a layer: Remove and Clear are about earlier ones.
	Layer()
	// Remove removes what earlier layers have at a path and below it.
	Remove(path string) error
	// Clear removes what earlier layers have below a path.
	Clear(path string) error
}

// Carries reports whether an extended attribute is one that a faithful copy of a
// tree carries: file capabilities, ACLs and those of users. What a machine adds
// for itself, such as SELinux labels, would make the same tree differ between
// machines.
func Carries(xattr string) bool {
	return xattr == "security.capability" || strings.HasPrefix(xattr, "user.") || strings.HasPrefix(xattr, "system.posix_acl_")
}
