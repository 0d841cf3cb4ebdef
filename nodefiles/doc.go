// Package nodefiles makes the files in which one node differs from the others that
// run the same version: those that an operator puts into a directory for it, its
// host name, its machine-id and the keys of its ssh server.
//
// It owns that directory's layout, the templates in it, and the secrets that it
// keeps in the state directory. It must not know who mounts what or how files get
// to a node.
package nodefiles
