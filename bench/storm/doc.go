// Package storm replays the calls of a node that booted as many nodes that boot
// at once: what a server has to stand when a rack is switched on.
//
// # The trace
//
// rootnfsd serve --record FILE writes a trace. It is text, one line for a call:
//
//	rootnfsd trace 1
//	# microseconds	client	procedure	offset	count	path
//	1204	192.0.2.11	MNT	0	0	/images
//	3310	192.0.2.11	LOOKUP	0	0	/sbin/init
//	3702	192.0.2.11	READ	4096	131072	/usr/lib/systemd/systemd
//
// The first line names the format and its version. Lines that begin with "#" are
// comments. The others have six fields with a tab between them:
//
//   - microseconds from the start of the recording until the call arrived;
//   - the client's address;
//   - the procedure: one of NFSv3 by its name in RFC 1813, GETACL or SETACL of
//     NFSACL, or MNT;
//   - the offset of READ, or the cookie of READDIR and READDIRPLUS, else 0;
//   - the count of READ, the room for the reply of READDIR (count) and READDIRPLUS
//     (maxcount), what ACCESS and GETACL ask for, else 0;
//   - the path of the object in the tree that is served, "/" being its root; for
//     LOOKUP that of the directory and the name in it, which need not exist; for
//     MNT the path that was mounted. It is quoted as by strconv.Quote where it is
//     empty or has bytes in it that are not printable, or quotes or backslashes.
//
// # The replay
//
// A kernel has several calls in flight, and the trace tells which: calls that
// arrived within a short time of each other (Window) cannot have waited for each
// other's replies, for those had to reach the node first and something there to
// act on them. They are a burst. A node of the storm sends the calls of a burst
// together, and the next burst when all of them are answered. A call about what a
// LOOKUP of the same burst asks for begins a new one.
//
// Before the storm one node, the scout, resolves every path of the trace on the
// server by LOOKUPs of its own and makes every call once (Scout). What comes of
// it is a Plan: the calls as bytes, with the handles of this server, and what
// their replies must be. All nodes of the storm send the bytes of one plan, which
// costs them nothing but the sending, and each holds every reply against it: the
// outcome, the handle that LOOKUP gave, and the bytes that READ brought, which the
// scout has held against the size of the file.
//
// Listings go on where the server's own replies ended, for cookies are each server's
// own, and ask for as many bytes of names as Linux does, an eighth of all.
//
// The trace need not have been recorded from the tree that is served. What lies at
// paths that are not there is left out and counted.
package storm
