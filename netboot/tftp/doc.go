// Package tftp is a read-only TFTP server (RFC 1350) with the options blksize
// (RFC 2348), timeout and tsize (RFC 2349) and windowsize (RFC 7440).
//
// It owns the protocol, the sockets, and limits on what clients can make the
// server hold. It must not know what a file is or to whom it may be sent: a
// Request is answered with a File or an error by whoever runs the Server.
//
// One goroutine does everything (loop.go): it waits for all sockets at once, so
// that a transfer (transfer.go) needs no goroutine, no lock and, while it goes
// on, no memory. What may wait is left to others: Open, reads of what is not in
// memory, and what is told of transfers and logged (aside.go). Packets are taken
// apart and put together in packet.go.
package tftp
