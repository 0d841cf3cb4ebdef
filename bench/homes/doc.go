// Package homes puts servers to work that can be written to, and measures them:
// files are written and read in large and in small pieces, small ones are made and
// removed, and a source tree is unpacked, all with the calls that a Linux client makes.
//
// Several servers race on directories of one file system, as in package load. What
// has arrived is compared with what was sent, in the server's directory itself.
//
// A server that does not bring a change to the disk before it answers is faster than one
// that does, and loses it in a power cut. So a Target can be made to (Durable): then
// all do the same.
package homes
