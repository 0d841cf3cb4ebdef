package storm

// Proc is a procedure that a trace may have. Up to Commit they are numbered as in
// NFSv3 (RFC 1813, section 3.3).
type Proc uint8

// The procedures.
const (
	Null Proc = iota
	Getattr
	Setattr
	Lookup
	Access
	Readlink
	Read
	Write
	Create
	Mkdir
	Symlink
	Mknod
	Remove
	Rmdir
	Rename
	Link
	Readdir
	Readdirplus
	Fsstat
	Fsinfo
	Pathconf
	Commit
	Getacl
	Setacl
	Mnt
	numProcs
)

var procNames = [numProcs]string{
	"NULL", "GETATTR", "SETATTR", "LOOKUP", "ACCESS", "READLINK", "READ", "WRITE", "CREATE", "MKDIR", "SYMLINK",
	"MKNOD", "REMOVE", "RMDIR", "RENAME", "LINK", "READDIR", "READDIRPLUS", "FSSTAT", "FSINFO", "PATHCONF", "COMMIT",
	"GETACL", "SETACL", "MNT",
}

// String returns the name in capitals.
func (p Proc) String() string {
	if p < numProcs {
		return procNames[p]
	}
	return "unknown"
}

// The programs that procedures belong to.
const (
	progNFS   = 100003
	progMount = 100005
	progACL   = 100227
)

// ProcOf returns the procedure that has a number in a program, and whether a
// trace may have it.
func ProcOf(program, procedure uint32) (Proc, bool) {
	switch {
	case program == progNFS && procedure <= uint32(Commit):
		return Proc(procedure), true
	case program == progACL && procedure == 0:
		return Null, true
	case program == progACL && procedure <= 2:
		return Getacl + Proc(procedure-1), true
	case program == progMount && procedure == 1:
		return Mnt, true
	}
	return 0, false
}

// procNamed returns the procedure of that name.
func procNamed(name string) (Proc, bool) {
	for p, n := range procNames {
		if n == name {
			return Proc(p), true
		}
	}
	return 0, false
}
