// Package tftp measures servers of boot files: many clients fetch the same file at once
// over TFTP, as Raspberry Pis and network cards do, and compare every byte with what
// they should get.
//
// All clients are driven by few goroutines that do next to nothing between a datagram
// and its answer, so that the server is what is measured. On loopback each client has
// an address of its own.
package tftp
