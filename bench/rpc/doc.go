// Package rpc is the client of all loads over NFS: it makes the calls of NFS
// version 3, MOUNT and the port mapper, many at a time on a connection, and takes
// the replies apart.
//
// It shares the machine with the server that is measured, so it is built to be
// cheap: calls are appended to a buffer of the caller and go out in one write,
// replies are decoded where they arrived, and the bulk of a READ is thrown away
// by the kernel without being copied.
//
// It trusts no server: every length is checked before it is used.
package rpc
