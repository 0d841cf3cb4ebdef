// Package fs is the vocabulary that every other package shares: what an object
// in a file tree is (Kind, Attr, Name), who asks for it (Cred), what can go
// wrong (Error), and the contract of a tree (Tree and the optional Spanner).
//
// It owns words and rules that hold for every tree, such as the permission
// check of a read-only one. It must not know anything else of the project and
// imports the standard library only, so that no import cycle can ever pass
// through it.
package fs
