// Package exports decides what is served to whom: which images and versions
// there are, which of them is promoted, what a mount path and a file handle
// mean, which addresses may use them, and which node runs which version.
//
// It owns the table of exports, the file-handle codec, the rollout state
// (promote, rollback) and the record of nodes. It must not know NFS, XDR,
// sockets or how a version lies on disk: a version is an fs.Tree that an Opener
// returns.
package exports
