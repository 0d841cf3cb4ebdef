package fs

import "slices"

// Nobody is the user and group of a caller who did not say who it is
// (AUTH_NONE), or who may not be believed.
const Nobody = 65534

// Cred says on whose behalf a call is made. Groups are the supplementary ones;
// AUTH_SYS carries at most 16 (RFC 5531, section 14). A Cred is read-only for
// whom it is passed to and valid during the call.
type Cred struct {
	UID    uint32
	GID    uint32
	Groups []uint32
}

func (c *Cred) in(gid uint32) bool {
	return c.GID == gid || slices.Contains(c.Groups, gid)
}

// Perm is a set of the three rights of a mode word.
type Perm uint8

// The rights, with the values that they have in a mode word's triples. On a
// directory MayExec is the right to look names up.
const (
	MayExec  Perm = 1
	MayWrite Perm = 2
	MayRead  Perm = 4
)

// Granted returns the rights that the mode of a gives to c, as the kernel's
// generic_permission does: the first of owner, group and other that matches
// decides alone. Root may do everything, but executes a file that is not a
// directory only if somebody may.
func Granted(a *Attr, c *Cred) Perm {
	if c.UID == 0 {
		if a.Kind == Directory || a.Mode&0o111 != 0 {
			return MayRead | MayWrite | MayExec
		}
		return MayRead | MayWrite
	}
	switch {
	case c.UID == a.UID:
		return Perm(a.Mode >> 6 & 7)
	case c.in(a.GID):
		return Perm(a.Mode >> 3 & 7)
	default:
		return Perm(a.Mode & 7)
	}
}

// CanRead reports whether c may READ the content of a regular file. It is more
// generous than the mode, because NFSv3 has no OPEN at which to decide: the
// owner always may (it may have opened the file before it took its own right
// away), and who may execute a file may read it (the client's kernel must load
// the program). nfsd does the same (NFSD_MAY_OWNER_OVERRIDE and
// NFSD_MAY_READ_IF_EXEC in fs/nfsd/vfs.c).
func CanRead(a *Attr, c *Cred) bool {
	return c.UID == a.UID || Granted(a, c)&(MayRead|MayExec) != 0
}
