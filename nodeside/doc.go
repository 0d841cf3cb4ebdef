// Package nodeside has the files that a golden tree needs on the node's side: the overlay over a read-only root,
// the journal in memory, the home over NFS, and the word to the server that the node is well.
//
// It owns which files those are, what is in them and where each kind of system wants them. It must not know
// versions or stores, and writes nothing but a tar archive and a tree that it was given. What differs from node to
// node is in package nodefiles.
package nodeside
