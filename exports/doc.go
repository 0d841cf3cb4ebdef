// Package exports decides what is served to whom: which images and versions
// there are, which of them is promoted, what a mount path and a file handle
// mean, which addresses may use them, which node runs which version, which one
// a boot over the network gets, and which machine is which node.
//
// It owns the table of exports, the file-handle codec, the rollout state
// (promote, rollback, drafts), the record of nodes, and the layers of files that are one
// node's own, and who may see them. It must not know NFS, XDR,
// sockets, how a version lies on disk or how a node's files are made: a version is an fs.Tree that an Opener
// returns.
package exports
