package fs

import "bytes"

// MaxName is the longest name of a directory entry in bytes, as on Linux
// (NAME_MAX).
const MaxName = 255

// Name is one component of a path that has passed ParseName: not empty, at
// most MaxName bytes, without slash and NUL. It is bytes, not text: any other
// byte, valid UTF-8 or not, is allowed. "." and ".." are Names; an operation
// for which they make no sense refuses them itself.
//
// A Name often aliases a network buffer: it is valid during the call that it
// is passed to, and a callee that keeps it makes a copy.
type Name []byte

// ParseName checks b once, at the edge, and returns it as a Name without
// copying. The error is ErrNameTooLong or ErrInvalid.
func ParseName(b []byte) (Name, error) {
	if len(b) > MaxName {
		return nil, ErrNameTooLong
	}
	if len(b) == 0 || bytes.IndexByte(b, '/') >= 0 || bytes.IndexByte(b, 0) >= 0 {
		return nil, ErrInvalid
	}
	return Name(b), nil
}

// IsDot reports whether n is ".".
func (n Name) IsDot() bool { return len(n) == 1 && n[0] == '.' }

// IsDotDot reports whether n is "..".
func (n Name) IsDotDot() bool { return len(n) == 2 && n[0] == '.' && n[1] == '.' }
