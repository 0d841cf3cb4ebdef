// Package admin is the operator's door: HTTP on a socket in each store's state directory,
// and over TCP where serve --admin says so. It tells who runs what and how it goes, as JSON
// and for Prometheus (docs/admin.md), and has the client that the commands use.
//
// It owns the sockets, the paths, the metrics and their names. It looks at nothing but
// what exports and nfs tell of themselves, and changes nothing but that a node can say
// that it is well: whatever goes wrong in here, a slow client or a panic, no node feels it.
package admin
