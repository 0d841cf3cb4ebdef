// Package nfs is the door to the network: a server of NFS version 3 (RFC 1813),
// the MOUNT protocol and the port mapper (RFC 1833) over one set of exports.
//
// It owns listeners, connections, the programs' procedures, the mapping of
// errors to status codes, and limits on what a client can make the server hold.
// It must not know where bytes live or which version is current: a handle
// resolves to an fs.Tree, and that is all there is to ask.
//
// A connection has one goroutine. It reads whatever has arrived, answers every
// complete call in turn into one buffer, and writes that once (conn.go). What
// would have to wait for a disk is answered by a goroutine of its own, later
// (slow.go). Calls are decoded and answered in call.go and the files named
// after what they answer.
package nfs
