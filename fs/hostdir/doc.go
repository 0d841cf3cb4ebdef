// Package hostdir serves a directory of the host as a tree that can be changed.
// It owns the way from a handle to an open file, whose rights a call runs with,
// and what it takes for a change to be on disk. It must not know what the tree
// is served as, or to whom.
//
// Three rules keep callers inside their tree and their rights:
//
// Objects are opened by the handle that the file system itself gives out, or by
// one name in one open directory, without following a symlink or crossing a
// mount point. There are no paths that could lead elsewhere by the time they
// are walked. What is not a regular file or a directory is never opened at all,
// only held by an O_PATH descriptor.
//
// The kernel decides who may do what: a thread takes on the user, the groups
// and the lack of privileges of the caller for the call that changes something.
// Its answer to access(2) serves again for a second, as long as owner and mode
// stay the same, because changing a thread's identity costs more than a
// small read.
//
// Nothing is called safe before the host's fsync said so, and an fsync that
// failed changes the Verifier, so that clients write again.
package hostdir
